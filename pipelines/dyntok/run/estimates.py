"""Sizes before anything is encoded. Used to cut shards and to answer `plan`; never for correctness."""

from __future__ import annotations

from bisect import bisect_right

from dyntok.config import EncodeConfig

# Share of tokens that remain at a threshold: SigLIP-so400m, DynTok (arXiv 2506.03990), with the ends by definition.
PUBLISHED_RATIOS = ((-1.0, 1 / 14), (0.4, 0.20), (0.5, 0.30), (0.6, 0.444), (1.0, 1.0))
BYTES_PER_VALUE = {"bfloat16": 2, "float16": 2, "float32": 4, "int8": 1}
# A video whose length is not known is taken to have this bit rate.
ASSUMED_BITS_PER_SECOND = 1_000_000


def kept_ratio(threshold: float) -> float:
    """Expected share of tokens at `threshold`, between the published figures by straight lines."""
    number = min(bisect_right(PUBLISHED_RATIOS, (threshold, 2.0)), len(PUBLISHED_RATIOS) - 1)
    (x0, y0), (x1, y1) = PUBLISHED_RATIOS[number - 1], PUBLISHED_RATIOS[number]
    return y0 + (y1 - y0) * (threshold - x0) / (x1 - x0)


def expected_frames(config: EncodeConfig, size_bytes: int | None) -> int:
    """Sampled frames of a video of which only the size is known."""
    if config.frames is not None:
        return config.frames
    seconds = (size_bytes or 0) * 8 / ASSUMED_BITS_PER_SECOND
    frames = max(1, int(seconds * (config.fps or 1.0)))
    return min(frames, config.max_frames or frames)


def expected_bytes(frames: int, patches_per_frame: int, token_dim: int, dtype: str, threshold: float) -> int:
    """Bytes of the tokens of `frames` frames at one threshold, with their similarity map."""
    patches = frames * patches_per_frame
    return int(patches * (kept_ratio(threshold) * token_dim * BYTES_PER_VALUE[dtype] + 4))
