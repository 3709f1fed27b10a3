"""A table at the end: what the series did and how long they took, as docs/reliability.md has it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.soak.building import Ground, ground

DONE: dict[str, Counter[Any]] = defaultdict(Counter)
SAID: list[str] = []


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Counter[Any]:
    """Counts of this test's function, summed over its parameters and shown at the end."""
    return DONE[request.node.originalname]


@pytest.fixture
def say() -> list[str]:
    """Lines to show at the end."""
    return SAID


@pytest.fixture(scope="session")
def on(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Iterator[Ground]:
    """The ground of all builds that are disturbed."""
    with ground(tmp_path_factory.mktemp("ground"), sample) as found:
        yield found


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show what was counted and said."""
    for name, counts in DONE.items():
        told = ", ".join(f"{what}: {n}" for what, n in sorted(counts.items(), key=lambda item: str(item[0])))
        terminalreporter.write_line(f"{name}: {told}")
    for line in SAID:
        terminalreporter.write_line(line)
