"""How far a store is, read from outside while runs work or after them: records, logs, index and locks.

Writes nothing. Imports `tell` (whose files it reads), `run.array`, `run.lock`, `corpus` and `store`; never `shard` or
an executor, so that `status` needs no torch.
"""
