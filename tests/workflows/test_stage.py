"""Stages: what is in their identity, and the laws their manifests must keep. Without Ray."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import open_store
from operators.limit import Limit
from operators.read.rows import INTERNAL
from operators.text.gopher_quality import GopherQuality
from operators.text.normalize import Normalize
from workflows.recipe import Params, Recipe
from workflows.stage import ConservationError, Job, Stage, check_conservation, fingerprint
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
