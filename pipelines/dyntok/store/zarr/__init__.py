"""Zarr v3 shards: `format` says which arrays, `writer` and `reader` fill and slice them, `access` reads them from
object stores, `pipelines` chooses the codec pipeline.

The only room that imports zarr. Imports the files of `store`, not its other rooms. Opened through `store.formats`;
`store.care` looks inside.
"""
