"""Videos that kill their process: who is to blame, and what is tried how often. Errors that a process lives to tell
blame nobody.

`marks` says which videos a process had begun, `ledger` counts deaths, `schedule` decides what runs next (pure), and
`probing` tries one video with nothing beside it. Imports `executors.context`, `shard`, `tell`, `run.settings`, for the
plan `watch.outcome`, and the packages below `run`; no executor, so not Ray.
"""
