"""Every code block of every page is run, here or where it says; or a table says why it cannot be."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import dyntok

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
SHELL = ("bash", "console", "sh")
PROGRAMS = (
    "dyntok",
    "make",
    "pip",
    "python",
    "python3",
    "bash",
    "sbatch",
    "kubectl",
    "ray",
    "aws",
    "curl",
    "docker",
)

# Page, how the block begins, and why it is not run.
NOT_RUN = {
    ("README.md", "make demo"): "sets up an environment; tests/cli/test_demo.py runs the command behind it",
    ("README.md", "pip install"): "installs packages; `make wheel-demo` installs and runs the wheel",
    ("tutorial.md", "python3 -m venv"): "installs packages; `make wheel-demo` installs and runs the wheel",
    ("benchmarks.md", "$ make bench"): "takes an hour, and installs gigabytes",
    (
        "benchmarks.md",
        "$ pip install 'dyntok[zarrs]'",
    ): "installs a package; tests/store/zarr/test_pipelines.py reads with it",
    (
        "cluster.md",
        "dyntok encode s3://",
    ): "needs a Ray cluster and an object store; tests/run/executors/test_ray_cluster.py starts one here",
    ("cluster.md", "ray job submit"): "needs a Ray cluster with a dashboard",
    (
        "cluster.md",
        "kubectl apply",
    ): "needs Kubernetes with KubeRay; tests/cli/test_examples.py reads the file",
    ("cluster.md", "sbatch"): "needs Slurm; tests/cli/test_examples.py reads the script",
    ("evaluation.md", "python -m venv lmms"): "installs lmms-eval; `make lmms-eval` does this and runs it",
    ("job-arrays.md", "dyntok plan /data"): "needs Slurm; tests/cli/test_jobs.py runs the scripts without it",
    ("job-arrays.md", "bash job_array.sh"): "tests/cli/test_jobs.py runs the script",
    (
        "object-stores.md",
        "dyntok encode s3://",
    ): "needs an object store; the tests of object stores have a local server",
    ("object-stores.md", "aws s3api"): "needs an S3 account",
    (
        "pictures.md",
        "dyntok inspect tokens/",
    ): "needs a store of that clip; tests/cli/test_inspect_pictures.py makes one",
    (
        "statistics.md",
        "dyntok stats tokens/",
    ): "needs a manifest's columns and a second store; tests/cli/test_stats.py makes them",
}


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its page, what stands behind the opening fence, and its text."""

    page: str
    language: str
    text: str

    @property
    def is_shell(self) -> bool:
        """Commands; in cli.md, blocks without a language are usages, held by tests/cli/test_docs.py."""
        if self.language:
            return self.language in SHELL
        return self.page != "cli.md" and self.text.split(maxsplit=1)[0] in PROGRAMS

    @property
    def why_not(self) -> str | None:
        reasons = [why for (page, start), why in NOT_RUN.items() if page == self.page and self.text.startswith(start)]
        return reasons[0] if reasons else None


def blocks(page: Path) -> Iterator[Block]:
    for indent, language, text in re.findall(
        r"^( *)```(\w*)\n(.*?)^\1```$", page.read_text(), re.DOTALL | re.MULTILINE
    ):
        yield Block(page.name, language, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE))


ALL = [block for page in PAGES for block in blocks(page)]


def test_every_block_is_of_a_known_kind() -> None:
    for block in ALL:
        assert block.language in (*SHELL, "", "python", "text"), f"{block.page}: {block.language}"
        if not block.is_shell and block.language != "python" and block.page != "cli.md":
            assert not re.search(r"^(\$ )?dyntok \w", block.text, re.MULTILINE), f"{block.page}: commands as text"


def test_every_reason_belongs_to_a_block() -> None:
    used = {key for key in NOT_RUN for block in ALL if block.page == key[0] and block.text.startswith(key[1])}
    assert used == set(NOT_RUN)


@pytest.mark.parametrize("page", sorted({block.page for block in ALL if block.language == "python"}))
def test_every_page_with_python_is_run_by_a_test(page: str) -> None:
    files = [ROOT / "tests" / "test_docs.py", ROOT / "tests" / "cli" / "test_docs.py", Path(__file__)]
    assert any(f'"{page}"' in re.sub(r"NOT_RUN = \{.*?\n\}", "", file.read_text(), flags=re.DOTALL) for file in files)


@pytest.fixture
def desk(clip_folder: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two clips in `videos/`. `store` stands in for `tokens/` where a page does not make it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dyntok_cli.checks.storage.PROBE_BYTES", 10**6)
    (tmp_path / "videos").mkdir()
    for name in ("bikes.mp4", "carphone_pristine.mp4"):
        shutil.copy(clip_folder / name, tmp_path / "videos")
    return store


@pytest.mark.parametrize("page", sorted({block.page for block in ALL if block.is_shell and block.why_not is None}))
def test_the_commands_of_a_page_run(page: str, desk: Path) -> None:
    """All blocks of a page, one after the other, Python in between where the page is the tutorial."""
    names: dict[str, object] = {}
    for block in (block for block in ALL if block.page == page and block.why_not is None):
        if block.is_shell:
            run_lines(block, desk)
        elif page == "tutorial.md" and block.language == "python":
            exec(compile(block.text, page, "exec"), names)


def test_the_arithmetic_of_the_page_on_scale_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code = "".join(block.text for block in ALL if block.page == "scale.md" and block.language == "python")
    exec(compile(code, "scale.md", "exec"), {})
    assert "cores for each GPU" in capsys.readouterr().out


def run_lines(block: Block, store: Path) -> None:
    for line in re.sub(r"\\\n\s*", " ", block.text).splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if not words:
            continue
        assert words[0] == "dyntok", f"{block.page}: only dyntok is run here, not {words[0]}: say why in NOT_RUN"
        arguments, target = redirected(words[1:])
        makes = arguments[0] in ("encode", "plan") and "videos/" in arguments
        if "tokens/" in arguments and not makes and not Path("tokens").exists():
            shutil.copytree(store, "tokens")
        ran = dyntok(*(with_demo(arguments) if makes else arguments))
        assert ran.code == 0, f"{line}\n{ran.stderr}"
        if target:
            Path(target).write_text(ran.stdout)


def redirected(words: list[str]) -> tuple[list[str], str | None]:
    """Words without `> FILE`, and the file."""
    if ">" in words:
        place = words.index(">")
        return words[:place], words[place + 1]
    return words, None


def with_demo(words: list[str]) -> list[str]:
    """The command with the demo model and few frames, in place of the page's."""
    words = list(words)
    for flag in ("--model", "--frames"):
        with contextlib.suppress(ValueError):
            place = words.index(flag)
            del words[place : place + 2]
    return [*words, "--model", "demo", "--frames", "2", "--decode-workers", "1"]
