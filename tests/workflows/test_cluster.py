"""A real cluster on this machine: a head and two workers with addresses of their own. Nothing works without the token,
and nodes come and go; `make soak` loses one during a build."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cluster.child import session_members
from cluster.local_cluster import LocalCluster
from cluster.seaweed import Endpoint
from cluster.session import SessionError
from tests.soak.nodes import three_nodes
from workflows.local import _control, _ends_on_sigterm, _serve

COMMAND = Path(sys.executable).with_name("corpusmill")


@pytest.fixture(scope="module")
def local_cluster(seaweed: Endpoint) -> Iterator[LocalCluster]:
    """Tests that kill nodes add others."""
    with three_nodes(seaweed) as cluster:
        yield cluster


def alive(cluster: LocalCluster) -> dict[str, dict[str, Any]]:
    return {told["node_ip"]: told for told in cluster.known() if told["state"] == "ALIVE"}


def status(request: urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_cluster_without_a_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nodes=0: a local cluster has 1 to 250"):
        LocalCluster(tmp_path, nodes=0)


def test_each_node_has_an_address_of_its_own_and_the_head_runs_no_work(local_cluster: LocalCluster) -> None:
    told = alive(local_cluster)
    addresses = [node.address for node in local_cluster.nodes.values()]
    assert len(set(addresses)) == len(addresses) >= 3
    assert all(address.startswith("127.") for address in addresses)
    assert set(addresses) <= set(told)
    head = told[local_cluster.nodes[0].address]
    assert head["is_head_node"]
    assert local_cluster.address.startswith(f"{head['node_ip']}:")
    assert "CPU" not in head["resources_total"]
    workers = [told[address]["resources_total"] for address in addresses[1:]]
    assert all(resources["CPU"] == 1 for resources in workers)


def test_a_job_is_refused_without_the_token(local_cluster: LocalCluster) -> None:
    url = f"{local_cluster.dashboard}/api/jobs/"
    token = Path(local_cluster.environment()["RAY_AUTH_TOKEN_PATH"]).read_text("utf-8")
    body = json.dumps({"entrypoint": "true"}).encode()
    headers = {"Content-Type": "application/json"}
    assert status(urllib.request.Request(url, body, headers)) == 401
    assert status(urllib.request.Request(url, body, headers | {"Authorization": f"Bearer {'0' * 64}"})) in (401, 403)
    assert status(urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})) == 200


def test_the_token_is_in_a_file_for_the_user_and_nowhere_else(local_cluster: LocalCluster) -> None:
    file = Path(local_cluster.environment()["RAY_AUTH_TOKEN_PATH"])
    token = file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert token not in local_cluster.environment_file.read_bytes()
    for node in local_cluster.nodes.values():
        assert node.process
        for pid in [node.process.pid, *session_members(node.process.pid)]:
            with suppress(FileNotFoundError, ProcessLookupError):
                assert token not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert token not in node.log.read_bytes()


def test_a_node_that_does_not_start_says_why_and_leaves_nothing(local_cluster: LocalCluster) -> None:
    before = local_cluster.nodes
    with pytest.raises(SessionError, match=r"node \d+ ended instead of starting:[\s\S]*not a valid string"):
        local_cluster.add(labels={"two words": "x"})
    assert local_cluster.nodes == before


def test_another_shell_lists_adds_and_kills_nodes(local_cluster: LocalCluster, tmp_path: Path) -> None:
    """The commands are processes of their own; this one serves them until it gets SIGTERM."""
    printed: list[subprocess.CompletedProcess[str]] = []
    pids: list[int] = []

    def run(*arguments: str) -> str:
        command = [COMMAND, "cluster", *arguments, "--folder", str(tmp_path)]
        printed.append(subprocess.run(command, capture_output=True, text=True, timeout=200))
        return printed[-1].stdout

    def client() -> None:
        try:
            run("local", "--nodes", "1")
            number = run("add", "--gpus", "2", "--label", "corpusmill/pool=gpu").split()[-1]
            run("nodes")
            process = local_cluster.nodes[int(number)].process
            assert process
            pids.extend([process.pid, *session_members(process.pid)])
            run("kill", number)
            run("nodes")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    before = local_cluster.nodes
    with suppress(KeyboardInterrupt), _ends_on_sigterm(), _control(tmp_path) as control:
        assert stat.S_IMODE((tmp_path / "control").stat().st_mode) == 0o600
        thread = threading.Thread(target=client)
        thread.start()
        _serve(control, local_cluster)
    thread.join()
    assert [bool(ran.returncode) for ran in printed] == [True, False, False, False, False], printed
    assert "a cluster runs already" in printed[0].stderr
    assert printed[2].stdout.splitlines()[-1].split()[2:] == ["ALIVE", "1", "CPUs", "2", "GPUs", "corpusmill/pool=gpu"]
    assert len(printed[4].stdout.splitlines()) == len(before)
    assert len(pids) > 3  # `ray start`, the raylet, its agents
    assert session_members(pids[0]) == []
    assert local_cluster.nodes == before


def test_where_no_cluster_runs_the_commands_say_so(tmp_path: Path) -> None:
    command = [COMMAND, "cluster", "nodes", "--folder", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert ran.returncode != 0
    assert "no cluster answers at" in ran.stderr
