"""One shard, from planned videos to a committed record: decoding is fed, frames go through the device, merged tokens
are written, each in a thread of its own.

`feeder` is the function that executors call; `device`, `collect` and `write` are its threads, `channels` and
`messages` what passes between them. Imports `tell`, `settings` and the packages below `run`; nothing of `watch` and no
executor, and knows nothing of where it runs.
"""
