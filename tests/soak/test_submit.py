"""Builds as jobs of a real cluster of three nodes, with a token: submitted, followed, killed, stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cluster.local_cluster import LocalCluster
from tests.workflows.corpora import hashes, lay_out, recipe

PROGRAM = "from workflows.cli import main; main()"
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with LocalCluster(tmp_path_factory.mktemp("cluster"), environment={"PATH": path}) as found:
        yield found


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    lay_out(folder, sample)
    return folder


def command(cluster: LocalCluster, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=own | cluster.environment() | environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def jobs(cluster: LocalCluster) -> dict[str, dict[str, Any]]:
    told = json.loads(command(cluster, "job", "list", "--json").stdout)
    return {one["job"]: one for one in told}


def driver(name: str) -> int:
    """The process of the job that builds the recipe of this name, once it is there."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # processes end
                line = file.read_bytes().split(b"\0")
                if b"workflows.entrypoint" in line and line[-2:] == [name.encode(), b""]:
                    return int(file.parent.name)
        time.sleep(0.2)
    raise AssertionError(f"no driver of {name}")


def test_a_submitted_build_is_the_embedded_one(cluster: LocalCluster, inputs: Path, tmp_path: Path) -> None:
    one, other = (recipe(tmp_path / f"{n}.yaml", [str(inputs)], tmp_path / n) for n in ("embedded", "submitted"))
    embedded = command(cluster, "build", str(one), "--json", RAY_ADDRESS="")
    assert embedded.returncode == 0, embedded.stderr
    submitted = command(cluster, "submit", str(other), "--json", "--id", "same")
    assert submitted.returncode == 0, submitted.stderr
    a, b = json.loads(embedded.stdout), json.loads(submitted.stdout)
    assert a["build_id"] == b["build_id"]
    assert hashes(a) == hashes(b)
    told = jobs(cluster)["same"]
    assert (told["status"], told["op"], told["build_id"]) == ("SUCCEEDED", "build", a["build_id"])
    log = command(cluster, "job", "logs", "same")
    assert log.stdout.count("Done. kept=") == 1
    assert "corpusmill-result" not in log.stdout
    again = command(cluster, "submit", str(other), "--id", "same")
    assert again.returncode == 1
    assert "has a job 'same' already" in again.stderr


def test_without_the_token_nothing_is_submitted(cluster: LocalCluster, inputs: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path / "text.yaml", [str(inputs)], tmp_path / "out")
    before = jobs(cluster)
    without = command(cluster, "submit", str(path), RAY_AUTH_MODE="disabled")
    assert (without.returncode, "asks for a token" in without.stderr) == (1, True)
    wrong = command(cluster, "submit", str(path), RAY_AUTH_TOKEN="ab" * 32)
    assert (wrong.returncode, "refuses the token" in wrong.stderr) == (1, True)
    assert "ab" * 32 not in wrong.stdout + wrong.stderr
    assert jobs(cluster) == before


def test_a_gate_that_refuses_ends_the_command_with_3(cluster: LocalCluster, inputs: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path / "gate.yaml", [str(inputs)], tmp_path / "out", gates={"min_kept": 100_000})
    done = command(cluster, "submit", str(path), "--json", "--retries", "2", "--id", "gated")
    assert (done.returncode, done.stdout) == (3, "")
    assert "gates.min_kept" in done.stderr
    assert "gated-2" not in jobs(cluster)


def test_a_job_whose_driver_is_killed_is_tried_again(cluster: LocalCluster, inputs: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path / "killed.yaml", [str(inputs)], tmp_path / "out")
    own = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    arguments = ["submit", str(path), "--json", "--retries", "1", "--id", "killed"]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=own | cluster.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.kill(driver(f"_elsewhere{path}"), signal.SIGKILL)
        said = process.communicate(timeout=900)
    assert process.returncode == 0, said[1]
    assert "killed by signal 9; try 2 of 2" in said[1]
    assert json.loads(said[0])["committed"]
    assert {name: job["status"] for name, job in jobs(cluster).items() if name.startswith("killed")} == {
        "killed": "FAILED",
        "killed-2": "SUCCEEDED",
    }


def test_a_job_that_is_stopped_says_so_and_goes_on_when_submitted_again(
    cluster: LocalCluster, inputs: Path, tmp_path: Path
) -> None:
    path = recipe(tmp_path / "stopped.yaml", [str(inputs)], tmp_path / "out")
    detached = command(cluster, "submit", str(path), "--detach", "--json", "--id", "stopped")
    assert json.loads(detached.stdout)["job"] == "stopped"
    driver(f"_elsewhere{path}")
    deadline = time.monotonic() + 120
    while not any((tmp_path / "out").glob("stages/read-*/_done/*")):
        assert time.monotonic() < deadline, "the build did not begin"
        time.sleep(0.1)
    assert "was stopped" in command(cluster, "job", "stop", "stopped").stdout
    told = json.loads(command(cluster, "job", "status", "stopped", "--json").stdout)
    assert (told["status"], told["exit_code"]) == ("STOPPED", 130)
    assert "interrupted" in command(cluster, "job", "logs", "stopped").stdout
    followed = command(cluster, "job", "logs", "--follow", "stopped")
    assert followed.returncode == 130
    assert command(cluster, "submit", str(path)).returncode == 0
