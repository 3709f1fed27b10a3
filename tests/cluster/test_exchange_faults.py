"""A shuffle whose workers are killed, over stores that fail, ends with the same files as one that nobody disturbs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.seaweed import Endpoint
from tests.soak.mortal import DONE, run_together
from tests.soak.places import place
from tests.soak.shuffle import committed_files, run_series, work_through

SEEDS = [("faulty s3", 0)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, seaweed: Endpoint) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    with place("local", "undisturbed", folder, seaweed) as there:
        assert run_together(there, work_through, [(0, folder / "told")], [None]) == [DONE]
        return committed_files(there.store)


@pytest.mark.parametrize(("kind", "seed"), SEEDS)
def test_a_shuffle_whose_workers_are_killed_ends_with_the_same_files(
    kind: str, seed: int, tmp_path: Path, seaweed: Endpoint, undisturbed: list[dict[str, Any]]
) -> None:
    with place(kind, f"shuffle-{seed}", tmp_path, seaweed, seed) as there:
        run_series(there, seed)
        assert committed_files(there.store) == undisturbed
