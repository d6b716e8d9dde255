"""The real command, on real clips: it finds the plug-in, and its answers are those of the store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lmms_eval.conftest import ROOT, Made
from tests.lmms_eval.direct import Direct
from tests.lmms_eval.tasks.utils import to_text

QUESTIONS = [json.loads(line) for line in (ROOT / "tests/lmms_eval/tasks/questions.jsonl").read_text().splitlines()]
TWO_PROCESSES = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
OPEN, CHOICE, ROUNDS = "dyntok_clips_open", "dyntok_clips_choice", "dyntok_clips_rounds"


@dataclass(frozen=True, slots=True)
class Run:
    """What a run printed, its results, and its samples by task."""

    printed: str
    results: dict[str, Any]
    samples: dict[str, list[dict[str, Any]]]


def start(
    out: Path,
    made: Made,
    *tasks: str,
    launcher: tuple[str, ...] = (),
    batch_size: int = 1,
    limit: int = -1,
    **arguments: object,
) -> subprocess.CompletedProcess[str]:
    given = {
        "store": made.llm,
        "pretrained": made.checkpoint,
        "dtype": "float32",
        "device": "cpu",
    } | arguments
    command = [
        *(sys.executable, *launcher, "-m", "lmms_eval", "--model", "dyntok"),
        *("--model_args", ",".join(f"{name}={value}" for name, value in given.items())),
        *("--batch_size", str(batch_size), "--limit", str(limit)),
        *("--tasks", ",".join(tasks), "--include_path", "tests/lmms_eval/tasks"),
        *("--output_path", str(out), "--log_samples"),
    ]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment = os.environ | offline | {"HF_HOME": str(out / "hf"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT, env=environment, check=False)


def evaluate(out: Path, made: Made, *tasks: str, **options: Any) -> Run:
    result = start(out, made, *tasks, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    found = list(out.rglob("*_results.json"))
    assert len(found) == 1, result.stdout + result.stderr
    samples = {
        task: [
            json.loads(line) for file in out.rglob(f"*_samples_{task}.jsonl") for line in file.read_text().splitlines()
        ]
        for task in tasks
    }
    for rows in samples.values():
        rows.sort(key=lambda row: row["doc_id"])
    return Run(result.stdout + result.stderr, json.loads(found[0].read_text()), samples)


def answers(run: Run, task: str) -> list[Any]:
    return [sample["filtered_resps"] for sample in run.samples[task]]


def losses(pairs: list[list[str]]) -> list[float]:
    """Of the choices of a question; the log has them as text."""
    return [float(loss) for loss, _ in pairs]


@pytest.fixture(scope="module")
def run(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return evaluate(tmp_path_factory.mktemp("run"), made, OPEN, CHOICE, ROUNDS, batch_size=3)


@pytest.fixture(scope="module")
def direct(made: Made) -> Direct:
    return Direct(made.checkpoint, made.llm)


def test_the_command_finds_the_plug_in_and_writes_results(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.results["config"]["model_backend"] == "dyntok.adapters.lmms_eval.DyntokModel (simple)"
    assert {task: count["effective"] for task, count in run.results["n-samples"].items()} == {
        OPEN: len(QUESTIONS),
        CHOICE: len(QUESTIONS),
        ROUNDS: len(QUESTIONS),
    }
    table = [line for line in run.printed.splitlines() if line.startswith("|")]
    assert [task in line for task, line in zip(sorted([OPEN, CHOICE, ROUNDS]), table[2:], strict=True)] == [True] * 3
    with capsys.disabled():
        print("", *table, sep="\n")


def test_answers_are_those_of_the_store_one_by_one(run: Run, direct: Direct) -> None:
    for question, sample in zip(QUESTIONS, run.samples[OPEN], strict=True):
        expected = direct.answer(question["video"], to_text(question), 12).split("\n\n")[0].strip()
        assert sample["filtered_resps"] == expected


def test_the_letters_are_right_and_come_from_the_video(run: Run, direct: Direct) -> None:
    """The checkpoint learned them from stored tokens: the same question, another letter for each clip."""
    learned = [
        (question, sample) for question, sample in zip(QUESTIONS, run.samples[OPEN], strict=True) if question["video"]
    ]
    for question, sample in learned:
        assert sample["right"] == 1.0
        assert sample["filtered_resps"] == question["answer"]
    assert run.results["results"][OPEN]["right,none"] >= len(learned) / len(QUESTIONS)
    same = {question["video"]: question["answer"] for question in QUESTIONS[:3]}
    assert len({to_text(question) for question in QUESTIONS[:3]}) == 1
    assert len(set(same.values())) == 3
    for video, letter in same.items():
        assert direct.answer(video, to_text(QUESTIONS[0]), 12) == letter


def test_token_counts_are_those_of_the_prompt(run: Run, direct: Direct) -> None:
    for question, sample in zip(QUESTIONS, run.samples[OPEN], strict=True):
        batch = direct.batch(question["video"], *direct.prompt(question["video"], to_text(question)))
        (counts,) = sample["token_counts"]
        assert counts["input_tokens"] == batch["input_ids"].numel()
        assert 1 <= counts["output_tokens"] <= 12


def test_the_likeliest_choice_is_taken(run: Run, direct: Direct) -> None:
    right = 0
    for question, sample in zip(QUESTIONS, run.samples[CHOICE], strict=True):
        expected = [
            direct.loss(question["video"], question["question"], f" {option}")[0] for option in question["options"]
        ]
        assert losses(sample["filtered_resps"]) == pytest.approx(expected, abs=1e-4)
        best = expected.index(min(expected))
        right += best == "ABCD".index(question["answer"])
        assert sample["acc"] == (best == "ABCD".index(question["answer"]))
    assert run.results["results"][CHOICE]["acc,none"] == pytest.approx(right / len(QUESTIONS))
    assert right >= 4, "the checkpoint learned those about videos"


def test_every_round_is_asked_with_the_answers_before_it(run: Run, direct: Direct) -> None:
    for question, sample in zip(QUESTIONS, run.samples[ROUNDS], strict=True):
        texts, expected = [question["question"], *question["more"]], []
        for number, text in enumerate(texts):
            asked = f"You said: {expected[-1]}\n{text}" if number else text
            expected.append(direct.answer(question["video"], asked, 6).split("\n\n")[0].strip())
        assert sample["filtered_resps"] == expected
        assert sample["rounds"] == len(texts)


def test_a_lower_threshold_reads_fewer_tokens(made: Made, run: Run, tmp_path: Path) -> None:
    coarse = evaluate(tmp_path, made, OPEN, threshold=0.5)
    direct = Direct(made.checkpoint, made.llm, 0.5)
    for question, sample, fine in zip(QUESTIONS, coarse.samples[OPEN], run.samples[OPEN], strict=True):
        expected = direct.answer(question["video"], to_text(question), 12).split("\n\n")[0].strip()
        assert sample["filtered_resps"] == expected
        fewer = sample["token_counts"][0]["input_tokens"] < fine["token_counts"][0]["input_tokens"]
        assert fewer == (question["video"] is not None)


def test_two_processes_share_the_questions(made: Made, run: Run, tmp_path: Path) -> None:
    shared = evaluate(tmp_path, made, OPEN, CHOICE, launcher=TWO_PROCESSES, batch_size=2)
    for task in (OPEN, CHOICE):
        assert shared.results["results"][task] == run.results["results"][task]
    assert answers(shared, OPEN) == answers(run, OPEN)
    for ours, theirs in zip(answers(shared, CHOICE), answers(run, CHOICE), strict=True):
        assert losses(ours) == pytest.approx(losses(theirs), abs=1e-4)


def test_a_video_that_one_process_misses_ends_all(made: Made, tmp_path: Path) -> None:
    """Each has one question, the first about the one clip that is there. The first must not wait for the other."""
    result = start(tmp_path, made, OPEN, launcher=TWO_PROCESSES, limit=2, store=made.one)
    assert result.returncode != 0
    assert "error: the videos of 1 of 1 questions are missing" in result.stderr
    assert "missing=empty" in result.stderr
    assert not list(tmp_path.rglob("*_results.json"))


def test_an_error_names_the_argument(made: Made, tmp_path: Path) -> None:
    result = start(tmp_path, made, OPEN, threshold=0.95)
    assert "stored at threshold 0.9; 0.95 lies above it" in result.stderr
    assert not list(tmp_path.rglob("*_results.json"))
