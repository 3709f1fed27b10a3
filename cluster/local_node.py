"""A node of a local cluster: `ray start` with an address of its own, as a child that leaves nothing behind."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from cluster.child import kill_child, log_tail, start_child
from cluster.session import ENVIRONMENT, SessionError, object_store_bytes

READY_SECONDS = 180  # a node takes about ten; a machine under load takes longer
STARTED = "Ray runtime started."  # what `ray start` prints when the head has heard of the node
POLL_SECONDS = 0.1
# Above the ports of workers by Ray's default, and below 32,768, where the system puts outgoing connections.
PORTS = range(20_000, 32_000)
TOO_SLOW = "a process of this node was too slow, and ended"
# `ray start`, but it waits longer than Ray's fixed 30 s until the head has heard of the node, and not at all where one
# of its processes has ended: on a machine under load an agent can take longer than the 15 s that a raylet gives it.
RAY_START = f"""
import os, sys, time
from ray._private import services
from ray.scripts.scripts import main
get_node = services.get_node
def get_node_patiently(*arguments):
    deadline = time.monotonic() + {READY_SECONDS}
    while True:
        try:
            return get_node(*arguments)
        except RuntimeError:  # not there yet
            if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                sys.exit("{TOO_SLOW}")
            if time.monotonic() > deadline:
                raise
            time.sleep({POLL_SECONDS})
services.get_node = get_node_patiently
main()
"""


class Node:
    """One node: its number (0 is the head), address, and the port of its metrics for Prometheus."""

    def __init__(self, number: int, address: str, folder: Path, options: Sequence[str]) -> None:
        self.number, self.address = number, address
        self.metrics, agent = free_ports(2)
        self.log = folder / f"node-{number}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._folder = folder
        # Its processes take ports that the system chooses: from one range, nodes of one machine would take each
        # other's.
        self._command = [
            *(sys.executable, "-c", RAY_START, "start", "--block"),
            *options,
            f"--node-ip-address={address}",
            f"--metrics-export-port={self.metrics}",
            f"--dashboard-agent-listen-port={agent}",  # on 127.0.0.1 too, whatever the node's address
            f"--object-store-memory={object_store_bytes()}",
            "--min-worker-port=0",
            "--max-worker-port=0",
            "--disable-usage-stats",
        ]

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def start(self, environment: Mapping[str, str]) -> None:
        """Start it, or start it again; wait for nothing."""
        self.kill()
        self.process = start_child(self._command, self._folder, environment, self.log)

    def wait(self) -> bool:
        """Wait until the head has heard of it; false where the machine was too slow for one of Ray's limits. Raises
        SessionError."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            runs, printed = self.runs, self.log.read_text("utf-8", errors="replace")
            if STARTED in printed:
                return True
            if not runs and TOO_SLOW in printed:
                return False
            if not runs:
                raise SessionError(f"node {self.number} ended instead of starting:\n{log_tail(self.log)}")
            if time.monotonic() > deadline:
                told = log_tail(self.log)
                raise SessionError(f"node {self.number} is not ready after {READY_SECONDS} s:\n{told}")
            time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """End it as a crash of its machine would; returns when none of its processes is left."""
        if self.process:
            kill_child(self.process)


def node_environment(added: Mapping[str, str]) -> dict[str, str]:
    """The user's environment with our settings, but no address or token of another cluster. `python` is this one:
    jobs are started by that name."""
    own = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "RAY_AUTH_TOKEN")}
    own["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), own.get("PATH", os.defpath)])
    patience = {"RAY_gcs_server_port_wait_time_s": str(READY_SECONDS)}
    own.pop("NUMBA_CACHE_DIR", None)  # of this code: what runs on the nodes looks for that of its own
    return ENVIRONMENT | patience | own | dict(added)


def free_ports(count: int) -> list[int]:
    """Ports that are free on all interfaces."""
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            port = secrets.choice(PORTS)
            with suppress(OSError):
                held.enter_context(socket.socket()).bind(("", port))
                found.append(port)
    return found
