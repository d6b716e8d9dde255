"""What a run says while it works: to observers, to its logs under `logs/`, and as metrics.

`observer` is the interface and the fan-out, `monitor` counts and writes, `snapshot`, `summaries` and `runlog` are what
it writes. Imports `run.array`, `store` and the packages below it; no other room of `run`.
"""
