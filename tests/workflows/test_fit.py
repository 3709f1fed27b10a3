"""Bounds are percentiles of what a sample shows, written into the recipe and drawn in the report of its build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.text.statistics import STATISTICS
from tests.workflows.corpora import recipe
from tests.workflows.test_cli import corpusmill
from workflows.fit import SIDES, Tail, _bounds, _dropped, _fitted
from workflows.recipe import load_recipe

FLOATS = st.lists(st.floats(0, 1e6), min_size=1, max_size=200)
OFF = dict.fromkeys(("gopher_repetition", "gopher_quality", "c4", "fineweb"), "off") | {"tokenizer": "off"}


def test_every_fitted_statistic_is_one() -> None:
    assert set(SIDES) <= {name for name, _ in STATISTICS}


@given(FLOATS, st.sampled_from([0.0, 0.01, 0.1, 0.5]))
@settings(deadline=None)
def test_at_most_the_tail_of_a_statistic_goes(values: list[float], tail: float) -> None:
    for name in ("words", "digits", "entropy"):
        column = {name: np.array(values)}
        bounds = _bounds(column, tail)
        ends = bounds.get(name, {})
        assert (np.array(values) < ends.get("min", -np.inf)).mean() <= tail
        assert (np.array(values) > ends.get("max", np.inf)).mean() <= tail
        assert set(ends) <= {"low": {"min"}, "high": {"max"}, "both": {"min", "max"}}[SIDES[name]]


@given(FLOATS, FLOATS, st.sampled_from([0.0, 0.05, 0.2, 0.9]))
@settings(deadline=None)
def test_all_bounds_together_drop_at_most_what_is_asked(words: list[float], digits: list[float], drop: float) -> None:
    n = min(len(words), len(digits))
    values = {"words": np.array(words[:n]), "digits": np.array(digits[:n])}
    found = _fitted("en", values, Tail(drop, "documents"))
    assert found.dropped == _dropped(values, found.bounds) <= drop


def test_documents_that_lack_a_statistic_are_not_asked() -> None:
    assert _bounds({"words": np.array([np.nan, np.nan])}, 0.1) == {}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, sample: Path, ray_session: None) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("fit")
    pq.write_table(pq.read_table(sample / "sample.parquet").slice(0, 600), folder / "docs.parquet")
    written = recipe(
        folder / "mine.yaml",
        [str(folder / "docs.parquet")],
        folder / "out",
        params=OFF,
        shards={"formats": ["parquet"]},
    )
    written.write_text("# by hand\n" + written.read_text("utf-8"), "utf-8")
    done = corpusmill("fit-thresholds", written, "--least", 100, "--drop", 0.2, "--json")
    assert done.code == 0, done.err
    return folder / "mine.fitted.yaml", done.json


def test_bounds_are_written_into_a_recipe_that_keeps_the_rest(fitted: tuple[Path, Any]) -> None:
    path, told = fitted
    assert path.read_text("utf-8").startswith("# by hand\n")
    found, _ = load_recipe(path)
    bounds = found.params["text_rules"]["bounds"]
    assert found.params["c4"] == "off"
    assert {one["language"]: one["bounds"] for one in told["languages"]} == bounds
    assert {"en", "*"} <= bounds.keys()
    assert all(0 < one["dropped"] <= 0.2 for one in told["languages"])


def test_the_build_of_it_drops_as_foretold_and_draws_each_cut(fitted: tuple[Path, Any]) -> None:
    path, told = fitted
    done = corpusmill("build", path, "--json")
    clean = next(stage for stage in done.json["stages"] if stage["name"] == "clean")
    [rules] = [operator for operator in clean["operators"] if operator["name"] == "text_rules"]
    foretold = sum(one["dropped"] * one["documents"] for one in told["languages"])
    assert sum(rules["dropped"].values()) == round(foretold)  # the sample was of all documents
    report = next((path.parent / "out" / "builds").glob("*/report.html")).read_text("utf-8")
    ends = sum(len(bounds) for one in told["languages"] for bounds in one["bounds"].values())
    assert report.count("<title>cut at") == ends


def test_the_same_recipe_gives_the_same_bounds(fitted: tuple[Path, Any], tmp_path: Path) -> None:
    path, _ = fitted
    again = corpusmill("fit-thresholds", path, "--least", 100, "--drop", 0.2, "--output", tmp_path / "again.yaml")
    assert again.code == 0, again.err
    assert (tmp_path / "again.yaml").read_bytes() == path.read_bytes()


def test_bounds_that_cross_are_left_out_and_too_small_a_sample_is_refused(
    fitted: tuple[Path, Any], tmp_path: Path
) -> None:
    values = {"entropy": np.array([1.0, 2.0, 3.0]), "words": np.array([1.0, 2.0, 3.0])}
    assert _bounds(values, 0.9) == {"words": {"min": 3.0}}
    path, _ = fitted
    done = corpusmill("fit-thresholds", path, "--least", 100_000, "--output", tmp_path / "f.yaml")
    assert (done.code, "nothing to fit bounds to" in done.err) == (2, True)
    done = corpusmill("fit-thresholds", path, "--output", tmp_path / "none" / "f.yaml")
    assert (done.code, "is no folder" in done.err) == (2, True)
    (tmp_path / "bad.yaml").write_text("workflow: text\ninptus: []\n", "utf-8")
    done = corpusmill("fit-thresholds", tmp_path / "bad.yaml")
    assert f"{tmp_path}/bad.yaml:2" in done.err
