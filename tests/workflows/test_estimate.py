"""Estimates: the arithmetic of what spreads and what does not, and what is said where nothing is known. Without Ray."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.text.normalize import Normalize
from operators.tokens.tokenizer import Tokenizer
from workflows.estimate import PASS_SECONDS, UNIT_SECONDS, Nodes, Rates, efficiency_of, estimate, rates_of, told
from workflows.map_stage import MOST_FILE_BYTES, MOST_UNITS, file_bytes
from workflows.recipe import RecipeError
from workflows.stage import Stage

GB = 10**9


def one_pass(name: str, units: int, cpu_seconds: float, fold: bool = False) -> dict[str, Any]:
    return {"name": name, "units": units, "seconds": cpu_seconds, "cpu_seconds": cpu_seconds, "fold": fold}


def manifest() -> dict[str, Any]:
    """Of a build over 1 GB on 2 CPUs: 100 CPU seconds that spread in each of two stages, a fold of 8 s in one."""
    read = {"name": "read", "seconds": 60.0, "passes": [one_pass("documents", 10, 100.0)], "gpu_seconds": 0.0}
    passes = [one_pass("a/rows", 10, 70.0), one_pass("a/unite", 1, 8.0, fold=True), one_pass("documents", 10, 30.0)]
    dedup = {"name": "dedup", "seconds": 68.0, "passes": passes, "gpu_seconds": 0.0}
    moved = {"read_bytes": GB, "written_bytes": GB, "shuffled_bytes": GB // 2, "characters": {"in": GB}}
    stages = [stage | moved for stage in (read, dedup)]
    return {
        "build_id": "b" * 16,
        "inputs": {"bytes": GB},
        "stages": stages,
        "cost": {"ran": ["read", "dedup"], "cpus": 2},
    }


def plan(size: int, cached: tuple[str, ...] = ()) -> dict[str, Any]:
    stages = [{"name": name, "cached": name in cached, "operators": [name]} for name in ("read", "dedup")]
    return {"inputs": {"bytes": size}, "stages": stages}


STAGE = Stage("dedup", Stage("read", None, (Normalize(),)), (Normalize(form="NFKC"),))


def rates() -> Rates:
    found = rates_of(manifest())
    assert found is not None
    return found


def test_parts_that_spread_are_divided_and_folds_are_not() -> None:
    even = replace(rates(), efficiency=1.0)
    found = estimate(plan(4 * GB), STAGE, even, Nodes(nodes=5, cpus=4))
    read, dedup = found["stages"]
    assert read["cpu_seconds"] == dedup["cpu_seconds"] == 400
    assert read["serial_seconds"] == pytest.approx(PASS_SECONDS + 40 * UNIT_SECONDS, abs=0.06)
    assert dedup["serial_seconds"] == pytest.approx(4 * 8 + 3 * PASS_SECONDS + 80 * UNIT_SECONDS, abs=0.06)
    assert read["seconds"] == pytest.approx(400 / 20 + read["serial_seconds"], abs=0.06)
    assert found["seconds"] == pytest.approx(sum(one["seconds"] for one in found["stages"]))
    assert found["shuffled_bytes"] == 2 * 4 * GB // 2
    assert found["price"] is None


def test_efficiency_is_that_of_the_parts_that_spread() -> None:
    build = manifest()
    serial = 8 + 4 * PASS_SECONDS + 30 * UNIT_SECONDS
    assert efficiency_of(build, rates().stages) == pytest.approx(200 / (2 * (128 - serial)), abs=0.002)
    build["cost"]["ran"] = []
    assert rates_of(build).efficiency is None  # type: ignore[union-attr]


def test_the_build_that_gave_the_rates_is_estimated_as_it_was() -> None:
    found = estimate(plan(GB), STAGE, rates(), Nodes(cpus=2, price=1.5))
    assert found["seconds"] == pytest.approx(60 + 68, abs=0.5)
    assert found["price"] == pytest.approx(128 / 3600 * 1.5, abs=0.01)


def test_only_what_is_not_cached_is_to_be_done() -> None:
    found = estimate(plan(GB, cached=("read",)), STAGE, rates(), Nodes(cpus=2))
    assert [one["name"] for one in found["stages"]] == ["dedup"]
    nothing = estimate(plan(GB, cached=("read", "dedup")), STAGE, rates(), Nodes())
    assert told(nothing) == ["every stage is cached: there is nothing to do"]


def test_without_rates_it_says_so() -> None:
    assert "nothing to estimate from" in told(estimate(plan(GB), STAGE, None, Nodes()))[0]
    old = manifest()
    del old["stages"][0]["passes"]
    assert rates_of(old) is None
    known = replace(rates(), stages={"read": rates().stages["read"]})
    found = estimate(plan(GB), STAGE, known, Nodes())
    assert "dedup: no earlier build had this stage" in found["why"]
    assert found["why"] in told(found)


def test_gpus_bound_a_stage_that_had_them() -> None:
    build = manifest()
    build["stages"][0]["gpu_seconds"] = 3600.0
    known = rates_of(build)
    found = estimate(plan(GB), STAGE, known, Nodes(nodes=2, cpus=64, gpus=4))
    assert found["stages"][0]["seconds"] == pytest.approx(450, abs=1)
    without = estimate(plan(GB), STAGE, known, Nodes(cpus=64))
    assert any("the cluster has none" in line for line in without["assumptions"])


def test_a_fit_grows_to_its_sample_and_no_further() -> None:
    build = manifest()
    fit = one_pass("tokenizer/fit", 1, 10.0, fold=True)
    build["stages"][1] = build["stages"][1] | {"passes": [fit], "characters": {"in": 32 << 20}}  # half of its sample
    stage = Stage("dedup", STAGE.upstream, (Tokenizer(),))
    found = estimate(plan(100 * GB), stage, rates_of(build), Nodes(cpus=2))
    assert found["stages"][1]["serial_seconds"] == pytest.approx(20 + PASS_SECONDS, abs=0.06)


@given(st.integers(1, 10**16), st.integers(1, 500), st.integers(1, 500))
def test_more_nodes_never_take_longer(size: int, few: int, more: int) -> None:
    known = rates()
    times = [estimate(plan(size), STAGE, known, Nodes(nodes=n, cpus=8))["seconds"] for n in (few, few + more)]
    assert times[0] >= times[1] > 0
    assert max(one["most_units"] for one in estimate(plan(size), STAGE, known, Nodes())["stages"]) <= MOST_UNITS


def test_wrong_clusters_are_named() -> None:
    with pytest.raises(RecipeError, match="nodes: at least 1, got 0"):
        Nodes(nodes=0)
    with pytest.raises(RecipeError, match="price"):
        Nodes(price=float("nan"))


def test_superlinear_stages_are_pointed_out() -> None:
    planned = copy.deepcopy(plan(2 * GB))
    planned["stages"][1]["operators"] = ["order"]
    assert any("order may take more" in line for line in estimate(planned, STAGE, rates(), Nodes())["assumptions"])


@given(st.integers(0, 10**17))
def test_files_grow_with_the_input_and_stay_what_memory_holds(total: int) -> None:
    size = file_bytes(total)
    assert 64 << 20 <= size <= MOST_FILE_BYTES
    if 4 * total <= MOST_UNITS * MOST_FILE_BYTES:
        assert 4 * total <= size * (MOST_UNITS + 1)
    assert file_bytes(total + 10**12) >= size
