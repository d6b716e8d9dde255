"""What another user left in a shared store stops nobody who may write there."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

from dyntok.errors import StoreError, StoreLockedError
from dyntok.run import encode
from dyntok.run.lock import store_lock
from dyntok.store import StoreRoot, verify
from tests.support.runs import demo_config, environment

NOBODY = 65534
# See capabilities(7): what lets root pass over the permissions of files.
CAPABILITIES = (1, 2, 3)  # DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER
PR_CAPBSET_DROP = 24
RESUME = """
import sys
from dyntok.run import encode
from tests.support.runs import demo_config
report = encode([], sys.argv[1], demo_config(executor="local", shard_size="100KB", decode_workers=1))
print(report.done, report.failed)
"""


def drop_capabilities() -> None:
    """From the next `exec` on, this process is a user like any other; it is already, unless it is root."""
    for capability in CAPABILITIES:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def as_colleague(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run it as somebody for whom the permissions of files count."""
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        preexec_fn=drop_capabilities,
        check=False,
    )


def left_by_another(*paths: Path, mode: int = 0o444) -> None:
    """Folders are everybody's, files are another user's; where this is not root, nobody may write to them."""
    for top in paths:
        for path in [top, *top.rglob("*")]:
            path.chmod(0o777 if path.is_dir() else mode)
            if os.geteuid() == 0:
                os.chown(path, NOBODY, NOBODY)


def test_a_run_that_another_user_left_is_resumed(clip_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    clips = [str(clip_folder / name) for name in ("bikes.mp4", "carphone_pristine.mp4")]
    config = demo_config(executor="local", shard_size="100KB", decode_workers=1)
    assert encode(clips, out, config).done == 2
    for name in ("manifest.json", "index.parquet", "shards/shard-000001.json"):
        (out / name).unlink()
    # As a killed run leaves them: marks, the logs of a shard, and a shard that was half written.
    for name in ("logs/marks/host-1-ab", "logs/attempts/shard-000000.json", "logs/shards/shard-000001.log"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("begun 1 0\n")
    half = out / ".tmp" / "shard-000001-ab.zarr"
    half.mkdir(parents=True)
    (half / "zarr.json").write_text("{}")
    (out / ".tmp" / "shard-000001-cd.tar").write_text("half")
    left_by_another(out)
    half.chmod(0o555)
    resumed = as_colleague(RESUME, out)
    assert (resumed.returncode, resumed.stdout) == (0, "2 0\n"), resumed.stderr
    assert verify(str(out)).ok
    assert not (out / "logs" / "marks" / "host-1-ab").exists()
    assert not (out / ".tmp" / "shard-000001-cd.tar").exists()
    half.chmod(0o755)


def test_marks_of_another_user_are_judged_where_they_can_be(tmp_path: Path) -> None:
    """Also those in an actor's folder, which a node's other users leave under the same name."""
    marks = tmp_path / "marks"
    marks.write_text("begun 0 0\n")
    program = (
        "import sys; from pathlib import Path; from dyntok.run.executors.deaths.marks import is_abandoned, read_marks; "
        "path = Path(sys.argv[1]); print(is_abandoned(path), len(read_marks(path).suspects))"
    )
    for mode, said in ((0o444, "True 1\n"), (0o000, "False 0\n")):
        left_by_another(marks, mode=mode)
        judged = as_colleague(program, marks)
        assert judged.stdout == said, judged.stderr


def test_a_lock_that_another_user_made_keeps_writers_apart(tmp_path: Path) -> None:
    out = tmp_path / "out"
    root = StoreRoot.open(out, create=True)
    program = (
        "import sys; from dyntok.run.lock import store_lock; from dyntok.store import StoreRoot; "
        "root = StoreRoot.open(sys.argv[1])\nwith store_lock(root): print('held')"
    )
    with store_lock(root):
        left_by_another(out)
        refused = as_colleague(program, out)
        assert StoreLockedError.__name__ in refused.stderr
    assert as_colleague(program, out).stdout == "held\n"
    left_by_another(out / ".lock", mode=0o000)
    denied = as_colleague(program, out)
    assert f"{StoreError.__module__}.{StoreError.__name__}: cannot write to" in denied.stderr
    assert "Permission denied" in denied.stderr
