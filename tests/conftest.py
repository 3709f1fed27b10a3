"""Shared fixtures: no network, one embedded Ray for the whole run, skips that count as failures in CI."""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings

from cluster.seaweed import Endpoint, serve
from cluster.session import prepare_environment, session

prepare_environment()
settings.register_profile("untimed", deadline=None)  # how busy a machine is decides no test
settings.load_profile("untimed")
BUCKET = "corpora"
LONGEST_FIRST = ("workflows", "security", "cluster", "browser", "test_docs.py")  # then the rest, short files all


@pytest.fixture(scope="session")
def seaweed() -> Iterator[Endpoint]:
    """One S3 server for the run, which all AWS clients of this process and its children use from then on."""
    with TemporaryDirectory(prefix="seaweed-") as folder, serve(Path(folder), [BUCKET]) as endpoint:
        os.environ.update(endpoint.environment())
        yield endpoint


@pytest.fixture
def s3(seaweed: Endpoint, request: pytest.FixtureRequest) -> str:
    """A url below which nothing is yet, for one test."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name).strip("-")
    return f"s3://{BUCKET}/{name[:60]}-{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def ray_session(seaweed: Endpoint) -> Iterator[None]:
    """Embedded Ray with two CPUs, started once; builds in this process use it. Its workers have the environment of
    its start, so the server comes first."""
    with session(cpus=2):
        yield


@pytest.fixture(scope="session")
def sample() -> Path:
    """Folder of the sample that the demo is made of: sample.parquet, sample.warc.gz."""
    return Path(__file__).parents[1] / "workflows" / "sample"


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole builds first: of two processes neither is left with a long file at the end."""
    places = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.relative_to(Path(__file__).parent).parts[0], len(places)))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Iterator[None]:
    outcome: Any = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CORPUSMILL_NO_SKIPS") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be: {report.longrepr}"
