"""Builds that commit at the same time and are killed while they do: nothing is lost, nothing is there twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.seaweed import Endpoint
from tests.soak.log import Build, check_log, publish, run_series
from tests.soak.mortal import DONE, KILLED, LOST, run_together
from tests.soak.places import place

SEEDS = [("local", 0), ("local", 1), ("s3", 2), ("s3", 3), ("faulty s3", 4), ("faulty s3", 5)]


@pytest.mark.parametrize(("kind", "seed"), SEEDS)
def test_builds_killed_while_they_commit_end_up_in_the_log_once_each(
    kind: str, seed: int, tmp_path: Path, seaweed: Endpoint
) -> None:
    with place(kind, f"log-{seed}", tmp_path, seaweed, seed) as there:
        run_series(there, seed)


def test_a_build_killed_at_any_point_is_committed_once_when_it_runs_again(tmp_path: Path, seaweed: Endpoint) -> None:
    with place("local", "points", tmp_path, seaweed) as there:
        for point in range(1000):
            build = Build(0, f"build-{point}", "nightly")
            [code] = run_together(there, publish, [(build, tmp_path / "told")], [point])
            check_log(there.store, tmp_path / "told")
            assert run_together(there, publish, [(build, tmp_path / "told")], [None]) == [DONE]
            assert len(check_log(there.store, tmp_path / "told")) == point + 1
            if code == DONE:
                break
        assert code == DONE
        assert point > 15  # it was killed between all its steps


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_of_twelve_builds_at_once_half_of_them_killed_each_number_has_one_winner_and_losers_rebase_or_exit_with_4(
    kind: str, tmp_path: Path, seaweed: Endpoint
) -> None:
    told = tmp_path / "told"
    builds = [Build(1, f"build-{n}", "build" if n % 4 == 3 else "nightly") for n in range(12)]
    # Points that each of them passes: while it writes its objects where another commit may end it, else at the commit.
    deaths = [None, 10, None, 3, None, 13, None, 6, None, 16, None, 9]
    with place(kind, "twelve", tmp_path, seaweed) as there:
        codes = run_together(there, publish, [(build, told) for build in builds], deaths)
        committed = {entry.build for entry in check_log(there.store, told)}
        for build, code, death in zip(builds, codes, deaths, strict=True):
            if code == DONE:
                assert build.name in committed
            elif code == LOST:
                assert (build.op, build.name in committed) == ("build", False)
            else:
                assert death is not None
                assert code in KILLED
        assert sum(code in KILLED for code in codes) == 6
        again = [(build, told) for build, code in zip(builds, codes, strict=True) if code in KILLED]
        assert set(run_together(there, publish, again, [None] * len(again))) <= {DONE, LOST}
        entries = check_log(there.store, told)
    assert {build.name for build in builds if build.op == "nightly"} <= {entry.build for entry in entries}
