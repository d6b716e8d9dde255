"""The LLM of a checkpoint, and `TokenLM` under transformers, against transformers' own models and Trainer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from dyntok.adapters.huggingface import TokenLM, load_language_model
from dyntok.errors import CheckpointError, UsageError
from dyntok.load import Conversation, TokenSequence, expand, pack_batch, pad_batch
from dyntok.merging import merge
from dyntok.testing import make_tiny_llava, make_tiny_siglip, rename_to_lmms_lab
from dyntok.vision.files import CheckpointFiles
from tests.vision.test_reading import Hub, run_python

PLACEHOLDER, DIM = 191, 32


def sequence(seed: int, dim: int = DIM) -> TokenSequence:
    """Text of some length around a video of 1 to 3 frames of 3 x 4; learned after it, and at the first position."""
    rng = torch.Generator().manual_seed(seed)
    frames = 1 + seed % 3
    features = torch.randn((frames, 3, 4, 3), generator=rng).cumsum(2)
    video = merge(torch.randn((frames, 3, 4, dim), generator=rng), features, 0.5)
    ids = torch.randint(1, 180, (8 + seed % 5,), generator=rng)
    ids[3] = PLACEHOLDER
    labels = ids.clone()
    labels[1:4] = -100
    return expand(Conversation(f"video-{seed}", ids, labels, video, position=seed), PLACEHOLDER)


SEQUENCES = [sequence(seed) for seed in range(5)]
MARKER = torch.randn(DIM, generator=torch.Generator().manual_seed(9))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llava(tmp_path_factory.mktemp("llava") / "tiny")


@pytest.fixture(scope="module")
def whole(checkpoint: Path) -> Any:
    from transformers import LlavaOnevisionForConditionalGeneration

    return LlavaOnevisionForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()


def copy_with(source: Path, folder: Path, tensors: dict[str, Tensor], **config: Any) -> Path:
    """A checkpoint with other tensors and changes to config.json."""
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    data = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**data, **config}))
    return folder


def renamed(checkpoint: Path, old: str, new: str) -> dict[str, Tensor]:
    tensors = load_file(checkpoint / "model.safetensors")
    return {key.replace(old, new, 1) if key.startswith(old) else key: value for key, value in tensors.items()}


def in_memory_names(checkpoint: Path, folder: Path) -> Path:
    tensors = renamed(checkpoint, "language_model.model.", "model.language_model.")
    tensors["lm_head.weight"] = tensors.pop("language_model.lm_head.weight")
    return copy_with(checkpoint, folder, tensors)


# the checkpoint's LLM ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["hub", "sharded", "in memory", "lmms-lab"])
def test_every_layout_gives_the_whole_models_llm(checkpoint: Path, whole: Any, tmp_path: Path, layout: str) -> None:
    from transformers import Qwen2ForCausalLM

    folder = {
        "hub": lambda: checkpoint,
        "sharded": lambda: make_tiny_llava(tmp_path / "sharded", max_shard_size="20KB"),
        "in memory": lambda: in_memory_names(checkpoint, tmp_path / "memory"),
        "lmms-lab": lambda: rename_to_lmms_lab(checkpoint, tmp_path / "lmms"),
    }[layout]()
    model = load_language_model(str(folder))

    assert isinstance(model, Qwen2ForCausalLM)
    assert (model.training, model.dtype) == (False, torch.float32)
    own = model.state_dict()
    body = {f"model.{name}": value for name, value in whole.model.language_model.state_dict().items()}
    expected = {**body, "lm_head.weight": whole.lm_head.weight}
    assert own.keys() == expected.keys()
    assert all(torch.equal(own[name], expected[name]) for name in own)
    ids = torch.arange(1, 12)[None]
    assert torch.equal(model(ids).logits, whole(ids).logits)


def test_nothing_but_the_llm_is_read(tmp_path: Path) -> None:
    folder = make_tiny_llava(tmp_path / "sharded", max_shard_size="20KB")
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    needed = {file for key, file in index.items() if key.startswith("language_model.")}
    others = set(index.values()) - needed
    assert others
    for file in others:
        (folder / file).unlink()
    load_language_model(str(folder))


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    server = Hub("someone/tiny-llava", make_tiny_llava(tmp_path / "served", max_shard_size="20KB"))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


EMBEDDING_FROM_HUB = """
import sys
from dyntok.adapters.vllm import load_embedding
load_embedding(sys.argv[1])
"""
MODEL_FROM_HUB = """
import sys
from dyntok.adapters.huggingface import load_language_model
from dyntok.errors import CheckpointError
print(sum(float(value.sum()) for value in load_language_model(sys.argv[1]).state_dict().values()))
try:
    load_language_model("someone/other")
except CheckpointError as error:
    print(error.message)
"""


@pytest.mark.slow
def test_only_the_llms_shards_are_downloaded(hub: Hub, checkpoint: Path, tmp_path: Path) -> None:
    settings = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "cache")}
    settings |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
    index = json.loads((hub.folder / "model.safetensors.index.json").read_text())["weight_map"]
    llm = {file for key, file in index.items() if key.startswith("language_model.")}
    assert set(index.values()) > llm

    run_python(EMBEDDING_FROM_HUB, hub.repo, **settings)
    asked = {name for name in hub.asked if name.endswith(".safetensors")}
    assert asked == {index["language_model.model.embed_tokens.weight"]}

    total, nothing = run_python(MODEL_FROM_HUB, hub.repo, **settings).splitlines()
    assert {name for name in hub.asked if name.endswith(".safetensors")} == llm
    own = load_language_model(str(checkpoint)).state_dict().values()
    assert float(total) == pytest.approx(sum(float(value.sum()) for value in own))
    assert nothing.startswith("cannot get someone/other from the hub")


def test_tensors_beside_the_llms_stay_in_the_file(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, asked = CheckpointFiles.read, []
    monkeypatch.setattr(CheckpointFiles, "read", lambda self, names: asked.extend(names) or read(self, names))
    load_language_model(str(checkpoint))
    assert len(asked) == 27
    assert all(name.startswith(("model.layers.", "model.embed", "model.norm.", "lm_head.")) for name in asked)


@pytest.mark.parametrize("said_by", ["both", "text_config", "top"])
def test_tied_embeddings_stay_tied(checkpoint: Path, tmp_path: Path, said_by: str) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    del tensors["language_model.lm_head.weight"]
    text = json.loads((checkpoint / "config.json").read_text())["text_config"]
    text["tie_word_embeddings"] = said_by != "top"
    folder = copy_with(
        checkpoint, tmp_path / "tied", tensors, text_config=text, tie_word_embeddings=said_by != "text_config"
    )
    model = load_language_model(str(folder))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(model.lm_head.weight, tensors["language_model.model.embed_tokens.weight"])


def test_a_head_that_differs_is_not_tied_away(checkpoint: Path, whole: Any, tmp_path: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    folder = copy_with(checkpoint, tmp_path / "odd", tensors, tie_word_embeddings=True)
    assert torch.equal(load_language_model(str(folder)).lm_head.weight, whole.lm_head.weight)


def test_the_model_is_its_own(checkpoint: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    before = (checkpoint / "model.safetensors").read_bytes()
    model = load_language_model(str(checkpoint), dtype=torch.bfloat16, attn_implementation="eager")
    assert model.dtype == torch.bfloat16
    assert model.config._attn_implementation == "eager"
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert (checkpoint / "model.safetensors").read_bytes() == before
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert not again.model.embed_tokens.weight.any()


def test_generation_settings_come_along(checkpoint: Path, tmp_path: Path) -> None:
    folder = copy_with(checkpoint, tmp_path / "with", load_file(checkpoint / "model.safetensors"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 8], "top_k": 20}))
    generation = load_language_model(str(folder)).generation_config
    assert (generation.eos_token_id, generation.top_k) == ([7, 8], 20)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("language_model.model.norm.weight", None, r"lacks 1 tensors .* model\.norm\.weight"),
        ("language_model.lm_head.weight", None, r"lacks 1 tensors .* lm_head\.weight"),
        ("language_model.model.norm.weight", torch.ones(31), r"model\.norm\.weight has shape \[31\]"),
        ("lm_head.weight", torch.ones(200, 32), "holds lm_head.weight twice"),
    ],
)
def test_what_does_not_fit_is_named(
    checkpoint: Path, tmp_path: Path, key: str, value: Tensor | None, message: str
) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    tensors.pop(key, None)
    tensors |= {} if value is None else {key: value}
    with pytest.raises(CheckpointError, match=message):
        load_language_model(str(copy_with(checkpoint, tmp_path / "bad", tensors)))


def test_other_models_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="language model of"):
        load_language_model(str(make_tiny_siglip(tmp_path / "siglip")))
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        load_language_model(str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match="no revision"):
        load_language_model(str(checkpoint), revision="main")
    lmms = rename_to_lmms_lab(checkpoint, tmp_path / "lmms")
    config = json.loads((lmms / "config.json").read_text())
    (lmms / "config.json").write_text(json.dumps({**config, "architectures": ["LlavaMptForCausalLM"]}))
    with pytest.raises(CheckpointError, match="LlavaMptForCausalLM"):
        load_language_model(str(lmms))
    (lmms / "model.safetensors").unlink()
    (lmms / "config.json").write_text(json.dumps(config))
    (lmms / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(CheckpointError, match="no safetensors"):
        load_language_model(str(lmms))
    (lmms / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(CheckpointError, match="cannot read") as caught:
        load_language_model(str(lmms))
    assert "git lfs" in (caught.value.hint or "")


# TokenLM -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["language model", "whole model"])
def model(request: pytest.FixtureRequest, checkpoint: Path, whole: Any) -> Any:
    return whole if request.param == "whole model" else load_language_model(str(checkpoint))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_and_padded_are_one_by_one(model: Any, attention: str) -> None:
    before = model.config._attn_implementation
    model.set_attn_implementation(attention)
    lm = TokenLM(model, MARKER)
    with torch.no_grad():
        single = [lm(**pad_batch([one])) for one in SEQUENCES]
        packed = lm(**pack_batch(SEQUENCES))
        right, left = (lm(**pad_batch(SEQUENCES, side=side)).logits for side in ("right", "left"))
    model.set_attn_implementation(before)
    rows = packed.logits[0].split([len(one) for one in SEQUENCES])
    for number, out in enumerate(single):
        length = len(SEQUENCES[number])
        for actual in (rows[number], right[number, :length], left[number, -length:]):
            torch.testing.assert_close(actual, out.logits[0], atol=1e-5, rtol=0)
    # The mean over all labels, in which a sequence's first one has no place.
    counts = torch.tensor([int((one.labels[1:] != -100).sum()) for one in SEQUENCES])
    losses = torch.stack([out.loss for out in single])
    torch.testing.assert_close(packed.loss, (losses * counts).sum() / counts.sum(), atol=1e-6, rtol=0)


def test_generation_goes_on_where_each_prompt_ends(model: Any) -> None:
    lm = TokenLM(model, MARKER)
    settings = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    together = lm.generate(pad_batch(SEQUENCES, side="left"), **settings)
    assert together.shape == (5, 4)
    for one, written in zip(SEQUENCES, together, strict=True):
        embeds = lm.inputs_embeds(pad_batch([one])).detach()
        for token in written:
            with torch.no_grad():
                assert model(inputs_embeds=embeds).logits[0, -1].argmax() == token
            embeds = torch.cat([embeds, model.get_input_embeddings()(token[None])[None].detach()], 1)


@pytest.mark.parametrize("batch", [pack_batch(SEQUENCES), pad_batch(SEQUENCES)], ids=["packed", "right"])
def test_generation_refuses_prompts_that_do_not_end_at_the_end(model: Any, batch: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        TokenLM(model, MARKER).generate(batch)
    assert 'side="left"' in (caught.value.hint or "")


class Recorder(nn.Module):
    """Notes what a model is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(200, DIM)
        text = SimpleNamespace(_attn_implementation="sdpa")
        self.config = SimpleNamespace(get_text_config=lambda: text)
        self.given: dict[str, Any] = {}

    def get_input_embeddings(self) -> nn.Embedding:
        return self.table

    def forward(self, **given: Any) -> Any:
        self.given = given
        return SimpleNamespace(logits=given["inputs_embeds"])


@pytest.mark.parametrize("packed", [True, False])
def test_a_model_is_given_what_tells_sequences_apart(packed: bool) -> None:
    batch = pack_batch(SEQUENCES) if packed else pad_batch(SEQUENCES)
    recorder = Recorder()
    TokenLM(recorder, MARKER)(**batch, ids=["a"], waste=0.5, dropped=[], num_items_in_batch=torch.tensor(3))
    expected = {"inputs_embeds", "labels", "position_ids", "use_cache", "num_items_in_batch"}
    if not packed:
        expected |= {"attention_mask"}
    else:
        expected |= {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx"}
        assert recorder.given["max_length_q"] == max(len(one) for one in SEQUENCES)
    assert recorder.given.keys() == expected
    assert recorder.given["use_cache"] is False


def test_gradients_go_where_they_are_wanted(checkpoint: Path) -> None:
    model = load_language_model(str(checkpoint))
    project = nn.Linear(8, DIM)
    batch = pack_batch([sequence(seed, dim=8) for seed in range(3)])
    lm = TokenLM(model, MARKER, train_row_marker=True, project=project)
    lm(**batch).loss.backward()
    for name, parameter in lm.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    assert torch.equal(MARKER, torch.randn(DIM, generator=torch.Generator().manual_seed(9)))

    fixed = TokenLM(model, MARKER, project=project)
    assert "row_marker" not in dict(fixed.named_parameters())
    assert torch.equal(fixed.state_dict()["row_marker"], MARKER)
    with pytest.raises(UsageError, match="row marker to start from"):
        TokenLM(model, None, train_row_marker=True)


def test_checkpointing_activations_changes_nothing(checkpoint: Path) -> None:
    grads = []
    for enable in (False, True):
        lm = TokenLM(load_language_model(str(checkpoint)), MARKER, train_row_marker=True).train()
        if enable:
            lm.activation_checkpointing_enable()
        assert lm.model.is_activation_checkpointing is enable
        lm(**pack_batch(SEQUENCES)).loss.backward()
        grads.append([parameter.grad for parameter in lm.parameters()])
    for plain, saved in zip(*grads, strict=True):
        torch.testing.assert_close(plain, saved, atol=1e-6, rtol=0)
    with pytest.raises(AttributeError, match="TokenLM"):
        lm.nothing  # noqa: B018


def test_a_batch_that_was_cut_is_noticed(model: Any) -> None:
    batch = {name: value[:1] if isinstance(value, Tensor) else value for name, value in pack_batch(SEQUENCES).items()}
    with pytest.raises(UsageError, match="was cut") as caught:
        TokenLM(model, MARKER)(**batch)
    assert "dispatch_batches" in (caught.value.hint or "")


def test_tied_weights_are_saved_once_and_come_back(checkpoint: Path, tmp_path: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    del tensors["language_model.lm_head.weight"]
    folder = copy_with(checkpoint, tmp_path / "tied", tensors, tie_word_embeddings=True)
    lm = TokenLM(load_language_model(str(folder)), MARKER)
    with torch.no_grad():
        lm.model.lm_head.weight.add_(1)
    save_file(lm.state_dict(), tmp_path / "state.safetensors")
    other = TokenLM(load_language_model(str(folder)), torch.zeros(DIM))
    other.load_state_dict(load_file(tmp_path / "state.safetensors"))
    assert torch.equal(other.model.lm_head.weight, lm.model.lm_head.weight)
    assert other.model.lm_head.weight is other.model.model.embed_tokens.weight
    assert other.row_marker is not None
    assert torch.equal(other.row_marker, MARKER)


# transformers' own Trainer -----------------------------------------------------------------------------------


class Endless(IterableDataset[TokenSequence]):
    def __iter__(self) -> Iterator[TokenSequence]:
        yield from (sequence(seed) for seed in range(1000))


@pytest.mark.parametrize("collate", [pack_batch, pad_batch])
def test_the_trainer_trains_it_as_a_plain_loop_would(checkpoint: Path, tmp_path: Path, collate: Any) -> None:
    from transformers import Trainer, TrainingArguments

    rate, accumulate, steps, size = 0.1, 2, 3, 4
    lm = TokenLM(load_language_model(str(checkpoint)), MARKER, train_row_marker=True)
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"),
        max_steps=steps,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulate,
        optim="sgd",
        learning_rate=rate,
        lr_scheduler_type="constant",
        max_grad_norm=0,
        remove_unused_columns=False,
        accelerator_config={"dispatch_batches": False},
        dataloader_pin_memory=False,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    Trainer(model=lm, args=arguments, train_dataset=Endless(), data_collator=collate).train()

    other = TokenLM(load_language_model(str(checkpoint)), MARKER, train_row_marker=True).train()
    everything = iter(Endless())
    for _ in range(steps):
        batches = [collate([next(everything) for _ in range(size)]) for _ in range(accumulate)]
        counts = [int((batch["labels"][:, 1:] != -100).sum()) for batch in batches]
        other.zero_grad()
        for batch, count in zip(batches, counts, strict=True):
            (other(**batch).loss * count / sum(counts)).backward()
        with torch.no_grad():
            for parameter in other.parameters():
                parameter -= rate * parameter.grad
    for (name, actual), expected in zip(lm.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0, msg=name)
    assert isinstance(lm.row_marker, nn.Parameter)
    assert not torch.equal(lm.row_marker, MARKER)
