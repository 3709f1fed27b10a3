"""Stages: what is in their identity, and the laws their manifests must keep. Without Ray."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import open_store
from operators.apply import Step
from operators.limit import Limit
from operators.read.rows import INTERNAL
from operators.text.gopher_quality import GopherQuality
from operators.text.normalize import Normalize
from workflows import map_stage
from workflows.map_stage import Totals
from workflows.recipe import Params, Recipe
from workflows.stage import (
    FATES,
    MOVED,
    TIMES,
    ConservationError,
    Job,
    Stage,
    check_conservation,
    fingerprint,
    spilled_between,
    summarise,
)
from workflows.text import text

FILE = {"rel": "a.txt", "version": "1", "source": None, "priority": 0, "weight": 1.0}


def job(tmp_path: Path, inputs: tuple[dict[str, Any], ...] = (FILE,), **recipe: Any) -> Job:
    return Job(open_store(str(tmp_path)), Recipe(inputs=["a.txt"], output="o", **recipe), inputs)


def stages(**parameters: Any) -> Stage:
    return Stage("clean", Stage("read", None, (Normalize(),)), (GopherQuality(**parameters),))


def test_a_parameter_changes_its_stage_and_not_the_one_above(tmp_path: Path) -> None:
    one, other = (stages(min_words=n).chain() for n in (50, 51))
    a, b = job(tmp_path), job(tmp_path)
    assert fingerprint(one[0], a) == fingerprint(other[0], b)
    assert fingerprint(one[1], a) != fingerprint(other[1], b)


@pytest.mark.parametrize("change", [{"version": "2"}, {"rel": "b.txt"}, {"source": "s"}, {"priority": 1}])
def test_a_changed_input_changes_every_stage(tmp_path: Path, change: dict[str, Any]) -> None:
    before, after = job(tmp_path), job(tmp_path, (FILE | change,))
    assert fingerprint(stages(), before) != fingerprint(stages(), after)


def test_placement_and_the_order_of_inputs_change_nothing(tmp_path: Path) -> None:
    other = FILE | {"rel": "b.txt"}
    one = job(tmp_path, (FILE, other))
    two = job(tmp_path, (other, FILE), workers={"cpus": 7, "unit_bytes": 5000})
    assert fingerprint(stages(), one) == fingerprint(stages(), two)


def test_a_stage_does_not_mix_kinds_or_names() -> None:
    with pytest.raises(ValueError, match="do not mix"):
        Stage("s", None, (Normalize(), Limit(documents=1)))
    with pytest.raises(ValueError, match="used twice"):
        Stage("s", None, (Normalize(), Normalize(form="NFKC")))


def manifest() -> dict[str, Any]:
    operator = {"name": "o", "rows_in": 8, "created": 1, "dropped": {"o/bad": 3}}
    return {
        "name": "s",
        **{"rows_in": 10, "created": 1, "kept": 6, "dropped": {"o/bad": 3}, "quarantined": 2},
        "files": {"kept": [{"rows": 6}]},
        "operators": [operator],
        "characters": {"in": 90, "created": 10, "kept": 60, "dropped": 30, "cut": 10},
    }


def test_a_manifest_that_adds_up_passes() -> None:
    check_conservation(manifest())


@pytest.mark.parametrize(
    "break_it",
    [
        lambda m: m.update(kept=5),
        lambda m: m["dropped"].update({"o/bad": 2}),
        lambda m: m.update(quarantined=1, kept=7),
        lambda m: m["files"]["kept"].append({"rows": 1}),
        lambda m: m["operators"][0].update(rows_in=9),
        lambda m: m["operators"][0]["dropped"].update({"o/bad": 2}),
        lambda m: m["characters"].update(cut=9),
    ],
)
def test_a_manifest_that_does_not_add_up_is_an_error(break_it: Callable[[dict[str, Any]], None]) -> None:
    broken = copy.deepcopy(manifest())
    break_it(broken)
    with pytest.raises(ConservationError, match="stage s"):
        check_conservation(broken)


def test_readers_rename_user_columns_that_operators_would_replace() -> None:
    params = Params({})
    added = {column for stage in text(params).chain() for step in stage.steps for column in step.operator.adds}
    assert added <= INTERNAL


def record(**changes: Any) -> dict[str, Any]:
    """Of a unit whose two operators took nearly all of it, as its runner leaves it."""
    rows = {"rows_in": 10, "created": 0, "kept": 10, "quarantined": 0, "dropped": {}, "quarantine_reasons": {}}
    chars = {"chars_in": 5, "chars_dropped": 0, "chars_out": 5}
    times = {"seconds": 1.23456, "cpu_seconds": 1.11117}
    operators = [{"name": n, "dropped": {}, "rows_in": 10, "created": 0, **chars, **times} for n in ("a", "b")]
    empty = Totals(()).record()
    spent = {"seconds": 2.4692, "cpu_seconds": 2.2224, "gpu_seconds": 4.9384, "node": "10.0.0.2"}
    moved = {"read_bytes": 7, "written_bytes": 5, "shuffled_bytes": 3, "peak_rss_bytes": 100}
    return empty | rows | {"operators": operators, "files": {f: [] for f in FATES}} | spent | moved | changes


def test_what_operators_cost_is_never_more_than_what_their_stage_did(tmp_path: Path) -> None:
    now = job(tmp_path)
    stage = Stage("clean", None, (Step("a", Normalize()), Step("b", Normalize())))
    passed = record(**{"pass": "a/fit", "operator": "a", "node": "10.0.0.1", "peak_rss_bytes": 900, "fold": True})
    found = summarise(stage, now, None, [record() for _ in range(100)], 130.0, None, [passed])
    for key in TIMES[1:]:
        assert 0 < sum(operator[key] for operator in found["operators"]) <= found[key] + 0.01
    assert found["seconds"] == 130.0
    assert found["cpu_seconds"] == pytest.approx(101 * 2.2224, abs=0.001)
    assert found["gpu_seconds"] == pytest.approx(101 * 4.9384, abs=0.001)
    assert [found[key] for key in MOVED] == [707, 505, 303]
    assert found["operators"][0]["cpu_seconds"] == pytest.approx(100 * 1.11117 + 2.2224, abs=0.001)
    assert found["operators"][1]["gpu_seconds"] == pytest.approx(2 * 100 * 1.23456, abs=0.001)
    assert found["peak_rss_bytes"] == 900
    assert found["nodes"] == ["10.0.0.1", "10.0.0.2"]
    told = [(one["name"], one["units"], one["fold"], one["longest"]) for one in found["passes"]]
    assert told == [("a/fit", 1, True, 2.4692), ("documents", 100, False, 2.4692)]


def test_what_was_spilled_is_unknown_where_a_node_did_not_answer() -> None:
    assert spilled_between(3, 10) == 7
    assert spilled_between(10, 3) == 0  # a node left
    assert spilled_between(None, 3) is spilled_between(3, None) is None


def test_units_of_a_large_input_grow_so_that_there_are_not_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(map_stage, "cpus", lambda: 64)
    for total, least in (
        (10**6, 1 << 20),
        (10**9, 10**9 // 256),
        (10**11, 32 << 20),
        (10**12, 10**8),
        (10**15, 10**11),
    ):
        size = map_stage.unit_bytes(job(tmp_path, (FILE | {"size": total},)))
        assert size == least
        assert -(-total // size) <= map_stage.MOST_UNITS
    given = job(tmp_path, (FILE | {"size": 10**12},), workers={"unit_bytes": 5000})
    assert map_stage.unit_bytes(given) == 5000
