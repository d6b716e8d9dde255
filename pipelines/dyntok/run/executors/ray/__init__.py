"""Shards in Ray actors, on this machine or a cluster. The only room that imports Ray.

`run` is the entry, `session` joins or starts Ray, `driver` gives shards to the `crew` of `actor` processes; `exchange`
is what they say to each other, `remains` what an actor leaves on its node. Imports the rest of
`executors` and what that imports.
"""
