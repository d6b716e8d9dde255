"""One shard, from planned videos to a committed record: decoding is fed, frames go through the device, merged tokens
are written and committed, each in a thread of its own.

`feeder` has the function that executors call; `device`, `collect` and `write` are the bodies of its threads, `channels`
and `messages` what passes between them. `model` loads the encoder and knows the errors of its device. Imports
`run.tell`, `run.settings` and the packages below `run`; nothing of `watch` and no executor, and knows nothing of where
it runs.
"""
