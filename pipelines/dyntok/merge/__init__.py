"""The DynTok operator and its nesting: tensors in, tensors out.

A plan is made from features alone and then applied to any tensor over the same patches; counts and budgets need
the similarity map only. Imports torch and `dyntok.errors`, and no other package of dyntok.
"""

from dyntok.merge.counts import count_tokens, smallest_count, threshold_for_budget
from dyntok.merge.nesting import coarsen
from dyntok.merge.plan import MergePlan, plan_from_similarity, plan_merge
from dyntok.merge.similarity import left_similarity
from dyntok.merge.tokens import MARKER_MODES, MarkerMode, VideoTokens, marker_count, merge

__all__ = [
    "MARKER_MODES",
    "MarkerMode",
    "MergePlan",
    "VideoTokens",
    "coarsen",
    "count_tokens",
    "left_similarity",
    "marker_count",
    "merge",
    "plan_from_similarity",
    "plan_merge",
    "smallest_count",
    "threshold_for_budget",
]
