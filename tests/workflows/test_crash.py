"""Builds that are killed: the driver or a worker, in each stage. The next `build` goes on and ends with the same bytes.

Each build is a process of its own, as a user would run it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.workflows.corpora import hashes, lay_out, recipe

STAGES = ("read", "clean", "dedup", "tokens")
COMMAND = Path(sys.executable).with_name("corpusmill")
PATIENCE = 120.0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Path:
    folder = tmp_path_factory.mktemp("crash")
    lay_out(folder / "in", sample)
    return folder


def start(path: Path) -> subprocess.Popen[bytes]:
    command = [COMMAND, "build", str(path), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def finish(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err.decode()
    result: dict[str, Any] = orjson.loads(out)
    return result


def wait_for(process: subprocess.Popen[bytes], output: Path, stage: str) -> None:
    """Return as soon as the first unit of the stage has started."""
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE:
        started = (next(folder.glob("**/_starts/*/*"), None) for folder in output.glob(f"stages/{stage}-*"))
        if any(started):
            return
        if process.poll() is not None:
            return
        time.sleep(0.01)
    raise AssertionError(f"stage {stage} did not start within {PATIENCE} s")


def workers_of(process: subprocess.Popen[bytes]) -> Iterator[int]:
    """Processes of the build's Ray that are running a unit."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if os.getsid(int(entry.name)) == process.pid and b"ray::MapBatches" in (entry / "cmdline").read_bytes():
                yield int(entry.name)
        except (ProcessLookupError, FileNotFoundError):
            continue


@pytest.fixture(scope="module")
def undisturbed(corpus: Path) -> list[tuple[str, str]]:
    return hashes(finish(start(recipe(corpus / "plain.yaml", [str(corpus / "in")], corpus / "out-plain"))))


def test_a_driver_killed_in_each_stage_leaves_no_manifest_there_and_the_next_build_goes_on(
    corpus: Path, undisturbed: list[tuple[str, str]]
) -> None:
    output = corpus / "out-driver"
    path = recipe(corpus / "driver.yaml", [str(corpus / "in")], output)
    for number, stage in enumerate(STAGES):
        process = start(path)
        wait_for(process, output, stage)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert finished(output) == STAGES[:number]
        assert not (output / "_log").exists()
    result = finish(start(path))
    assert tuple(s["name"] for s in result["stages"] if s["cached"]) == STAGES[:-1]
    assert hashes(result) == undisturbed
    assert (result["committed"], result["log_number"]) == (True, 1)


def finished(output: Path) -> tuple[str, ...]:
    """Stages with a manifest."""
    return tuple(name for name in STAGES if list(output.glob(f"stages/{name}-*/manifest.json")))


def test_killed_workers_are_replaced_and_the_build_ends_the_same(
    corpus: Path, undisturbed: list[tuple[str, str]]
) -> None:
    output = corpus / "out-workers"
    process = start(recipe(corpus / "workers.yaml", [str(corpus / "in")], output))
    killed = 0
    for stage in STAGES:
        wait_for(process, output, stage)
        for pid in list(workers_of(process))[:1]:
            os.kill(pid, signal.SIGKILL)
            killed += 1
    result = finish(process)
    assert killed >= 2
    assert hashes(result) == undisturbed
