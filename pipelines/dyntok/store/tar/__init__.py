"""WebDataset shards: `stream` writes tar members, `writer` and `reader` samples. Opened through `store.formats`."""
