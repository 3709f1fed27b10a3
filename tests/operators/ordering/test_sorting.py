from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.hashes import xxh3_64
from operators.ordering.sorting import SortedOrder
from operators.phases import MEMORY, Fold, GlobalOperator, Phase, partition_of, run_in_memory

DAY = dt.date(2024, 2, 29)


class Ordering(GlobalOperator):
    """The order as an operator, in processes of `memory` bytes."""

    def __init__(self, order: SortedOrder, memory: int) -> None:
        self.order, self.memory = order, memory

    def phases(self, rows: int, _memory: int = MEMORY) -> Sequence[Phase | Fold]:
        return self.order.phases(rows, self.memory)


def ids_in_order(order: SortedOrder, units: Sequence[pa.Table], memory: int = MEMORY) -> list[str]:
    verdict = run_in_memory(Ordering(order, memory), units)
    assert verdict.schema == pa.schema([("doc", pa.uint64()), ("order_rank", pa.int64())])
    ids = {(unit << 32) + row: i for unit, t in enumerate(units) for row, i in enumerate(t["id"].to_pylist())}
    ranks = dict(zip(verdict["order_rank"].to_pylist(), verdict["doc"].to_pylist(), strict=True))
    assert sorted(ranks) == list(range(len(ids)))  # a permutation
    return [ids[ranks[rank]] for rank in range(len(ids))]


def unit(values: Sequence[Any], kind: pa.DataType | None = None, first: int = 0, name: str = "v") -> pa.Table:
    """Documents r000, r001, ... with a column of these values."""
    return pa.table({"id": [f"r{first + k:03}" for k in range(len(values))], name: pa.array(values, kind)})


def place(value: Any) -> tuple[int, Any]:
    """Where a value stands, by the rules as the module states them, in exact arithmetic."""
    if isinstance(value, str):
        try:
            number = float(value)
            value = int(value) if value.lstrip("-").isdecimal() else number if not math.isnan(number) else value
        except ValueError:
            pass
    if isinstance(value, bool | int | float | Decimal) and not math.isnan(value):
        infinite = math.copysign(1, value) if isinstance(value, float) and math.isinf(value) else 0
        return 0, (infinite, Fraction(0 if infinite else value))
    if isinstance(value, dt.datetime):
        return 1, value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value
    if isinstance(value, dt.date):
        return 1, dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC)
    if isinstance(value, str):
        return 2, value[:256]
    return 3, 0


def by_hand(rows: Sequence[tuple[str, Any]], descending: bool) -> list[str]:
    ordered: list[str] = []
    for kind in range(4):
        own = sorted((i, p[1]) for i, v in rows if (p := place(v))[0] == kind)
        own.sort(key=lambda row: row[1], reverse=descending)  # which leaves equal ones as they are
        ordered += [i for i, _ in own]
    return ordered


NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 0, 1])
)
FLOATS = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, 1.0, float(2**53), float(2**63), 0.5, math.inf, math.nan]))
WORDS = st.one_of(
    st.text("ab é\0😀ﬀ", max_size=4),
    st.sampled_from(["a", "a" * 256, "a" * 256 + "b", "a" * 255 + "b", "é", "😀", "ﬀ", "", "10", "9", "-1.5", "1e3"]),
)
TIMES = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2200, 1, 1))
COLUMNS = st.one_of(
    st.tuples(st.just(pa.int64()), st.lists(st.none() | NUMBERS, max_size=12)),
    st.tuples(st.just(pa.uint64()), st.lists(st.none() | st.integers(2**63 - 2, 2**64 - 1), max_size=12)),
    st.tuples(st.just(pa.int8()), st.lists(st.none() | st.integers(-2, 2), max_size=12)),
    st.tuples(st.just(pa.float64()), st.lists(st.none() | FLOATS, max_size=12)),
    st.tuples(st.just(pa.float32()), st.lists(st.none() | st.floats(width=32), max_size=12)),
    st.tuples(st.just(pa.bool_()), st.lists(st.none() | st.booleans(), max_size=12)),
    st.tuples(st.just(pa.decimal128(9, 2)), st.lists(st.sampled_from([Decimal("1.25"), Decimal(-3)]), max_size=12)),
    st.tuples(st.sampled_from([pa.string(), pa.large_string()]), st.lists(st.none() | WORDS, max_size=12)),
    st.tuples(st.just(pa.timestamp("us")), st.lists(st.none() | TIMES, max_size=12)),
    st.tuples(st.just(pa.timestamp("us", "UTC")), st.lists(st.none() | TIMES, max_size=12)),
    st.tuples(st.just(pa.date32()), st.lists(st.none() | st.dates(), max_size=12)),
    st.tuples(st.just(pa.null()), st.lists(st.none(), max_size=12)),
    st.tuples(st.just(pa.list_(pa.int64())), st.lists(st.just([1, 2]), max_size=12)),
    st.tuples(st.just(pa.binary()), st.lists(st.just(b"x"), max_size=12)),
)


@given(st.lists(COLUMNS, max_size=8), st.booleans(), st.sampled_from([1 << 30, 20_000, 3_000]), st.randoms())
@settings(max_examples=150, deadline=None)
def test_against_a_plain_sort(columns: list[tuple[Any, list[Any]]], descending: bool, memory: int, random: Any) -> None:
    """Columns of any types, cut and divided anyhow."""
    names = [f"r{k:03}" for k in range(sum(len(values) for _, values in columns))]
    random.shuffle(names)
    units, rows = [], []
    for kind, values in columns:
        ids = [names.pop() for _ in values]
        table = pa.table({"id": pa.array(ids, pa.string()), "v": pa.array(values, kind)})
        rows += list(zip(ids, values, strict=True))
        cut = random.randint(0, len(values))
        units += [table.slice(0, cut), table.slice(cut)] if random.random() < 0.5 else [table]
    units = units or [unit([])]
    assert ids_in_order(SortedOrder("v", descending), units, memory) == by_hand(rows, descending)


@given(st.lists(st.integers(0, 300), max_size=6), st.integers(1, 40), st.booleans(), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_many_documents_in_many_ranges(cuts: list[int], ranges: int, descending: bool, seed: int) -> None:
    """Some values are those of half of all documents, and ids say nothing of them."""
    random = np.random.default_rng(seed)
    values = random.choice([0, 0, 0, *range(-5, 30)], 300).tolist()
    table = unit(values).take(pa.array(random.permutation(300)))
    bounds = sorted({0, 300, *cuts})
    units = [table.slice(a, b - a) for a, b in zip(bounds, bounds[1:], strict=False)]
    memory = 300 * 256 * 8 // ranges
    expected = by_hand(list(zip(table["id"].to_pylist(), table["v"].to_pylist(), strict=True)), descending)
    assert ids_in_order(SortedOrder("v", descending), units, memory) == expected
    expected = [i for _, i in sorted(zip(xxh3_64(table["id"], seed).tolist(), table["id"].to_pylist(), strict=True))]
    assert ids_in_order(SortedOrder(None, seed=seed), units, memory) == expected


@pytest.mark.parametrize(
    ("values", "kind", "descending", "expected"),
    [
        ([3, None, 1, 2, 1], pa.int64(), False, [2, 4, 3, 0, 1]),
        ([3, None, 1, 2, 1], pa.int64(), True, [0, 3, 2, 4, 1]),
        ([math.nan, -math.inf, math.inf, None, 0.0, -0.0], pa.float64(), False, [1, 4, 5, 2, 0, 3]),
        ([math.nan, -math.inf, math.inf, None, 0.0, -0.0], pa.float64(), True, [2, 4, 5, 1, 0, 3]),
        ([2**53 + 1, 2**53, 2**53 + 2], pa.int64(), False, [1, 0, 2]),
        (["9007199254740993", "9007199254740992.0", "-9223372036854775808"], pa.string(), False, [2, 1, 0]),
        ([Decimal("0.10"), None, Decimal("-7.25")], pa.decimal128(9, 2), False, [2, 0, 1]),
        (["10", "9", "b", "a", None], pa.string(), False, [1, 0, 3, 2, 4]),
        (["10", "9", "b", "a", None], pa.string(), True, [0, 1, 2, 3, 4]),
        (["b", "a", "10", "9"], pa.string_view(), False, [3, 2, 1, 0]),
        (["b", "a", "b"], pa.dictionary(pa.int32(), pa.string()), False, [1, 0, 2]),
        ([dt.time(3), dt.time(1, 2), None], pa.time32("s"), False, [1, 0, 2]),
        ([dt.timedelta(3), dt.timedelta(-1), None], pa.duration("ms"), False, [1, 0, 2]),
        ([DAY, dt.date(1, 1, 1), dt.date(9999, 12, 31)], pa.date64(), False, [1, 0, 2]),
        ([{"a": 2}, {"a": 1}], pa.struct({"a": pa.int8()}), False, [0, 1]),
        ([(1, 2, 3), (1, 1, 3)], pa.month_day_nano_interval(), True, [0, 1]),
    ],
)
def test_values(values: list[Any], kind: pa.DataType, descending: bool, expected: list[int]) -> None:
    found = ids_in_order(SortedOrder("v", descending), [unit(values, kind)])
    assert [int(i[1:]) for i in found] == expected


def test_units_of_different_types() -> None:
    units = [
        unit(["7", "x", "2020-01-01"], pa.string()),
        unit([8, 6, None], pa.int64(), 3),
        unit([6.5, math.nan], pa.float32(), 6),
        unit([dt.datetime(2020, 1, 1)], pa.timestamp("s"), 8),
        unit([dt.datetime(2020, 1, 1) - dt.timedelta(microseconds=1)], pa.timestamp("ns", "Europe/Paris"), 9),
        pa.table({"id": ["r010"]}),
        unit([True, [1]][:1], None, 11),
    ]
    numbers, times, texts, none = ["r011", "r004", "r006", "r000", "r003"], ["r009", "r008"], ["r002", "r001"], 3
    found = ids_in_order(SortedOrder("v"), units)
    assert found[:-none] == numbers + times + texts
    assert found[-none:] == ["r005", "r007", "r010"]
    assert ids_in_order(SortedOrder("v", True), units) == numbers[::-1] + times[::-1] + texts[::-1] + found[-none:]


def test_dates_are_texts() -> None:
    """A year alone stands among dates, as every value of a column that is text by definition."""
    dates = ["2020", "2019-12-31", "2020-01-01", None, "1e3"]
    assert ids_in_order(SortedOrder("date"), [unit(dates, name="date")]) == ["r004", "r001", "r000", "r002", "r003"]
    assert ids_in_order(SortedOrder("other"), [unit(dates, name="other")]) == ["r004", "r000", "r001", "r002", "r003"]


def test_seeds_shuffle() -> None:
    table = unit(range(200))
    orders = [ids_in_order(SortedOrder(None, seed=seed), [table]) for seed in (0, 1, 2**63 - 1)]
    assert len({tuple(order) for order in orders}) == 3
    for order in orders:
        follows = np.diff([int(i[1:]) for i in order])
        assert (follows == 1).sum() < 10


@pytest.mark.parametrize("order", [SortedOrder("v"), SortedOrder("w", True), SortedOrder(None)])
def test_ranges_are_of_like_size(order: SortedOrder) -> None:
    """Also where all values are equal, or begin alike, or all are hashes as the sample's are."""
    n = 20_000
    table = unit([1] * n).append_column("w", pa.array([f"{'same' * 60}{k % 3}" for k in range(n)]))
    bounds, divided, *_ = order.phases(n, n * 256 * 8 // 16)
    assert divided.partitions == 16
    table = table.append_column("doc", pa.array(np.arange(n, dtype=np.uint64)))
    found = bounds.reduce({"documents": bounds.maps["documents"](table)})
    assert len(found) == 15
    rows = divided.maps["documents"](table, found)
    sizes = np.bincount(partition_of(rows["key"].to_numpy(), 16), minlength=16)
    assert np.array_equal(partition_of(rows["key"].to_numpy(), 16), rows["range"].to_numpy())
    assert sizes.min() > n // 16 // 2
    assert sizes.max() < n // 16 * 2


def test_phases_follow_the_corpus() -> None:
    def partitions(rows: int, memory: int) -> list[int]:
        return [phase.partitions_in(memory) for phase in SortedOrder("v").phases(rows, memory)]

    assert partitions(0, 2 << 30) == [1, 1, 1, 1]
    assert partitions(10**6, 2 << 30) == [1, 1, 1, 1]
    assert partitions(10**9, 2 << 30) == [1, 954, 1, 90]
    assert SortedOrder("v").phases(10**9)[0].bytes < 16 << 20
