"""Only the needed bytes are read: in memory, and from the hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from dyntok.testing import make_tiny_llava
from dyntok.vision import describe_model

GIB = 2**30

LOAD_AND_MEASURE = """
import resource, sys
import dyntok.vision.tower
from dyntok.vision import describe_model, load_encoder
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
fingerprint = describe_model(sys.argv[1]).fingerprint
encoder = load_encoder(sys.argv[1])
assert encoder.spec.fingerprint == fingerprint
print(fingerprint, peak() - before)
"""


def run_python(code: str, *args: str, **env: str) -> str:
    environment = {**os.environ, "TRANSFORMERS_VERBOSITY": "error", "OMP_NUM_THREADS": "1", **env}
    done = subprocess.run(
        [sys.executable, "-c", code, *args], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def add_sparse_llm(file: Path, gib: int) -> None:
    """Append LLM tensors that take no room on disk: a hole of `gib` GiB behind the real tensors."""
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    start = len(data)
    for number in range(gib):
        end = start + GIB
        header[f"language_model.model.layers.{number}.hole"] = {
            "dtype": "F16",
            "shape": [GIB // 2],
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    os.truncate(file, 8 + len(text) + start)


def test_a_large_llm_is_never_in_memory(tiny_llava: Path, tmp_path: Path) -> None:
    folder = make_tiny_llava(tmp_path / "large")
    add_sparse_llm(folder / "model.safetensors", gib=12)
    if (folder / "model.safetensors").stat().st_blocks * 512 > GIB:
        pytest.skip("the file system of the temporary folder has no sparse files")

    fingerprint, grown = run_python(LOAD_AND_MEASURE, str(folder)).split()

    assert fingerprint == describe_model(str(tiny_llava)).fingerprint
    assert int(grown) < 200 * 2**20


class Hub(ThreadingHTTPServer):
    """The few answers of a model hub that a download needs; `asked` lists the files that were asked for."""

    def __init__(self, repo: str, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.repo, self.folder = repo, folder
        self.commit = sha1(repo.encode()).hexdigest()
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class HubHandler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def answer(self, *, body: bool) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        files = sorted(file for file in hub.folder.iterdir())
        if path.startswith(f"/api/models/{hub.repo}/tree/"):
            tree = [
                {
                    "type": "file",
                    "path": f.name,
                    "size": f.stat().st_size,
                    "oid": sha1(f.read_bytes()).hexdigest(),
                }
                for f in files
            ]
            self.send(json.dumps(tree).encode(), body=body)
        elif path.startswith(f"/api/models/{hub.repo}"):
            siblings = [{"rfilename": file.name} for file in files]
            info = {"id": hub.repo, "modelId": hub.repo, "sha": hub.commit, "siblings": siblings, "tags": []}
            self.send(json.dumps(info).encode(), body=body)
        elif path.startswith(f"/{hub.repo}/resolve/"):
            name = path.rsplit("/", 1)[-1]
            hub.asked.append(name)
            self.send((hub.folder / name).read_bytes(), body=body)
        else:
            self.send(b"{}", body=body, status=404, error="RepoNotFound")

    def send(self, content: bytes, *, body: bool, status: int = 200, error: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.server.commit)
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = make_tiny_llava(tmp_path / "served", max_shard_size="20KB")
    server = Hub("someone/tiny-llava", folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


DESCRIBE = """
import sys
from dyntok.errors import CheckpointError
from dyntok.vision import describe_model
for model in sys.argv[1:]:
    try:
        spec = describe_model(model)
        print(spec.name, spec.fingerprint)
    except CheckpointError as error:
        print("error:", error, "hint:", error.hint)
assert "transformers" not in sys.modules
"""


def test_only_needed_shards_are_downloaded(hub: Hub, tiny_llava: Path, tmp_path: Path) -> None:
    settings = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "cache")}
    settings |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
    index = json.loads((hub.folder / "model.safetensors.index.json").read_text())["weight_map"]
    shards, needed = (
        set(index.values()),
        {s for key, s in index.items() if not key.startswith("language_model")},
    )
    assert shards > needed

    lines = run_python(DESCRIBE, hub.repo, "someone/other", **settings).splitlines()

    assert lines[0] == f"{hub.repo} {describe_model(str(tiny_llava)).fingerprint}"
    assert {name for name in hub.asked if name.endswith(".safetensors")} <= needed
    assert lines[1].startswith("error: cannot get someone/other from the hub") and "spelling" in lines[1]

    offline = run_python(DESCRIBE, hub.repo, **{**settings, "HF_HUB_OFFLINE": "1"})
    assert offline.strip() == lines[0]
