"""A tokenizer that needs no download: one token a printable ASCII character."""

from __future__ import annotations

import string
from typing import Any

SPECIAL = ("<unk>", "<pad>", "<|im_start|>", "<|im_end|>")


def make_tiny_tokenizer(chat_template: str | None = None) -> Any:
    """A `PreTrainedTokenizerFast` of 104 tokens with ChatML's special ones; `<pad>` is 1, the end of a turn is 3.

    `chat_template` is set if given. `save_pretrained` writes it as any tokenizer.
    """
    from tokenizers import AddedToken, Regex, Tokenizer
    from tokenizers.decoders import Fuse
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *string.printable))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = Fuse()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="<|im_end|>"
    )
    if chat_template is not None:
        wrapped.chat_template = chat_template
    return wrapped
