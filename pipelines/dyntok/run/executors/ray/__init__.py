"""Shards in Ray actors, on this machine or a cluster. The only room that imports Ray.

`run` is the entry, `session` joins or starts Ray, `driver` gives shards to the `crew` of `actor` processes.
"""
