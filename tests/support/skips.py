"""Skipped tests where `DYNTOK_SKIPS` names a file (in CI): each is written down there, and a surprise fails the run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "DYNTOK_SKIPS"
# What may be so on a sound machine. All else that tests need is in the extra `dev`, or on every Linux with compilers.
EXPECTED = frozenset(
    {
        "root reads every folder",
        "root may write everywhere",
        "only root gives files away",
        "mounting a tmpfs needs root",
        "torch can use the GPU of this machine",
        "no chromium on this machine",
        "the file system of the temporary folder has no sparse files",
        "pip install 'dyntok[docs]'",
        "gcsfs is not installed",
    }
)


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why a test was skipped, in the words of the test."""
    longrepr = report.longrepr
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return " ".join(text.removeprefix("Skipped: ").split())


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In the process that reports; the others of pytest-xdist have no reporter."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    file = os.environ.get(VARIABLE)
    if file is None or reporter is None or hasattr(session.config, "workerinput"):
        return
    skipped = [(report.nodeid, reason_of(report)) for report in reporter.stats.get("skipped", [])]
    with Path(file).open("a", encoding="utf-8") as log:
        log.writelines(f"{reason}\n" for _, reason in skipped)
    surprises = [f"{where}: {reason}" for where, reason in skipped if reason not in EXPECTED]
    if surprises:
        reporter.section("skipped, and not expected to be", red=True)
        for line in surprises:
            reporter.write_line(line)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
