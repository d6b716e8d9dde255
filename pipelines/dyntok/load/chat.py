"""Conversations into token ids: which of them are learned, and where the video goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dyntok.errors import UsageError
from dyntok.load.sequence import IGNORED_LABEL, Conversation, TokenSequence, expand
from dyntok.load.stream import StreamSample

Message = dict[str, str]

PLACEHOLDERS = ("<image>", "<video>")
_ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The template of Qwen2, for tokenizers that come without one: `tokenizer.chat_template = dyntok.load.CHATML`."""


def messages_of(row: Mapping[str, Any], where: str = "a row of annotations") -> list[Message]:
    """The conversation of one annotation as `[{"role": "system|user|assistant", "content": text}, ...]`.

    Reads LLaVA's `conversations` (`from` human or gpt, `value`), `messages` (`role`, `content`), and the two columns
    `question` and `answer`, the latter optional.

    Raises:
        UsageError: the row has none of them, or a turn is not text; the message begins with `where`.
    """
    for key, role, content in (("conversations", "from", "value"), ("messages", "role", "content")):
        turns = row.get(key)
        if turns is not None:
            return [_turn(turn, role, content, where) for turn in turns]
    if row.get("question") is None:
        raise UsageError(
            f"{where} holds no conversation",
            hint="give it `conversations` (LLaVA), `messages`, or `question` and `answer`",
        )
    pair = [("user", row["question"]), ("assistant", row.get("answer"))]
    return [_turn({"role": role, "content": text}, "role", "content", where) for role, text in pair if text]


def _turn(turn: Any, role: str, content: str, where: str) -> Message:
    try:
        name, text = _ROLES[turn[role]], turn[content]
    except (KeyError, TypeError) as error:
        raise UsageError(
            f"{where} has a turn that is not {{{role}, {content}}} with a known {role}: {turn!r:.200}",
            hint=f"{role} is one of {', '.join(_ROLES)}",
        ) from error
    if not isinstance(text, str):
        raise UsageError(f"{where} has a turn whose {content} is no text: {turn!r:.200}")
    return {"role": name, "content": text}


class ChatTokenizer:
    """Tokenises conversations about one video with the chat template of a Hugging Face tokenizer.

    Learned is what the assistant says, its end-of-turn token included: everything between the generation prompt and
    the next turn. Text is tokenised in these pieces, so that a training sample begins exactly as the prompt at
    inference. `<image>` or `<video>` in the text stands for the video; without either, it goes before the first
    user turn, on a line of its own.

    Args:
        tokenizer: has `apply_chat_template` and a chat template (`CHATML` is Qwen2's), and is called for ids.
        placeholder_id: stands in `input_ids` where the video goes. Any id that no text has: that of a special token
            `<video>`, or LLaVA's -200.
    """

    def __init__(self, tokenizer: Any, placeholder_id: int) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise UsageError(
                "the tokenizer has no chat template",
                hint="set tokenizer.chat_template, to dyntok.load.CHATML for Qwen2",
            )
        self.tokenizer = tokenizer
        self.placeholder_id = placeholder_id

    def __call__(self, sample: StreamSample) -> TokenSequence:
        """The sequence of a stream's sample, as a `TokenStream`'s transform.

        Raises UsageError as `encode` does, naming the video.
        """
        ids, labels = self.text(sample.annotation, sample.id)
        talk = Conversation(sample.id, ids, labels, sample.video, sample.position)
        return expand(talk, self.placeholder_id, sample.markers)

    def text(self, annotation: Mapping[str, Any] | None, video_id: str) -> tuple[Tensor, Tensor]:
        """`input_ids` and `labels` of an annotation about a video, as `encode` gives them."""
        if annotation is None:
            raise UsageError(f"{video_id} comes without an annotation", hint="give the stream annotations=")
        try:
            return self.encode(messages_of(annotation, f"the annotation of {video_id}"))
        except UsageError as error:
            raise UsageError(f"{video_id}: {error.message}", hint=error.hint) from error

    def encode(self, messages: Sequence[Message], *, video: bool = True) -> tuple[Tensor, Tensor]:
        """`input_ids` and `labels` `[L]` int64 of a whole conversation; labels are -100 outside assistant turns.

        Without `video` the conversation is about none, and no placeholder is looked for.

        Raises UsageError: there is not exactly one placeholder, or the template rewrites earlier turns when a later
        one is added.
        """
        pieces = list(self._pieces(messages, False, video))
        labels = [label for ids, learned in pieces for label in (ids if learned else [IGNORED_LABEL] * len(ids))]
        return torch.tensor([number for ids, _ in pieces for number in ids]), torch.tensor(labels)

    def prompt(self, messages: Sequence[Message], *, video: bool = True) -> Tensor:
        """`input_ids [L]` up to where the assistant is to speak, for `generate`. As `encode` otherwise."""
        return torch.tensor([number for ids, _ in self._pieces(messages, True, video) for number in ids])

    def _pieces(self, messages: Sequence[Message], to_answer: bool, video: bool) -> Iterator[tuple[list[int], bool]]:
        """Ids piece by piece, and whether they are learned: what comes before an assistant's turn, then the turn."""
        messages, ids = (with_placeholder(messages), self._ids) if video else (messages, self._plain)
        done = ""
        for number, message in enumerate(messages, 1):
            if message["role"] == "assistant":
                prompt = render(self.tokenizer, messages[: number - 1], True)
                answer = render(self.tokenizer, messages[:number], False)
                yield ids(_rest(prompt, done)), False
                yield ids(_rest(answer, prompt)), True
                done = answer
        yield ids(_rest(render(self.tokenizer, messages, to_answer), done)), False

    def _ids(self, text: str) -> list[int]:
        """Token ids of a piece of rendered text, the placeholder's id where a placeholder stands."""
        for placeholder in PLACEHOLDERS:
            before, found, after = text.partition(placeholder)
            if found:
                return [*self._plain(before), self.placeholder_id, *self._plain(after)]
        return self._plain(text)

    def _plain(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def render(tokenizer: Any, messages: Sequence[Message], prompt: bool) -> str:
    """A conversation as the tokenizer's chat template writes it; with `prompt`, up to where the assistant speaks."""
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=prompt))


def with_placeholder(messages: Sequence[Message]) -> list[Message]:
    """The conversation with exactly one placeholder, put before the first user turn where there was none."""
    count = sum(message["content"].count(placeholder) for message in messages for placeholder in PLACEHOLDERS)
    if count == 1:
        return list(messages)
    if count > 1:
        raise UsageError(
            f"the conversation holds {count} placeholders, not one",
            hint="write <video> once, where the video goes",
        )
    first = next((at for at, message in enumerate(messages) if message["role"] == "user"), None)
    if first is None:
        raise UsageError("the conversation has no user turn and no <video>", hint="write <video> where it goes")
    asked = {**messages[first], "content": f"<video>\n{messages[first]['content']}"}
    return [*messages[:first], asked, *messages[first + 1 :]]


def _rest(text: str, start: str) -> str:
    if not text.startswith(start):
        raise UsageError(
            "the chat template rewrites earlier turns when a later one is added, so what is learned is ambiguous",
            hint="use a template that only appends, such as dyntok.load.CHATML",
        )
    return text[len(start) :]
