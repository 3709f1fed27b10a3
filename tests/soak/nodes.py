"""A real cluster on this machine for builds that are submitted to it, as from another shell."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from cluster.child import session_members
from cluster.local_cluster import LocalCluster
from cluster.seaweed import Endpoint
from cluster.storage import open_store

COMMAND = Path(sys.executable).with_name("corpusmill")


@contextmanager
def three_nodes(seaweed: Endpoint) -> Iterator[LocalCluster]:
    """A head that runs no work and two workers of one CPU, all with the keys of the S3 server. The head looks often
    whether they live. At the end, none of their processes may be left."""
    checks = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"}
    environment = seaweed.environment() | checks
    with (
        TemporaryDirectory(prefix="nodes-") as folder,
        LocalCluster(Path(folder), 3, 1, environment=environment) as found,
    ):
        yield found
        leaders = [node.process.pid for node in found.nodes.values() if node.process]
    assert [pid for leader in leaders for pid in session_members(leader)] == []


def start(cluster: LocalCluster, *arguments: str | Path) -> subprocess.Popen[bytes]:
    environment = {key: value for key, value in os.environ.items() if key != "RAY_AUTH_TOKEN"}
    return subprocess.Popen(
        [COMMAND, *arguments],
        env=environment | cluster.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _units_done(output: str, stage: str) -> int:
    return sum(
        f"stages/{stage}-" in stored.key and "/_done/" in stored.key for stored in open_store(output).list("stages")
    )


def wait_for_units(process: subprocess.Popen[bytes], output: str, stage: str, seconds: float) -> None:
    """Return once two units of the stage are done, in the build of the process."""
    deadline = time.monotonic() + seconds
    while _units_done(output, stage) < 2:
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline, "the build did not get on"
        time.sleep(0.2)
