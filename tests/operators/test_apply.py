"""Applying operators: what is dropped is hidden from the next one, named after its operator, and nothing is lost."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from operators.apply import LostRows, Step, apply
from operators.document import Operator, Splitter, drop


def docs(*texts: str | None) -> pa.Table:
    ids = [str(n) for n in range(len(texts))]
    return pa.table({"id": ids, "text": pa.array(texts, pa.large_string())})


class Doing(Operator):
    name = "doing"

    def __init__(self, function: Callable[[pa.Table], pa.Table]) -> None:
        self.function = function

    def __call__(self, table: pa.Table) -> pa.Table:
        return self.function(table)


def short(table: pa.Table) -> pa.Table:
    lengths = pc.utf8_length(table["text"])
    reasons = pc.if_else(pc.less(lengths, 3), "short", pa.scalar(None, pa.string()))
    return drop(table, reasons, value=lengths, threshold=3)


def test_a_dropped_row_keeps_reason_value_and_threshold_and_is_hidden_from_the_next_operator() -> None:
    seen: list[Any] = []
    spy = Doing(lambda table: (seen.append(table["id"].to_pylist()), table)[1])
    result = apply([Step("first", Doing(short)), Step("second", spy)], docs("long", "ab", "longer"))
    assert seen == [["0", "2"]]
    assert result.kept["id"].to_pylist() == ["0", "2"]
    assert "drop_reason" not in result.kept.column_names
    row = result.dropped.to_pylist()[0]
    assert (row["id"], row["drop_reason"], row["drop_value"], row["drop_threshold"]) == ("1", "first/short", 2.0, 3.0)


@pytest.mark.parametrize("dead", itertools.product([False, True], repeat=4))
@pytest.mark.parametrize("pieces", [1, 2])
def test_living_rows_that_follow_each_other_are_not_copied(dead: tuple[bool, ...], pieces: int) -> None:
    table = docs(*("ab" if one else f"long {n}" for n, one in enumerate(dead)))
    table = pa.concat_tables([table.slice(at, 4 // pieces) for at in range(0, 4, 4 // pieces)])
    living = [n for n, one in enumerate(dead) if not one]
    result = apply([Step("short", Doing(short))], table)
    assert result.kept["id"].to_pylist() == [str(n) for n in living]
    assert result.dropped.num_rows == sum(dead)
    if living and living[-1] - living[0] + 1 == len(living):
        assert {at.buffers()[2].address for at in result.kept["text"].chunks} == {
            table["text"].chunk(0).buffers()[2].address
        }


def test_counts_balance_rows_and_characters_through_each_operator() -> None:
    cut = Doing(lambda t: t.set_column(1, "text", pc.utf8_slice_codeunits(t["text"], 0, 3)))
    result = apply([Step("cut", cut), Step("short", Doing(short))], docs("abcdef", "ab", "xyz"))
    first, second = result.counts
    assert (first.rows_in, first.dropped, first.chars_in, first.chars_out) == (3, {}, 11, 8)
    assert (second.rows_in, second.dropped, second.chars_dropped, second.chars_out) == (3, {"short/short": 1}, 2, 6)


@pytest.mark.parametrize(
    "function",
    [lambda t: t.slice(1), lambda t: pa.concat_tables([t, t]), lambda t: t.take([1, 0])],
    ids=["loses", "invents", "reorders"],
)
def test_an_operator_that_changes_the_rows_is_an_error(function: Callable[[pa.Table], pa.Table]) -> None:
    with pytest.raises(LostRows, match="bad"):
        apply([Step("bad", Doing(function))], docs("a", "b"))


class Halve(Splitter):
    name = "halve"

    def __call__(self, table: pa.Table) -> pa.Table:
        parents = drop(table, ["split"] * table.num_rows)
        rows = [
            {"id": f"{row['id']}/{n}", "text": half}
            for row in table.to_pylist()
            for n, half in enumerate((row["text"][:2], row["text"][2:]))
        ]
        return pa.concat_tables([parents, pa.Table.from_pylist(rows, table.schema)], promote_options="default")


def test_a_splitter_adds_children_and_drops_the_parent() -> None:
    result = apply([Step("halve", Halve())], docs("abcd", "efgh"))
    assert result.kept["id"].to_pylist() == ["0/0", "0/1", "1/0", "1/1"]
    assert result.counts[0].created == 4
    assert result.counts[0].dropped == {"halve/split": 2}
    assert apply([Step("halve", Halve())], docs()).counts[0].created == 0


def test_empty_tables_pass() -> None:
    result = apply([Step("short", Doing(short))], docs())
    assert (result.kept.num_rows, result.dropped.num_rows, result.counts[0].rows_in) == (0, 0, 0)
