"""From stage clocks to what holds a run up. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping

DECODE, DEVICE, WRITE = "decode", "device", "write"
DECODE_STAGES = ("index", "decode", "resize")
DEVICE_STAGES = ("model",)
COLLECT_STAGES = ("merge", "collect")
WRITE_STAGES = ("write", "commit")


def busy_shares(seconds: Mapping[str, float]) -> dict[str, float]:
    """How much of the devices' time is work, and how much is spent waiting for frames or for the writer.

    `seconds` by stage, of a run or of a stretch of it. A device is always in one of `model`, `wait` and `blocked`, so
    these add up to the time there was, whatever the number of devices: `device` is its work, `decode` its waiting for
    frames, `write` the work of what comes behind it, merging and writing. Empty before a device has done anything.
    """
    working = _sum(seconds, DEVICE_STAGES)
    waiting, blocked = seconds.get("wait", 0.0), seconds.get("blocked", 0.0)
    total = working + waiting + blocked
    if total <= 0 or working <= 0:
        return {}
    writing = max(blocked, _sum(seconds, COLLECT_STAGES), _sum(seconds, WRITE_STAGES))
    return {DECODE: waiting / total, DEVICE: working / total, WRITE: min(1.0, writing / total)}


def bottleneck(seconds: Mapping[str, float]) -> str | None:
    """`decode`, `device` or `write`: what the others wait for; None before a device has done anything.

    A device that waits for frames waits for decoding, unless the writer is as busy as the device waits: then decoding
    waits for the writer.
    """
    shares = busy_shares(seconds)
    return max((WRITE, DEVICE, DECODE), key=shares.__getitem__) if shares else None


def difference(now: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """What was added since."""
    return {stage: value - before.get(stage, 0.0) for stage, value in now.items()}


def added_up(many: list[Mapping[str, float]]) -> dict[str, float]:
    """The sum of several clocks."""
    total: dict[str, float] = {}
    for seconds in many:
        for stage, value in seconds.items():
            total[stage] = total.get(stage, 0.0) + value
    return total


def _sum(seconds: Mapping[str, float], stages: tuple[str, ...]) -> float:
    return sum(seconds.get(stage, 0.0) for stage in stages)
