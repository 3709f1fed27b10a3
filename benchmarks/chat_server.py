"""A server of chat completions, in a process of its own, that speaks as OpenAI's API does and fails as it is told to.

    with chat_server("package.module:reply", Faults(latency=0.2, rate_429=0.1)) as server:
        ...  # a model at server.url
        server.told()

What it answers is a function of the request, so that answers can be foretold. It takes text and audio (`input_audio`,
`audio_url` with a data URI), and is as strict about requests as servers are: what is wrong is answered with 400. A
thread serves each connection, so hundreds of requests may be in flight.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import os
import select
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from operators.models.chat_protocol import TRIVIAL

PATH = "/v1/chat/completions"
ROOT = Path(__file__).parent.parent
Reply = Callable[[dict[str, Any]], str | dict[str, Any]]


class Faults(NamedTuple):
    """Seconds that every answer takes, and shares of requests. Which one suffers what is drawn from a hash of its body
    and of how often that body came before, so trying again may help."""

    latency: float = 0.0
    rate_429: float = 0.0  # with Retry-After
    rate_500: float = 0.0
    rate_stall: float = 0.0  # nothing at all, or a byte now and then, for as long as the client waits
    rate_malformed: float = 0.0  # JSON cut in half: the content's, where it is JSON, or the whole body's; or no choices
    rate_refusal: float = (
        0.0  # by the field `refusal`, by finish_reason, or by status 400; the trivial question is none
    )
    retry_after: int = 1  # seconds


GOOD = Faults()


class Status(Exception):  # noqa: N818  (an answer, not an error)
    """Raised by a reply: any other answer than 200."""

    def __init__(self, status: int, body: str = "", **headers: str) -> None:
        super().__init__(status)
        self.status, self.body, self.headers = status, body, headers


class ChatServer:
    """The running server, seen from outside; `url` is what `/chat/completions` is appended to."""

    def __init__(self, url: str) -> None:
        self.url = url

    def told(self) -> dict[str, Any]:
        """requests, answered (with 200 and a model's whole answer, good or bad: what would be paid for),
        most_in_flight, and how often each fault happened."""
        told: dict[str, Any] = self._get("told")
        return told

    def bodies(self) -> list[dict[str, Any]]:
        """Of all requests, in the order they came, with hashes in the place of audio."""
        bodies: list[dict[str, Any]] = self._get("bodies")
        return bodies

    def _get(self, what: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/{what}") as response:
            return orjson.loads(response.read())


@contextmanager
def chat_server(reply: str, faults: Faults = GOOD) -> Iterator[ChatServer]:
    """Runs until the block ends, or this process does. `reply`: "module:function"; it is given the request, in the
    server's process, and gives content, or a whole message, or raises Status."""
    run = "import sys; from benchmarks.chat_server import main; main(*sys.argv[1:])"
    command = [sys.executable, "-c", run, reply, orjson.dumps(faults._asdict()).decode()]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            port = process.stdout.readline().decode().strip()
            if not port:
                raise RuntimeError(f"{reply}: the server did not start")
            yield ChatServer(f"http://127.0.0.1:{port}/v1")
        finally:
            process.kill()


class _State:
    def __init__(self, reply: Reply, faults: Faults) -> None:
        self.reply, self.faults = reply, faults
        self.lock = threading.Lock()
        self.bodies: list[dict[str, Any]] = []
        self.came: Counter[bytes] = Counter()
        self.suffered: Counter[str] = Counter()
        self.answered = self.in_flight = self.most_in_flight = 0

    def told(self) -> dict[str, Any]:
        return {
            "requests": len(self.bodies),
            "answered": self.answered,
            "most_in_flight": self.most_in_flight,
            "faults": dict(self.suffered),
        }

    def enter(self, raw: bytes, shown: dict[str, Any]) -> tuple[str | None, int]:
        """Count a request; what befalls it, and a number to choose the kind by."""
        name = hashlib.sha256(raw).digest()
        with self.lock:
            self.bodies.append(shown)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            drawn = hashlib.sha256(name + b"%d" % self.came[name]).digest()
            self.came[name] += 1
            share = int.from_bytes(drawn[:6]) / 2**48
            for fault in ("429", "500", "stall", "malformed", "refusal"):
                share -= getattr(self.faults, f"rate_{fault}")
                if share < 0:
                    self.suffered[fault] += 1
                    return fault, drawn[6]
        return None, 0

    def leave(self, answered: bool) -> None:
        with self.lock:
            self.in_flight -= 1
            self.answered += answered


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state: _State

    def do_GET(self) -> None:
        with self.state.lock:
            found = self.state.told() if self.path == "/v1/told" else self.state.bodies
            data = orjson.dumps(found)
        self.send(200, data)

    def do_POST(self) -> None:
        raw = self.rfile.read(length := int(self.headers["Content-Length"]))
        if len(raw) < length:  # the client ended in the midst of it
            self.close_connection = True
            return
        try:
            body = orjson.loads(raw)
            problem = _problem(body)
            shown = _without_audio(body)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            problem, shown = f"{type(error).__name__}: {error}", {}
        fault, kind = self.state.enter(raw, shown)
        answered = False
        try:
            time.sleep(self.state.faults.latency)
            if self.path != PATH:
                self.send(404, _error(f"no path {self.path}"))
            elif problem is not None:
                self.send(400, _error(problem))
            elif fault in ("429", "500"):
                self.send(int(fault), _error("busy"), Retry_After=str(self.state.faults.retry_after))
            elif fault == "stall":
                self.stall(drip=kind % 2 == 0)
            else:
                answered = self.answer(body, shown, fault, kind)
        except Status as other:
            self.send(other.status, other.body.encode(), **other.headers)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client gave up
        finally:
            self.state.leave(answered)

    def answer(self, body: dict[str, Any], shown: dict[str, Any], fault: str | None, kind: int) -> bool:
        """Whether the client got a model's answer."""
        trivial = self.state.faults.rate_refusal > 0 and TRIVIAL in str(body["messages"][-1]["content"])
        given = '{"yes": true}' if trivial else self.state.reply(body)
        message = {"role": "assistant"} | (given if isinstance(given, dict) else {"content": given})
        reason = "stop"
        words = str(message.get("content")).split(" ")
        if fault == "refusal" and not trivial:
            if kind % 3 == 0:
                self.send(400, _error("the request was refused"))
                return False
            told = {"refusal": "I am sorry, I cannot help with that."} if kind % 3 == 1 else {}
            message, reason = message | {"content": None} | told, "stop" if told else "content_filter"
        elif len(words) > (limit := body.get("max_completion_tokens", body.get("max_tokens", len(words)))):
            message["content"], reason = " ".join(words[:limit]), "length"
        content = message.get("content") or ""
        if fault == "malformed" and kind % 2 and content.startswith("{"):
            message["content"] = content[: len(content) // 2]
            fault = None
        whole = {
            "object": "chat.completion",
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": {"prompt_tokens": len(str(shown).split()), "completion_tokens": len(words)},
        }
        if fault == "malformed" and kind % 4 < 2:
            self.send(200, orjson.dumps(whole)[:-40])
            return False
        self.send(200, orjson.dumps(whole | ({"choices": []} if fault == "malformed" else {})))
        return True

    def send(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(data))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self._headers_buffer.append(b"\r\n" + data)  # type: ignore[attr-defined]  # one write, so one packet
        self.flush_headers()

    def stall(self, drip: bool) -> None:
        """Until the client hangs up."""
        self.close_connection = True
        if drip:
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
        while not (select.select([self.connection], [], [], 0.05)[0] and not self.connection.recv(1)):
            if drip:
                self.wfile.write(b" ")

    def log_message(self, format: str, *args: object) -> None:  # noqa: ARG002
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads, block_on_close = True, False
    request_queue_size = 1024

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up, whose requests ended."""


def _error(message: str) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": "invalid_request_error"}})


def _parts(body: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(message, part) of all content that is given in parts."""
    for message in body.get("messages", []):
        if isinstance(message["content"], list):
            yield from ((message, part) for part in message["content"])


def _data(part: dict[str, Any]) -> str:
    """The base64 of an audio part."""
    if part["type"] == "input_audio":
        return str(part["input_audio"]["data"])
    return str(part["audio_url"]["url"].partition("base64,")[2])


def _problem(body: dict[str, Any]) -> str | None:
    """What is wrong with a request."""
    if not isinstance(body.get("model"), str) or not body.get("messages"):
        return "model and messages are required"
    if any(message["role"] not in ("system", "user", "assistant") for message in body["messages"]):
        return "no such role"
    for message, part in _parts(body):
        if part["type"] in ("input_audio", "audio_url"):
            if message["role"] != "user":
                return "audio belongs into messages of users"
            if base64.b64decode(_data(part), validate=True)[:4] != b"RIFF":
                return "the audio is no WAV file"
        elif part["type"] != "text" or not isinstance(part["text"], str):
            return f"no such part: {part['type']}"
    asked = body.get("response_format", {"type": "text"})
    if asked["type"] == "json_schema":
        return _not_strict(asked["json_schema"]["schema"]) if asked["json_schema"]["strict"] else None
    return None if asked["type"] in ("text", "json_object") else "no such response_format"


def _not_strict(schema: Any) -> str | None:
    """What OpenAI's strict mode refuses: objects that may have other properties, or may lack some."""
    if isinstance(schema, dict) and schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            return "additionalProperties is required to be false"
        if sorted(schema.get("required", [])) != sorted(schema.get("properties", {})):
            return "required is required to name every property"
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    return next((problem for value in inner if (problem := _not_strict(value)) is not None), None)


def _without_audio(body: dict[str, Any]) -> dict[str, Any]:
    def part_of(part: dict[str, Any]) -> dict[str, Any]:
        if part["type"] == "text":
            return part
        return {"type": part["type"], part["type"]: hashlib.sha256(_data(part).encode()).hexdigest()}

    def message_of(message: dict[str, Any]) -> dict[str, Any]:
        content = message["content"]
        return message if isinstance(content, str) else message | {"content": [part_of(part) for part in content]}

    return body | {"messages": [message_of(message) for message in body["messages"]]}


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def main(reply: str, faults: str) -> None:
    """Serve, and write the port to standard output."""
    module, _, function = reply.partition(":")
    _Handler.state = _State(getattr(importlib.import_module(module), function), Faults(**orjson.loads(faults)))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with _Server(("127.0.0.1", 0), _Handler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()
