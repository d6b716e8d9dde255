from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dyntok.errors import UsageError
from dyntok.load import Conversation, expand, pack_batch, pad_batch, splice
from dyntok.merging import VideoTokens, merge

PLACEHOLDER, VOCABULARY, DIM = 99, 50, 8
MODES = ("row", "frame", "video", "none")


def video_of(seed: int, frames: int = 2, rows: int = 3, cols: int = 4) -> VideoTokens:
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn((frames, rows, cols, 3), generator=rng).cumsum(2)
    return merge(torch.randn((frames, rows, cols, DIM), generator=rng), features, 0.5)


def conversation(seed: int, before: int = 3, after: int = 4) -> Conversation:
    rng = torch.Generator().manual_seed(seed)
    text = torch.randint(1, VOCABULARY, (before + after,), generator=rng)
    ids = torch.cat([text[:before], torch.tensor([PLACEHOLDER]), text[before:]])
    labels = ids.clone()
    labels[: before + 1] = -100
    return Conversation(f"video-{seed}", ids, labels, video_of(seed, frames=1 + seed % 3))


def by_hand(talk: Conversation, mode: str, table: torch.Tensor, marker: torch.Tensor) -> torch.Tensor:
    """One vector after the other, as the definition reads."""
    frames, rows, _ = talk.video.similarity.shape
    out = []
    for token in talk.input_ids.tolist():
        if token != PLACEHOLDER:
            out.append(table[token])
            continue
        for row in range(frames * rows):
            low, high = int(talk.video.row_splits[row]), int(talk.video.row_splits[row + 1])
            out += list(talk.video.tokens[low:high])
            if mode == "row" or (mode == "frame" and row % rows == rows - 1):
                out.append(marker)
        if mode == "video":
            out.append(marker)
    return torch.stack(out)


@settings(max_examples=40, deadline=None)
@given(
    seeds=st.lists(st.integers(0, 1000), min_size=1, max_size=5),
    mode=st.sampled_from(MODES),
    packed=st.booleans(),
)
def test_the_splice_is_what_one_would_do_by_hand(seeds: list[int], mode: str, packed: bool) -> None:
    talks = [conversation(seed, seed % 4, 1 + seed % 5) for seed in seeds]
    table, marker = torch.randn(VOCABULARY, DIM), torch.randn(DIM)
    sequences = [expand(talk, PLACEHOLDER, mode) for talk in talks]  # type: ignore[arg-type]
    batch = pack_batch(sequences) if packed else pad_batch(sequences)
    embeds = splice(batch, lambda ids: table[ids], marker)
    starts = batch["cu_seq_lens_q"].tolist() if packed else None
    for number, (talk, sequence) in enumerate(zip(talks, sequences, strict=True)):
        row, first = (0, starts[number]) if starts else (number, 0)
        here = (row, slice(first, first + len(sequence)))
        assert torch.equal(embeds[here], by_hand(talk, mode, table, marker))
        assert batch["position_ids"][here].tolist() == list(range(len(sequence)))
        learned = batch["labels"][here][batch["labels"][here] != -100]
        expected = talk.labels[talk.labels != -100]
        # The first position of a packed sequence has no predecessor to predict it.
        assert learned.tolist() == expected[len(expected) - len(learned) :].tolist()
        assert len(expected) - len(learned) <= int(packed and talk.labels[0] != -100)
    assert batch["visual_tokens"].shape[0] == sum(len(talk.video) for talk in talks)


def test_left_padding_is_the_same_rows_moved_right() -> None:
    sequences = [expand(conversation(seed, seed, 1 + seed), PLACEHOLDER, "row") for seed in (0, 3, 6)]
    table, marker = torch.randn(VOCABULARY, DIM), torch.randn(DIM)
    batches = {side: pad_batch(sequences, side=side) for side in ("right", "left")}  # type: ignore[arg-type]
    right, left = (splice(batch, lambda ids: table[ids], marker) for batch in batches.values())
    length = right.shape[1]
    for row, sequence in enumerate(sequences):
        size = len(sequence)
        assert torch.equal(left[row, length - size :], right[row, :size])
        for name in ("input_ids", "labels", "position_ids", "attention_mask"):
            assert torch.equal(batches["left"][name][row, length - size :], batches["right"][name][row, :size])
        assert not batches["left"]["attention_mask"][row, : length - size].any()


def test_gradients_reach_tokens_marker_and_embeddings() -> None:
    batch = pad_batch([expand(conversation(seed), PLACEHOLDER, "row") for seed in (1, 2)])
    batch["visual_tokens"].requires_grad_()
    table, marker = torch.nn.Embedding(VOCABULARY, DIM), torch.nn.Parameter(torch.randn(DIM))
    splice(batch, table, marker).sum().backward()  # type: ignore[no-untyped-call]
    assert batch["visual_tokens"].grad.eq(1).all()
    assert marker.grad is not None
    assert marker.grad.eq(batch["marker_index"].numel()).all()
    assert table.weight.grad is not None
    # Padding and the stand-in for placeholders use row 0; only padding may send a gradient there.
    padding = int((batch["attention_mask"] == 0).sum())
    assert table.weight.grad[0].eq(padding).all()


def test_padding_is_neither_attended_nor_learned() -> None:
    batch = pad_batch([expand(conversation(1), PLACEHOLDER), expand(conversation(5, 9, 9), PLACEHOLDER)], pad_id=7)
    off = batch["attention_mask"] == 0
    assert off.any()
    assert batch["input_ids"][off].eq(7).all()
    assert batch["labels"][off].eq(-100).all()


def test_packed_logits_equal_single_ones() -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=DIM, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, vocab_size=VOCABULARY,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    marker = torch.randn(DIM)
    sequences = [expand(conversation(seed), PLACEHOLDER) for seed in (3, 4, 5)]

    def logits(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        embeds = splice(batch, model.get_input_embeddings(), marker)
        with torch.no_grad():
            result: torch.Tensor = model(
                inputs_embeds=embeds, position_ids=batch["position_ids"], use_cache=False
            ).logits
        return result

    packed = logits(pack_batch(sequences))[0]
    single = torch.cat([logits(pack_batch([sequence]))[0] for sequence in sequences])
    torch.testing.assert_close(packed, single, atol=1e-5, rtol=1e-4)


def test_what_does_not_fit_is_refused() -> None:
    talk = conversation(1)
    with pytest.raises(UsageError, match="0 placeholders"):
        expand(talk, 98)
    batch = pad_batch([expand(talk, PLACEHOLDER)])
    with pytest.raises(UsageError, match="no row marker"):
        splice(batch, torch.nn.Embedding(VOCABULARY, DIM), None)
    with pytest.raises(UsageError, match="do not fit"):
        splice(batch, torch.nn.Embedding(VOCABULARY, DIM + 1), torch.zeros(DIM + 1))
    with pytest.raises(UsageError, match="at least one"):
        pack_batch([])
    with pytest.raises(UsageError, match="right or the left"):
        pad_batch([expand(talk, PLACEHOLDER)], side="both")  # type: ignore[arg-type]
    cut = {name: value[:1] if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
    with pytest.raises(UsageError, match="came with 1"):
        splice(cut, torch.nn.Embedding(VOCABULARY, DIM), torch.zeros(DIM))
    assert splice(pad_batch([expand(talk, PLACEHOLDER, "none")]), torch.nn.Embedding(VOCABULARY, DIM), None).ndim == 3


def test_no_packed_sequence_is_asked_to_predict_the_next_ones_beginning() -> None:
    talks = [conversation(seed) for seed in (1, 2)]
    learned = [Conversation(t.id, t.input_ids, t.input_ids.clone(), t.video) for t in talks]
    batch = pack_batch([expand(talk, PLACEHOLDER) for talk in learned])
    starts = batch["cu_seq_lens_q"][:-1].long()
    assert batch["labels"][0, starts].eq(-100).all()
    assert batch["labels"][0, starts + 1].ne(-100).all()
