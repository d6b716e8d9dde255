"""WebDataset shards: `stream` writes tar members, `writer` and `reader` samples.

Imports the files of `store`, not its other rooms. Opened through `store.formats`; `store.care` looks inside.
"""
