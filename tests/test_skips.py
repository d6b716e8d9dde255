"""CI says what it skipped, and a skip that nobody expects fails it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.skips import EXPECTED, VARIABLE

ROOT = Path(__file__).parents[1]


def run(folder: Path, reason: str, *, log: Path | None, options: tuple[str, ...] = ()) -> tuple[int, str]:
    """Exit code and output of pytest on one test that passes and one that is skipped."""
    (folder / "test_it.py").write_text(
        "import pytest\ndef test_sound():\n    pass\n"
        f"@pytest.mark.skipif(True, reason={reason!r})\ndef test_skipped():\n    pass\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'pipelines'}"}
    environment.pop(VARIABLE, None)
    if log is not None:
        environment[VARIABLE] = str(log)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-ra",
        "-p",
        "tests.support.skips",
        *options,
        "test_it.py",
    ]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("reason", "options"),
    [
        ("no chromium on this machine", ()),
        ("zarrs is not installed", ()),
        ("zarrs is not installed", ("-n", "2")),
    ],
)
def test_a_skip_is_written_down_and_a_surprise_fails_the_run(
    reason: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    log = tmp_path / "skips"
    code, said = run(tmp_path, reason, log=log, options=options)
    assert log.read_text() == f"{reason}\n"
    assert code == (0 if reason in EXPECTED else 1), said
    assert ("skipped, and not expected to be" in said) == (reason not in EXPECTED)
    assert "1 passed, 1 skipped" in said.splitlines()[-1]


def test_elsewhere_a_skip_is_shown_and_no_failure(tmp_path: Path) -> None:
    code, said = run(tmp_path, "zarrs is not installed", log=None)
    assert code == 0
    assert "zarrs is not installed" in said


def test_every_expected_reason_is_one_of_a_test() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for reason in EXPECTED:
        assert f'"{reason}"' in text, reason
