"""From a batch of resized frames to stored tokens: the model, the plan, the merge, the cast."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dyntok.errors import NonFiniteFeatureError
from dyntok.merging import MergePlan, coarsen, largest_magnitude, left_similarity, plan_from_similarity
from dyntok.run.progress import StageClock

LARGEST_FLOAT16 = 65504.0


class Encoded(Protocol):
    """What an encoder gives for B frames: `features [B, R, C, F]` float32 and `tokens [B, R, C, D]`."""

    @property
    def features(self) -> Tensor: ...
    @property
    def tokens(self) -> Tensor: ...


class Encoder(Protocol):
    """`dyntok.vision.VisualEncoder`, as far as a run needs it."""

    @property
    def device(self) -> torch.device: ...
    def encode(self, images: Tensor) -> Encoded: ...


@dataclass(frozen=True, slots=True)
class BatchLevel:
    """Tokens of a batch at one threshold, in the stored dtype (bfloat16 as uint16 bit patterns).

    `tokens: [N, D]`; `scale: [N] float32` for int8; `frame_splits: [B + 1]` tokens per frame, as prefix sums.
    """

    tokens: npt.NDArray[Any]
    scale: npt.NDArray[np.float32] | None
    frame_splits: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MergedBatch:
    """`similarity: [B, R, C]`, the levels from the finest on, and the frames whose numbers are not finite."""

    similarity: npt.NDArray[np.float32]
    levels: tuple[BatchLevel, ...]
    bad_frames: frozenset[int]


class BatchMerger:
    """Runs the encoder over batches of one fixed shape and merges at the given thresholds.

    `thresholds` fall: the first is the stored one, further ones are for the explicit layout.
    """

    def __init__(
        self, encoder: Encoder, thresholds: tuple[float, ...], dtype: str, clock: StageClock
    ) -> None:
        self._encoder = encoder
        self._padded = encoder.device.type != "cpu"
        self._thresholds = thresholds
        self._dtype = dtype
        self._clock = clock

    def __call__(self, images: Tensor, frames: int) -> MergedBatch:
        """`images: [B, H, W, 3] uint8`, of which the first `frames` count; the rest pads the batch."""
        with torch.inference_mode():
            with self._clock.measure("model"):
                # Frames do not share arithmetic on CPUs, so padding would only cost time there.
                encoded = self._encoder.encode(images if self._padded else images[:frames])
                features, tokens = encoded.features[:frames], encoded.tokens[:frames]
                if features.is_cuda:
                    torch.cuda.synchronize(features.device)
            with self._clock.measure("merge"):
                return self._merge(features, tokens)

    def _merge(self, features: Tensor, tokens: Tensor) -> MergedBatch:
        bad: set[int] = set()
        try:
            similarity = left_similarity(features)
        except NonFiniteFeatureError:
            broken = ~torch.isfinite(features).flatten(1).all(1)
            bad.update(broken.nonzero().flatten().tolist())
            similarity = left_similarity(features.masked_fill(broken[:, None, None, None], 0.0))
        stored, *lower = self._thresholds
        fine = plan_from_similarity(similarity, stored)
        if lower:
            means = fine.apply(tokens)
            level, largest = self._level([means], fine)
            plans = [plan_from_similarity(similarity, threshold) for threshold in lower]
            levels = [level, *(self._level([coarsen(means, fine, plan)], plan)[0] for plan in plans)]
        else:
            # Means are cast as they come, while they are in the cache.
            level, largest = self._level(fine.means(tokens), fine)
            levels = [level]
        limit = LARGEST_FLOAT16 if self._dtype == "float16" else torch.finfo(torch.float32).max
        bad.update(self._frames_of(fine, ~(largest <= limit)))
        return MergedBatch(similarity.cpu().numpy(), tuple(levels), frozenset(bad))

    @staticmethod
    def _frames_of(plan: MergePlan, token_mask: Tensor) -> list[int]:
        hit = token_mask.nonzero().flatten()
        patches_per_frame = plan.shape[1] * plan.shape[2]
        frames = torch.div(plan.group_start[hit], patches_per_frame, rounding_mode="floor")
        return sorted(set(frames.tolist()))

    def _level(self, pieces: Iterable[Tensor], plan: MergePlan) -> tuple[BatchLevel, Tensor]:
        """A level from its float32 means, which come in `pieces: [n, D]`; and each token's largest magnitude, `[N]`."""
        magnitudes: list[Tensor] = []

        def stored_pieces() -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[np.float32] | None]]:
            for means in pieces:
                magnitudes.append(largest_magnitude(means))
                yield to_stored_dtype(means, magnitudes[-1], self._dtype)

        tokens, scale = _joined(stored_pieces(), plan.token_count)
        frame_splits = plan.row_splits[:: plan.shape[1]].cpu().numpy()
        return BatchLevel(tokens, scale, frame_splits), torch.cat(magnitudes)


def to_stored_dtype(
    means: Tensor, largest: Tensor, dtype: str
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32] | None]:
    """Cast float32 `means: [N, D]` once to the stored dtype, on the host.

    For int8, `scale = largest / 127` per token and `tokens = round(means / scale)`; a zero token has scale 1.
    """
    if dtype == "int8":
        scale = torch.where(largest > 0, largest / 127.0, 1.0)
        quantised = (means / scale[:, None]).round_().clamp_(-127, 127).to(torch.int8)
        return quantised.cpu().numpy(), scale.cpu().numpy()
    if dtype == "bfloat16":
        return means.to(torch.bfloat16).cpu().view(torch.uint16).numpy(), None
    return means.to(getattr(torch, dtype)).cpu().numpy(), None


def _joined(
    pieces: Iterator[tuple[npt.NDArray[Any], npt.NDArray[np.float32] | None]], count: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32] | None]:
    """`count` tokens and their scales, from at least one piece; each goes to its place while it is in the cache."""
    first = next(pieces)
    if len(first[0]) == count:
        return first
    tokens = np.empty((count, first[0].shape[1]), first[0].dtype)
    scales = []
    done = 0
    for piece, scale in itertools.chain([first], pieces):
        tokens[done : done + len(piece)] = piece
        done += len(piece)
        if scale is not None:
            scales.append(scale)
    return tokens, np.concatenate(scales) if scales else None
