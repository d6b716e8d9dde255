"""How many actors to ask for, and what each of them takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dyntok.config import EncodeConfig
from dyntok.errors import ConfigError
from dyntok.run.settings import MOST_DECODE_WORKERS


@dataclass(frozen=True, slots=True)
class Machine:
    """A node, as far as actors care: usable CPUs and GPUs."""

    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True)
class Demand:
    """What to ask Ray for: `actors` of `cpus` and `gpus` each, with so many decode processes, on `device`."""

    actors: int
    cpus: float
    gpus: float
    decode_workers: int
    device: str


def demand(config: EncodeConfig, machines: Sequence[Machine]) -> Demand:
    """What the settings mean on these machines; an autoscaling cluster may have none yet.

    Raises:
        ConfigError: GPUs are asked for by `device` alone, and no machine has one yet to count.
    """
    device = config.device if config.device != "auto" else "cuda" if uses_gpus(config, machines) else "cpu"
    gpus = (1.0 if config.gpus_per_actor is None else config.gpus_per_actor) if device == "cuda" else 0.0
    places = [int(machine.gpus / gpus + 1e-9) if gpus else 1 for machine in machines if machine.cpus >= 1]
    usable = [(m, n) for m, n in zip((m for m in machines if m.cpus >= 1), places, strict=True) if n > 0]
    if not config.actors and not usable and gpus:
        raise ConfigError(
            "no GPU was found to start an actor on", hint="give --actors N, or --device cpu to do without"
        )
    actors = config.actors or sum(n for _, n in usable) or 1
    workers = config.decode_workers or _workers(config, usable, actors, bool(gpus))
    return Demand(actors, float(config.cpus_per_actor or workers), gpus, workers, device)


def uses_gpus(config: EncodeConfig, machines: Sequence[Machine]) -> bool:
    """Whether actors take GPUs."""
    if config.device != "auto":
        return config.device == "cuda"
    if config.gpus_per_actor is not None:
        return config.gpus_per_actor > 0
    return any(machine.gpus > 0 for machine in machines)


def _workers(config: EncodeConfig, usable: Sequence[tuple[Machine, int]], actors: int, on_gpus: bool) -> int:
    """Decode processes of an actor, so that the actors of a machine share its CPUs."""
    if config.cpus_per_actor is not None:
        share = config.cpus_per_actor
    elif not usable:
        share = 1.0
    elif on_gpus:
        share = min(machine.cpus / places for machine, places in usable)
    else:
        share = min(machine.cpus for machine, _ in usable) / math.ceil(actors / len(usable))
    return max(1, min(int(share), MOST_DECODE_WORKERS))
