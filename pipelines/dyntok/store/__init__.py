"""The store: its format, records, index and shards; verification, repair and conversion.

Knows bytes and arrays, and nothing of videos, models or the operator's arithmetic. Imports `dyntok.records`, `errors`,
`durable`, `urls`, `objects` and `stats`, and third-party packages: torch only in `as_torch`, zarr only in `zarr`.

The files right here know how a shard looks inside only through `ShardReader` and `ShardWriter`; `formats` opens the one
that a store has. The rooms `tar` and `zarr` import these files, but not `formats`, and not each other. The room `care`
imports everything; nothing in the store imports it but this head, which exports what other packages use most.
"""

from dyntok.store.care.conversion import ConvertReport, convert
from dyntok.store.care.findings import VerifyReport
from dyntok.store.care.repair import RepairReport, repair
from dyntok.store.care.verification import verify
from dyntok.store.completion import (
    CompletionRecord,
    completed_shards,
    failed_row,
    plan_digest,
)
from dyntok.store.dataset import DatasetInfo
from dyntok.store.formats import open_shard_reader, open_shard_writer
from dyntok.store.index import StoreIndex
from dyntok.store.index_build import build_index
from dyntok.store.manifest import Manifest, write_manifest
from dyntok.store.names import (
    sample_key,
    threshold_name,
)
from dyntok.store.reader import ShardReader
from dyntok.store.root import StoreRoot
from dyntok.store.samples import VideoHead
from dyntok.store.statistics import gather_statistics, load_statistics, map_shape
from dyntok.store.tensorfile import as_torch, parse_safetensors, save_tensors
from dyntok.store.writer import ShardWriter, commit_shard

__all__ = [
    "CompletionRecord",
    "ConvertReport",
    "DatasetInfo",
    "Manifest",
    "RepairReport",
    "ShardReader",
    "ShardWriter",
    "StoreIndex",
    "StoreRoot",
    "VerifyReport",
    "VideoHead",
    "as_torch",
    "build_index",
    "commit_shard",
    "completed_shards",
    "convert",
    "failed_row",
    "gather_statistics",
    "load_statistics",
    "map_shape",
    "open_shard_reader",
    "open_shard_writer",
    "parse_safetensors",
    "plan_digest",
    "repair",
    "sample_key",
    "save_tensors",
    "threshold_name",
    "verify",
    "write_manifest",
]
