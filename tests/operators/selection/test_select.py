"""Select keeps exactly the budget, whatever the units, and its variants nest and complement each other."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from operators.phases import run_in_memory
from operators.selection.select import Select
from workflows.recipe import Params

Row = tuple[str, float | None, int, str | None]
SCORES = st.none() | st.sampled_from([0.0, -0.0, 0.25, 0.5, 0.5000001, 0.99, 1.0, 1e9, -3.5]) | st.floats(-1e6, 1e6)
ROWS = st.lists(st.tuples(SCORES, st.integers(0, 50), st.sampled_from(["a", "b", "é", None])), max_size=60)
SHARES = st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.7, 0.9, 1.0])


def rows_of(drawn: list[tuple[float | None, int, str | None]]) -> list[Row]:
    return [(f"d{n * 7919 % 101:03d}", score, weight, group) for n, (score, weight, group) in enumerate(drawn)]


def table(rows: list[Row]) -> pa.Table:
    ids, scores, chars, groups = zip(*rows, strict=True) if rows else ((), (), (), ())
    columns = {"id": pa.array(ids, pa.string()), "score": pa.array(scores, pa.float64())}
    columns |= {"chars": pa.array(chars, pa.int64()), "group": pa.array(groups, pa.string())}
    return pa.table(columns)


def dropped(select: Select, rows: list[Row], units: int = 1) -> dict[str, tuple[str, float | None]]:
    """{id: (reason, threshold)} of what goes."""
    tables = [table(rows[k::units]) for k in range(units)]
    verdicts = run_in_memory(select, tables)
    docs = {(unit << 32) + n: row[0] for unit in range(units) for n, row in enumerate(rows[unit::units])}
    found = {docs[v["doc"]]: (v["drop_reason"], v["drop_threshold"]) for v in verdicts.to_pylist()}
    assert len(found) == verdicts.num_rows
    return found


def oracle(select: Select, rows: list[Row]) -> dict[str, str]:
    """The same by the definition: sort each stratum, take while what is before weighs less than the budget."""
    reasons: dict[str, str] = {}
    lines: dict[str, list[tuple[float, str, int]]] = {}
    for doc, score, chars, group in rows:
        if score is None:
            reasons |= {doc: "no_score"} if select.missing == "drop" else {}
        elif select.min is not None and score < select.min:
            reasons[doc] = "below_min"
        elif select.max is not None and score > select.max:
            reasons[doc] = "above_max"
        else:
            order = score if select.prefer == "lowest" else -score
            weight = 1 if select.unit == "documents" else chars
            lines.setdefault((group or "") if select.per else "", []).append((order, doc, weight))
    for stratum, line in lines.items():
        total, before = sum(weight for *_, weight in line), 0
        skip = Decimal(str(select.skip))
        end = skip + Decimal(str(select.quotas.get(stratum, select.keep)))
        last: float = math.ceil(end * total) if end < 1 else math.inf
        if select.most is not None:
            last = min(last, math.ceil(skip * total) + select.most)
        for _, doc, weight in sorted(line):
            if before < math.ceil(skip * total):
                reasons[doc] = "skipped"
            elif before >= last:
                reasons[doc] = "not_selected"
            before += weight
    return reasons


@given(
    ROWS,
    st.fixed_dictionaries(
        {},
        optional={
            "prefer": st.sampled_from(["highest", "lowest"]),
            "keep": SHARES,
            "skip": SHARES,
            "most": st.integers(1, 200),
            "unit": st.sampled_from(["characters", "documents"]),
            "missing": st.sampled_from(["keep", "drop"]),
            "min": st.sampled_from([-1.0, 0.5]),
            "max": st.sampled_from([0.99, 1e8]),
            "per": st.just("group"),
        },
    ),
    st.integers(1, 5),
)
@settings(max_examples=150, deadline=None)
def test_it_takes_what_the_definition_takes(drawn: Any, fields: dict[str, Any], units: int) -> None:
    assume(fields.get("keep", 1.0) == 1 or fields.get("skip", 0.0) + fields.get("keep", 1.0) <= 1)
    rows, select = rows_of(drawn), Select(by="score", **fields)
    assert {doc: reason for doc, (reason, _) in dropped(select, rows, units).items()} == oracle(select, rows)


@given(ROWS, st.integers(1, 4), st.sampled_from(["score", None]))
@settings(max_examples=50, deadline=None)
def test_smaller_budgets_nest_and_inverses_complement(drawn: Any, units: int, by: str | None) -> None:
    rows = rows_of(drawn)
    every = {doc for doc, *_ in rows}
    kept = [every - dropped(Select(by=by, keep=keep), rows, units).keys() for keep in (0.0, 0.1, 0.3, 0.6, 1.0)]
    assert all(small <= large for small, large in zip(kept, kept[1:], strict=False))
    inverse = every - dropped(Select(by=by, keep=0.3, invert=True), rows, units).keys()
    assert inverse == every - kept[2]


@given(ROWS, st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_bands_share_out_all_that_has_a_score(drawn: Any, units: int) -> None:
    rows = rows_of(drawn)
    every = {doc for doc, *_ in rows}
    bands = [(0.0, 0.3), (0.3, 0.3), (0.6, 0.4)]  # CCNet's head, middle and tail
    kept = [
        every - dropped(Select(by="score", prefer="lowest", skip=skip, keep=keep), rows, units).keys()
        for skip, keep in bands
    ]
    scored = {doc for doc, score, *_ in rows if score is not None}
    assert sum(map(len, kept)) == len(scored)
    assert set().union(*kept) == scored


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1000)), min_size=1, max_size=300), SHARES)
@settings(max_examples=60, deadline=None)
def test_what_is_kept_is_within_one_document_of_the_budget(drawn: Any, keep: float) -> None:
    rows: list[Row] = [(f"{n:04d}", score, chars, None) for n, (score, chars) in enumerate(drawn)]
    gone = dropped(Select(by="score", keep=keep), rows, 3)
    kept = [chars for doc, _, chars, _ in rows if doc not in gone]
    total = sum(chars for *_, chars, _ in rows)
    assert keep * total - 1 <= sum(kept) <= keep * total + max(chars for *_, chars, _ in rows) + 1


def test_the_threshold_is_the_last_score_taken() -> None:
    rows: list[Row] = [(f"d{n}", n / 10, 10, None) for n in range(10)]
    found = dropped(Select(by="score", keep=0.3), rows)
    assert set(found.values()) == {("not_selected", 0.7)}
    assert len(found) == 7


def test_ties_fall_by_id_in_any_order_of_the_input() -> None:
    rows: list[Row] = [(f"d{n}", 0.5, 10, None) for n in range(10)]
    for order in (rows, rows[::-1]):
        assert sorted(dropped(Select(by="score", keep=0.2), order, 3)) == [f"d{n}" for n in range(2, 10)]


def test_quotas_weigh_single_strata_down() -> None:
    rows: list[Row] = [(f"{group}{n}", None, 10, group) for group in ("ads", "news") for n in range(100)]
    gone = dropped(Select(per="group", quotas={"ads": 0.1}, unit="documents"), rows, 4)
    assert {doc[:3] for doc in gone} == {"ads"}
    assert len(gone) == 90


def test_a_uniform_sample_depends_on_ids_and_seed_alone() -> None:
    rows: list[Row] = [(f"doc-{n}", None, 10, None) for n in range(400)]
    once = dropped(Select(keep=0.25, unit="documents"), rows, 1).keys()
    assert once == dropped(Select(keep=0.25, unit="documents"), rows[::-1], 3).keys()
    assert once != dropped(Select(keep=0.25, unit="documents", seed=1), rows, 1).keys()
    assert len(once) == 300


def test_hosts_are_strata() -> None:
    urls = ["http://A.example/1", "https://a.example/2", "http://b.example/", None]
    docs = pa.table({"id": ["1", "2", "3", "4"], "chars": [1, 1, 1, 1], "url": pa.array(urls, pa.string())})
    verdicts = run_in_memory(Select(per="host", most=1, unit="documents"), [docs])
    assert verdicts["drop_detail"].to_pylist() == ["a.example"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"quotas": {"a": 0.5}}, "quotas: they are shares of strata: name their column with per"),
        ({"min": 1.0}, "min, max: they bound a column: name it with by"),
        ({"by": "s", "min": 2.0, "max": 1.0}, "min: 2 is above max 1"),
        ({"keep": 1.5}, "less than or equal to 1"),
        ({"skip": 0.8, "keep": 0.5}, "keep: 0.5 after skip 0.8 is more than there is"),
        ({"by": "source"}, "by: source holds text: a selector ranks by numbers"),
        ({"most": 0}, "greater than or equal to 1"),
    ],
)
def test_wrong_parameters_are_refused_by_name(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Params({"select": fields}).use(Select)


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["0.5", "n/a", None]),
        pa.array([[1], None, []]),
        pa.array([2**60, 1, None]),
        pa.array([None, None, None]),
        pa.array(["2020-01-01", "x", None]).cast(pa.large_string()),
        pa.array([0, 1, None], pa.timestamp("us")),
        pa.array([True, False, None]),
    ],
)
def test_any_column_can_be_selected_by_weighed_by_and_divided_by(column: pa.Array) -> None:
    docs = pa.table({"id": ["1", "2", "3"], "any": column, "chars": [1, 2, 3]})
    without = docs.drop_columns(["any"])
    for select in (Select(by="any", keep=0.5), Select(per="any", most=1), Select(unit="any", keep=0.5)):
        assert run_in_memory(select, [docs, without]).num_rows <= 6
