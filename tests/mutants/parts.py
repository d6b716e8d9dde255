"""What is mutated, and which tests have to notice.

mutmut runs against a mutant those tests that call the function in their own process. What a loader's workers run is
not counted, so it needs a test that calls it directly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "pipelines" / "dyntok"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the library that is mutated in one go.

    Attributes:
        files: patterns under `pipelines/dyntok`.
        tests: files, folders and options for pytest. All of them together should take seconds, for they run against
            every mutant that survives.
    """

    files: tuple[str, ...]
    tests: tuple[str, ...]

    def sources(self) -> Iterator[str]:
        """The files, relative to `pipelines/dyntok`."""
        for pattern in self.files:
            found = sorted(PACKAGE.glob(pattern))
            if not found:
                raise SystemExit(f"mutants: no file is called pipelines/dyntok/{pattern}: mend tests/mutants/parts.py")
            yield from (str(path.relative_to(PACKAGE)) for path in found)


PARTS = {
    "merging": Part(files=("boundaries.py", "merging/*.py"), tests=("tests/merging", "tests/test_boundaries.py")),
    "store": Part(
        files=("store/samples.py", "store/completion.py", "store/signed.py", "store/names.py"),
        tests=(
            "tests/store/test_completion.py",
            "tests/store/test_names.py",
            "tests/store/test_samples.py",
            "tests/store/test_signed.py",
        ),
    ),
    "cursor": Part(
        files=("load/cursor.py", "load/grouping.py", "load/order.py", "load/remaining.py"),
        tests=(
            "tests/load/test_cursor.py",
            "tests/load/test_grouping.py",
            "tests/load/test_order.py",
            "tests/load/test_remaining.py",
            "tests/load/test_stream.py::test_orders_and_draws_are_the_same_in_every_release",
        ),
    ),
    "stream": Part(
        files=("load/stream.py",),
        tests=(
            "tests/load/test_stream.py",
            "tests/load/test_stream_samples.py",
            # Another interpreter is started, which takes seconds and tells nothing of the arithmetic.
            "--deselect=tests/load/test_stream.py::test_workers_that_are_spawned_read_the_same",
        ),
    ),
}
