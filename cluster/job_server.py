"""The job server of a Ray cluster, part of the dashboard on its head: its address, the token, requests over HTTP.

Ray's own client is not used: it prefers an address in the environment to the one that it is given, waits for answers
without limit, and takes a second and a half to import.
"""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import urlsplit

import urllib3

from cluster.session import AUTH_MODE, SessionError, token_file

ANSWER_SECONDS = 60
ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
HOW = "--address http://HEAD:8265, or set RAY_API_SERVER_ADDRESS"
TOKEN = "set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file that holds it"


class Unreachable(SessionError):
    """The head of the cluster did not answer."""


class JobServer:
    """Requests to the job server at an `http://` address. All of them raise SessionError."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.headers = _authorization()
        self._pool = urllib3.PoolManager()

    def told(self, method: str, path: str, body: bytes | None = None) -> Any:
        """The JSON that a request gives."""
        return self.checked(self.answer(method, path, body)).json()

    def answer(
        self, method: str, path: str, body: bytes | None = None, seconds: float = ANSWER_SECONDS
    ) -> urllib3.BaseHTTPResponse:
        """The answer, whatever its status but for those that speak of the token or of a head that is not there."""
        try:
            answer = self._pool.request(
                method,
                self.address + path,
                body=body,
                headers={**self.headers, **({"Content-Type": "application/json"} if method == "POST" else {})},
                retries=urllib3.Retry(3, redirect=False, backoff_factor=0.5) if method == "GET" else False,
                timeout=seconds,
                redirect=False,  # to the page where a proxy lets people log in
            )
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"{self.address}: no answer: {_reason(error)}") from error
        if answer.status == 401:
            raise SessionError(f"{self.address} asks for a token: {TOKEN}")
        if answer.status == 403:
            raise SessionError(f"{self.address} refuses the token that was found here: {TOKEN}")
        starting = answer.status == 500 and b"No available agent" in answer.data  # a head that has just been started
        if starting or answer.status in (502, 503, 504):
            raise Unreachable(f"{self.address}: HTTP status {answer.status}")
        return answer

    def checked(self, answer: urllib3.BaseHTTPResponse) -> urllib3.BaseHTTPResponse:
        """The answer. Raises SessionError where it is an error or nothing that a job server says."""
        if answer.status != 200:
            said = answer.data.decode(errors="replace").strip().splitlines()[-1:]  # the error of a traceback
            raise SessionError(f"{self.address}: HTTP status {answer.status}: {''.join(said)[:500]}")
        return answer


def server_address(named: str | None) -> str:
    """The address of a job server as `http://host:port`: the one named, else what the environment says. Raises
    SessionError."""
    named = named or next((os.environ[name] for name in ADDRESSES if _is_http(os.environ.get(name, ""))), None)
    if named is None:
        raise SessionError(f"which cluster? name the dashboard of its head: {HOW}")
    url = named if "://" in named else f"http://{named}"
    if "@" in url:
        raise SessionError(f"--address: no user or password in an address; for a token {TOKEN}")
    try:
        parts = urlsplit(url)
        port = parts.port
        good = _is_http(url) and parts.hostname and not (parts.query or parts.fragment)
        good = good and ("://" in named or port is not None)
    except ValueError as error:  # of a port that is no number
        raise SessionError(f"--address {named}: {error}") from error
    if not good:
        raise SessionError(f"--address {named}: not the address of a job server: {HOW}")
    return url.rstrip("/")


def _is_http(address: str) -> bool:
    return address.startswith(("http://", "https://"))


def _authorization() -> dict[str, str]:
    """The header that carries the token, if one is found where Ray looks for it. Raises SessionError."""
    if os.environ.get(AUTH_MODE, "token").lower() != "token":
        return {}
    file = token_file()
    if file is None:
        token = os.environ["RAY_AUTH_TOKEN"]
    else:
        try:
            token = file.read_text()
        except FileNotFoundError as error:
            if "RAY_AUTH_TOKEN_PATH" in os.environ:
                raise SessionError(f"RAY_AUTH_TOKEN_PATH: {file} is not there") from error
            return {}  # the cluster may ask for none
        except (OSError, UnicodeDecodeError) as error:
            raise SessionError(f"the token in {file} cannot be read: {type(error).__name__}") from error
    if not re.fullmatch(r"[\x21-\x7e]+", token.strip()):
        raise SessionError(f"the token in {file or 'RAY_AUTH_TOKEN'} is empty, or holds what no token does")
    return {"Authorization": f"Bearer {token.strip()}"}


def _reason(error: Exception) -> str:
    """What went wrong, without urllib3's wrappers around it."""
    inner = getattr(error, "reason", None)
    return _reason(inner) if isinstance(inner, Exception) else str(error)
