"""A real HTTP server on this machine that answers as it is told to, once a request, and then as a model would."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

Answer = tuple[int, dict[str, str], bytes]
DIMENSIONS = 4


@dataclass
class ModelServer:
    """`faults` are taken first, one for each request, in whatever order these come: an answer, or what does it to the
    open connection. Then `embed` says what each text has; a text that raises ValueError is refused with status 400."""

    address: str = ""
    faults: list[Answer | Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)  # their bodies
    headers: list[dict[str, str]] = field(default_factory=list)
    embed: Callable[[str], list[float]] = lambda text: [len(text), text.count("a"), text.count("b"), 1.0]
    lock: threading.Lock = field(default_factory=threading.Lock)
    busy: int = 0
    most_busy: int = 0

    def answer(self, body: dict[str, Any]) -> Answer:
        try:
            vectors = [self.embed(text) for text in body["input"]]
        except ValueError as error:
            return 400, {}, orjson.dumps({"error": {"message": str(error)}})
        data = [{"object": "embedding", "index": k, "embedding": vector} for k, vector in enumerate(vectors)]
        return 200, {}, orjson.dumps({"object": "list", "data": data[::-1], "model": body["model"]})


@contextmanager
def model_server(**settings: Any) -> Iterator[ModelServer]:
    state = ModelServer(**settings)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                state.requests.append({"path": self.path} | body)
                state.headers.append({name.lower(): value for name, value in self.headers.items()})
                state.busy += 1
                state.most_busy = max(state.most_busy, state.busy)
                fault = state.faults.pop(0) if state.faults else None
            try:
                if callable(fault):
                    self.close_connection = True
                    fault(self)
                else:
                    self.reply(*(fault or state.answer(body)))
            finally:
                with state.lock:
                    state.busy -= 1

        def reply(self, status: int, headers: dict[str, str], data: bytes) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(data))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads, block_on_close = True, False

        def handle_error(self, request: object, client_address: object) -> None:
            """Clients that give up are part of the tests."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        state.address = f"http://127.0.0.1:{server.server_port}/v1"
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
