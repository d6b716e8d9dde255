"""Every error has one message shape and one exit code."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import redirect_stderr

import pytest

import dyntok.errors as library
from dyntok_cli import main
from dyntok_cli.errors import explain

CODES = {
    "DyntokError": 1,
    "UsageError": 2,
    "ConfigError": 2,
    "InputError": 2,
    "StoreMismatchError": 2,
    "CheckpointError": 1,
    "MergeError": 1,
    "StoreError": 1,
    "StoreVersionError": 1,
    "StoreLockedError": 1,
    "DamageError": 4,
    "RunError": 1,
}


def every_error() -> Iterator[type[library.DyntokError]]:
    todo = [library.DyntokError]
    while todo:
        kind = todo.pop()
        todo += kind.__subclasses__()
        if kind.__module__ == "dyntok.errors":
            yield kind


def make(kind: type[library.DyntokError]) -> library.DyntokError:
    if issubclass(kind, library.VideoError):
        return kind("corrupt", "what", hint="mend")
    if issubclass(kind, library.NonFiniteFeatureError):
        return kind(3)
    return kind("what", hint="mend")


@pytest.mark.parametrize("kind", list(every_error()), ids=lambda kind: kind.__name__)
def test_every_library_error_has_its_code_and_keeps_its_words(kind: type[library.DyntokError]) -> None:
    error = make(kind)
    failure = explain(error, "encode")
    assert (failure.message, failure.hint) == (error.message, error.hint)
    assert failure.exit_code == CODES.get(kind.__name__, 1)


@pytest.mark.parametrize("command", ["encode", "demo", "convert"])
def test_an_interrupted_run_says_that_it_can_be_resumed(command: str) -> None:
    failure = explain(KeyboardInterrupt(), command)
    assert failure.exit_code == 130
    assert failure.hint is not None
    assert "resumes" in failure.hint


def test_an_interrupted_look_has_nothing_to_resume() -> None:
    assert explain(KeyboardInterrupt(), "status").hint is None


def test_an_unexpected_error_is_one_line_and_points_to_debug() -> None:
    failure = explain(RuntimeError("CUDA out of memory\n  tried to allocate"), "encode")
    assert failure.message == "unexpected RuntimeError: CUDA out of memory tried to allocate"
    assert failure.hint is not None
    assert "--debug" in failure.hint
    assert failure.exit_code == 1


@pytest.mark.parametrize("debug", [False, True])
def test_a_traceback_only_with_debug(debug: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(out: str) -> None:
        raise ZeroDivisionError("broken \x1b[31m on purpose")

    monkeypatch.setattr("dyntok.run.StoreWatch", broken)
    stderr = io.StringIO()
    with redirect_stderr(stderr):
        code = main.run(["status", "somewhere", *(["--debug"] if debug else [])])
    assert code == 1
    assert ("Traceback" in stderr.getvalue()) is debug
    assert "error: unexpected ZeroDivisionError: broken \\x1b[31m on purpose\n\nhint: " in stderr.getvalue()
