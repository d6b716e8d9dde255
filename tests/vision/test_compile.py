"""torch.compile changes the speed, not the result; without a compiler the user is told so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dyntok.vision import load_encoder

WITHOUT_COMPILER = """
from dyntok.errors import ConfigError
from dyntok.vision import load_encoder
try:
    load_encoder("demo", compile=True, device="cpu")
except ConfigError as error:
    print(error.message, "|", error.hint)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no C++ compiler")
@pytest.mark.filterwarnings("default")
def test_compiled_equals_eager(frames: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    # A model this small is compiled before the processes that could help have been started.
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)
    eager = load_encoder("demo").encode(frames)
    compiled = load_encoder("demo", compile=True).encode(frames)
    torch.testing.assert_close(compiled.tokens, eager.tokens, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(compiled.features, eager.features, atol=1e-4, rtol=1e-4)


def test_without_a_compiler(tmp_path: Path) -> None:
    environment = {**os.environ, "CXX": str(tmp_path / "none"), "PATH": str(tmp_path)}
    environment["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path / "cache")
    environment["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "torch.compile does not work on cpu" in done.stdout
    assert "--compile" in done.stdout
