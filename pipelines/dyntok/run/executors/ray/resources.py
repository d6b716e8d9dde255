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
    counted = [(machine, places(machine, gpus)) for machine in machines]
    usable = [(machine, count) for machine, count in counted if count > 0]
    if not config.actors and not usable and gpus:
        raise ConfigError(
            "no GPU was found to start an actor on", hint="give --actors N, or --device cpu to do without"
        )
    actors = config.actors or sum(count for _, count in usable) or 1
    workers = config.decode_workers or _workers(config, usable, actors, bool(gpus))
    return Demand(actors, float(config.cpus_per_actor or workers), gpus, workers, device)


def places(machine: Machine, gpus: float) -> int:
    """Actors for which a machine has room by its GPUs, or one where they take none. A share lies within one GPU."""
    if machine.cpus < 1:
        return 0
    return int(machine.gpus) * int(1 / gpus + 1e-9) if gpus else 1


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
        share = min(machine.cpus / count for machine, count in usable)
    else:
        share = min(machine.cpus for machine, _ in usable) / math.ceil(actors / len(usable))
    return max(1, min(int(share), MOST_DECODE_WORKERS))
