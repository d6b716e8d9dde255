"""Loading a model and encoding frames with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from dyntok.errors import CheckpointError, ConfigError, UsageError
from dyntok.vision.architecture import Architecture, model_kind, read_architecture
from dyntok.vision.files import find_checkpoint
from dyntok.vision.fingerprint import Fingerprint
from dyntok.vision.preprocessing import Preprocessing, normalize, read_preprocessing
from dyntok.vision.spec import ModelSpec
from dyntok.vision.work import CudaWork, DoneWork, Work

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_ROW_MARKER = "row_marker"


@dataclass(frozen=True, slots=True)
class EncodedFrames:
    """What the model makes of B frames.

    `features: [B, R, C, F]` float32: the tower's output, pooled; similarities are taken on it.
    `tokens: [B, R, C, D]` in the model's dtype: projected, then pooled. In space `vision` they are `features`.
    `work` says when they are there: a CUDA device computes them while the host goes on.
    """

    features: Tensor
    tokens: Tensor
    work: Work = field(default_factory=lambda: DoneWork(0.0))


@dataclass(frozen=True, slots=True)
class _Model:
    """A model found but not built: what it is, and how to read the tensors it needs, in order of names."""

    name: str
    kind: str
    space: str
    architecture: Architecture
    preprocessing: Preprocessing
    names: list[str]
    read: Callable[[list[str]], Iterator[tuple[str, Tensor]]]

    def spec(self, fingerprint: str) -> ModelSpec:
        shape = self.architecture
        return ModelSpec(
            name=self.name,
            kind=self.kind,
            space=self.space,
            fingerprint=fingerprint,
            encoder_rows=shape.side,
            encoder_cols=shape.side,
            grid=shape.grid,
            feature_dim=shape.hidden_size,
            token_dim=shape.token_dim,
            has_row_marker=_ROW_MARKER in self.names,
            **asdict(self.preprocessing),
        )


class VisualEncoder:
    """A loaded visual front end. Made by `load_encoder`.

    `row_marker: [D]` float32 on the CPU is LLaVA's `image_newline`, or None where the model has none (always in
    space `vision`, whose tokens are not in the LLM's space).

    Attributes:
        fixed_batches: whether bytes can be reproduced only if every batch has the same number of frames.
        batches_at_once: how many batches the device should have, so that it need not wait for the host: on CUDA the
            next one's pixels are copied while it computes, and its kernels are queued.
    """

    def __init__(
        self,
        spec: ModelSpec,
        forward: Callable[[Tensor], tuple[Tensor, Tensor | None]],
        preprocessing: Preprocessing,
        row_marker: Tensor | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.spec = spec
        self.row_marker = row_marker
        self.device = device
        self.dtype = dtype
        self.fixed_batches = device.type != "cpu"
        self.batches_at_once = 2 if device.type == "cuda" else 1
        self._forward = forward
        self._preprocessing = preprocessing
        self._copies: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def encode(self, images: Tensor) -> EncodedFrames:
        """Encode uint8 RGB frames `[B, H, W, 3]` that already have the model's size.

        On the CPU a frame's result depends on that frame alone. Elsewhere, keep the batch shape fixed for bytes
        that can be reproduced. On CUDA the call returns while the current stream still computes: images in pinned
        memory must not change, and another stream must not read the result, before `work.wait()` of the result
        has returned. Raises UsageError for other shapes or dtypes.
        """
        height, width = self.spec.height, self.spec.width
        if images.dtype != torch.uint8 or images.shape[1:] != (height, width, 3) or not len(images):
            raise UsageError(f"frames must be uint8 [B, {height}, {width}, 3], got {images.dtype} {list(images.shape)}")
        with torch.inference_mode():
            return self._encode_here(images) if self._copies is None else self._launch(images, self._copies)

    def _encode_here(self, images: Tensor) -> EncodedFrames:
        """Compute, and return when it is done."""
        began = time.perf_counter()
        # CPU matrix products round a row by where it lies in the matrix, so frames go one by one there. At
        # hundreds of rows a frame this costs nothing.
        batches = torch.split(images, 1) if self.device.type == "cpu" else (images.to(self.device),)
        results = [self._run(batch) for batch in batches]
        features = torch.cat([features for features, _ in results])
        projected = [tokens for _, tokens in results if tokens is not None]
        tokens = torch.cat(projected) if projected else features
        if self.device.type == "mps":
            torch.mps.synchronize()
        return EncodedFrames(features, tokens, DoneWork(time.perf_counter() - began))

    def _launch(self, images: Tensor, copies: torch.cuda.Stream) -> EncodedFrames:
        """Queue copy and computation. The copy has a stream of its own, so that it overlaps the batch before."""
        stream = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(copies):
            on_device = images.to(self.device, non_blocking=True)
        stream.wait_stream(copies)
        on_device.record_stream(stream)
        work = CudaWork(stream)
        features, tokens = self._run(on_device)
        work.end()
        return EncodedFrames(features, features if tokens is None else tokens, work)

    def _run(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features in float32, and tokens where there is a projector, of images that lie on the device."""
        features, tokens = self._forward(normalize(images, self._preprocessing, self.dtype))
        return features.float(), tokens

    def __repr__(self) -> str:
        spec = self.spec
        return f"VisualEncoder({spec.name}, {spec.kind}, space={spec.space}, {self.device}, {self.dtype})"


def describe_model(model: str, *, space: str = "llm", revision: str | None = None) -> ModelSpec:
    """What `model` (hub id, folder, or `demo`) is. Reads the needed tensors for the fingerprint, builds nothing.

    Raises CheckpointError.
    """
    found = _find(model, space, revision)
    fingerprint = Fingerprint(found.architecture, found.preprocessing)
    for name, tensor in found.read(found.names):
        fingerprint.add(name, tensor)
    return found.spec(fingerprint.hexdigest())


def load_encoder(
    model: str,
    *,
    space: str = "llm",
    device: str = "auto",
    precision: str = "auto",
    compile: bool = False,
    revision: str | None = None,
) -> VisualEncoder:
    """Load `model` (hub id, folder, or `demo`), of which only the visual front end is read.

    `device` is `auto` (CUDA, else MPS, else CPU), `cpu`, `cuda`, `cuda:1` or `mps`; `precision` is `auto` (float32
    on the CPU, else bfloat16) or a dtype's name. Raises CheckpointError if the model cannot be used, ConfigError if
    the device or a compiler is missing.
    """
    target = _device(device)
    dtype = _dtype(precision, target)
    found = _find(model, space, revision)
    if compile:
        _check_compiler(target)
    fingerprint = Fingerprint(found.architecture, found.preprocessing)
    weights: dict[str, Tensor] = {}
    row_marker = None
    for name, tensor in found.read(found.names):
        fingerprint.add(name, tensor)
        if name == _ROW_MARKER:
            row_marker = tensor.to(torch.float32, copy=True)
        else:
            weights[name] = tensor.to(target, dtype, copy=True)

    from dyntok.vision.tower import build_front_end  # imports transformers, which takes seconds

    front_end = build_front_end(found.architecture, weights, target)
    forward = torch.compile(front_end, dynamic=False) if compile else front_end
    spec = found.spec(fingerprint.hexdigest())
    return VisualEncoder(spec, forward, found.preprocessing, row_marker, target, dtype)


def _find(model: str, space: str, revision: str | None) -> _Model:
    if space not in ("llm", "vision"):
        raise ConfigError(f"space is `llm` or `vision`, not {space!r}")
    if model == "demo":
        from dyntok.vision import demo

        if revision is not None:
            raise CheckpointError("the demo model has no revisions", hint="drop --revision")
        tensors = demo.make_tensors() if space == "llm" else demo.make_tower_tensors()
        architecture = demo.ARCHITECTURE if space == "llm" else demo.TOWER

        def read(names: list[str]) -> Iterator[tuple[str, Tensor]]:
            yield from ((name, tensors[name]) for name in names)

        return _Model("demo", "demo", space, architecture, demo.PREPROCESSING, sorted(tensors), read)
    files = find_checkpoint(model, revision)
    kind = model_kind(files.config)
    architecture = read_architecture(kind, files.config, files.shapes, space)
    expected = architecture.tensor_shapes()
    if architecture.projector is not None:
        expected[_ROW_MARKER] = (architecture.token_dim,)
    names = files.fitting(expected, "visual front end", optional=[_ROW_MARKER])
    preprocessing = read_preprocessing(files.documents, architecture.image_size)
    return _Model(files.name, kind, space, architecture, preprocessing, names, files.read)


def _device(device: str) -> torch.device:
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"{device!r} is no device", hint="use auto, cpu, cuda, cuda:1 or mps") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"there is no device {device}: PyTorch sees {torch.cuda.device_count()} CUDA devices")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("there is no device mps", hint="use --device auto")
    return chosen


def _check_compiler(device: torch.device) -> None:
    """Compile a trifle on `device`. Raises ConfigError if that fails: the compiler is missing or broken."""
    try:
        torch.compile(lambda values: values * 2 + 1)(torch.zeros(8, device=device))
    except RuntimeError as error:  # every error of torch's compiler derives from it
        reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
        raise ConfigError(
            f"torch.compile does not work on {device}: {reason.strip()}",
            hint="install a C++ compiler (and Triton for CUDA), or leave --compile out",
        ) from error


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if precision not in _DTYPES:
        raise ConfigError(f"precision is auto, {', '.join(_DTYPES)}, not {precision!r}")
    return _DTYPES[precision]
