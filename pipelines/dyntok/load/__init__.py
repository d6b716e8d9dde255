"""Reads stores into tensors: random access, any threshold, any budget, any subset of frames.

Needs `store` and `merging` alone: importing it loads no decoder, no transformers and no Ray, so that a training job's
import stays light.
"""

from dyntok.load.access import Store, StoredVideo, open_store
from dyntok.load.samples import decode_sample

__all__ = ["Store", "StoredVideo", "decode_sample", "open_store"]
