"""`corpusmill metrics` as a user gives it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.session import SessionError
from tests.cluster.test_monitoring import needs_prometheus
from workflows.monitoring import app
from workflows.recipe import RecipeError

COMMAND = "from workflows.console import exit_codes\nfrom workflows.monitoring import app\nwith exit_codes(): app()"
READY_SECONDS = 60


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


def metrics(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)


def read(url: str) -> str:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@needs_prometheus
def test_up_runs_prometheus_with_our_alerts_until_ctrl_c(tmp_path: Path) -> None:
    port = free_port()
    running = metrics("up", "--folder", tmp_path, "--session", tmp_path / "ray", "--port", port)
    rules = read(f"http://127.0.0.1:{port}/api/v1/rules")
    assert "CorpusmillStalled" in rules
    second = metrics("up", "--folder", tmp_path / "second", "--session", tmp_path / "ray", "--port", port)
    _, told = second.communicate(timeout=READY_SECONDS)
    assert (second.returncode, f"port {port} of 127.0.0.1 is taken" in told) == (1, True)
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=READY_SECONDS)
    assert running.returncode == 0
    assert f"export RAY_PROMETHEUS_HOST=http://127.0.0.1:{port}" in out
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))  # nobody is left there


def test_without_prometheus_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    ended = CliRunner().invoke(app, ["up", "--folder", str(tmp_path), "--session", str(tmp_path)])
    assert isinstance(ended.exception, SessionError)
    assert "prometheus is not installed: `apt-get install prometheus`" in str(ended.exception)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--address", "head:8265"), "--address head:8265"),
        (("--address", "http://head:8265", "--session", "/tmp"), "--address, --session"),
        (("--port", "3000"), "cannot share a port"),
    ],
)
def test_arguments_that_make_no_sense_are_named(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    ended = CliRunner().invoke(app, ["files", "--folder", str(tmp_path / "new"), *arguments])
    assert isinstance(ended.exception, RecipeError)
    assert said in str(ended.exception)
    assert not (tmp_path / "new").exists()
