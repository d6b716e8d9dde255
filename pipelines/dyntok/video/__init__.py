"""From a hostile file to the frames asked for: sniffing, the frame index, sampling, two decoders, and the pool of
killable decode processes. Imports records, errors, PyAV, decord, numpy, torch and fsspec; no model, no store.
"""

from dyntok.video.decode import DecodedVideo, decode_frames, probe_video
from dyntok.video.events import DecodeEvent, DecodeTask, Failed, Finished, Frames, Opened
from dyntok.video.pool import DecodePool
from dyntok.video.resize import resize_frame
from dyntok.video.settings import DecodeLimits, DecodeSettings, Sampling

__all__ = [
    "DecodeEvent",
    "DecodeLimits",
    "DecodePool",
    "DecodeSettings",
    "DecodeTask",
    "DecodedVideo",
    "Failed",
    "Finished",
    "Frames",
    "Opened",
    "Sampling",
    "decode_frames",
    "probe_video",
    "resize_frame",
]
