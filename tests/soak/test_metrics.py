"""A build on a cluster under Prometheus: each query of the shipped dashboard answers with figures."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from cluster.local_cluster import LocalCluster
from cluster.monitoring import Monitoring
from tests.cluster.test_monitoring import needs_prometheus, panels, queries
from tests.soak.building import COMMAND
from tests.workflows.corpora import lay_out, recipe

QUIET = {"Alerts"}  # nothing is wrong with this build
LATE_SECONDS = 120.0  # for figures after the end of the build
PORT = 19_390


def answered(monitoring: Monitoring) -> set[str]:
    """The panels all of whose queries have an answer now."""
    found = set()
    for panel in panels():
        counts = []
        for expr in queries(panel):
            url = f"{monitoring.prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expr})}"
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=20) as answer:
                counts.append(len(json.load(answer)["data"]["result"]))
        if all(counts):
            found.add(panel["title"])
    return found


@needs_prometheus
@pytest.mark.timeout(1200)
def test_every_panel_shows_a_build(tmp_path: Path, sample: Path, say: list[str]) -> None:
    lay_out(tmp_path / "in", sample)
    made = recipe(tmp_path / "r.yaml", [str(tmp_path / "in")], tmp_path / "out")
    seen: set[str] = set()
    with LocalCluster(tmp_path / "cluster", nodes=2, cpus=2) as cluster:
        environment = cluster.environment()
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("RAY_AUTH_TOKEN", raising=False)
            patch.setenv("RAY_AUTH_TOKEN_PATH", environment["RAY_AUTH_TOKEN_PATH"])
            monitoring = Monitoring(tmp_path / "metrics", address=cluster.dashboard, port=PORT)
            monitoring.write()
        with monitoring.servers(), (tmp_path / "told").open("wb") as told:
            command = [COMMAND, "build", made, "--address", cluster.address]
            build = subprocess.Popen(command, env=os.environ | environment, stdout=told, stderr=told)
            ended = None
            while ended is None or (seen != everything() and time.monotonic() - ended < LATE_SECONDS):
                seen |= answered(monitoring)
                if ended is None and build.poll() is not None:
                    ended = time.monotonic()
                time.sleep(2)
            assert build.returncode == 0, (tmp_path / "told").read_text()
    assert everything() <= seen
    say.append(f"{len(seen)} panels of the dashboard answered during a build on a cluster")


def everything() -> set[str]:
    return {panel["title"] for panel in panels()} - QUIET
