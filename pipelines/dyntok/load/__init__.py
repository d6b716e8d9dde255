"""Reads stores into tensors (random access, any threshold, budget or subset of frames), and tensors into batches.

`access` reads one video, `stream` an epoch of them; `sequence`, `chat` and `batches` make what an LLM takes. Needs
`store` and `merging` alone: importing it loads no decoder, no transformers and no Ray, so that a training job's import
stays light.
"""

from dyntok.load.access import Selection, Store, StoredVideo, open_store
from dyntok.load.annotations import Annotations, open_annotations
from dyntok.load.batch_stream import BatchStream, TextEncoder
from dyntok.load.batches import pack_batch, pad_batch, splice
from dyntok.load.chat import CHATML, ChatTokenizer, messages_of
from dyntok.load.samples import decode_sample
from dyntok.load.sequence import Conversation, TokenSequence, expand
from dyntok.load.stream import StreamSample, TokenStream

__all__ = [
    "CHATML",
    "Annotations",
    "BatchStream",
    "ChatTokenizer",
    "Conversation",
    "Selection",
    "Store",
    "StoredVideo",
    "StreamSample",
    "TextEncoder",
    "TokenSequence",
    "TokenStream",
    "decode_sample",
    "expand",
    "messages_of",
    "open_annotations",
    "open_store",
    "pack_batch",
    "pad_batch",
    "splice",
]
