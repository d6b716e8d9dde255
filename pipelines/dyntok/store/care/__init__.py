"""Finding damage, mending it, and copying a store: `verification`, `repair`, `conversion`.

Imports every other room of `store`; none of them imports it.
"""
