"""Apply operators in order to one table, and account for every row and character on the way.

The one place that hides dropped rows from later operators, puts the operator's name before its reasons, and
raises where an operator loses, invents or reorders rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from operators.document import DROP, Operator, Splitter, with_columns, without_hidden
from operators.histogram import histogram

SPLIT = "split"


class Step(NamedTuple):
    """An operator under the name that recipes, reasons and metrics use for this use of it."""

    name: str
    operator: Any  # Operator or GlobalOperator


class LostRows(AssertionError):
    """An operator broke the contract: a bug in it, never a property of the data."""


@dataclass
class Count:
    """What one operator did to the rows it was given; summed over units by `add`."""

    name: str
    rows_in: int = 0
    created: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    chars_in: int = 0
    chars_dropped: int = 0
    chars_out: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of all threads of the process: tokenizers and linear algebra have their own
    measured: dict[str, dict[str, int]] = field(default_factory=dict)  # histograms of what the operator measures
    counted: dict[str, int] = field(default_factory=dict)  # sums of what it counts


class Applied(NamedTuple):
    kept: pa.Table
    dropped: pa.Table  # with the columns of DROP, reasons prefixed
    counts: list[Count]


def apply(steps: Iterable[Step], docs: pa.Table) -> Applied:
    """Run `steps` over living `docs`. Rows in + created = kept + dropped, or LostRows is raised."""
    dead: list[pa.Table] = []
    counts: list[Count] = []
    chars = characters(docs)
    for name, operator in steps:
        count = Count(name, rows_in=docs.num_rows, chars_in=chars)
        started, cpu = time.perf_counter(), time.process_time()
        marked = operator(docs) if docs.num_rows else docs
        count.seconds, count.cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        _check(operator, name, docs, marked)
        if docs.num_rows:
            count.measured = {key: histogram(values) for key, values in operator.measured(marked).items()}
            count.counted = dict(operator.counted(marked))
        count.created = marked.num_rows - docs.num_rows
        docs, dropped = _part(marked, name)
        chars = count.chars_out = characters(docs)
        count.chars_dropped = characters(dropped)
        if dropped.num_rows:
            dead.append(without_hidden(dropped))
            tally = pc.value_counts(dropped["drop_reason"])
            count.dropped = {entry["values"].as_py(): entry["counts"].as_py() for entry in tally}
        counts.append(count)
    docs = without_hidden(docs)
    empty = with_columns(docs.slice(0, 0), {f.name: pa.nulls(0, f.type) for f in DROP})
    return Applied(docs, pa.concat_tables(dead, promote_options="permissive") if dead else empty, counts)


def characters(docs: pa.Table) -> int:
    """Characters of text in the table; nulls have none."""
    if "text" not in docs.column_names:
        return 0
    return pc.sum(pc.utf8_length(docs["text"])).as_py() or 0


def _check(operator: Operator, name: str, before: pa.Table, after: pa.Table) -> None:
    if isinstance(operator, Splitter):
        kept_parents = pc.is_in(before["id"], value_set=after["id"].combine_chunks())
        if not pc.all(kept_parents, min_count=0).as_py():
            raise LostRows(f"{name} lost parents of its children")
    elif not after["id"].equals(before["id"]):
        raise LostRows(f"{name} was given {before.num_rows} rows and returned {after.num_rows} others")


def _part(marked: pa.Table, name: str) -> tuple[pa.Table, pa.Table]:
    """(living, dropped) rows; the living lose the columns of DROP again. Living rows that follow each other are not
    copied: they may hold the audio of hours."""
    if "drop_reason" not in marked.column_names:
        return marked, marked.slice(0, 0)
    dead = pc.is_valid(marked["drop_reason"])
    dropped = marked.filter(dead)
    if dropped.num_rows:
        reasons = pc.binary_join_element_wise(name, dropped["drop_reason"], "/")
        dropped = with_columns(dropped, {"drop_reason": reasons})
        missing = {f.name: pa.nulls(dropped.num_rows, f.type) for f in DROP if f.name not in dropped.column_names}
        dropped = with_columns(dropped, missing)
    alive, rows = pc.invert(dead), marked.num_rows - dropped.num_rows
    first = max(0, pc.index(alive, True).as_py())
    together = pc.all(alive.slice(first, rows), min_count=0).as_py()
    living = marked.slice(first, rows) if together else marked.filter(alive)
    return living.drop_columns([f.name for f in DROP if f.name in living.column_names]), dropped
