"""An HTTP proxy that misbehaves on request: what a client of an object store has to live with.

It stands before a real server (moto), so that the errors a client sees are those of its own stack, from the socket up.
"""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIECE = 1 << 16
_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}
_ERROR_BODY = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"


@dataclass
class Fault:
    """What happens to the requests that match, from the `skip`-th on, `times` times (-1: for ever).

    `what`: `status` (answer with `status`/`code`), `reset` (cut the connection without an answer), `short` (cut it in
    the middle of the answer's body), `stall` (answer nothing until the proxy closes), `late` (do the request, then
    cut the connection, so that its success is not heard of), or `call` (call `action`, then forward). `action` is
    called first, or, with `late`, when the request is done.
    """

    what: str
    method: str = ".*"
    path: str = ".*"
    skip: int = 0
    times: int = 1
    status: int = 503
    code: str = "SlowDown"
    action: Callable[[], None] | None = None
    seen: int = 0
    done: int = 0

    def takes(self, method: str, path: str) -> bool:
        if not (re.fullmatch(self.method, method) and re.search(self.path, path)):
            return False
        self.seen += 1
        if self.seen <= self.skip or self.done == self.times:
            return False
        self.done += 1
        return True


@dataclass
class FaultyProxy:
    """Forwards to `127.0.0.1:port`. `latency_s` is added to every request; `bytes_per_s` bounds each connection."""

    port: int
    latency_s: float = 0.0
    bytes_per_s: float = float("inf")
    faults: list[Fault] = field(default_factory=list)
    log: list[tuple[str, str]] = field(default_factory=list)
    bytes_out: int = 0
    bytes_in: int = 0

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.closing = threading.Event()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, what: str, **how: Any) -> Fault:
        """Add a fault and return it; its `done` counts how often it struck."""
        fault = Fault(what, **how)
        with self.lock:
            self.faults.append(fault)
        return fault

    def clear(self) -> None:
        with self.lock:
            self.faults.clear()
            self.log.clear()
            self.bytes_in = self.bytes_out = 0

    def count(self, method: str, path: str = ".*") -> int:
        """Requests so far that match."""
        with self.lock:
            return sum(bool(re.fullmatch(method, m) and re.search(path, p)) for m, p in self.log)

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed in the middle are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._upstream: http.client.HTTPConnection | None = None

    def finish(self) -> None:
        super().finish()
        if self._upstream is not None:
            self._upstream.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def _serve(self) -> None:
        proxy = self.proxy
        with proxy.lock:
            proxy.log.append((self.command, self.path))
            fault = next((f for f in proxy.faults if f.takes(self.command, self.path)), None)
        what = fault.what if fault else ""
        if fault is not None and fault.action is not None and what != "late":
            fault.action()
        if what == "stall":
            proxy.closing.wait()
        if what in ("reset", "stall"):
            return self._cut()
        time.sleep(proxy.latency_s)
        body = self._body()
        if fault is not None and what == "status":
            return self._refuse(fault)
        answer = self._ask(body)
        if fault is not None and what == "late":
            answer.read()
            if fault.action is not None:
                fault.action()
            return self._cut()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        # The length of a HEAD's answer is that of what GET would give.
        length = answer.getheader("Content-Length")
        data_length = int(length) if length else 0
        chunked = answer.read() if length is None and self.command != "HEAD" else None
        self.send_header("Content-Length", str(len(chunked) if chunked is not None else data_length))
        self.end_headers()
        if self.command == "HEAD":
            answer.read()
            return None
        if chunked is not None:
            self._send(chunked)
            return None
        left = data_length
        stop = data_length // 2 if what == "short" else -1
        while left:
            data = answer.read(min(PIECE, left))
            if not data:
                return self._cut()
            self._send(data)
            left -= len(data)
            if 0 <= stop >= left:
                return self._cut()
        return None

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self._receive(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(parts)
        return self._receive(int(self.headers.get("Content-Length") or 0))

    def _receive(self, count: int) -> bytes:
        parts = []
        while count:
            data = self.rfile.read(min(PIECE, count))
            if not data:
                break
            parts.append(data)
            count -= len(data)
            self._pace(len(data))
            with self.proxy.lock:
                self.proxy.bytes_in += len(data)
        return b"".join(parts)

    def _send(self, data: bytes) -> None:
        for begin in range(0, len(data), PIECE):
            piece = data[begin : begin + PIECE]
            self._pace(len(piece))
            self.wfile.write(piece)
            with self.proxy.lock:
                self.proxy.bytes_out += len(piece)

    def _pace(self, count: int) -> None:
        if self.proxy.bytes_per_s != float("inf"):
            time.sleep(count / self.proxy.bytes_per_s)

    def _ask(self, body: bytes) -> http.client.HTTPResponse:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        headers["Content-Length"] = str(len(body))
        for attempt in range(2):
            if self._upstream is None:
                self._upstream = http.client.HTTPConnection("127.0.0.1", self.proxy.port, timeout=60)
            try:
                self._upstream.request(self.command, self.path, body, headers)
                return self._upstream.getresponse()
            except (http.client.HTTPException, OSError):
                self._upstream.close()
                self._upstream = None
                if attempt:
                    raise
        raise AssertionError

    def _refuse(self, fault: Fault) -> None:
        body = _ERROR_BODY.format(code=fault.code, message=f"{fault.code} on purpose").encode()
        self.send_response(fault.status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _cut(self) -> None:
        """Reset the connection, as a dead host or a firewall does."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
