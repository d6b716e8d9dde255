"""Videos that kill their process: who is to blame, and what is tried how often.

`marks` says which videos a process had begun, `ledger` counts deaths, `schedule` decides what runs next (pure), and
`probing` tries one video in a process of its own. Imports `shard`, `tell` and the packages below `run`; not Ray.
"""
