"""Builds that are killed or lose their store while they run: the next one goes on and ends with the same bytes.

Each build is a process of its own, as a user would run it. `make soak` has more seeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.soak.building import Ground, ground, run_series

SEEDS = [("local", 0, ["worker", "clock"])]


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Iterator[Ground]:
    with ground(tmp_path_factory.mktemp("crash"), sample) as found:
        yield found


@pytest.mark.parametrize(("kind", "seed", "kinds"), SEEDS)
def test_a_disturbed_build_ends_with_the_shards_of_one_that_nobody_disturbed(
    kind: str, seed: int, kinds: list[str], on: Ground
) -> None:
    assert run_series(on, kind, seed, kinds).total() >= 1
