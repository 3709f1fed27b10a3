"""Profiles: what is counted where, and that they add up however a table was cut."""

from __future__ import annotations

import json
import math

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.histogram import bin_end
from workflows.profile import MOST_NAMES, drop_profile, merge, profile

ROW = st.tuples(
    st.none() | st.text(max_size=40),
    st.none() | st.sampled_from(["en", "de", ""]),
    st.none() | st.sampled_from(["crawl", "books"]),
    st.none() | st.floats(-0.5, 1.5) | st.sampled_from([math.nan, math.inf, 0.0, 1.0]),
)
DROP_ROW = st.tuples(
    st.none() | st.sampled_from(["c4/too_few_sentences", "language/low_score"]),
    st.none() | st.floats(),
    st.none() | st.sampled_from([0.65, 3.0, -0.0, math.nan]),
)


def documents(rows: list[tuple[str | None, str | None, str | None, float | None]]) -> pa.Table:
    text, language, source, score = ([row[k] for row in rows] for k in range(4))
    return pa.table(
        {
            "text": pa.array(text, pa.large_string()),
            "language": pa.array(language, pa.string()),
            "source": pa.array(source, pa.string()),
            "quality_score": pa.array(score, pa.float32()),
        }
    )


def drops(rows: list[tuple[str | None, float | None, float | None]]) -> pa.Table:
    return pa.table(
        {
            "drop_reason": pa.array([row[0] for row in rows], pa.string()),
            "drop_value": pa.array([row[1] for row in rows], pa.float64()),
            "drop_threshold": pa.array([row[2] for row in rows], pa.float64()),
        }
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(ROW, max_size=30), st.integers(0, 30))
def test_profiles_of_slices_add_up(
    rows: list[tuple[str | None, str | None, str | None, float | None]], cut: int
) -> None:
    table = documents(rows)
    parts = [profile(table.slice(0, cut)), profile(table.slice(cut))]
    assert merge(parts) == merge(reversed(parts)) == profile(table) == json.loads(json.dumps(profile(table)))


@settings(max_examples=60, deadline=None)
@given(st.lists(DROP_ROW, max_size=30), st.integers(0, 30))
def test_drop_profiles_of_slices_add_up(rows: list[tuple[str | None, float | None, float | None]], cut: int) -> None:
    table = drops(rows)
    parts = [drop_profile(table.slice(0, cut)), drop_profile(table.slice(cut))]
    assert merge(parts) == merge(reversed(parts)) == drop_profile(table) == json.loads(json.dumps(drop_profile(table)))


@given(st.floats(-1e300, 1e300, allow_subnormal=False))
def test_a_value_lies_in_its_bin(value: float) -> None:
    ((start, n),) = drop_profile(drops([("r", value, None)]))["r"]["values"].items()
    assert n == 1
    low, high = abs(float(start)), abs(bin_end(float(start)))
    assert low <= abs(value) < high or value == low == high == 0
    assert high <= low * (1 + 1 / 16)


@pytest.mark.parametrize(
    ("text", "bucket"), [("", 0), ("a", 1), ("ab", 2), ("äöü", 2), ("abcd", 3), ("x" * 255, 8), ("x" * 256, 9)]
)
def test_length_bucket(text: str, bucket: int) -> None:
    found = profile(documents([(text, None, None, None)]))
    assert found["lengths"] == [0] * bucket + [1]
    assert found["characters"] == len(text)


@pytest.mark.parametrize(("score", "bin_"), [(0.0, 0), (0.049, 0), (0.05, 1), (0.5, 10), (0.99, 19), (1.0, 19)])
def test_score_bin(score: float, bin_: int) -> None:
    table = pa.table({"language_score": pa.array([score], pa.float64()), "fasttext_label": ["x"], "n_score": [3]})
    scores = profile(table)["scores"]
    assert list(scores) == ["language_score"]  # whole numbers are no scores between 0 and 1
    assert scores["language_score"]["bins"].index(1) == bin_


def test_scores_outside_are_counted_apart() -> None:
    table = pa.table({"x_score": pa.array([-0.1, 1.5, None, math.nan], pa.float64())})
    assert profile(table)["scores"]["x_score"] == {"bins": [0] * 20, "below": 1, "above": 1}


def test_missing_columns_and_nulls_agree() -> None:
    nulls = profile(documents([(None, None, None, None)] * 3))
    missing = profile(pa.table({"id": ["a", "b", "c"]}))
    assert {**nulls, "scores": {}} == missing
    assert missing["documents"] == 3


def test_dictionary_encoded_names_are_counted() -> None:
    table = pa.table({"language": pa.array(["en", "de", "en", None]).dictionary_encode()})
    assert profile(table)["languages"] == {"de": 1, "en": 2}


def test_empty() -> None:
    assert merge([]) == {}
    assert drop_profile(drops([])) == {}
    assert profile(documents([]))["documents"] == 0
    assert merge([profile(documents([]))]) == profile(documents([]))


def sources(names: list[str]) -> pa.Table:
    return pa.table({"source": pa.array(names, pa.string()), "language": pa.array(names, pa.string())})


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, MOST_NAMES - 1), min_size=1, max_size=400), st.integers(1, 400))
def test_up_to_the_bound_every_name_is_counted(numbers: list[int], cut: int) -> None:
    names = [f"n{k}" for k in (*range(MOST_NAMES), *numbers)]
    table = sources(names)
    found = merge([profile(table.slice(0, cut)), profile(table.slice(cut))])
    assert found["sources"] == found["languages"] == {name: names.count(name) for name in names}


def test_a_hundred_thousand_names_are_bounded_and_add_up() -> None:
    names = ["x"] * 3 + ["y"] * 2 + [f"https://example.org/{k:06}" for k in range(100_000)]
    parts = [profile(sources(names)), profile(sources(["y", "(other)", *(f"z{k:03}" for k in range(300))]))]
    first = parts[0]["sources"]
    assert list(first) == [*(f"https://example.org/{k:06}" for k in range(MOST_NAMES - 2)), "x", "y", "(other)"]
    for found in (merge(parts), merge(reversed(parts)), merge([merge(parts[:1]), merge(parts[1:])])):
        for key in ("sources", "languages"):
            assert len(found[key]) == MOST_NAMES + 1
            assert list(found[key])[-1] == "(other)"
            assert sum(found[key].values()) == len(names) + 302
            assert (found[key]["x"], found[key]["y"]) == (3, 3)


def test_other_takes_no_place_of_a_name() -> None:
    names = [f"n{k:03}" for k in range(MOST_NAMES)]
    found = profile(sources(names + ["(other)"] * 5))["sources"]
    assert found == dict.fromkeys(names, 1) | {"(other)": 5}


def test_drop_profile_by_reason() -> None:
    table = drops(
        [("a/b", 3.3, 5.0), ("a/b", None, 5.0), ("a/b", math.inf, 6.0), ("c/d", -0.0, None), (None, 1.0, 1.0)]
    )
    assert drop_profile(table) == {
        "a/b": {"documents": 3, "thresholds": {"5.0": 2, "6.0": 1}, "values": {"3.25": 1}},
        "c/d": {"documents": 1, "thresholds": {}, "values": {"0.0": 1}},
    }
