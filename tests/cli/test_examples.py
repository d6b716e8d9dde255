"""The files under docs/examples are well formed and use flags that there are."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import Ran

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SCRIPTS = sorted([*EXAMPLES.glob("*.sh"), *EXAMPLES.glob("*.sbatch")])
FILES = [*SCRIPTS, *sorted(EXAMPLES.glob("*.yaml"))]


def commands(path: Path) -> list[tuple[str, set[str]]]:
    """`dyntok COMMAND ...` of a file, each with its flags; lines that go on are joined."""
    text = re.sub(r"\\\n\s*", " ", path.read_text())
    if path.suffix == ".yaml":
        text = yaml.safe_load(text)["spec"]["entrypoint"]
    found = re.findall(r"\bdyntok (encode|plan|status) ([^\n]*)", text)
    return [(name, set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest))) for name, rest in found]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_flags_of_an_example_are_there(path: Path, cli: Callable[..., Ran]) -> None:
    found = commands(path)
    assert found
    for name, flags in found:
        known = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", cli(name, "--help").stdout))
        assert flags <= known, f"{path.name}: dyntok {name}"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_an_example_is_a_script(path: Path) -> None:
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_ray_job_asks_for_what_its_nodes_have() -> None:
    job: dict[str, Any] = yaml.safe_load((EXAMPLES / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    flags = dict(re.findall(r"--([a-z-]+) ([^\s-][^\s]*)", job["spec"]["entrypoint"]))
    group = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    pod = group["template"]["spec"]
    limits = pod["containers"][0]["resources"]["limits"]
    gpus = int(limits["nvidia.com/gpu"])
    assert int(flags["actors"]) == gpus * group["replicas"]
    assert int(flags["cpus-per-actor"]) * gpus <= int(limits["cpu"])
    assert float(flags["grace-period"]) < pod["terminationGracePeriodSeconds"]
