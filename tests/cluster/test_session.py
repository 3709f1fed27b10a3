"""An embedded Ray listens on loopback alone, asks for a token, and keeps that token and its files to its user."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cluster.session import SessionError, keep_token_private, session, token_file

# Part of the command of every process that is a server: of Ray 2.60, with a dashboard.
SERVERS = ("gcs_server", "raylet", "dashboard.py", "monitor.py", "DashboardAgent", "RuntimeEnvAgent", "ray::IDLE")
# Imports Ray first, as a build does, so that it read the environment before the session prepares it.
OPEN_SESSION = """
import json, subprocess, sys, time
from ray import cloudpickle
from cluster.session import session

def listening():
    here, found = psutil.Process(), []
    for process in [here, *here.children(recursive=True)]:
        try:
            command = " ".join(process.cmdline())
            found += [(command, *c.laddr) for c in process.net_connections("inet") if c.status in ("LISTEN", "NONE")]
        except psutil.NoSuchProcess:
            continue
    return found

def address_that_a_child_connects_to():
    code = "from ray._private.services import canonicalize_bootstrap_address as f; print(f('127.0.0.1:6379'))"
    return subprocess.check_output([sys.executable, "-c", code], text=True).strip()

with session(cpus=1, dashboard=True):
    import psutil, ray
    meant = ray.get(ray.remote(address_that_a_child_connects_to).remote())
    while not all(any(server in command for command, _, _ in listening()) for server in sys.argv[1:]):
        time.sleep(0.5)  # the last of them come some time after the session is open
    node = ray._private.worker._global_node
    told = {"sockets": listening(), "folder": node.get_session_dir_path(), "dashboard": node.webui_url}
    print(json.dumps(told | {"meant": meant}), flush=True)
    sys.stdin.read()
"""


def without_ray_settings(**more: str) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | more


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Home and temporary folder of a user who never ran Ray; short, because the paths of sockets must be."""
    folder = Path(tempfile.mkdtemp(prefix="h", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def opened(home: Path) -> Iterator[dict[str, Any]]:
    """What an open session with a dashboard says of itself."""
    process = subprocess.Popen(
        [sys.executable, "-c", OPEN_SESSION, *SERVERS],
        env=without_ray_settings(HOME=str(home), TMPDIR=str(home), CORPUSMILL_CACHE=str(home / "cache")),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        told: dict[str, Any] = json.loads(process.stdout.readline())
        yield told
        process.stdin.close()
    assert process.returncode == 0


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_no_process_of_a_session_listens_beyond_loopback(opened: dict[str, Any]) -> None:
    """Not one: every server that Ray starts can be bound, so there are no exceptions to this."""
    outside = [socket for socket in opened["sockets"] if not _is_loopback(socket[1])]
    assert outside == []


def _is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def test_its_processes_look_for_each_other_on_loopback_too(opened: dict[str, Any]) -> None:
    """Else those that connect to the session by its address, as the agent that runs jobs does, wait for it for ever."""
    assert opened["meant"] == "127.0.0.1:6379"


def test_the_job_api_takes_nothing_without_the_token(opened: dict[str, Any], home: Path) -> None:
    """With it, what is sent is looked at: a job without an entrypoint is a bad request. None is run, since the agent
    that would has one port for all sessions of a machine, and this may not be the only one."""
    token = (home / ".ray" / "auth_token").read_text()
    job = {"entrypoint": "true"}
    assert _post(opened["dashboard"], job, {}) == 401
    assert _post(opened["dashboard"], job, {"Authorization": f"Bearer {token[::-1]}"}) == 403
    assert _post(opened["dashboard"], {}, {"Authorization": f"Bearer {token}"}) == 400


def _post(dashboard: str, job: dict[str, str], headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection(dashboard, timeout=60)
    connection.request("POST", "/api/jobs/", json.dumps(job), headers)
    with connection.getresponse() as response:
        return response.status


def test_the_token_is_its_owners_alone_and_nowhere_else(opened: dict[str, Any], home: Path) -> None:
    file = home / ".ray" / "auth_token"
    token = file.read_text()
    assert re.fullmatch(r"[0-9a-f]{64}", token)
    assert (mode(file), mode(file.parent)) == (0o600, 0o700)
    written = [path for path in Path(opened["folder"]).rglob("*") if path.is_file()]
    assert any(path.suffix == ".log" and path.stat().st_size for path in written)
    assert [path for path in written if token.encode() in path.read_bytes()] == []
    assert token not in "".join(command for command, _, _ in opened["sockets"])


def test_nobody_else_can_enter_the_folder_of_sessions(opened: dict[str, Any], home: Path) -> None:
    """Ray makes its own folders writable by all, and their sockets run code."""
    around = home / f"ray-{os.getuid()}"
    assert around in Path(opened["folder"]).parents
    assert mode(around) == 0o700


def test_a_token_that_others_can_read_becomes_private_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use_home(monkeypatch, tmp_path)
    (tmp_path / ".ray").mkdir()
    file = tmp_path / ".ray" / "auth_token"
    file.write_text("of an earlier session")
    file.chmod(0o644)
    keep_token_private()
    assert (file.read_text(), mode(file)) == ("of an earlier session", 0o600)


def test_sessions_that_start_at_once_agree_on_one_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _use_home(monkeypatch, tmp_path)
    file = tmp_path / ".ray" / "auth_token"

    def start(_: int) -> str:
        keep_token_private()
        return file.read_text()

    with ThreadPoolExecutor(8) as pool:
        seen = set(pool.map(start, range(64)))
    assert len(seen) == 1
    assert len(seen.pop()) == 64
    assert list(file.parent.iterdir()) == [file]


def test_a_token_that_the_environment_names_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that a platform mounts is often read-only, with rights of its choice."""
    _use_home(monkeypatch, tmp_path)
    mounted = tmp_path / "mounted"
    mounted.write_text("secret")
    mounted.chmod(0o440)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(mounted))
    assert token_file() == mounted
    keep_token_private()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert token_file() is None
    keep_token_private()
    assert (mode(mounted), list(tmp_path.iterdir())) == (0o440, [mounted])


def _use_home(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("HOME", str(folder))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


REFUSED = """
import os, sys
from cluster.session import SessionError, session

try:
    with session(sys.argv[1] if sys.argv[1:] else None):
        print("started")
except SessionError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("settings", "arguments", "message"),
    [
        ({"RAY_AUTH_MODE": "tokn"}, [], "RAY_AUTH_MODE='tokn' is neither 'token' nor 'disabled'"),
        ({"RAY_AUTH_MODE": ""}, [], "RAY_AUTH_MODE='' is neither 'token' nor 'disabled'"),
        ({"RAY_AUTH_TOKEN_PATH": "/nowhere/token"}, [], "RAY_AUTH_TOKEN_PATH is set but file cannot be opened"),
        ({}, ["127.0.0.1:{port}"], "no authentication token was found"),
    ],
)
def test_a_session_without_a_sound_token_does_not_start(
    settings: dict[str, str], arguments: list[str], message: str, tmp_path: Path
) -> None:
    """Ray itself takes a misspelt mode for "disabled", and connects to any address without a token."""
    environment = without_ray_settings(HOME=str(tmp_path), **settings)
    with socket.create_server(("127.0.0.1", 0)) as head:  # which is found, and not asked
        port = head.getsockname()[1]
        command = [sys.executable, "-c", REFUSED, *(argument.format(port=port) for argument in arguments)]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert message in ran.stdout


def test_a_folder_of_somebody_elses_is_not_used_for_sessions(tmp_path: Path) -> None:
    """In a shared temporary folder anybody can take the name first."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / f"ray-{os.getuid()}").symlink_to(tmp_path / "theirs")
    environment = without_ray_settings(HOME=str(tmp_path), TMPDIR=str(tmp_path))
    ran = subprocess.run([sys.executable, "-c", REFUSED], env=environment, capture_output=True, text=True, check=True)
    assert f"{tmp_path}/ray-{os.getuid()} is not a folder of this user" in ran.stdout
    assert list((tmp_path / "theirs").iterdir()) == []


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://127.0.0.1:8265", "corpusmill submit"),
        ("ray://127.0.0.1:10001", "corpusmill submit"),
        ("127.0.0.1:1", "refused"),
        ("no-such-host.invalid:6379", "not"),
    ],
)
def test_a_wrong_address_is_told_at_once(address: str, told: str) -> None:
    """Ray alone tries for minutes."""
    with pytest.raises(SessionError, match=told), session(address):
        pass
