"""Questions about stored videos, answered by the language model of a tiny checkpoint."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch

import dyntok
from dyntok.adapters.answering import Answerer, Generation, Question, View, takes_text
from dyntok.adapters.evaluation import EvaluationSettings, load_answerer
from dyntok.adapters.huggingface import TokenLM, load_language_model
from dyntok.errors import CheckpointError, UsageError
from dyntok.load import CHATML, ChatTokenizer
from dyntok.testing import make_tiny_llava, make_tiny_tokenizer, rename_to_lmms_lab
from tests.support.samples import make_info, sharded_store

pytestmark = pytest.mark.filterwarnings("ignore:Passing `no_repeat_ngram_size` with `inputs_embeds`")

IDS = ("s0/v0.mp4", "s0/v1.mp4", "s0/v2.mp4")
QUESTIONS = [
    Question("What is it?", IDS[0]),
    Question("Is it red?"),
    Question("Why does the man go?", IDS[1]),
]
FOR_PROCESSORS = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] }}{% endfor %}"
    "{{ '<|im_end|>' }}{% endfor %}"
)
LONG = Generation({"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False, "no_repeat_ngram_size": 1})


def add_tokenizer(checkpoint: Path) -> Path:
    make_tiny_tokenizer().save_pretrained(checkpoint)
    return checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_tokenizer(make_tiny_llava(tmp_path_factory.mktemp("tiny") / "llava"))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = str(tmp_path_factory.mktemp("answering") / "store")
    sharded_store(url, [3], info=make_info(token_dim=32), frames=2)
    return url


@pytest.fixture(scope="module")
def answerer(checkpoint: Path, url: str) -> Answerer:
    return make(checkpoint, url)


def make(checkpoint: Path, url: str, tokenizer: Any = None, **more: Any) -> Answerer:
    store = dyntok.open(url)
    model = load_language_model(str(checkpoint), dtype=torch.float32)
    return Answerer(store, TokenLM(model, store.row_marker), tokenizer or make_tiny_tokenizer(), View(**more))


def test_a_batch_answers_as_one_by_one(answerer: Answerer) -> None:
    together = answerer.generate(QUESTIONS, LONG)
    assert together == [answerer.generate([question], LONG)[0] for question in QUESTIONS]
    assert len({answer.text for answer in together}) == 3
    assert {answer.output_tokens for answer in together} == {12}


def test_an_answer_ends_at_the_end_of_its_turn(answerer: Answerer, monkeypatch: pytest.MonkeyPatch) -> None:
    end, pad = answerer.tokenizer.eos_token_id, answerer.tokenizer.pad_token_id
    said = answerer.tokenizer("yes")["input_ids"]
    ids = torch.tensor([[*said, end, pad, pad], [*said, *said, end, pad][: len(said) + 3]])
    monkeypatch.setattr(answerer.lm, "generate", lambda *_, **__: ids)
    first, second = answerer.generate(QUESTIONS[:2], Generation({}))
    assert (first.text, first.output_tokens) == ("yes", len(said))
    assert second.text.startswith("yesy")


def test_a_stop_string_ends_generation_for_its_row_alone(answerer: Answerer) -> None:
    asked = [Question(f"{number}. Why?", IDS[number % 3]) for number in range(8)]
    whole = answerer.generate(asked, LONG)
    one, other, stop = next(
        (one, other, letter)
        for one, other in permutations(range(8), 2)
        for letter in whole[one].text[2:-1]
        if letter not in whole[other].text
    )
    cut, same = answerer.generate([asked[one], asked[other]], Generation(LONG.settings, (stop,)))
    assert cut.text == whole[one].text.split(stop)[0].strip()
    assert cut.output_tokens < whole[one].output_tokens
    assert same == whole[other]


@pytest.mark.parametrize("stop", [("an",), ("n e", "!"), ("elephant.",), ("xyz", "é")])
def test_generation_is_asked_to_stop_just_when_a_stop_string_is_said(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch, stop: tuple[str, ...]
) -> None:
    """Its ids come one by one, beside a row that never says it."""
    text = "Seen: an elephant."
    ids = answerer.tokenizer([text, "." * len(text)], return_tensors="pt")["input_ids"]

    def generate(_: Any, stopping_criteria: Any, **__: Any) -> torch.Tensor:
        (said,) = stopping_criteria
        for length in range(1, ids.shape[1] + 1):
            first, second = said(ids[:, :length], None).tolist()
            assert not second
            assert first == any(text[:length].endswith(end) for end in stop)
            if first:
                return ids[:, :length]
        return ids

    monkeypatch.setattr(answerer.lm, "generate", generate)
    answer, _ = answerer.generate(QUESTIONS[:2], Generation({}, stop))
    ends = [text.find(end) + len(end) for end in stop if end in text]
    assert answer.output_tokens == min(ends, default=len(text))
    assert answer.text == min((text.split(end)[0] for end in stop), key=len).strip()


@pytest.mark.parametrize("video", [*IDS, None])
def test_a_loss_is_the_one_of_training(answerer: Answerer, video: str | None) -> None:
    if video is not None:
        chat = ChatTokenizer(answerer.tokenizer, 191)
        said = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "a red man"}]
        ids, labels = chat.encode(said)
        talk = dyntok.Conversation(video, ids, labels, answerer.store[video].at())
        batch = dyntok.pad_batch([dyntok.expand(talk, 191, "row")])
        with torch.no_grad():
            expected = float(answerer.lm(**batch).loss)
    else:
        text = "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n"
        before, answer = (answerer.tokenizer(t)["input_ids"] for t in (text, "a red man<|im_end|>\n"))
        ids = torch.tensor([before + answer])
        labels = torch.tensor([[-100] * len(before) + answer])
        with torch.no_grad():
            expected = float(answerer.lm.model(input_ids=ids, labels=labels).loss)
    others = [(question, "no") for question in QUESTIONS]
    pairs = answerer.losses([*others, (Question("What?", video), "a red man")])
    assert pairs[-1][0] == pytest.approx(expected, rel=1e-5)
    assert pairs[:3] == [pytest.approx(answerer.losses([other])[0]) for other in others]


def test_greedy_is_what_greedy_generation_says(answerer: Answerer) -> None:
    """Of the answer alone: whether its turn would end there does not count."""
    one = Generation({"max_new_tokens": 1, "do_sample": False})
    asked = [Question(f"{number}?", IDS[number % 3]) for number in range(20)]
    question, said = next(
        (question, answer.text)
        for question, answer in zip(asked, answerer.generate(asked, one), strict=True)
        if len(answerer.tokenizer(answer.text)["input_ids"]) == 1
    )
    # An answer comes without the space that its token may begin with.
    texts = [said, f" {said}", f"{said} man", f" {said} man", f"x{said}"]
    greedy = [greedy for _, greedy in answerer.losses([(question, text) for text in texts])]
    assert sum(greedy[:2]) == 1
    assert not any(greedy[2:])


def test_videos_are_shown_as_the_view_says(checkpoint: Path, url: str) -> None:
    counts = {}
    for name, view in {
        "rows": {},
        "none": {"markers": "none"},
        "coarse": {"threshold": 0.4, "markers": "none"},
        "budget": {"budget": 9, "markers": "row", "frames": "fit"},
    }.items():
        answers = make(checkpoint, url, **view).generate(QUESTIONS, LONG)
        counts[name] = [answer.input_tokens for answer in answers]
    store = dyntok.open(url)
    for number in (0, 2):
        video = store[str(QUESTIONS[number].video_id)]
        assert counts["rows"][number] - counts["none"][number] == 2 * 3
        coarser = len(video.at()) - len(video.at(threshold=0.4))
        assert counts["none"][number] - counts["coarse"][number] == coarser > 0
        assert counts["rows"][number] - counts["budget"][number] >= len(video.at()) + 6 - 9
    assert len({count[1] for count in counts.values()}) == 1


def test_a_template_for_processors_is_replaced_by_chatml(checkpoint: Path, url: str) -> None:
    """It drops plain text, and the question with it."""
    tokenizer = make_tiny_tokenizer()
    assert not takes_text(tokenizer)
    tokenizer.chat_template = FOR_PROCESSORS
    assert not takes_text(tokenizer)
    make(checkpoint, url, tokenizer)
    assert tokenizer.chat_template == CHATML
    assert takes_text(tokenizer)


def test_the_tokenizers_own_template_is_used(checkpoint: Path, url: str, answerer: Answerer) -> None:
    tokenizer = make_tiny_tokenizer()
    tokenizer.chat_template = CHATML.replace("\n", " ")
    assert tokenizer.chat_template != CHATML
    ours = make(checkpoint, url, tokenizer)
    assert tokenizer.chat_template != CHATML
    assert ours.losses([(QUESTIONS[1], "A")]) != answerer.losses([(QUESTIONS[1], "A")])


def test_a_template_that_rewrites_the_prompt_is_refused(checkpoint: Path, url: str) -> None:
    tokenizer = make_tiny_tokenizer()
    tokenizer.chat_template = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(UsageError, match="rewrites earlier turns"):
        make(checkpoint, url, tokenizer)


def test_a_model_that_nothing_ends_is_refused(checkpoint: Path, url: str) -> None:
    tokenizer = make_tiny_tokenizer()
    tokenizer.eos_token = None
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    with pytest.raises(UsageError, match="nothing ends an answer"):
        make(checkpoint, url, tokenizer)


def test_a_checkpoint_is_loaded_with_the_markers_it_was_trained_with(
    checkpoint: Path, url: str, tmp_path: Path
) -> None:
    lmms = add_tokenizer(rename_to_lmms_lab(checkpoint, tmp_path / "lmms"))
    answers = {}
    for model, markers in ((checkpoint, "video"), (lmms, "row")):
        settings = EvaluationSettings.create({"store": url, "pretrained": str(model), "dtype": "float32"})
        loaded = load_answerer(settings, torch.device("cpu"))
        assert loaded.view == View(markers=markers)
        # Its own marker, not that of the store, which was made up.
        assert not torch.equal(loaded.lm.row_marker, loaded.store.row_marker)
        answers[markers] = loaded.generate(QUESTIONS[:1], LONG)[0].input_tokens
    assert answers["row"] - answers["video"] == 2 * 3 - 1


def test_markers_that_nobody_has_are_refused(checkpoint: Path, url: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    bare = tmp_path / "bare"
    bare.mkdir()
    for file in checkpoint.iterdir():
        (bare / file.name).write_bytes(file.read_bytes())
    tensors = load_file(bare / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if k != "image_newline"}, bare / "model.safetensors")
    store = tmp_path / "store"
    sharded_store(str(store), [1], info=make_info(token_dim=32), frames=1)
    (store / "row_marker.safetensors").unlink()
    settings = {"store": str(store), "pretrained": str(bare), "dtype": "float32"}
    with pytest.raises(UsageError, match="has a row marker for markers=row"):
        load_answerer(EvaluationSettings.create({**settings, "markers": "row"}), torch.device("cpu"))
    assert load_answerer(EvaluationSettings.create(settings), torch.device("cpu")).view.markers == "none"


def test_a_checkpoint_without_a_tokenizer_is_refused(url: str, tmp_path: Path) -> None:
    model = make_tiny_llava(tmp_path / "mute")
    with pytest.raises(CheckpointError, match="no tokenizer"):
        load_answerer(EvaluationSettings.create({"store": url, "pretrained": str(model)}), torch.device("cpu"))
