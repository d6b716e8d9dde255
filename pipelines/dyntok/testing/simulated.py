"""An accelerator that is not there: takes its time, uses no CPU, and knows how busy it was."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dyntok.records import Grid
    from dyntok.vision import EncodedFrames


class SimulatedEncoder:
    """Stands for a model on a device that takes `seconds_per_batch` for each batch, one after the other.

    Batches queue up as at a CUDA device: `encode` returns at once, and the result's `work.wait()` sleeps until the
    device would be done. Every batch gives the same tokens, of which neighbours resemble each other so that about
    half of them remain at 0.6; they must not be written to.

    Args:
        seconds_per_batch: what the device takes for a batch, however many frames count in it.
        grid, feature_dim, token_dim: shape of what comes out, `[B, R, C, F]` float32 and `[B, R, C, D]` bfloat16.
        batches_at_once: how many batches a run may leave with the device.

    Attributes:
        batches: how many it was given.
        busy_seconds: how long it was, or will have been, at work on them.
    """

    fixed_batches = True
    row_marker = None

    def __init__(
        self,
        seconds_per_batch: float,
        *,
        grid: Grid | None = None,
        feature_dim: int = 1152,
        token_dim: int = 3584,
        batches_at_once: int = 2,
    ) -> None:
        import torch

        from dyntok.records import Grid

        self.seconds_per_batch = seconds_per_batch
        self.batches_at_once = batches_at_once
        self.device: torch.device = torch.device("cpu")
        self.batches = 0
        self.busy_seconds = 0.0
        self._grid = grid or Grid(14, 14)
        self._dims = feature_dim, token_dim
        self._result: tuple[Tensor, Tensor] | None = None
        self._began_at: float | None = None
        self._free_at = 0.0

    @property
    def busy_share(self) -> float:
        """Share of the time from the first batch's beginning to the last one's end that it was at work."""
        if self._began_at is None or self._free_at <= self._began_at:
            return 0.0
        return self.busy_seconds / (self._free_at - self._began_at)

    def encode(self, images: Tensor) -> EncodedFrames:
        """`images: [B, H, W, 3] uint8`, which are not looked at."""
        from dyntok.vision import EncodedFrames

        features, tokens = self._tensors(len(images))
        now = time.perf_counter()
        if self._began_at is None:
            self._began_at = now
        self._free_at = max(now, self._free_at) + self.seconds_per_batch
        self.batches += 1
        self.busy_seconds += self.seconds_per_batch
        return EncodedFrames(features, tokens, _Sleeping(self._free_at, self.seconds_per_batch))

    def _tensors(self, frames: int) -> tuple[Tensor, Tensor]:
        import torch

        if self._result is not None and len(self._result[0]) == frames:
            return self._result
        rng = torch.Generator().manual_seed(0)
        shape = (frames, self._grid.rows, self._grid.cols)
        feature_dim, token_dim = self._dims
        common = torch.randn((frames, self._grid.rows, 1, feature_dim), generator=rng)
        weight = torch.rand((*shape, 1), generator=rng)
        features = torch.randn((*shape, feature_dim), generator=rng) * 0.6 + common * (0.45 + weight * 0.65)
        self._result = features, torch.randn((*shape, token_dim), generator=rng).bfloat16()
        return self._result


@dataclass(frozen=True, slots=True)
class _Sleeping:
    end: float
    seconds: float

    @property
    def is_done(self) -> bool:
        return time.perf_counter() >= self.end

    def wait(self) -> None:
        while (left := self.end - time.perf_counter()) > 0:
            time.sleep(left)
