from __future__ import annotations

import email.utils
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from operators.models import http
from operators.models.http import Failing, NoKey, Refused, Server, ServerError, check_address
from tests.operators.models.model_server import Answer, ModelServer, model_server

KEY = "sk-3b1f9c0d"
BODY = {"model": "m", "input": ["a text"]}
MOST = 1 << 16


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with model_server() as running:
        yield running


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would be slept before trying again."""
    slept: list[float] = []
    monkeypatch.setattr(http, "time", SimpleNamespace(sleep=slept.append, monotonic=time.monotonic, time=time.time))
    return slept


def post(server: ModelServer, timeout: float = 30.0, key_env: str | None = None) -> Any:
    return Server(server.address, key_env, timeout, 2).connect().post("embeddings", BODY, MOST)


def answer(status: int, body: str = "", **headers: str) -> Answer:
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, body.encode()


def cut_short(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"data"')


def hung_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def stalled(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(0.6)


def trickling(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(12):
        handler.wfile.write(b" ")
        time.sleep(0.05)


def test_it_posts_json_with_the_key(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_KEY", f" {KEY}\n")
    assert post(server, key_env="MODEL_KEY")["model"] == "m"
    assert server.requests == [{"path": "/v1/embeddings"} | BODY]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert server.headers[0]["content-type"] == "application/json"
    post(server)
    assert "authorization" not in server.headers[1]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504, 520, 529])
def test_what_passes_is_tried_again(server: ModelServer, pauses: list[float], status: int) -> None:
    server.faults = [answer(status, "busy")] * 4
    assert post(server)["model"] == "m"
    assert len(server.requests) == 5
    assert [round(pause / p) for pause, p in zip(pauses, [1, 2, 4, 8], strict=True)] == [1, 1, 1, 1]


@pytest.mark.parametrize("fault", [cut_short, hung_up])
def test_a_connection_that_breaks_is_tried_again(server: ModelServer, pauses: list[float], fault: Any) -> None:
    server.faults = [fault, fault]
    assert post(server)["model"] == "m"
    assert len(server.requests) == 3


@pytest.mark.parametrize("fault", [stalled, trickling])
def test_a_server_that_stalls_is_tried_again(server: ModelServer, monkeypatch: pytest.MonkeyPatch, fault: Any) -> None:
    monkeypatch.setattr(http, "PAUSE", 0.001)
    server.faults = [fault]
    assert post(server, timeout=0.3)["model"] == "m"
    assert len(server.requests) == 2


def test_an_outage_is_an_error_that_names_the_server(server: ModelServer, pauses: list[float]) -> None:
    server.faults = [answer(503, "no\nworker\x1b[31m")] * 9
    with pytest.raises(ServerError) as told:
        post(server)
    assert str(told.value) == f"{server.address}/embeddings: 6 times in a row: status 503: no worker [31m"
    assert len(server.requests) == http.TRIES == len(pauses) + 1


class Clock:
    """That goes on by what is slept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.slept = 100.0, list[float]()
        told = SimpleNamespace(sleep=self.sleep, monotonic=lambda: self.now, time=time.time)
        monkeypatch.setattr(http, "time", told)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)


def test_being_busy_is_no_try_and_ends(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    server.faults = [answer(429)] * 9 + [answer(500)] + [answer(429)] * 9
    client = Server(server.address, None, 30.0, 2, tries=2).connect()
    assert client.post("embeddings", BODY, MOST)["model"] == "m"
    assert sum(clock.slept) > http.BUSY_FOR  # but not in a row
    server.faults, clock.now = [answer(429, "slow down", Retry_After="3600")] * 99, 0.0
    with pytest.raises(ServerError, match="embeddings: busy for 600 s: status 429: slow down") as told:
        client.post("embeddings", BODY, MOST)
    assert not isinstance(told.value, Failing)
    assert clock.now == http.BUSY_FOR
    server.faults = [answer(429), answer(500), answer(429), answer(500)]
    with pytest.raises(Failing, match="2 times in a row: status 500"):
        client.post("embeddings", BODY, MOST)


def test_a_busy_server_is_not_asked_without_a_pause(server: ModelServer, pauses: list[float]) -> None:
    server.faults = [answer(429)] * 3
    Server(server.address, None, 30.0, 2, pause=0.0).connect().post("embeddings", BODY, MOST)
    assert pauses == [http.BUSY_PAUSE] * 3


def test_tries_and_pauses_are_the_servers(server: ModelServer, pauses: list[float]) -> None:
    server.faults = [answer(500)] * 9
    client = Server(server.address, None, 30.0, 1, tries=3, pause=8.0).connect()
    with pytest.raises(Failing, match="3 times in a row"):
        client.post("embeddings", BODY, MOST)
    assert [round(pause / 8) for pause in pauses] == [1, 2]


def test_requests_are_evenly_spaced(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    slept: list[float] = []
    monkeypatch.setattr(http, "time", SimpleNamespace(sleep=slept.append, monotonic=lambda: clock[0], time=time.time))
    client = Server(server.address, None, 30.0, 1, per_minute=30).connect()
    for now in (100.0, 100.0, 101.0, 200.0, 200.0):
        clock[0] = now
        client.post("embeddings", BODY, MOST)
    assert slept == [0.0, 2.0, 3.0, 0.0, 2.0]


def test_nobody_there(pauses: list[float]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(ServerError, match=rf"{address}/embeddings: 6 times in a row: NewConnectionError"):
        Server(address, None, 5.0, 1).connect().post("embeddings", BODY, MOST)


@pytest.mark.parametrize("status", [400, 403, 409, 413, 422, 424, 451])
def test_an_input_that_is_refused_is_told_apart(server: ModelServer, pauses: list[float], status: int) -> None:
    server.faults = [answer(status, '{"error": "too long"}')]
    with pytest.raises(Refused, match=f"embeddings: status {status}: .*too long"):
        post(server)
    assert pauses == []


@pytest.mark.parametrize("status", [201, 401, 402, 404, 405])
def test_anything_else_is_an_error_at_once(server: ModelServer, pauses: list[float], status: int) -> None:
    server.faults = [answer(status, "no such model " + "x " * 5_000)]
    with pytest.raises(ServerError, match=f"status {status}: no such model [x ]+$") as told:
        post(server)
    assert not isinstance(told.value, Refused)
    assert len(str(told.value)) < 500
    assert len(server.requests) == 1
    assert post(server)["model"] == "m"  # what was left unread of the error is no answer


def test_redirects_are_not_followed(server: ModelServer) -> None:
    server.faults = [answer(307, Location=f"{server.address}/elsewhere")]
    with pytest.raises(ServerError, match="status 307: .*redirects are not followed"):
        post(server)
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", ["", "<html>", "[1", '{"a": NaN}', "\xff", "[" * 10_000])
def test_an_answer_that_is_no_json(server: ModelServer, pauses: list[float], body: str) -> None:
    server.faults = [(200, {}, body.encode("latin-1"))] * (http.TRIES + 1)
    with pytest.raises(Failing, match="embeddings: 6 times in a row: the answer is no JSON"):
        post(server)
    assert post(server)["model"] == "m"  # it may pass


def test_an_answer_is_bounded(server: ModelServer) -> None:
    server.faults = [answer(200, '"' + "x" * (MOST - 2) + '"')]
    assert len(post(server)) == MOST - 2
    server.faults = [answer(200, '"' + "x" * 10 * MOST + '"')]
    with pytest.raises(Failing, match=f"the answer is longer than {MOST} bytes"):
        post(server)
    assert len(server.requests) == 2


def test_a_compressed_bomb_is_not_unpacked(server: ModelServer, pauses: list[float]) -> None:
    import gzip

    server.faults = [(200, {"Content-Encoding": "gzip"}, gzip.compress(b" " * 50_000_000))] * http.TRIES
    with pytest.raises(ServerError, match="is no JSON"):
        post(server)
    assert server.headers[0]["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 7),
        ("0", 0.5, 2),
        ("100000000000000", http.LONGEST_PAUSE, http.LONGEST_PAUSE),
        ("soon", 0.5, 2),
        ("-3", 0.5, 2),
        ("Wed, 99 Foo 2026", 0.5, 2),
        (email.utils.formatdate(0, usegmt=True), 0.5, 2),
    ],
)
def test_it_waits_as_long_as_the_server_says(
    server: ModelServer, pauses: list[float], header: str, least: float, most: float
) -> None:
    server.faults = [answer(429, Retry_After=header)]
    post(server)
    assert len(pauses) == 1
    assert least <= pauses[0] <= most


def test_it_waits_until_a_date(server: ModelServer, pauses: list[float]) -> None:
    server.faults = [answer(503, Retry_After=email.utils.formatdate(time.time() + 30, usegmt=True))]
    post(server)
    assert 10 < pauses[0] <= 30


@pytest.mark.parametrize("status", [401, 400, 500])
def test_the_key_is_in_no_message(
    server: ModelServer, pauses: list[float], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("MODEL_KEY", KEY)
    server.faults = [answer(status, f"wrong key {KEY}")] * 6
    with pytest.raises(ServerError, match=r"wrong key \*\*\*") as told:
        post(server, key_env="MODEL_KEY")
    assert KEY not in repr(told.value)
    assert KEY not in repr(Server(server.address, "MODEL_KEY", 1.0, 1))


def test_neither_is_half_of_it_nor_audio(
    server: ModelServer, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_KEY", KEY)
    for half in range(1, len(KEY)):  # an error is read up to some length
        server.faults = [answer(401, f"no {'A' * (4 * http.TOLD - half - 3)}{KEY} at all")]
        with pytest.raises(ServerError, match=r"status 401: no \*\*\*$"):
            post(server, key_env="MODEL_KEY")


@pytest.mark.parametrize(("value", "problem"), [(None, "is not set"), ("  ", "is not set"), ("a\nb", "no key has")])
def test_a_key_that_is_none(monkeypatch: pytest.MonkeyPatch, value: str | None, problem: str) -> None:
    monkeypatch.delenv("MODEL_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MODEL_KEY", value)
    with pytest.raises(NoKey, match=f"key_env: .*MODEL_KEY.*{problem}") as told:
        Server("http://127.0.0.1:9/v1", "MODEL_KEY", 1.0, 1).connect()
    assert "a\nb" not in str(told.value)


@pytest.mark.parametrize(
    "address",
    [
        "ftp://host/v1",
        "file:///etc/passwd",
        "host:8000",
        "http://",
        "http://host:port/v1",
        "http://host:99999/v1",
        "http://host:0/v1",
        "http://[::1/v1",
        "http://host/v1?api-version=1",
        "http://host/v1#x",
        "http://ho st/v1",
        "http://höst/v1",
        "http://host/v1\nX: y",
    ],
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        check_address(address)


@pytest.mark.parametrize("address", ["http://user:secret@host/v1", "http://user:secret@host:port/v1", "secret@host"])
def test_a_password_in_an_address_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(ValueError, match=r"key_env") as told:
        check_address(address)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("address", ["http://localhost:8000/v1/", "https://[::1]:8000/v1", "https://models.example"])
def test_addresses(address: str) -> None:
    check_address(address)


def test_bodies_are_any_json(server: ModelServer) -> None:
    server.faults = [answer(200, "[1, 2]")]
    assert post(server) == orjson.loads("[1, 2]")
