"""Finding damage, mending it, and copying a store: `verification`, `repair`, `conversion`.

Imports the files of `store` and its other rooms; of those, none imports it. Holds no locks: `dyntok.run` does.
"""
