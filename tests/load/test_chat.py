from __future__ import annotations

from typing import Any

import pytest

from dyntok.errors import UsageError
from dyntok.load import CHATML, ChatTokenizer, messages_of
from dyntok.testing import make_tiny_tokenizer

PLACEHOLDER = 191


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tiny_tokenizer(CHATML)


@pytest.fixture
def chat(tokenizer: Any) -> ChatTokenizer:
    return ChatTokenizer(tokenizer, PLACEHOLDER)


TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Look: <video> What is it?"},
    {"role": "assistant", "content": "A cat."},
    {"role": "user", "content": "Sure?"},
    {"role": "assistant", "content": "Yes."},
]


def text_of(tokenizer: Any, ids: list[int]) -> str:
    return "".join("<video>" if i == PLACEHOLDER else tokenizer.decode([i]) for i in ids)


def test_what_the_assistant_says_is_learned_and_nothing_else(chat: ChatTokenizer, tokenizer: Any) -> None:
    ids, labels = chat.encode(TALK)
    assert ids.shape == labels.shape
    assert text_of(tokenizer, ids.tolist()) == tokenizer.apply_chat_template(TALK, tokenize=False)
    learned = labels[labels != -100]
    assert tokenizer.decode(learned.tolist()) == "A cat.<|im_end|>\nYes.<|im_end|>\n"
    assert (ids[labels != -100] == learned).all()
    assert (ids == PLACEHOLDER).sum() == 1


def test_a_prompt_is_how_the_training_sample_begins(chat: ChatTokenizer, tokenizer: Any) -> None:
    ids, labels = chat.encode(TALK)
    for turn, role in ((2, "A cat."), (4, "Yes.")):
        prompt = chat.prompt(TALK[:turn])
        assert ids[: len(prompt)].tolist() == prompt.tolist()
        assert text_of(tokenizer, ids.tolist())[len(text_of(tokenizer, prompt.tolist())) :].startswith(role)
        assert labels[len(prompt)] != -100
        assert labels[len(prompt) - 1] == -100


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [{"from": "human", "value": "<image>\nHi"}, {"from": "gpt", "value": "Ho"}]},
        {"messages": [{"role": "user", "content": "<image>\nHi"}, {"role": "assistant", "content": "Ho"}]},
        {"question": "<image>\nHi", "answer": "Ho"},
    ],
)
def test_every_form_of_annotation_is_one_conversation(row: dict[str, Any]) -> None:
    assert messages_of(row) == [
        {"role": "user", "content": "<image>\nHi"},
        {"role": "assistant", "content": "Ho"},
    ]


def test_a_question_may_be_without_an_answer() -> None:
    assert messages_of({"question": "Hi"}) == [{"role": "user", "content": "Hi"}]


def test_without_a_placeholder_the_video_comes_first(chat: ChatTokenizer, tokenizer: Any) -> None:
    ids, _ = chat.encode([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}])
    assert "user\n<video>\nHi<|im_end|>" in text_of(tokenizer, ids.tolist())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "no conversation"),
        ({"conversations": [{"from": "robot", "value": "x"}]}, "known from"),
        ({"conversations": ["x"]}, "known from"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "is no text"),
    ],
)
def test_what_is_no_conversation_is_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        messages_of(row)


def test_videos_must_stand_once(chat: ChatTokenizer) -> None:
    with pytest.raises(UsageError, match="2 placeholders"):
        chat.encode([{"role": "user", "content": "<video> <image>"}])
    with pytest.raises(UsageError, match="no user turn"):
        chat.prompt([{"role": "system", "content": "Hi"}])
    with pytest.raises(UsageError, match=r"v\.mp4: .*2 placeholders"):
        chat.text({"question": "<video><video>"}, "v.mp4")
    with pytest.raises(UsageError, match="without an annotation"):
        chat.text(None, "v.mp4")


def test_a_template_that_rewrites_is_refused() -> None:
    rewriting = make_tiny_tokenizer("{{ messages|length }}{% for m in messages %}{{ m['content'] }}{% endfor %}")
    with pytest.raises(UsageError, match="rewrites earlier turns") as caught:
        ChatTokenizer(rewriting, PLACEHOLDER).encode(TALK)
    assert "CHATML" in str(caught.value.hint)
    with pytest.raises(UsageError, match="no chat template"):
        ChatTokenizer(make_tiny_tokenizer(), PLACEHOLDER)
