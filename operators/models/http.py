"""JSON over HTTP to a model server, such as vLLM or anything else that speaks as OpenAI's API does.

An outage must not turn into data: what may pass is tried again with growing pauses, or when the server says, and what
does not pass raises, so that the unit of work fails and is done anew. Only a server that refuses the very input
(400, 413, 422) is told apart, as `Refused`. Redirects are not followed, replies are bounded in bytes and seconds,
and the key appears in no message.
"""

from __future__ import annotations

import email.utils
import os
import random
import time
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson
import urllib3

TRIES = 6
PAUSE = 0.5  # seconds before the second try, twice as many before each further one
LONGEST_PAUSE = 60.0  # also where the server asks for more
CONNECTING = 10.0  # seconds
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
ABOUT_THE_INPUT = frozenset({400, 413, 422})
TOLD = 300  # characters of a server's message


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


class ServerError(RuntimeError):
    """The server could not be reached or did not do what was asked."""


class Refused(ServerError):
    """The server did not take this input."""


class _Reply(NamedTuple):
    status: int
    retry_after: str | None
    body: bytes


@dataclass(frozen=True)
class Server:
    """Where it is, which environment variable holds its key, and what it may cost."""

    address: str
    key_env: str | None
    timeout: float  # seconds of one try
    connections: int

    def connect(self) -> Client:
        """Raises ValueError where the variable is not set, or holds what no key is."""
        key = None
        if self.key_env is not None:
            key = os.environ.get(self.key_env, "").strip()
            if not key:
                raise ValueError(f"key_env: the environment variable {self.key_env} is not set on this machine")
            if not key.isascii() or not key.isprintable() or " " in key:
                raise ValueError(f"key_env: {self.key_env} holds characters that no key has")
        return Client(self, key)


class Client:
    """An open server; several threads may use it at a time."""

    def __init__(self, server: Server, key: str | None) -> None:
        self._server, self._key = server, key
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=server.connections, block=True)

    def post(self, path: str, body: dict[str, Any], most_bytes: int) -> Any:
        """What the server answers, decoded from JSON of at most `most_bytes`. Raises Refused for an input that it does
        not take, ServerError after TRIES of what may pass, and at once for anything else."""
        where, data = f"{self._server.address.rstrip('/')}/{path}", orjson.dumps(body)
        problem, wait = "", PAUSE
        for again in range(TRIES):
            if again:
                time.sleep(min(wait, LONGEST_PAUSE))
            wait = PAUSE * 2 ** (again + 1) * random.uniform(0.75, 1.25)  # so that workers do not come all at once
            try:
                reply = self._once(where, data, most_bytes)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                problem = self._told(f"{type(error).__name__}: {error}")
                continue
            if reply.status == 200:
                return _decoded(where, reply.body)
            problem = self._told(f"status {reply.status}: {reply.body[: 4 * TOLD].decode('utf-8', 'replace')}")
            if reply.status in ABOUT_THE_INPUT:
                raise Refused(f"{where}: {problem}")
            if reply.status not in PASSING:
                hint = " (redirects are not followed)" if 300 <= reply.status < 400 else ""
                raise ServerError(f"{where}: {problem}{hint}")
            wait = _seconds(reply.retry_after) or wait
        raise ServerError(f"{where}: {TRIES} times in a row: {problem}")

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
                    raise ServerError(f"{where}: the answer is longer than {most_bytes} bytes")
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
        """On one line, short, without the key."""
        if self._key is not None:
            message = message.replace(self._key, "***")
        return "".join(c if c.isprintable() else " " for c in message)[:TOLD].strip()


def _decoded(where: str, body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ServerError(f"{where}: the answer is no JSON: {error}") from None


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
