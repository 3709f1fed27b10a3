"""A proxy before an S3 server that does to requests what networks and busy servers do.

    with FaultProxy(endpoint, seed=7, rate=0.2) as proxy, using(proxy.endpoint):
        ...                                                    # a fifth of all requests fail, one way or another
    proxy.next(Fault.LOST_ACK, method="PUT", key="_log/")      # the next such request
    proxy.count("GET", "part-0")                               # how many came
    child = Popen(..., env=os.environ | proxy.endpoint.environment())

What a random fault hits depends on the seed, the request and how often it came, never on the order of threads.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import random
import re
import socket
import struct
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

from cluster import s3_client
from cluster.seaweed import Endpoint

PIECE = 1 << 20
BY_PROXY = "<Message>by the proxy</Message>"


class Fault(StrEnum):
    """What can happen to a request."""

    SLOW_DOWN = "SlowDown"  # 503, not done
    INTERNAL_ERROR = "InternalError"  # 500, not done
    CONFLICT = "ConditionalRequestConflict"  # 409, not done: a conditional write met another one
    RESET = "reset"  # the connection breaks before the server has the request
    LOST_ACK = "lost acknowledgement"  # done, but the connection breaks before the answer
    TRUNCATE = "truncated"  # done, but the answer ends half-way through its body
    ERROR_IN_200 = "error in 200"  # not done, and told with status 200, as AWS does at the end of long work
    STALL = "stall"  # nothing for `stall` seconds, then the connection breaks
    DENIED = "AccessDenied"  # 403, not done
    GONE = "NoSuchUpload"  # 404, not done
    ACCEPTED = "accepted"  # 200, not done: as of a write without its condition, by a server that knows none
    UNDELETED = "undeleted"  # 200, but the answer says that none of the keys could be deleted


STATUS = {
    Fault.SLOW_DOWN: 503,
    Fault.INTERNAL_ERROR: 500,
    Fault.CONFLICT: 409,
    Fault.ERROR_IN_200: 200,
    Fault.DENIED: 403,
    Fault.GONE: 404,
}
AT_RANDOM = (Fault.SLOW_DOWN, Fault.INTERNAL_ERROR, Fault.CONFLICT, Fault.RESET, Fault.LOST_ACK, Fault.TRUNCATE)


class Request(NamedTuple):
    """One that came: `key` is the decoded path with its query."""

    method: str
    key: str
    range: str | None
    fault: Fault | None


@dataclass
class _Planned:
    fault: Fault
    method: str | None
    key: str
    after: int
    left: int


class FaultProxy:
    """Listens on a port of loopback until the block ends. `rate` may be changed at any time."""

    def __init__(
        self,
        endpoint: Endpoint,
        seed: int = 0,
        rate: float = 0.0,
        kinds: Sequence[Fault] = AT_RANDOM,
        stall: float = 1.0,
    ) -> None:
        self.rate, self.stall = rate, stall
        self.requests: list[Request] = []
        self.connections = 0  # that clients opened so far
        self._seed, self._kinds = seed, tuple(kinds)
        self._seen: Counter[str] = Counter()
        self._planned: list[_Planned] = []
        self._lock = threading.Lock()
        address = urllib.parse.urlsplit(endpoint.url)
        handler = type("Handler", (_Handler,), {"proxy": self, "server_at": (address.hostname, address.port)})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.endpoint = replace(endpoint, url=f"http://127.0.0.1:{self._server.server_port}")

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def next(self, fault: Fault, method: str | None = None, key: str = "", times: int = 1, after: int = 0) -> None:
        """Let that happen to the next `times` requests of that method whose path or query contains `key`, but spare
        the first `after` of them. Goes before what happens at random; several calls queue up."""
        with self._lock:
            self._planned.append(_Planned(fault, method, key, after, times))

    def count(self, method: str | None = None, key: str = "") -> int:
        """Requests that came so far, those that failed included."""
        with self._lock:
            return sum(method in (None, request.method) and key in request.key for request in self.requests)

    def faults(self) -> Counter[Fault]:
        """What was done so far."""
        with self._lock:
            return Counter(request.fault for request in self.requests if request.fault is not None)

    def clear(self) -> None:
        """Forget requests and connections that came, and what was to happen next."""
        with self._lock:
            self.requests.clear()
            self.connections = 0
            self._planned.clear()

    def judge(self, method: str, key: str, asked_range: str | None, conditional: bool) -> Fault | None:
        """What is to happen to this request."""
        with self._lock:
            fault = self._next_planned(method, key)
            if fault is None and self.rate > 0:
                fault = self._by_chance(method, key, asked_range, conditional)
            self.requests.append(Request(method, key, asked_range, fault))
            return fault

    def _next_planned(self, method: str, key: str) -> Fault | None:
        for planned in self._planned:
            if planned.left > 0 and planned.method in (None, method) and planned.key in key:
                if planned.after > 0:
                    planned.after -= 1
                    return None
                planned.left -= 1
                return planned.fault
        return None

    def _by_chance(self, method: str, key: str, asked_range: str | None, conditional: bool) -> Fault | None:
        request = f"{method} {re.sub('uploadId=[^&]*', '', key)} {asked_range}"  # the server's ids are random
        self._seen[request] += 1
        chance = random.Random(f"{self._seed} {request} {self._seen[request]}")
        kinds = [kind for kind in self._kinds if conditional or kind is not Fault.CONFLICT]
        return chance.choice(kinds) if kinds and chance.random() < self.rate else None


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what this is for."""


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection of a client, with one of its own to the server."""

    proxy: FaultProxy
    server_at: tuple[str, int]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.proxy.connections += 1
        self._upstream = http.client.HTTPConnection(*self.server_at, timeout=120)

    def finish(self) -> None:
        self._upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Not to the screen."""

    def do_GET(self) -> None:
        key = urllib.parse.unquote(self.path).lstrip("/")
        conditional = "If-None-Match" in self.headers
        fault = self.proxy.judge(self.command, key, self.headers.get("Range"), conditional)
        body = self._body()
        if fault in STATUS:
            told = Fault.INTERNAL_ERROR if fault is Fault.ERROR_IN_200 else fault
            self._answer(STATUS[fault], f"<Error><Code>{told}</Code>{BY_PROXY}</Error>")
        elif fault is Fault.ACCEPTED:
            self._answer(200, "")
        elif fault is Fault.UNDELETED:
            failed = "".join(
                f"<Error>{key}<Code>{Fault.INTERNAL_ERROR}</Code>{BY_PROXY}</Error>"
                for key in re.findall("<Key>.*?</Key>", body.decode())
            )
            self._answer(200, f"<DeleteResult>{failed}</DeleteResult>")
        elif fault is Fault.RESET:
            self._reset()
        elif fault is Fault.STALL:
            time.sleep(self.proxy.stall)
            self._reset()
        else:
            answer = self._forward(body)
            if fault is Fault.LOST_ACK:
                answer.read()
                self._reset()
            else:
                self._relay(answer, fault is Fault.TRUNCATE)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while line := self.rfile.readline():
            size = int(line.split(b";")[0], 16)
            pieces.append(line + self.rfile.read(size + 2))
            if size == 0:
                break
        return b"".join(pieces)  # as it came, for it is sent on with the same headers

    def _forward(self, body: bytes) -> http.client.HTTPResponse:
        """The server's answer. Headers go as they came: they are signed, the proxy's own address among them."""
        self._upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() != "expect":
                self._upstream.putheader(name, value)
        self._upstream.endheaders(body or None)
        return self._upstream.getresponse()

    def _relay(self, answer: http.client.HTTPResponse, truncated: bool) -> None:
        self.send_response_only(answer.status, answer.reason)
        length = answer.length if self.command != "HEAD" else None
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection"):
                self.send_header(name, value)
        held = None
        if length is None and self.command != "HEAD" and answer.status not in (204, 304):
            held = answer.read()
            length = len(held)
            self.send_header("Content-Length", str(length))
        self.end_headers()
        left = (length or 0) // 2 if truncated else length or 0
        if held is not None:
            self.wfile.write(held[:left])
        else:
            while left > 0 and (piece := answer.read(min(left, PIECE))):
                self.wfile.write(piece)
                left -= len(piece)
        if truncated:
            self.close_connection = True  # the rest, of this answer and of the server's, is never read
            self._upstream.close()
        else:
            answer.read()

    def _answer(self, status: int, xml: str) -> None:
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n{xml}'.encode() if xml else b""
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        """Break the connection as a lost peer would: RST, no farewell."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


@contextlib.contextmanager
def using(endpoint: Endpoint) -> Iterator[None]:
    """Send the stores and inputs of this process there for the block."""
    before = {name: os.environ.get(name) for name in endpoint.environment()}
    os.environ.update(endpoint.environment())
    s3_client.forget()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        s3_client.forget()
