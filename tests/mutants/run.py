"""Changes the library's code in one place after another, and tells which changes no test notices (`make mutants`).

The tool is mutmut. It works on a copy of the sources and the tests in `build/mutants`, imports everything once, and
forks for every mutant. What survives is compared with `accepted.toml`; what is not in there is printed, and the exit
status is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code
from mutmut.utils.format_utils import orig_function_and_class_names_from_key

from tests.mutants.parts import PARTS, REPOSITORY, Part

BUILD = REPOSITORY / "build" / "mutants"
ACCEPTED = Path(__file__).with_name("accepted.toml")
# Texts of errors and of the log: what has to be in them is tested, and how they are worded need not be.
NOT_MUTATED = (
    r"raise (?!NonFiniteFeatureError)\w+Error\(",
    r"log\.\w+\(",
    r'return f?"[^"]* [^"]*"',
)
SURVIVED = ("survived", "no tests")
UNFINISHED = ("not checked", "check was interrupted by user", "skipped")


@dataclass(frozen=True, slots=True)
class Change:
    """One mutant, as it stands in `accepted.toml`, whatever its line number.

    Attributes:
        file: relative to `pipelines/dyntok`.
        function: with its class.
        line: the lines that were changed, without their indentation.
        becomes: what they were changed to; empty where they were left out.
    """

    file: str
    function: str
    line: str
    becomes: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help=f"a part ({', '.join(PARTS)}), or files of a part")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    chosen = dict(_chosen(arguments.only))
    accepted, used, fresh, table = _accepted(), set(), [], []
    for name, (part, files) in chosen.items():
        began = time.monotonic()
        tree = _prepare(name, part, files)
        _mutate(tree, arguments.processes)
        for file in files:
            counts: Counter[str] = Counter()
            for status, change in _results(tree, file):
                counts[status] += 1
                if change in accepted:
                    used.add(change)
                    counts["accepted"] += 1
                elif change is not None:
                    fresh.append(change)
            if counts:
                table.append((file, counts))
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    _print_table(table)
    files = {file for _, files in chosen.values() for file in files}
    if over := [change for change in accepted - used if change.file in files]:
        print(f"\nThese survive no longer; take them out of {ACCEPTED.name}:\n")
        _print_changes(over)
    if fresh:
        print(f"\nThese survived; write tests, or take them into {ACCEPTED.name} with a reason:\n")
        _print_changes(fresh)
        raise SystemExit(f"{len(fresh)} mutants survived")


def _chosen(only: list[str]) -> Iterator[tuple[str, tuple[Part, list[str]]]]:
    known = set(PARTS) | {file for part in PARTS.values() for file in part.sources()}
    if unknown := set(only) - known:
        raise SystemExit(f"mutants: no part or file {', '.join(sorted(unknown))}: {', '.join(sorted(known))}")
    for name, part in PARTS.items():
        files = [file for file in part.sources() if not only or name in only or file in only]
        if files:
            yield name, (part, files)


def _prepare(name: str, part: Part, files: list[str]) -> Path:
    """A folder in which mutmut finds sources, tests and its settings."""
    tree = BUILD / name
    shutil.rmtree(tree, ignore_errors=True)
    unneeded = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "pipelines", tree / "src", ignore=unneeded)
    shutil.copytree(REPOSITORY / "tests", tree / "tests", ignore=unneeded)
    for file in files:
        path = tree / "src" / "dyntok" / file
        path.write_text(cst.parse_module(path.read_text()).visit(_Undecorated()).code)
    settings = {
        "source_paths": ["src"],
        "only_mutate": [f"src/dyntok/{file}" for file in files],
        "do_not_mutate_patterns": NOT_MUTATED,
        "pytest_add_cli_args_test_selection": part.tests,
        "pytest_add_cli_args": ["-p", "tests.mutants.quick"],
        # torch's threads do not survive a fork, so the process that forks has run no test.
        "process_isolation": "forkserver",
        "timeout_constant": 2.0,
        "timeout_multiplier": 8.0,
        "use_git_change_detection": False,
    }
    # A TOML value of text, numbers and lists is written as in JSON.
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    project = (REPOSITORY / "pyproject.toml").read_text()
    (tree / "pyproject.toml").write_text("\n".join([project, "[tool.mutmut]", *lines, ""]))
    return tree


class _Undecorated(cst.CSTTransformer):
    """mutmut leaves decorated functions alone; `@property` above one is the same as `name = property(name)` below."""

    def leave_FunctionDef(
        self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef
    ) -> cst.FunctionDef | cst.FlattenSentinel[cst.BaseStatement]:
        names = [cst.ensure_type(d.decorator, cst.Name).value for d in updated_node.decorators if _is_name(d)]
        if len(updated_node.decorators) != 1 or names not in (["property"], ["contextmanager"]):
            return updated_node
        name = updated_node.name.value
        below = cst.parse_statement(f"{name} = {names[0]}({name})")
        return cst.FlattenSentinel([updated_node.with_changes(decorators=[]), below])


def _is_name(decorator: cst.Decorator) -> bool:
    return isinstance(decorator.decorator, cst.Name)


def _mutate(tree: Path, processes: int) -> None:
    # Where mutmut writes; processes that tests start import from there too. Python looks once whether a path is there.
    mutated = tree / "mutants"
    (mutated / "src").mkdir(parents=True)
    paths = [str(mutated / "src"), str(mutated)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(processes)]
    log = tree / "mutmut.log"
    with log.open("w") as output:
        done = subprocess.run(command, cwd=tree, env=environment, stdout=output, stderr=subprocess.STDOUT)
    if done.returncode:
        raise SystemExit(f"{log.read_text()[-4000:]}\nmutants: mutmut failed, see {log}")


def _results(tree: Path, file: str) -> Iterator[tuple[str, Change | None]]:
    """Status of each mutant of a file, and the change if it survived."""
    path = Path("src", "dyntok", file)
    os.chdir(tree)
    data = SourceFileMutationData(path=path)
    data.load()
    for name, exit_code in data.exit_code_by_key.items():
        status = status_by_exit_code[exit_code]
        if status in UNFINISHED:
            raise SystemExit(f"mutants: {name} was not tried: {status}, see {tree / 'mutmut.log'}")
        if status not in SURVIVED:
            yield ("timeout" if status == "timeout" else "killed"), None
            continue
        diff = get_diff_for_mutant(name, path=path).splitlines()[2:]
        before, after = (" ".join(line[1:].strip() for line in diff if line.startswith(sign)) for sign in ("-", "+"))
        function, class_name = orig_function_and_class_names_from_key(name)
        qualified = function if class_name is None else f"{class_name}.{function}"
        yield "survived", Change(file, qualified, before, after)


def _accepted() -> set[Change]:
    entries = tomllib.loads(ACCEPTED.read_text()).get("accepted", [])
    return {
        Change(entry["file"], entry["function"], entry["line"], becomes)
        for entry in entries
        for becomes in entry["becomes"]
        if entry["reason"]
    }


def _print_changes(changes: Iterable[Change]) -> None:
    """As they are written in `accepted.toml`."""
    lines: dict[tuple[str, str, str], list[str]] = {}
    for change in changes:
        lines.setdefault((change.file, change.function, change.line), []).append(change.becomes)
    for (file, function, line), becomes in sorted(lines.items()):
        print("[[accepted]]")
        for key, value in (("file", file), ("function", function), ("line", line)):
            print(f"{key} = {_toml(value)}")
        print("becomes = [", *(f"  {_toml(text)}," for text in becomes), "]", 'reason = ""', "", sep="\n")


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if "'" in text else f"'{text}'"


def _print_table(table: list[tuple[str, Counter[str]]]) -> None:
    columns = ("mutants", "killed", "timeout", "survived", "accepted")
    total: Counter[str] = sum((counts for _, counts in table), Counter())
    print(f"\n{'':24}" + "".join(f"{column:>10}" for column in columns))
    for name, counts in [*table, ("all", total)]:
        counts["mutants"] = counts["killed"] + counts["timeout"] + counts["survived"]
        print(f"{name:24}" + "".join(f"{counts[column]:>10}" for column in columns))


if __name__ == "__main__":
    main()
