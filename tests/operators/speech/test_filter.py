"""The filter is Emilia-Pipe's where it is asked to be, and the same however documents are cut into units."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.phases import run_in_memory
from operators.speech.filter import SpeechFilter
from operators.speech.spool import RATE
from tests.operators.dedup.rows import Repartitioned

EMILIA: dict[str, Any] = {"per": "recording", "min_rows": 1}


class Row(NamedTuple):
    seconds: float
    text: str | None = "twenty characters ok"  # 18 that count
    dnsmos: float | None = 3.2
    recording: str = "a"
    language: str | None = "en"


def verdicts(
    rows: list[Row], units: int = 1, partitions: int = 1, **fields: Any
) -> dict[int, tuple[str, float, float]]:
    """{row: (reason, value, threshold)} of those that go."""
    order = [list(range(k, len(rows), units)) for k in range(units)]
    tables = [
        pa.table(
            {
                "id": pa.array([str(n) for n in own], pa.string()),
                "samples": pa.array([round(rows[n].seconds * RATE) for n in own], pa.int64()),
                "text": pa.array([rows[n].text for n in own], pa.large_string()),
                "dnsmos": pa.array([rows[n].dnsmos for n in own], pa.float32()),
                "recording": pa.array([rows[n].recording for n in own], pa.string()),
                "language": pa.array([rows[n].language for n in own], pa.string()),
            }
        )
        for own in order
    ]
    operator = Repartitioned(SpeechFilter(**fields), [partitions, 1])
    found = run_in_memory(operator, tables).to_pylist()
    by_row = {
        order[v["doc"] >> 32][v["doc"] & 0xFFFFFFFF]: (v["drop_reason"], v["drop_value"], v["drop_threshold"])
        for v in found
    }
    assert len(by_row) == len(found)
    return by_row


def published(rows: list[Row]) -> list[int]:
    """What Emilia-Pipe keeps of one recording, told from its description."""
    counts = [len(re.sub(r"[,.!?\"'，。！？“”‘’ ]", "", row.text or "")) for row in rows]
    paces = [row.seconds / n for row, n in zip(rows, counts, strict=True) if n > 0]
    low, high = 0.0, np.inf
    if paces:
        first, third = np.percentile(paces, 25), np.percentile(paces, 75)
        low, high = first - 1.5 * (third - first), third + 1.5 * (third - first)
    kept = []
    for number, (row, n) in enumerate(zip(rows, counts, strict=True)):
        assert row.dnsmos is not None
        pace = row.seconds / n if n else 0
        if 3 <= row.seconds <= 30 and row.dnsmos >= 3 and n >= 2 and low <= pace <= high:
            kept.append(number)
    return kept


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (Row(3.0), None),
        (Row(2.999), ("duration", 2.999, 3.0)),
        (Row(30.0), None),
        (Row(30.001), ("duration", 30.001, 30.0)),
        (Row(5, dnsmos=3.0), None),
        (Row(5, dnsmos=2.999), ("dnsmos", 2.999, 3.0)),
        (Row(2, dnsmos=1.0, text=""), ("duration", 2.0, 3.0)),  # the first rule that it breaks
        (Row(5, text="a"), ("characters", 1.0, 2.0)),
        (Row(5, text="¡a!"), None),  # only Emilia-Pipe's own list is no character
        (Row(5, text="“，。！ ？’a”"), ("characters", 1.0, 2.0)),
        (Row(5, text=""), ("characters", 0.0, 2.0)),
        (Row(5, text=None), None),
        (Row(5, dnsmos=None), None),
    ],
)
def test_rules(row: Row, verdict: tuple[str, float, float] | None) -> None:
    found = verdicts([row], per=None).get(0)
    assert (found and found[0]) == (verdict and verdict[0])
    if found and verdict:
        assert found[1:] == pytest.approx(verdict[1:])


def test_pace_is_compared_within_a_language() -> None:
    letters = "x" * 50
    usual = [Row(5 + k / 10, letters) for k in range(10)] + [
        Row(15 + k / 10, letters, language="zh") for k in range(10)
    ]
    odd = [Row(15.4, letters), Row(5.4, letters, language="zh"), Row(15.4, letters, language=None)]
    found = verdicts([*usual, *odd])
    assert {n: reason for n, (reason, *_) in found.items()} == {20: "pace", 21: "pace"}  # a lone one has no rule
    _, value, threshold = found[20]
    paces = [row.seconds / 50 for row in usual[:10]] + [15.4 / 50]
    first, third = np.percentile(paces, [25, 75])
    assert value == pytest.approx(0.308)
    assert threshold == pytest.approx(third + 1.5 * (third - first), abs=1e-6)
    assert found[21][2] > found[21][1]
    assert verdicts([*usual, *odd], per=None) == {}


def test_few_utterances_have_no_rule_of_pace() -> None:
    rows = [*(Row(5 + k / 10, "x" * 50) for k in range(7)), Row(20, "x" * 50)]
    assert list(verdicts(rows)) == [7]
    assert verdicts(rows, min_rows=9) == {}


@pytest.mark.parametrize(
    "rows",
    [
        [],  # where the published code ends the whole job
        [Row(5)],
        [Row(5, "")],
        [Row(5), Row(5, "a"), Row(2), Row(31), Row(5, dnsmos=2.9)],
        [Row(s, "x" * 40) for s in (3.0, 4.0, 4.2, 4.4, 4.6, 4.8, 5.0, 12.0)],
        [Row(4.0, "x" * n) for n in (8, 9, 10, 10, 11, 12, 50, 400)],
        # quartiles are those of all that has a character, were it dropped for something else
        [Row(1.0, "x" * 2), Row(1.0, "x" * 2, 1.0), *(Row(5, "x" * n) for n in (60, 61, 62, 63))],
        [Row(6, "中文，没有空格。" * 2, language="zh"), Row(6, "x" * 80), Row(6, "x" * 82), Row(6, "x" * 90)],
    ],
)
def test_emilia(rows: list[Row]) -> None:
    found = verdicts(rows, **EMILIA)
    assert [n for n in range(len(rows)) if n not in found] == published(rows)


ROWS = st.lists(
    st.builds(
        Row,
        st.integers(20, 330).map(lambda n: n / 10),
        st.integers(0, 60).map(lambda n: "x" * n) | st.sampled_from(["a.", "..", "?!“”", "日本語"]),
        st.sampled_from([1.0, 2.999, 3.0, 3.5]),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["en", "zh", None]),
    ),
    max_size=40,
)


@given(ROWS)
@settings(max_examples=100, deadline=None)
def test_it_keeps_what_emilia_keeps(drawn: list[Row]) -> None:
    """In steps of 0.1 ms a character: both are given paces that are whole steps."""
    rows = [row._replace(seconds=max(1, round(row.seconds * 100 / max(1, len(row.text or "")))) / 100) for row in drawn]
    rows = [row._replace(seconds=row.seconds * max(1, len(re.sub(r"[.?!“”]", "", row.text or "")))) for row in rows]
    found = verdicts(rows, **EMILIA)
    for recording in ("a", "b"):
        own = [n for n, row in enumerate(rows) if row.recording == recording]
        reference = {own[n] for n in published([rows[n] for n in own])}
        kept = {n for n in own if n not in found}
        assert all(found[n][0] == "pace" and near(found[n]) for n in reference - kept)
        assert all(near_bound(rows, own, n) for n in kept - reference)


def near(verdict: tuple[str, float, float]) -> bool:
    """On the bound: rounding decides."""
    return abs(verdict[1] - verdict[2]) < 1e-9


def near_bound(rows: list[Row], own: list[int], n: int) -> bool:
    counts = {k: len(re.sub(r"[,.!?\"'，。！？“”‘’ ]", "", rows[k].text or "")) for k in own}
    first, third = np.percentile([rows[k].seconds / counts[k] for k in own if counts[k]], [25, 75])
    fence = 1.5 * (third - first)
    return min(abs(rows[n].seconds / counts[n] - bound) for bound in (first - fence, third + fence)) < 1e-9


@given(ROWS, st.integers(1, 5), st.sampled_from(["language", "recording", None]), st.sampled_from([1, 4, 8]))
@settings(max_examples=60, deadline=None)
def test_units_make_no_difference(rows: list[Row], units: int, per: str | None, min_rows: int) -> None:
    fields = {"per": per} | ({} if per is None else {"min_rows": min_rows})
    assert verdicts(rows, units, units, **fields) == verdicts(rows, **fields)


def test_what_it_needs() -> None:
    assert SpeechFilter().needs == ("samples", "text", "dnsmos", "language")
    assert SpeechFilter(min_dnsmos=None, per=None).needs == ("samples", "text")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"min_seconds": 31}, "min_seconds: 31 is above max_seconds 30"),
        ({"min_dnsmos": 0.5}, "min_dnsmos"),
        ({"min_rows": 0}, "min_rows"),
        ({"per": None, "min_rows": 99}, "min_rows: 99 has no meaning without per"),
        ({"per": "speaker"}, "per"),
    ],
)
def test_bad_parameters(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=told):
        SpeechFilter(**fields)
