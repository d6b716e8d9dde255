"""The model class against lmms-eval's own base class and requests."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lmms_eval.api.instance import Instance, unwrap_generation_output
from lmms_eval.api.model import lmms
from lmms_eval.models import get_model

from dyntok.adapters.lmms_eval import DyntokModel
from dyntok.errors import CheckpointError, ConfigError, StoreError
from dyntok.vision.projector import VisionProjector
from tests.lmms_eval.conftest import Made
from tests.lmms_eval.direct import Direct

BIKES, BUNNY = "/x/bikes.mp4", "/x/bigbuckbunny.mp4"
Show = Callable[[Any], Any]


def make_model(made: Made, **arguments: Any) -> DyntokModel:
    given = {"store": str(made.llm), "pretrained": str(made.checkpoint), "dtype": "float32", "device": "cpu"}
    model = DyntokModel(**(given | arguments))
    model.task_dict = {"task": {"test": {0: BIKES, 1: BUNNY, 2: None, 3: "/x/nothing.mp4"}}}
    return model


def show(doc: Any) -> Any:
    return [doc] if doc else []


def ask(doc_id: int, *arguments: Any, kind: str = "generate_until") -> Instance:
    metadata = {"task": "task", "doc_id": doc_id, "repeats": 1}
    return Instance(kind, (*arguments, doc_id, "task", "test"), 0, metadata=metadata)


def open_question(doc_id: int, text: str = "What is it?", **wanted: Any) -> Instance:
    return ask(doc_id, text, {"max_new_tokens": 6, "until": ["\n\n"], **wanted}, show)


@pytest.fixture(scope="module")
def model(made: Made) -> DyntokModel:
    return make_model(made, batch_size=3)


@pytest.fixture(scope="module")
def direct(made: Made) -> Direct:
    return Direct(made.checkpoint, made.llm)


def test_lmms_eval_loads_the_class_by_its_name() -> None:
    assert get_model("dyntok") is DyntokModel
    assert issubclass(DyntokModel, lmms)
    assert DyntokModel.is_simple
    made = DyntokModel.create_from_arg_string
    with pytest.raises(ConfigError, match="argument store is missing"):
        made("pretrained=x", {"batch_size": "1", "device": None})


def test_answers_come_in_the_order_of_the_requests(model: DyntokModel, direct: Direct) -> None:
    """Whatever the batches are, and although settings differ."""
    requests = [
        open_question(number % 3, f"What is it? {number}", max_new_tokens=7 + number % 2, min_new_tokens=5)
        for number in range(7)
    ]
    videos = ["bikes.mp4", "bigbuckbunny.mp4", None]
    results = model.generate_until(requests)
    for number, result in enumerate(results):
        tokens = 7 + number % 2
        expected = direct.answer(videos[number % 3], f"What is it? {number}", tokens, 5)
        assert result.text == expected.strip()
        assert unwrap_generation_output(result)[1].output_tokens <= 8
    assert len({result.text for result in results}) > 1


def test_generation_stops_at_a_stop_string(model: DyntokModel) -> None:
    """And stops there, not at the limit; the other row of the batch goes on."""
    long = {"max_new_tokens": 20, "min_new_tokens": 20}
    whole, other = model.generate_until(
        [open_question(0, **long, until=[]), open_question(2, "Why?", **long, until=[])]
    )
    stop = next(letter for letter in whole.text[1:-1] if letter not in other.text)
    cut, same = model.generate_until(
        [open_question(0, **long, until=[stop]), open_question(2, "Why?", **long, until=[stop])]
    )
    assert cut.text == whole.text.split(stop)[0].strip()
    assert cut.token_counts.output_tokens < 20
    assert same == other


def test_beams_and_sampling_are_passed_on(model: DyntokModel) -> None:
    def texts(**wanted: Any) -> list[str]:
        torch.manual_seed(0)
        requests = [
            open_question(number % 3, f"{number}?", max_new_tokens=8, min_new_tokens=8, **wanted) for number in range(6)
        ]
        return [result.text for result in model.generate_until(requests)]

    greedy = texts()
    assert texts(temperature=0, do_sample=False) == greedy
    assert texts(temperature=1.5, do_sample=True) != greedy
    assert texts(temperature=1.5, do_sample=True) == texts(temperature=1.5, do_sample=True)
    assert texts(do_sample=True, temperature=1.5, top_k=1) == greedy
    assert texts(num_beams=4) != greedy


def test_losses_are_those_of_each_answer_alone(model: DyntokModel, direct: Direct) -> None:
    texts, answers = ("Which?", "What does the clip show?"), ("A", " a rabbit in the grass", "B")
    requests = [
        ask(doc_id, text, answer, show, kind="loglikelihood")
        for doc_id in (0, 1, 2)
        for text in texts
        for answer in answers
    ]
    pairs = [unwrap_generation_output(result)[0] for result in model.loglikelihood(requests)]
    expected = [
        direct.loss(video, text, answer)
        for video in ("bikes.mp4", "bigbuckbunny.mp4", None)
        for text in texts
        for answer in answers
    ]
    assert [loss for loss, _ in pairs] == pytest.approx([loss for loss, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in pairs] == [greedy for _, greedy in expected]


def test_what_greedy_generation_says_is_greedy(model: DyntokModel) -> None:
    """An answer comes without the space it may begin with."""
    (said,) = model.generate_until([open_question(0)])
    answers = [said.text, f" {said.text}", f"{said.text}!", f" {said.text}!"]
    requests = [
        ask(0, "What is it?", lambda _, answer=answer: answer, show, kind="loglikelihood") for answer in answers
    ]
    greedy = [unwrap_generation_output(pair)[0][1] for pair in model.loglikelihood(requests)]
    assert sum(greedy[:2]) == 1
    assert not any(greedy[2:])


def test_rounds_end_one_by_one(model: DyntokModel, direct: Direct) -> None:
    def rounds(doc: Any, previous_output: Any, round_idx: int, previous_round_info: Any) -> Any:
        if round_idx == (3 if doc == BIKES else 1):
            return None, None, True, previous_output, None
        info = (previous_round_info or 0) + 10
        return show(BUNNY), f"round {round_idx}, {info}: {previous_output[-1]}", False, previous_output, info

    requests = [
        ask(number, "Begin.", {"max_new_tokens": 4}, show, rounds, kind="generate_until_multi_round")
        for number in (1, 0)
    ]
    first, second = model.generate_until_multi_round(requests)
    assert first == [direct.answer("bigbuckbunny.mp4", "Begin.", 4).strip()]
    expected = [direct.answer("bikes.mp4", "Begin.", 4).strip()]
    for number, info in ((1, 10), (2, 20)):
        text = f"round {number}, {info}: {expected[-1]}"
        expected.append(direct.answer("bigbuckbunny.mp4", text, 4).strip())
    assert second == expected
    assert unwrap_generation_output(second) == (expected, None)


def test_a_missing_video_ends_the_evaluation_before_its_first_answer(
    model: DyntokModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.answerer, "generate", None)
    with pytest.raises(StoreError, match=r"1 of 2 questions are missing: /x/nothing\.mp4"):
        model.generate_until([open_question(0), open_question(3)])


def test_a_missing_video_can_be_answered_with_nothing(
    made: Made, model: DyntokModel, caplog: pytest.LogCaptureFixture
) -> None:
    lenient = make_model(made, missing="empty")
    with caplog.at_level(logging.WARNING):
        results = lenient.generate_until([open_question(3), open_question(0)])
    assert results[0].text == ""
    assert results[1].text == model.generate_until([open_question(0)])[0].text
    assert any("1 of 2 questions get an empty answer" in message for message in caplog.messages)
    with pytest.raises(StoreError, match="1 of 1 questions are missing"):
        lenient.loglikelihood([ask(3, "Which?", "A", show, kind="loglikelihood")])


def test_a_store_in_space_vision_is_projected(made: Made) -> None:
    model = make_model(made, store=str(made.vision))
    oracle = Direct(made.checkpoint, made.vision)
    oracle.lm.project = VisionProjector.from_checkpoint(str(made.checkpoint))
    oracle.lm.row_marker = Direct(made.checkpoint, made.llm).store.row_marker
    (result,) = model.generate_until([open_question(0, max_new_tokens=8)])
    assert result.text == oracle.answer("bikes.mp4", "What is it?", 8).strip()
    (pair,) = model.loglikelihood([ask(0, "What?", "A dog", show, kind="loglikelihood")])
    assert unwrap_generation_output(pair)[0][0] == pytest.approx(
        oracle.loss("bikes.mp4", "What?", "A dog")[0], abs=1e-4
    )


@pytest.mark.parametrize(
    ("arguments", "tokens"),
    [
        ({"markers": "none"}, -1),
        ({"markers": "row"}, 2 * 14 - 1),
        ({"markers": "frame"}, 1),
        ({"threshold": 0.5}, None),
        ({"frames": 1}, None),
        ({"budget": 40}, None),
    ],
)
def test_videos_are_shown_as_the_arguments_say(
    made: Made, model: DyntokModel, arguments: dict[str, Any], tokens: int | None
) -> None:
    """Without arguments: as stored, with one marker after the video, as LLaVA-OneVision has it."""
    usual = model.generate_until([open_question(0)])[0].token_counts.input_tokens
    changed = make_model(made, **arguments)
    count = changed.generate_until([open_question(0)])[0].token_counts.input_tokens
    if tokens is not None:
        assert count - usual == tokens
        return
    view = {name: value for name, value in arguments.items() if name != "markers"}
    video = model.answerer.store["bikes.mp4"]
    markers = {"markers": "video"} if "budget" in view else {}
    assert usual - count == len(video.at()) - len(video.at(**view, **markers))


def test_a_system_prompt_begins_the_conversation(made: Made, model: DyntokModel) -> None:
    text = "Be brief."
    spoken = make_model(made, system_prompt=text)
    more = len(model.answerer.tokenizer(f"<|im_start|>system\n{text}<|im_end|>\n")["input_ids"])
    for doc_id in (0, 2):
        usual = model.generate_until([open_question(doc_id)])[0].token_counts.input_tokens
        assert spoken.generate_until([open_question(doc_id)])[0].token_counts.input_tokens == usual + more


def test_clean_lets_go_of_the_language_model(made: Made) -> None:
    model = make_model(made)
    model.clean()
    assert not hasattr(model, "answerer")
    model.clean()


def test_a_checkpoint_without_a_tokenizer_says_so(made: Made, tmp_path: Any) -> None:
    for file in made.checkpoint.iterdir():
        if not file.name.startswith("tokenizer"):
            (tmp_path / file.name).symlink_to(file.resolve())
    with pytest.raises(CheckpointError, match="no tokenizer"):
        make_model(made, pretrained=str(tmp_path))
