"""The long crash series, which `make test` has no time for."""

from __future__ import annotations

import os
import random
import subprocess
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest

from cluster.seaweed import Endpoint
from operators.dedup.decontaminate import Decontaminate
from operators.dedup.exact import ExactDedup
from operators.dedup.lines import LineDedup
from operators.dedup.minhash import MinHashDedup
from operators.dedup.semantic import SemanticDedup
from operators.dedup.substring import ExactSubstring
from operators.dedup.unique_id import UniqueId
from operators.ordering.order import Order
from tests.cluster.test_commit_faults import SEEDS as LOG_SEEDS
from tests.operators.dedup.rows import sample_texts
from tests.soak import log, shuffle
from tests.soak.building import PATIENCE, Ground, run_series, site
from tests.soak.checks import check_corpus, check_interrupted
from tests.soak.kills import check_kills
from tests.soak.mortal import DONE, run_together
from tests.soak.places import KINDS, place
from tests.workflows.test_minhash_stage import units

SEEDS = 40  # of the log, with those of `make test`, and as many of the shuffle
BUILDS: dict[str, list[list[str]]] = {
    "local": [
        ["worker", "clock"],
        ["worker", "worker"],
        ["driver", "worker"],
        ["driver", "driver", "worker"],
        ["clock", "worker"],
        ["boot"],
        ["boot", "worker"],
    ],
    "s3": [
        ["driver"],
        ["driver", "worker"],
        ["worker", "server"],
        ["server", "driver"],
        ["driver", "server", "worker"],
        ["worker", "worker"],
    ],
    "faulty s3": [["worker"], ["driver"], ["server", "driver"]],
}


def seeds(begin: int = 0) -> list[tuple[str, int]]:
    """Those from `begin` to SEEDS, each with a kind of place in turn."""
    return [(KINDS[seed % len(KINDS)], seed) for seed in range(begin, SEEDS)]


@pytest.mark.parametrize(("kind", "seed"), seeds(len(LOG_SEEDS)))
def test_builds_killed_while_they_commit_end_up_in_the_log_once_each(
    kind: str, seed: int, tmp_path: Path, seaweed: Endpoint, tally: Counter[Any]
) -> None:
    with place(kind, f"soak-log-{seed}", tmp_path, seaweed, seed) as there:
        tally.update(log.run_series(there, seed))
    tally[kind] += 1


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, seaweed: Endpoint) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    with place("local", "undisturbed", folder, seaweed) as there:
        assert run_together(there, shuffle.work_through, [(0, folder / "told")], [None]) == [DONE]
        return shuffle.committed_files(there.store)


@pytest.mark.parametrize(("kind", "seed"), seeds())
def test_a_shuffle_whose_workers_are_killed_ends_with_the_same_files(
    kind: str, seed: int, tmp_path: Path, seaweed: Endpoint, undisturbed: list[dict[str, Any]], tally: Counter[Any]
) -> None:
    with place(kind, f"soak-shuffle-{seed}", tmp_path, seaweed, seed) as there:
        tally.update(shuffle.run_series(there, seed))
        assert shuffle.committed_files(there.store) == undisturbed
    tally[kind] += 1


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("kind", "seed", "kinds"),
    [
        (kind, seed, kinds)
        for seed, (kind, kinds) in enumerate((kind, kinds) for kind, several in BUILDS.items() for kinds in several)
    ],
)
def test_a_disturbed_build_ends_with_the_shards_of_one_that_nobody_disturbed(
    kind: str, seed: int, kinds: list[str], on: Ground, tally: Counter[Any]
) -> None:
    tally.update(run_series(on, kind, seed, kinds))
    tally[kind] += 1


@pytest.mark.timeout(900)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
@pytest.mark.parametrize("seed", [0, 1])
def test_a_build_on_a_full_disk_fails_by_name_and_goes_on_when_there_is_room(
    seed: int, on: Ground, tally: Counter[Any]
) -> None:
    with site("local", seed, on) as there, ExitStack() as stack:
        folder = Path(there.place.url)
        folder.mkdir()
        size = random.Random(seed).randrange(100_000, 600_000)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
        stack.callback(subprocess.run, ["umount", "--lazy", folder], check=True)
        _, told = (process := there.start()).communicate(timeout=PATIENCE)
        assert (process.returncode, b"No space left on device" in told) == (1, True), told.decode()
        there.check(check_interrupted)
        subprocess.run(["mount", "-o", "remount,size=50m", folder], check=True)
        _, told = (process := there.start()).communicate(timeout=PATIENCE)
        assert process.returncode == 0, told.decode()
        there.check(check_corpus, on.expected)
    tally["full disk"] += 1


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_session")
def test_a_worker_killed_in_every_phase_of_every_deduplication(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Counter[Any]
) -> None:
    exam = tmp_path / "exam.jsonl"
    exam.write_bytes(orjson.dumps({"question": " ".join(sample_texts("en", 1)[0].split()[:40])}))
    steps = [
        UniqueId(),
        ExactDedup(),
        LineDedup(),
        MinHashDedup(verify="exact"),
        ExactSubstring(),
        SemanticDedup(threshold=0.8, clusters=4),
        Decontaminate(sets={"exam": str(exam)}),
    ]
    tally["killed in a pass"] += check_kills(tmp_path, units(200), steps, monkeypatch)


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_session")
def test_a_worker_killed_in_every_phase_of_ordering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Counter[Any]
) -> None:
    killed = check_kills(tmp_path, units(), [Order()], monkeypatch)
    assert killed >= 25
    tally["killed in a pass"] += killed
