"""The operator as its definition reads: nested loops, one patch at a time, float64 means."""

from __future__ import annotations

import math

import numpy as np


def similarity(features: np.ndarray) -> np.ndarray:
    """`[T, R, C]` float32, -inf in column 0; arithmetic in float32 up to the last step."""
    frames, rows, cols, _ = features.shape
    out = np.full((frames, rows, cols), -np.inf, np.float32)
    for t in range(frames):
        for r in range(rows):
            for k in range(1, cols):
                a = [float(v) for v in features[t, r, k - 1]]
                b = [float(v) for v in features[t, r, k]]
                norm = math.hypot(*a) * math.hypot(*b)
                cosine = math.fsum(x * y for x, y in zip(a, b, strict=True)) / norm if norm > 0 else 0.0
                out[t, r, k] = np.float32(min(1.0, max(-1.0, cosine)))
    return out


def groups(similarities: np.ndarray, threshold: float) -> list[list[tuple[int, int, int]]]:
    """The patches of each group, in order."""
    frames, rows, cols = similarities.shape
    limit = np.float32(threshold)
    out: list[list[tuple[int, int, int]]] = []
    for t in range(frames):
        for r in range(rows):
            for k in range(cols):
                if k == 0 or not similarities[t, r, k] > limit:
                    out.append([])
                out[-1].append((t, r, k))
    return out


def merged(tokens: np.ndarray, similarities: np.ndarray, threshold: float) -> np.ndarray:
    """`[N, D]` float64 means over the groups."""
    return np.stack(
        [np.mean([tokens[p].astype(np.float64) for p in g], axis=0) for g in groups(similarities, threshold)]
    )
