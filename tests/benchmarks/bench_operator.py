"""The operator against nested loops, against one pass over H, and five thresholds against one.

Shapes are those of SigLIP-so400m and a 7B LLM: 14x14 patches, features of 1152, tokens of 3584, float32, one thread.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

import tests.merging.naive as naive
from dyntok.merging import coarsen, left_similarity, merge, plan_from_similarity
from tests.benchmarks.timing import medians, show

FRAMES, ROWS, COLS, FEATURE_DIM, TOKEN_DIM = 32, 14, 14, 1152, 3584
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
    features = smooth_features()
    tokens = torch.randn((FRAMES, ROWS, COLS, TOKEN_DIM))
    kept = len(merge(tokens, features, 0.6)) / tokens[..., 0].numel()
    print(f"{FRAMES} frames, {kept:.0%} of the tokens kept at 0.6\n")

    small = features[:1, :, :, :64].contiguous(), tokens[:1, :, :, :256].contiguous()

    def loops() -> object:
        similarity = naive.similarity(small[0].numpy())
        return naive.merged(small[1].numpy(), similarity, 0.6)

    times = medians({"nested loops": loops, "operator": lambda: merge(small[1], small[0], 0.6)}, rounds=3)
    show("One frame with 64 features and tokens of 256", times, "nested loops")

    similarity = left_similarity(features)
    fine = plan_from_similarity(similarity, THRESHOLDS[0])
    means = fine.apply(tokens)

    def five_direct() -> object:
        return [merge(tokens, features, threshold) for threshold in THRESHOLDS]

    def five_nested() -> object:
        nested = left_similarity(features)
        finest = plan_from_similarity(nested, THRESHOLDS[0])
        stored = finest.apply(tokens)
        return [coarsen(stored, finest, plan_from_similarity(nested, t)) for t in THRESHOLDS]

    cases = {
        "one pass over H (copy)": tokens.clone,
        "similarity map": lambda: left_similarity(features),
        "plan": lambda: plan_from_similarity(similarity, 0.6),
        "apply": lambda: fine.apply(tokens),
        "one threshold": lambda: merge(tokens, features, 0.6),
        "five thresholds, each from scratch": five_direct,
        "five thresholds, nested": five_nested,
        "one lower threshold from stored tokens": lambda: coarsen(
            means, fine, plan_from_similarity(similarity, 0.4)
        ),
    }
    times = medians(cases)
    show("Full size", times, "one pass over H (copy)", FRAMES)
    show("Against one threshold", times, "one threshold", FRAMES)


if __name__ == "__main__":
    main()
