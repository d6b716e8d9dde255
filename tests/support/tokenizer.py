"""A small real tokenizer for the tiny checkpoints of `dyntok.testing`."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

TEXT = [
    "What is in the video?",
    "The man in the street wears a helmet.",
    "Answer with the letter.",
    "It is red.",
]


def small_tokenizer() -> Any:
    """Byte-level BPE over ASCII with ChatML's special tokens, every id below 180, and no chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=180,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXT, string.printable], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )


def add_tokenizer(checkpoint: Path) -> Path:
    """Put the tokenizer into a checkpoint folder, and return the folder."""
    small_tokenizer().save_pretrained(checkpoint)
    return checkpoint
