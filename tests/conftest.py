"""Shared fixtures: no network, one embedded Ray for the whole run, skips that count as failures in CI."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.session import prepare_environment, session

prepare_environment()
DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Embedded Ray with two CPUs, started once; builds in this process use it."""
    with session(cpus=2):
        yield


@pytest.fixture(scope="session")
def sample() -> Path:
    """Folder of the committed sample: sample.parquet, sample.warc.gz."""
    return DATA / "sample"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection from a test to anything but this machine raises."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(("127.", "::1")):
            own = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)}
            if address[0] not in own | {"localhost"}:
                raise AssertionError(f"a test tried to connect to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Iterator[None]:
    outcome: Any = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CORPUSMILL_NO_SKIPS") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be: {report.longrepr}"
