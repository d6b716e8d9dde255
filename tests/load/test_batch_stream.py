from __future__ import annotations

import json
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dyntok.errors import UsageError
from dyntok.load import CHATML, BatchStream, ChatTokenizer, Store, TokenStream, splice
from dyntok.testing import make_tiny_tokenizer
from tests.load.conftest import questions

PLACEHOLDER, DIM = 191, 8


@pytest.fixture(scope="module")
def chat() -> ChatTokenizer:
    return ChatTokenizer(make_tiny_tokenizer(CHATML), PLACEHOLDER)


def batches_of(store: Store, chat: ChatTokenizer, epoch: int = 0, **options: Any) -> BatchStream:
    rows = questions(store.ids)
    own = {name: options.pop(name) for name in ("rank", "world_size", "markers", "budget") if name in options}
    stream = TokenStream(store, thresholds=[0.4, 0.6], annotations=rows, seed=5, **own)
    stream.set_epoch(epoch)
    return BatchStream(stream, chat, **{"max_tokens": 500, "window": 7} | options)


def single(store: Store, chat: ChatTokenizer, epoch: int = 0) -> dict[int, Any]:
    """Every sequence of the epoch on its own, by position."""
    stream = TokenStream(store, thresholds=[0.4, 0.6], annotations=questions(store.ids), seed=5, transform=chat)
    stream.set_epoch(epoch)
    return {sequence.position: sequence for sequence in stream}  # type: ignore[misc]


def flat(batch: dict[str, Any]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Ids, labels and embeddings of each sequence of a batch, without padding."""
    table, marker = torch.arange(200 * DIM).reshape(200, DIM).float(), torch.full((DIM,), -1.0)
    embeds = splice(batch, lambda ids: table[ids], marker)
    out = []
    for number in range(len(batch["position"])):
        if "cu_seq_lens_q" in batch:
            row, here = 0, slice(*batch["cu_seq_lens_q"][number : number + 2].tolist())
        else:
            row, here = number, slice(0, int(batch["attention_mask"][number].sum()))
        out.append((batch["input_ids"][row, here], batch["labels"][row, here], embeds[row, here]))
    return out


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("window", [1, 7, 100])
def test_batches_conserve_every_token_and_label(many: Store, chat: ChatTokenizer, packed: bool, window: int) -> None:
    alone = single(many, chat)
    seen: list[int] = []
    for batch in batches_of(many, chat, packed=packed, window=window):
        seen += batch["position"].tolist()
        assert batch["input_ids"].numel() <= 500
        size = 500 if packed else batch["input_ids"].numel()
        used = sum(len(alone[position]) for position in batch["position"].tolist())
        assert batch["waste"] == pytest.approx(1 - used / size)
        for position, (ids, labels, embeds) in zip(batch["position"].tolist(), flat(batch), strict=True):
            expected = alone[position]
            assert torch.equal(ids, expected.input_ids)
            assert torch.equal(labels[1:], expected.labels[1:])
            assert labels[0] == -100
            visual = embeds[expected.visual_index]
            assert torch.equal(visual, expected.visual_tokens.float())
        assert batch["ids"] == [alone[position].id for position in batch["position"].tolist()]
    assert sorted(seen) == sorted(alone)


def test_wider_windows_waste_less(many: Store, chat: ChatTokenizer) -> None:
    def waste(**options: Any) -> float:
        batches = list(batches_of(many, chat, **options))
        return sum(batch["waste"] for batch in batches) / len(batches)

    assert waste(window=100) < waste(window=1)
    assert waste(window=100) < 0.15
    assert waste(window=100, packed=False) < 0.1


def test_lengths_are_known_before_tokens_are_read(many: Store, chat: ChatTokenizer) -> None:
    stream = TokenStream(many, annotations=questions(many.ids), markers="frame")
    for step in stream.cursor.begin():
        draft = stream.draft(step)
        assert draft is not None
        sample = stream.load(draft)
        assert sample is not None
        sequence = chat(sample)
        ids, _ = chat.text(draft.annotation, draft.stored.id)
        assert len(sequence) == len(ids) - 1 + len(draft.selection)


def what(batch: dict[str, Any]) -> tuple[Any, ...]:
    return batch["position"].tolist(), batch["input_ids"].tolist(), batch["visual_tokens"].tolist()


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("stop", [1, 3, 4])
def test_a_resumed_stream_makes_the_same_batches(many: Store, chat: ChatTokenizer, workers: int, stop: int) -> None:
    expected = [what(batch) for batch in DataLoader(batches_of(many, chat, 2), batch_size=None, num_workers=workers)]
    batches = batches_of(many, chat, 2)
    loader = DataLoader(batches, batch_size=None, num_workers=workers)
    taken = []
    for batch in islice(loader, stop):
        taken.append(what(batch))
        if workers:
            batches.mark(batch)
    state = json.loads(json.dumps(batches.state_dict()))
    resumed = batches_of(many, chat)
    resumed.load_state_dict(state)
    rest = [what(batch) for batch in DataLoader(resumed, batch_size=None, num_workers=workers)]
    assert taken + rest == expected


def test_other_ranks_go_on_with_what_is_left(many: Store, chat: ChatTokenizer) -> None:
    seen: list[int] = []
    states = []
    for rank in range(2):
        batches = batches_of(many, chat, rank=rank, world_size=2)
        for batch in islice(batches, 1 + rank):
            seen += batch["position"].tolist()
        states.append(batches.state_dict())
    for rank in range(3):
        batches = batches_of(many, chat, rank=rank, world_size=3)
        batches.load_state_dict(states)
        for batch in batches:
            seen += batch["position"].tolist()
    assert sorted(seen) == list(range(2 * len(many)))


def test_what_is_too_long_is_refused_or_reported(many: Store, chat: ChatTokenizer) -> None:
    alone = single(many, chat)
    limit = sorted(len(sequence) for sequence in alone.values())[-4]
    long = sorted((s.id, len(s)) for s in alone.values() if len(s) > limit)
    assert long
    with pytest.raises(UsageError, match=f"more than max_tokens={limit}"):
        list(batches_of(many, chat, max_tokens=limit))
    batches = batches_of(many, chat, max_tokens=limit, too_long="drop")
    out = list(batches)
    assert sorted(pair for batch in out for pair in batch["dropped"]) == long
    assert sum(len(batch["ids"]) for batch in out) + len(long) == len(alone)
    assert batches.state_dict()["prefix"] == len(alone)


def test_what_makes_no_sense_is_refused(many: Store, chat: ChatTokenizer) -> None:
    stream = TokenStream(many, annotations=questions(many.ids), transform=chat)
    with pytest.raises(UsageError, match="has a transform"):
        BatchStream(stream, chat, max_tokens=10)
    for options in ({"max_tokens": 0}, {"window": 0}, {"too_long": "cut"}):
        with pytest.raises(UsageError, match="no such choice"):
            batches_of(many, chat, **options)
