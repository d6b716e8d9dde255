"""The DynTok operator and its nesting: tensors in, tensors out.

A plan is made from features alone and then applied to any tensor over the same patches; counts and budgets need
the similarity map only. Imports torch, `dyntok.boundaries` and `dyntok.errors`, and nothing else of dyntok.
"""

from dyntok.merging.blocks import largest_magnitude
from dyntok.merging.counts import count_tokens, threshold_for_budget
from dyntok.merging.nesting import coarsen
from dyntok.merging.plan import MergePlan, plan_from_similarity, plan_merge
from dyntok.merging.similarity import left_similarity
from dyntok.merging.tokens import MARKER_MODES, MarkerMode, VideoTokens, marker_count, merge

__all__ = [
    "MARKER_MODES",
    "MarkerMode",
    "MergePlan",
    "VideoTokens",
    "coarsen",
    "count_tokens",
    "largest_magnitude",
    "left_similarity",
    "marker_count",
    "merge",
    "plan_from_similarity",
    "plan_merge",
    "threshold_for_budget",
]
