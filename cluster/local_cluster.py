"""A Ray cluster of several nodes on this machine: what runs on a real one can be tried, and nodes be lost, here.

Each node is what `ray start` makes of a machine, with a loopback address of its own. Every call needs the token, which
lies in a file that only the user can read. Ray's ports still listen on all interfaces of the machine (only for
127.0.0.1 itself it does otherwise), and those of the metrics ask for no token: on a machine that others reach, start it
in a network namespace.
"""

from __future__ import annotations

import json
import secrets
import shlex
import shutil
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from cluster.child import write_private
from cluster.local_node import POLL_SECONDS, READY_SECONDS, Node, free_ports, node_environment
from cluster.session import AUTH_MODE, START_ATTEMPTS, SessionError, private_folder

LOOPBACK = "127.0.0.1"
MOST_NODES = 250
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class LocalCluster:
    """A head that runs no work and `nodes` - 1 workers, each with `cpus`, `gpus` (which need not exist) and `labels`.

    Token, logs and the lines for a shell lie in `folder`. The nodes have this process's environment, and `environment`
    on top. They end with the thread that started them, however that ends. `prometheus`: the URL of one, for the charts
    of the dashboard. Raises ValueError.
    """

    def __init__(  # noqa: PLR0913
        self,
        folder: Path,
        nodes: int = 3,
        cpus: int = 1,
        *,
        gpus: int = 0,
        labels: Mapping[str, str] = {},
        environment: Mapping[str, str] = {},
        prometheus: str | None = None,
    ) -> None:
        if not 1 <= nodes <= MOST_NODES:
            raise ValueError(f"nodes={nodes}: a local cluster has 1 to {MOST_NODES}, the head among them")
        self._folder = folder.absolute()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._first_workers = [(cpus, gpus, labels)] * (nodes - 1)
        self._token_file = self._folder / "token"
        self._token = secrets.token_hex(32)
        write_private(self._token_file, self._token.encode())
        self._temp, self._block = _free_block()
        self._port, self._dashboard_port, self._client_port = free_ports(3)
        self._nodes: dict[int, Node] = {}
        self._made = 0
        self._environment = node_environment(environment) | self.environment()
        del self._environment["RAY_ADDRESS"]  # a head refuses to start where it is set
        if prometheus:
            self._environment["RAY_PROMETHEUS_HOST"] = prometheus

    @property
    def address(self) -> str:
        """For `ray.init` and `--address`."""
        return f"{self._block}.1:{self._port}"

    @property
    def dashboard(self) -> str:
        """For jobs and for a browser, which asks for the token."""
        return f"http://{LOOPBACK}:{self._dashboard_port}"

    @property
    def nodes(self) -> dict[int, Node]:
        """The nodes that were not killed, by number."""
        return dict(self._nodes)

    @property
    def metrics(self) -> dict[int, int]:
        """The port of each node where Prometheus finds its metrics."""
        return {number: node.metrics for number, node in self._nodes.items()}

    def environment(self) -> dict[str, str]:
        """What clients need in their environment, where RAY_AUTH_TOKEN must not be set."""
        return {
            AUTH_MODE: "token",
            "RAY_AUTH_TOKEN_PATH": str(self._token_file),
            "RAY_ADDRESS": self.address,
            "RAY_API_SERVER_ADDRESS": self.dashboard,
        }

    @property
    def environment_file(self) -> Path:
        """Lines for a shell, to use the cluster from there. They name the token's file, not the token."""
        return self._folder / "environment"

    def start(self) -> None:
        """Start all nodes; returns when the head tells of them. Raises SessionError."""
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in self.environment().items()]
        write_private(self.environment_file, "".join(["unset RAY_AUTH_TOKEN\n", *lines]).encode())
        try:
            head = self._head()
            self._start([head])
            workers = [self._worker(*worker) for worker in self._first_workers]
            self._start(workers)
            self._await_known([head, *workers])
        except BaseException:
            self.stop()
            raise

    def add(self, cpus: int = 1, gpus: int = 0, labels: Mapping[str, str] = {}) -> int:
        """Start one more worker; returns its number when the head tells of it. Raises SessionError."""
        node = self._worker(cpus, gpus, labels)
        try:
            self._start([node])
            self._await_known([node])
        except BaseException:
            self.kill(node.number)
            raise
        return node.number

    def kill(self, number: int) -> None:
        """End a node as a crash of its machine would; returns when none of its processes is left. The head takes 13 s
        to notice. Raises ValueError."""
        if number not in self._nodes:
            raise ValueError(f"node {number}: there is none; there are {', '.join(map(str, self._nodes))}")
        self._nodes.pop(number).kill()

    def stop(self) -> None:
        """End all nodes and remove Ray's own files. What `ray start` printed stays in the folder."""
        for number in reversed(self._nodes.copy()):
            self.kill(number)
        shutil.rmtree(self._temp, ignore_errors=True)

    def known(self) -> list[dict[str, Any]]:
        """All nodes of which the head tells, dead ones too; none while it does not answer."""
        request = urllib.request.Request(
            f"{self.dashboard}/api/v0/nodes?detail=true&limit=10000",
            headers={"Authorization": f"Bearer {self._token}"},
        )
        try:
            with DIRECT.open(request, timeout=10) as response:
                told: list[dict[str, Any]] = json.load(response)["data"]["result"]["result"]
        except OSError:
            return []
        return told

    def __enter__(self) -> LocalCluster:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _head(self) -> Node:
        return self._node(
            "--head",
            f"--port={self._port}",
            f"--dashboard-host={LOOPBACK}",
            f"--dashboard-port={self._dashboard_port}",
            f"--ray-client-server-port={self._client_port}",
            "--num-cpus=0",
            "--num-gpus=0",
        )

    def _worker(self, cpus: int, gpus: int, labels: Mapping[str, str]) -> Node:
        return self._node(
            f"--address={self.address}",
            f"--num-cpus={cpus}",
            f"--num-gpus={gpus}",
            *([f"--labels={','.join(f'{key}={value}' for key, value in labels.items())}"] if labels else []),
        )

    def _node(self, *options: str) -> Node:
        """The next node, not started yet."""
        number, self._made = self._made, self._made + 1
        if number >= MOST_NODES:
            raise SessionError(f"a local cluster starts {MOST_NODES} nodes at most, with those that were killed")
        # In one temporary folder, nodes that start at once take each other's sockets.
        own = (*options, f"--temp-dir={self._temp / str(number)}")
        return Node(number, f"{self._block}.{number + 1}", self._folder, own)

    def _start(self, nodes: list[Node]) -> None:
        """Start nodes, all at once, then one after the other those again that a loaded machine was too slow for;
        returns when the head has heard of all. Raises SessionError."""
        for node in nodes:
            self._nodes[node.number] = node
            node.start(self._environment)
        for node in [node for node in nodes if not node.wait()]:
            for _ in range(START_ATTEMPTS - 1):
                node.start(self._environment)
                if node.wait():
                    break
            else:
                raise SessionError(f"node {node.number} did not start in {START_ATTEMPTS} tries: see {node.log}")

    def _await_known(self, nodes: list[Node]) -> None:
        """Wait until the head tells of nodes: its web server is there later than Ray."""
        deadline = time.monotonic() + READY_SECONDS
        expected = {node.address for node in nodes}
        while not expected <= {told["node_ip"] for told in self.known() if told["state"] == "ALIVE"}:
            if 0 not in self._nodes or not self._nodes[0].runs:
                raise SessionError(f"the head has ended; its log is {self._folder / 'node-0.log'}")
            if time.monotonic() > deadline:
                raise SessionError(f"after {READY_SECONDS} s the head does not tell of {', '.join(sorted(expected))}")
            time.sleep(POLL_SECONDS)


def _free_block() -> tuple[Path, str]:
    """A folder for Ray's files and the first three numbers of the nodes' addresses, which name it: no two clusters of
    this user have the same."""
    while True:
        block = f"127.{1 + secrets.randbelow(254)}.{secrets.randbelow(255)}"
        with suppress(FileExistsError):
            (folder := private_folder() / block).mkdir(mode=0o700)
            return folder, block
