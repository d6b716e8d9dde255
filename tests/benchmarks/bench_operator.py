"""The operator against nested loops, against one copy of H, and five thresholds against one.

Shapes are those of SigLIP-so400m and a 7B LLM: 96 frames of 14x14 patches, features of 1152, tokens of 3584, bfloat16,
one thread. Five thresholds are what a run in the nested layout does: the finest tokens, and counts for all.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

import tests.merging.naive as naive
from dyntok.merging import coarsen, count_tokens, left_similarity, merge, plan_from_similarity
from tests.benchmarks.timing import medians, report, show

FRAMES, ROWS, COLS, FEATURE_DIM, TOKEN_DIM = 96, 14, 14, 1152, 3584
THRESHOLDS = (0.6, 0.55, 0.5, 0.45, 0.4)


def smooth_features() -> torch.Tensor:
    """Random features whose neighbours resemble each other, so that tokens merge."""
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn((FRAMES, ROWS, COLS, FEATURE_DIM), generator=rng)
    common = torch.randn((FRAMES, ROWS, 1, FEATURE_DIM), generator=rng)
    weight = torch.rand((FRAMES, ROWS, COLS, 1), generator=rng)
    return noise * 0.6 + common * (0.45 + weight * 0.65)


def main() -> None:
    torch.set_num_threads(1)
    features = smooth_features().bfloat16()
    tokens = torch.randn((FRAMES, ROWS, COLS, TOKEN_DIM), dtype=torch.bfloat16)
    kept = len(merge(tokens, features, 0.6)) / tokens[..., 0].numel()
    print(f"{FRAMES} frames, {kept:.0%} of the tokens kept at 0.6\n")

    small = features[:1, :, :, :64].float().contiguous(), tokens[:1, :, :, :256].float().contiguous()

    def loops() -> object:
        similarity = naive.similarity(small[0].numpy())
        return naive.merged(small[1].numpy(), similarity, 0.6)

    times = medians({"nested loops": loops, "operator": lambda: merge(small[1], small[0], 0.6)}, rounds=3)
    show("One frame with 64 features and tokens of 256, float32", times, "nested loops")

    similarity = left_similarity(features)
    fine = plan_from_similarity(similarity, THRESHOLDS[0])
    means = fine.apply(tokens, torch.bfloat16)

    def five_nested() -> object:
        merged = merge(tokens, features, THRESHOLDS[0])
        return merged, count_tokens(merged.similarity, THRESHOLDS)

    def five_coarsened() -> object:
        merged = merge(tokens, features, THRESHOLDS[0])
        finest = plan_from_similarity(merged.similarity, THRESHOLDS[0])
        plans = [plan_from_similarity(merged.similarity, threshold) for threshold in THRESHOLDS[1:]]
        return merged, [coarsen(merged.tokens, finest, plan, dtype=torch.bfloat16) for plan in plans]

    copy, one, five = "one copy of H", "one threshold", "five thresholds, nested"
    cases = {
        copy: tokens.clone,
        "similarity map": lambda: left_similarity(features),
        "plan": lambda: plan_from_similarity(similarity, 0.6),
        "apply": lambda: fine.apply(tokens, torch.bfloat16),
        one: lambda: merge(tokens, features, 0.6),
        five: five_nested,
        "five thresholds, tokens of each": five_coarsened,
        "five thresholds, each from scratch": lambda: [merge(tokens, features, t) for t in THRESHOLDS],
        "one lower threshold from stored tokens": lambda: coarsen(
            means, fine, plan_from_similarity(similarity, 0.4), dtype=torch.bfloat16
        ),
    }
    times = medians(cases)
    show("Full size", times, copy, FRAMES)
    show("Against one threshold", times, one, FRAMES)
    report("operator", times[one] / times[copy], "<= 1.5", copy)
    report("merge at five thresholds", times[five] / times[one], "<= 1.2", "merge at one")


if __name__ == "__main__":
    main()
