"""JSON over HTTP to a model server, such as vLLM or anything else that speaks as OpenAI's API does.

An outage must not turn into data: what may pass is tried again with growing pauses, or when the server says, and what
does not pass raises, so that the unit of work fails and is done anew. What may be the input's fault is told apart: a
status that refuses it, as `Refused`, and failing rather than being busy, as `Failing`. Whoever sends inputs finds out
whose fault it is, by one that is beyond doubt. Redirects are not followed, replies are bounded in bytes and seconds,
and neither the key nor audio appears in a message.
"""

from __future__ import annotations

import email.utils
import os
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

import orjson
import urllib3

TRIES = 6
PAUSE = 1.0  # seconds before the second try, twice as many before each further one
LONGEST_PAUSE = 60.0  # also where the server asks for more
CONNECTING = 10.0  # seconds
BUSY = 429
BUSY_FOR = 600.0  # seconds in a row that a server may say so
BUSY_PAUSE = 0.1  # seconds, at least, before it is asked again
NOTHING = 0  # in the place of a status: no whole answer came
PASSING = frozenset({NOTHING, 200, 408, 425, BUSY})  # and 5xx; 200 with what is no answer
ABOUT_THE_INPUT = frozenset({400, 403, 409, 413, 422, 424, 451})  # or about all: spent budgets, replaced models
TOLD = 300  # characters of a server's message
VARIABLE = re.compile("[A-Z_][A-Z0-9_]*")
BASE64 = re.compile(r"[A-Za-z0-9+/=]{64,}")  # what servers repeat of a request that holds audio


def check_address(address: str) -> None:
    """Raises ValueError, which never repeats a password, for what is no address to append paths to."""
    try:
        parts = urlsplit(address)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, right = urlsplit(""), False
    if parts.username is not None or "@" in address:
        raise ValueError("the address holds a user or password: put the key into an environment variable (key_env)")
    if not right or not address.isascii() or not address.isprintable() or " " in address:
        raise ValueError(f"{address!r} is no address like http://host:8000/v1")
    if parts.query or parts.fragment:
        raise ValueError(f"{address!r} has a query or fragment, which an address to append paths to has not")


def check_server(endpoint: str, key_env: str | None) -> None:
    """The same of a recipe's fields, of which the second must name an environment variable. To be called by a validator
    of the whole model, as what is wrong with a field is shown with its value."""
    if key_env is not None and not VARIABLE.fullmatch(key_env):
        raise ValueError("key_env: must be the name of an environment variable, in capitals, such as MODEL_KEY")
    try:
        check_address(endpoint)
    except ValueError as error:
        raise ValueError(f"endpoint: {error}") from None


class ServerError(RuntimeError):
    """The server could not be reached or did not do what was asked."""

    remedy: ClassVar[str] = "see that it runs and takes such requests; the same command then goes on where it ended"


class NoKey(ValueError):
    """The environment holds no key for the server."""

    remedy: ClassVar[str] = "set it on every machine that works; the same command then goes on where it ended"


class Refused(ServerError):
    """The server did not take this input, or takes none."""


class Failing(ServerError):
    """It did not answer, or with errors, each time that it was tried, or without end."""


class _Reply(NamedTuple):
    status: int
    retry_after: str | None
    body: bytes


class _Try(NamedTuple):
    status: int
    problem: str | None  # none: it answered
    answer: Any = None
    wait: float = 0.0  # seconds that the server asks for


@dataclass(frozen=True)
class Server:
    """Where it is, which environment variable holds its key, and what it may cost."""

    address: str
    key_env: str | None
    timeout: float  # seconds of one try
    connections: int
    tries: int = TRIES
    pause: float = field(default_factory=lambda: PAUSE)  # seconds before the second try, twice as many before the next
    per_minute: int | None = None  # tries begun, evenly spaced
    busy_for: float = field(default_factory=lambda: BUSY_FOR)  # seconds in a row of 429, which count as no tries

    def connect(self) -> Client:
        """Raises NoKey where the variable is not set, or holds what no key is."""
        key = None
        if self.key_env is not None:
            key = os.environ.get(self.key_env, "").strip()
            if not key:
                raise NoKey(f"key_env: the environment variable {self.key_env} is not set on this machine")
            if not key.isascii() or not key.isprintable() or " " in key:
                raise NoKey(f"key_env: {self.key_env} holds characters that no key has")
        return Client(self, key)


class Client:
    """An open server; several threads may use it at a time."""

    def __init__(self, server: Server, key: str | None) -> None:
        self._server, self._key = server, key
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=server.connections, block=True)
        self._turn, self._turns = 0.0, threading.Lock()

    def post(
        self, path: str, body: dict[str, Any], most_bytes: int, is_answer: Callable[[Any], bool] = lambda _: True
    ) -> Any:
        """What the server answers, decoded from JSON of at most `most_bytes`. Raises Refused for an input that it does
        not take; Failing after as many tries of what may pass as are allowed, and at once for an answer that is
        longer; ServerError after so long of being busy, and at once for anything else. What is no JSON, or not
        `is_answer`, may pass: so do errors that come with status 200."""
        where, data = f"{self._server.address.rstrip('/')}/{path}", orjson.dumps(body)
        failed, pause = 0, self._server.pause
        busy_since: float | None = None
        while True:
            self._wait_for_turn()
            tried = self._tried(where, data, most_bytes, is_answer)
            if tried.problem is None:
                return tried.answer
            if tried.status in ABOUT_THE_INPUT:
                raise Refused(f"{where}: {tried.problem}")
            if tried.status not in PASSING and tried.status < 500:
                hint = " (redirects are not followed)" if 300 <= tried.status < 400 else ""
                raise ServerError(f"{where}: {tried.problem}{hint}")
            wait = tried.wait or pause * random.uniform(0.75, 1.25)  # workers are not to come all at once
            pause = min(2 * pause, LONGEST_PAUSE)
            if tried.status == BUSY:
                busy_since = time.monotonic() if busy_since is None else busy_since
                if time.monotonic() - busy_since >= self._server.busy_for:
                    raise ServerError(f"{where}: busy for {self._server.busy_for:g} s: {tried.problem}")
                wait = max(wait, BUSY_PAUSE)
            else:
                failed, busy_since = failed + 1, None
                if failed == self._server.tries:
                    raise Failing(f"{where}: {failed} times in a row: {tried.problem}")
            time.sleep(min(wait, LONGEST_PAUSE))

    def _tried(self, where: str, data: bytes, most_bytes: int, is_answer: Callable[[Any], bool]) -> _Try:
        try:
            reply = self._once(where, data, most_bytes)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return _Try(NOTHING, self._told(f"{type(error).__name__}: {error}"))
        if reply.status == 200:
            try:
                answer = orjson.loads(reply.body)
            except orjson.JSONDecodeError as error:
                return _Try(reply.status, f"the answer is no JSON: {error}")
            if is_answer(answer):
                return _Try(reply.status, None, answer)
        problem = self._told(f"status {reply.status}: {reply.body[: 4 * TOLD].decode('utf-8', 'replace')}")
        return _Try(reply.status, problem, wait=_seconds(reply.retry_after))

    def _wait_for_turn(self) -> None:
        if self._server.per_minute is not None:
            with self._turns:
                now = time.monotonic()
                turn = max(now, self._turn)
                self._turn = turn + 60 / self._server.per_minute
            time.sleep(turn - now)

    def _once(self, where: str, data: bytes, most_bytes: int) -> _Reply:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        limit = time.monotonic() + self._server.timeout
        response = self._pool.request(
            "POST",
            where,
            body=data,
            headers=headers,
            timeout=urllib3.Timeout(connect=min(CONNECTING, self._server.timeout), read=self._server.timeout),
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        whole = False
        try:
            body = bytearray()
            while piece := response.read1(1 << 16):
                body += piece
                if response.status != 200 and len(body) >= 4 * TOLD:
                    break  # enough to say what is wrong
                if len(body) > most_bytes:
                    raise Failing(f"{where}: the answer is longer than {most_bytes} bytes")
                if time.monotonic() > limit:
                    raise TimeoutError(f"no whole answer in {self._server.timeout:g} s")
            else:
                whole = True
        finally:
            if not whole:
                response.close()  # what may still come must not be read as the next answer
            response.release_conn()
        return _Reply(response.status, response.headers.get("Retry-After"), bytes(body))

    def _told(self, message: str) -> str:
        """On one line, short, without the key and audio."""
        if self._key is not None:
            long = len(message) >= 4 * TOLD
            message = message.replace(self._key, "***")
            message = message[: -len(self._key)] if long else message  # where it was cut, half a key may stand
        return BASE64.sub("***", "".join(c if c.isprintable() else " " for c in message))[:TOLD].strip()


def _seconds(retry_after: str | None) -> float:
    """What a Retry-After header asks for, as seconds or as a date; 0 where it says nothing."""
    if retry_after is None:
        return 0.0
    if retry_after.strip().isdecimal():
        return float(min(int(retry_after[:9]), 10**6))
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0
