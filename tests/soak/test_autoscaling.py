"""A stage that asks for a GPU on a cluster that has none: Ray's own autoscaler starts the node and takes it away.

The nodes are real, made on this machine by Ray's fake provider; their GPU is one that only Ray believes in.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from cluster.local_cluster import LocalCluster, Node
from tests.soak.building import COMMAND

pytestmark = pytest.mark.timeout(1800)

POOL = "corpusmill/pool"
HEAD = "ray.head.default"  # what the provider says of the node that it did not start
DOCUMENTS = 300
IDLE_MINUTES = 0.2
RELEASE_SECONDS = 90.0
TYPES: dict[str, Any] = {
    HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
    "cpu_worker": {"resources": {"CPU": 1}, "labels": {POOL: "cpu"}, "node_config": {}, "max_workers": 2},
    "gpu_worker": {"resources": {"CPU": 1, "GPU": 1}, "labels": {POOL: "gpu"}, "node_config": {}, "max_workers": 1},
}


class Autoscaling(LocalCluster):
    """A head alone, whose autoscaler starts nodes of those types."""

    def __init__(self, folder: Path) -> None:
        environment = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
        super().__init__(folder, nodes=1, environment=environment)
        provider = {"type": "fake_multinode", "gcs_address": self.address, "disable_node_updaters": True}
        # All nodes have one address: without this, none of them is ever seen idle.
        provider |= {"use_node_id_as_ip": True, "disable_launch_config_check": True}
        config: dict[str, Any] = {"cluster_name": "fake", "provider": provider, "max_workers": 3, "auth": {}}
        config |= {"idle_timeout_minutes": IDLE_MINUTES, "upscaling_speed": 1.0, "docker": {}, "file_mounts": {}}
        config |= {"available_node_types": TYPES, "head_node_type": HEAD, "file_mounts_sync_continuously": False}
        commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
        config |= {f"{name}_commands": [] for name in commands}
        config |= dict.fromkeys(("cluster_synced_files", "rsync_exclude", "rsync_filter"), [])
        self._config = folder / "autoscaling.yaml"
        self._config.write_text(yaml.safe_dump(config), "utf-8")

    def _head(self) -> Node:
        head = super()._head()
        head.command = [*head.command, f"--autoscaling-config={self._config}"]
        return head

    def pools(self) -> list[str]:
        """The pools of the living nodes that the autoscaler started."""
        alive = [node for node in self.known() if node["state"] == "ALIVE"]
        return sorted(node["labels"][POOL] for node in alive if POOL in node["labels"])


class Watch(threading.Thread):
    """Notes when the pools change, in seconds since it began."""

    def __init__(self, cluster: Autoscaling) -> None:
        super().__init__(daemon=True)
        self._cluster, self._began, self.stopped = cluster, time.monotonic(), False
        self.seen: list[tuple[float, list[str]]] = []

    def now(self) -> float:
        return time.monotonic() - self._began

    def run(self) -> None:
        while not self.stopped:
            pools = self._cluster.pools()
            if not self.seen or self.seen[-1][1] != pools:
                self.seen.append((round(self.now(), 1), pools))
            time.sleep(0.5)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Autoscaling]:
    found = Autoscaling(tmp_path_factory.mktemp("autoscaling"))
    with found:
        yield found


def build(folder: Path, sample: Path, workers: dict[str, Any], address: Autoscaling | None) -> Any:
    """The command's exit code, standard error and result."""
    pq.write_table(pq.read_table(sample / "sample.parquet")[:DOCUMENTS], folder / "pages.parquet")
    recipe: dict[str, Any] = {"workflow": "order", "inputs": [str(folder / "pages.parquet")]}
    recipe |= {"output": str(folder / "out")}
    recipe |= {"params": {"tokenizer": "off"}, "shards": {"formats": ["parquet"]}, "workers": workers}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), "utf-8")
    where = ["--address", address.address] if address else []
    environment = os.environ | (address.environment() if address else {})
    command = [sys.executable, str(COMMAND), "build", str(path), "--json", *where]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=900)
    return ran.returncode, ran.stderr, json.loads(ran.stdout) if ran.returncode == 0 else None


def test_a_gpu_node_comes_for_the_stage_that_asks_and_goes(
    cluster: Autoscaling, tmp_path: Path, sample: Path, say: list[str]
) -> None:
    for name in ("embedded", "scaled"):
        (tmp_path / name).mkdir()
    _, _, expected = build(tmp_path / "embedded", sample, {}, None)
    watch = Watch(cluster)
    watch.start()
    workers = {"gpus": 1, "labels": {POOL: "cpu"}, "gpu_labels": {POOL: "gpu"}}
    code, told, result = build(tmp_path / "scaled", sample, workers, cluster)
    ended = watch.now()
    assert code == 0, told
    assert "stages read, dedup, order, tokens: workers.labels {corpusmill/pool: cpu}: no node" in told
    assert "labels {corpusmill/pool: gpu} yet: waiting for the autoscaler to start gpu_worker" in told
    assert [shard["sha256"] for shard in result["shards"]] == [shard["sha256"] for shard in expected["shards"]]
    up = next(at for at, pools in watch.seen if "gpu" in pools)
    assert up < ended
    while cluster.pools() and watch.now() < ended + RELEASE_SECONDS:
        time.sleep(0.5)
    released = watch.now() - ended
    watch.stopped = True
    watch.join()
    assert cluster.pools() == []
    say.append(f"autoscaling: {watch.seen}; build {ended:.0f} s, nodes gone {released:.0f} s after it\n{told}")


def test_what_no_node_type_has_is_an_error_at_once(cluster: Autoscaling, tmp_path: Path, sample: Path) -> None:
    code, told, _ = build(tmp_path, sample, {"gpus": 2}, cluster)
    assert code == 2
    assert "stage order: workers.gpus 2: no node has 1 CPU, 2 GPU; nodes: {no CPU}" in told
    assert "the autoscaler starts: cpu_worker {1 CPU}, gpu_worker {1 CPU, 1 GPU}" in told
