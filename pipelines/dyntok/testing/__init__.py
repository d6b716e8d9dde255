"""Fakes and checks that users' own tests can reuse: tiny checkpoints, a tokenizer, a simulated accelerator.

May import anything of dyntok; nothing but tests imports it. Heavy libraries are imported inside functions.
"""

from dyntok.testing.checkpoints import (
    make_tiny_llava,
    make_tiny_siglip,
    make_tiny_siglip2,
    rename_to_lmms_lab,
)
from dyntok.testing.simulated import SimulatedEncoder
from dyntok.testing.tokenizers import make_tiny_tokenizer

__all__ = [
    "SimulatedEncoder",
    "make_tiny_llava",
    "make_tiny_siglip",
    "make_tiny_siglip2",
    "make_tiny_tokenizer",
    "rename_to_lmms_lab",
]
