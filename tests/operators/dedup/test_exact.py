from __future__ import annotations

from typing import Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.dedup.exact import ExactDedup
from operators.phases import VERDICT, run_in_memory
from tests.operators.dedup.rows import Repartitioned, documents, dropped, fates


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("Hello,  world", "hello WORLD!", True),
        ("Café", "cafe", True),
        ("page 1", "page 2", False),  # digits count
        ("a b", "ab", False),
        ("中文", "中\n文", True),  # a line break between Han characters is layout
        ("", "", True),
        ("", "!", False),  # without words: compared as they stand
        ("👍", "👎", False),
        ("👍", "👍", True),
        ("a" * 128, "", False),
        ("a" * 64 + "b" + "a" * 63, "b" + "a" * 127, False),
        (None, None, False),
        (None, "", False),
    ],
)
def test_words(first: str | None, second: str | None, same: bool) -> None:
    gone = dropped(ExactDedup(), [{"text": first}, {"text": second}])
    assert [reason for reason, _ in gone.values()] == (["duplicate"] if same else [])


@pytest.mark.parametrize(
    ("operator", "same"),
    [
        (ExactDedup(field="url"), False),
        (ExactDedup(field="url", normalize="words"), True),
        (ExactDedup(normalize="none"), False),
        (ExactDedup(), True),
    ],
)
def test_the_mode_follows_the_field(operator: ExactDedup, same: bool) -> None:
    rows = [{"text": "a b", "url": "http://a/b"}, {"text": "A-B", "url": "http://a-b"}]
    assert bool(dropped(operator, rows)) == same


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([{"id": "b"}, {"id": "a"}], "a"),  # the smallest id
        ([{"id": "a"}, {"id": "b", "text": "A b c..."}], "b"),  # the longest text
        ([{"id": "a", "text": "A b c..."}, {"id": "b", "priority": 2}, {"id": "c", "priority": 1}], "b"),
        ([{"id": "a"}, {"id": "B"}, {"id": "ab"}], "B"),  # by bytes
    ],
)
def test_keeper(rows: list[dict[str, Any]], kept: str) -> None:
    table = [{"text": "A b c", **row} for row in rows]
    ids = sorted(row["id"] for row in table)
    for order in (table, table[::-1]):
        found = fates(ExactDedup(), [documents(order)])
        assert found == sorted(
            (i, "" if i == kept else "duplicate", "" if i == kept else kept, ids[0], len(ids)) for i in ids
        )


def test_parameters() -> None:
    assert ExactDedup(field="url").needs == ("url", "text", "priority")
    with pytest.raises(pydantic.ValidationError, match=r"(?s)normalize.*'lower'"):
        ExactDedup(normalize="lower")  # type: ignore[arg-type]


def test_no_rows() -> None:
    for table in (documents([]), documents([{"text": None}])):
        verdict = run_in_memory(ExactDedup(), [table])
        assert verdict.schema.equals(VERDICT)
        assert verdict.num_rows == 0


@given(
    st.lists(st.one_of(st.none(), st.text("aA. 中1", max_size=4)), max_size=25),
    st.integers(0, 25),
    st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_cuts_and_partitions_do_not_matter(texts: list[str | None], cut: int, partitions: int) -> None:
    table = documents([{"text": t} for t in texts])
    units = [table.slice(cut), table.slice(0, cut)]
    assert fates(Repartitioned(ExactDedup(), [partitions]), units) == fates(ExactDedup(), [table])
