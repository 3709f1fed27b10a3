"""Processes that are killed in the middle of what they do, at a point or a time that a seed names.

Points are what a process does to the outside, as Python's audit hooks see it: opening a file for writing, linking,
renaming, removing, making a folder, each piece sent to a server. A process is killed before one of them takes effect,
so the points lie between the steps of a store's operations as well as between the operations.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

from cluster.storage import StorageError
from tests.soak.places import Place

DONE, LOST, STORE_FAILED = 0, 4, 5
KILLED = (-signal.SIGKILL, -signal.SIGALRM)
EVENTS = frozenset({"os.link", "os.rename", "os.remove", "os.mkdir", "http.client.send"})
WRITING = os.O_WRONLY | os.O_RDWR
PATIENCE = 120.0  # seconds; a process that takes longer hangs

ON_USE = ("pandas", "pyarrow.acero", "pyarrow.dataset")  # what pyarrow imports when it is used, where it is installed

# The server of forks imports once what the children need, and each child is a fork of it: milliseconds instead of a
# second, and no threads that a fork would cut off.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["pytest", "cluster.s3_store", "cluster.local_store", "tests.soak.shuffle", "tests.soak.building", *ON_USE]
)

Death = int | float | None
"""The number of the point, or seconds; None for a process that lives."""


def start(place: Place, work: Callable[..., int], *arguments: Any, death: Death = None, barrier: Any = None) -> Any:
    """Run `work(place.url, *arguments)` in a process of its own, after waiting at `barrier`. Its exit code is what
    `work` returns, or STORE_FAILED for a StorageError; any other exception is a bug and exits with 1."""
    process = FORKS.Process(target=_run, args=(place, work, arguments, death, barrier), daemon=True)
    process.start()
    return process


def _run(place: Place, work: Callable[..., int], arguments: tuple[Any, ...], death: Death, barrier: Any) -> None:
    os.environ.update(place.environment)
    tempfile.tempdir = str(place.scratch)  # what a killed process leaves lies below the test's folder
    points = itertools.count()  # atomic, so that threads of the process share it

    def step(event: str, given: tuple[Any, ...]) -> None:
        writes = event in EVENTS or (event == "open" and isinstance(given[2], int) and given[2] & WRITING)
        if writes and next(points) == death:
            os.kill(os.getpid(), signal.SIGKILL)

    if barrier is not None:
        barrier.wait()
    sys.addaudithook(step)
    if isinstance(death, float):
        signal.setitimer(signal.ITIMER_REAL, death)  # nobody handles SIGALRM: it ends the process there and then
    try:
        code = work(place.url, *arguments)
    except StorageError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201  shown where a test fails
        code = STORE_FAILED
    sys.stderr.flush()
    os._exit(code)


def ended(process: BaseProcess) -> int:
    """Wait for the process; its exit code. What no crash explains is raised."""
    process.join(PATIENCE)
    code = process.exitcode
    if code is None:
        process.kill()
        raise AssertionError(f"{process.name} did not end within {PATIENCE} s")
    assert code in (DONE, LOST, STORE_FAILED, *KILLED), f"{process.name} failed with {code}; its error is above"
    return code


def run_together(
    place: Place, work: Callable[..., int], arguments: Sequence[tuple[Any, ...]], deaths: Sequence[Death]
) -> list[int]:
    """Start a process for each of `arguments` at the same moment; their exit codes."""
    barrier = FORKS.Barrier(len(arguments))
    processes = [
        start(place, work, *given, death=death, barrier=barrier) for given, death in zip(arguments, deaths, strict=True)
    ]
    return [ended(process) for process in processes]


def draw_death(chance: random.Random, points: int, seconds: float) -> Death:
    """One process in four lives; most of the others die at one of their first `points` points, some at a time."""
    lot = chance.random()
    if lot < 0.25:
        return None
    return chance.uniform(0, seconds) if lot < 0.4 else chance.randrange(points)
