"""Reads stores into tensors (random access, any threshold, budget or subset of frames), and tensors into batches.

Needs `store` and `merging` alone: importing it loads no decoder, no transformers and no Ray, so that a training job's
import stays light.
"""

from dyntok.load.access import Store, StoredVideo, open_store
from dyntok.load.batches import pack_batch, pad_batch, splice
from dyntok.load.samples import decode_sample
from dyntok.load.sequence import Conversation, TokenSequence, expand

__all__ = [
    "Conversation",
    "Store",
    "StoredVideo",
    "TokenSequence",
    "decode_sample",
    "expand",
    "open_store",
    "pack_batch",
    "pad_batch",
    "splice",
]
