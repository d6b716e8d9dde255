"""What is to be encoded: listing inputs, their ids and fingerprints, and the frozen plan of a run.

An INPUT (file, folder, glob, manifest or tar; local or an fsspec URL) becomes a stream of `CorpusItem`, and
that stream becomes `plan.parquet`, a fixed assignment of videos to shards. Imports records, errors and
third-party packages only; opens inputs to fingerprint them, never to decode them.
"""

from dyntok.corpus.compare import PlanDifference, compare_plan
from dyntok.corpus.fingerprints import fingerprint, fingerprint_like, planned_etag, planned_size
from dyntok.corpus.freeze import append_entries, freeze_plan
from dyntok.corpus.items import MAX_ID_BYTES, VIDEO_SUFFIXES, CorpusItem
from dyntok.corpus.listing import list_inputs
from dyntok.corpus.plan import FrozenPlan

__all__ = [
    "MAX_ID_BYTES",
    "VIDEO_SUFFIXES",
    "CorpusItem",
    "FrozenPlan",
    "PlanDifference",
    "append_entries",
    "compare_plan",
    "fingerprint",
    "fingerprint_like",
    "freeze_plan",
    "list_inputs",
    "planned_etag",
    "planned_size",
]
