"""`corpusmill doctor` sees whether Ray asks for a token: here, and at the address of a cluster."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from ray._private.services import GCS_SERVER_EXECUTABLE

from workflows.doctor import Finding, examine

OPEN = "answers without a token"


@contextmanager
def running(command: list[str], mode: str, home: Path) -> Iterator[None]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": "0123456789abcdef" * 4, "HOME": str(home)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(port: int) -> None:
    while True:
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)


@pytest.fixture(scope="module", params=["token", "disabled"])
def cluster(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[bool, int, int]]:
    """Whether it asks for a token, and the ports of a head's store and of its server for clients: all that a client
    first speaks to, in the very processes that `ray start --head` starts."""
    folder, head, clients = tmp_path_factory.mktemp("head"), free_port(), free_port()
    store = [GCS_SERVER_EXECUTABLE, f"--gcs_server_port={head}", "--node-ip-address=127.0.0.1", "--session-name=s"]
    store += [f"--log_dir={folder}", f"--session-dir={folder}", f"--config_list={base64.b64encode(b'{}').decode()}"]
    server = [sys.executable, "-m", "ray.util.client.server", "--host=127.0.0.1", f"--port={clients}"]
    with ExitStack() as stack:
        stack.enter_context(running(store, request.param, folder))
        wait_for(head)
        stack.enter_context(running([*server, f"--address=127.0.0.1:{head}"], request.param, folder))
        wait_for(clients)
        yield request.param == "token", head, clients


def told(address: str) -> Finding:
    (found,) = [f for f in examine(address=address) if f.what == f"ray authentication at {address}"]
    return found


def test_a_cluster_that_asks_for_no_token_is_a_problem(cluster: tuple[bool, int, int]) -> None:
    """Although this process has a token, which its own connections to Ray would present."""
    asks, head, clients = cluster
    for address in (f"127.0.0.1:{head}", f"ray://127.0.0.1:{clients}"):
        found = told(address)
        assert found.good == asks
        assert found.told == "on" if asks else found.told.startswith(OPEN)


class JobApi(BaseHTTPRequestHandler):
    """The answers that a dashboard, or a proxy before it, gives to those who bring no token."""

    status = 200

    def do_GET(self) -> None:
        asked = self.path == "/ray/api/jobs/" and "Authorization" not in self.headers
        self.send_response(self.status if asked else 500)
        self.send_header("Location", "/login")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def dashboard() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), JobApi) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/ray/"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "good", "message"),
    [
        (401, True, "on"),
        (403, True, "on"),
        (200, False, OPEN),
        (302, False, "cannot be told: the job API answers with HTTP status 302"),
        (404, False, "cannot be told: the job API answers with HTTP status 404"),
    ],
)
def test_a_dashboard_whose_job_api_is_open_is_a_problem(
    dashboard: str, monkeypatch: pytest.MonkeyPatch, status: int, good: bool, message: str
) -> None:
    monkeypatch.setattr(JobApi, "status", status)
    found = told(dashboard)
    assert (found.good, found.told[: len(message)]) == (good, message)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "http://127.0.0.1:1", "http://127.0.0.1:port"])
def test_where_no_cluster_is_it_says_so(address: str) -> None:
    found = told(address)
    assert not found.good
    assert found.told.startswith("cannot be told: ")


def test_something_else_than_a_cluster_is_not_taken_for_one(dashboard: str) -> None:
    found = told(dashboard.removeprefix("http://").removesuffix("/ray/"))
    assert not found.good
    assert found.told.startswith("cannot be told: ")


def findings() -> dict[str, Finding]:
    return {finding.what: finding for finding in examine()}


@pytest.mark.parametrize("mode", ["disabled", "tokn", ""])
def test_switched_off_here_is_a_problem_and_so_is_a_misspelling(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """Ray takes whatever is not "token" for "disabled"."""
    monkeypatch.setenv("RAY_AUTH_MODE", "Token")
    assert findings()["ray authentication"] == ("ray authentication", True, "on")
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    found = findings()["ray authentication"]
    assert not found.good
    assert found.told.startswith(f"RAY_AUTH_MODE={mode}: ")
    monkeypatch.delenv("RAY_AUTH_MODE")
    assert findings()["ray authentication"].good


def test_a_token_that_others_can_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    file = tmp_path / "token"
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert findings()["ray token"] == ("ray token", True, "made by the first build")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    assert findings()["ray token"] == ("ray token", False, f"{file} is not there")
    file.write_text("secret")
    file.chmod(0o644)
    assert not findings()["ray token"].good
    assert findings()["ray token"].told.endswith(f"{file}: chmod 600")
    file.chmod(0o600)
    assert findings()["ray token"].good
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert findings()["ray token"] == ("ray token", True, "in RAY_AUTH_TOKEN")
