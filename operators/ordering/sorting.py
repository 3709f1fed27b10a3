"""The rank of each document among all, by a column or by a hash of its id, without any process that holds all keys.

A sort by sampling (Frazer and McKellar 1970): a sample of documents is sorted and cut into equal parts, whose bounds
every worker holds; they divide all documents into ranges, each of which is sorted alone, and with the sizes of the
ranges before it a document's place in its range is its rank. Bounds are documents, not values: a value that many have
is divided as well, as ties are in the order of ids.

Values are compared as what they say, since it may differ from file to file in which type a reader found them: numbers,
then points in time, then text, also when descending. Among numbers are truth values, and texts that say a number where
the column is not a text by definition (`date`, `url` and the like). Integers of 64 bits are exact; text is compared by
the code points of its first 256 characters. Nulls, NaN, bytes and nested values, which have no order, come last in
either direction.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from operators.document import SCHEMA
from operators.hashes import spread, xxh3_64
from operators.histogram import numbers
from operators.phases import DOCUMENTS, MEMORY, SHARE, Phase, as_mapped

SAMPLED = 64  # documents for each range: few ranges are then half as large again as the mean
LINE_BYTES = 256  # of a document that is sorted, with its id and value
RANK_BYTES = 24
CHARACTERS = 256  # of a text that are compared
HALF = np.uint64(32)  # bits
LOWER = np.uint64(2**32 - 1)
NUMBER, TIME, TEXT, NOTHING = range(4)  # kinds of values, in their order
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
LINE = pl.Schema(
    {"kind": pl.UInt8, "number": pl.Float64, "rest": pl.Int64, "text": pl.String, "id": pl.String, "doc": pl.UInt64}
)


@dataclass(frozen=True)
class SortedOrder:
    """The order by `column`, `descending` or not; without one, that of a hash of the ids which `seed` selects."""

    column: str | None
    descending: bool = False
    seed: int = 0

    def phases(self, rows: int, memory: int = MEMORY) -> list[Phase]:
        """The last one returns `doc` and `order_rank`, 0 and up (int64), of all documents."""
        ranges = max(1, -(-rows * LINE_BYTES * SHARE // memory))
        wanted = ranges * SAMPLED if ranges > 1 else 0
        below = np.uint64(min((wanted << 64) // max(rows, 1), 2**64 - 1))
        sample, bounds = functools.partial(self._sample, below), functools.partial(self._bounds, ranges)
        return [
            Phase("bounds", {DOCUMENTS: sample}, bounds, bytes=wanted * LINE_BYTES, partitions=1),
            Phase("sorted", {DOCUMENTS: self._divided}, self._placed, partitions=ranges, whole=("bounds",)),
            Phase("sizes", {"sorted": _sizes}, _total, partitions=1),
            Phase("ranks", {"sorted": _ranks}, as_mapped, bytes=rows * RANK_BYTES, whole=("sizes",)),
        ]

    def _sample(self, below: np.uint64, docs: pa.Table) -> pa.Table:
        """The documents whose ids hash lowest. Hashed twice: the random order is one of hashes as well."""
        hashes = spread(xxh3_64(docs["id"].cast(pa.string())))
        return _keyed(self._lines(docs).filter(pl.Series(hashes < below)))

    def _bounds(self, ranges: int, parts: Mapping[str, pa.Table]) -> pa.Table:
        """The first document of each range but the first."""
        sample = self._in_order(pl.DataFrame(parts[DOCUMENTS]))
        first = np.unique(np.arange(1, ranges) * len(sample) // ranges)
        bounds: pa.Table = sample.select(LINE.keys())[first[first < len(sample)]].to_arrow()
        return bounds

    def _divided(self, docs: pa.Table, bounds: pa.Table) -> pa.Table:
        """What decides each document's rank, and the number of its range: that of the bounds up to it."""
        marks = pl.DataFrame(bounds).cast(LINE).with_columns(doc=pl.lit(None, pl.UInt64))  # sorts before its document
        lines = self._in_order(pl.concat([marks, self._lines(docs)]))
        lines = lines.with_columns(range=pl.col("doc").is_null().cum_sum().cast(pl.UInt32))
        lines = lines.filter(pl.col("doc").is_not_null())
        ranges = np.uint64(len(bounds) + 1)
        start = ((lines["range"].to_numpy().astype(np.uint64) << HALF) + ranges - np.uint64(1)) // ranges
        return _keyed(lines, start << HALF)

    def _placed(self, parts: Mapping[str, pa.Table]) -> pa.Table:
        """Each document's place in its range."""
        lines = self._in_order(pl.DataFrame(parts[DOCUMENTS]))
        placed: pa.Table = lines.select("range", "doc", place=pl.int_range(pl.len()).over("range")).to_arrow()
        return placed

    def _in_order(self, lines: pl.DataFrame) -> pl.DataFrame:
        return lines.sort(list(LINE), descending=[name in BY_VALUE and self.descending for name in LINE])

    def _lines(self, docs: pa.Table) -> pl.DataFrame:
        """What decides each document's rank, as LINE says."""
        if self.column is None:
            hashes = xxh3_64(docs["id"].cast(pa.string()), self.seed)
            value = {"kind": np.zeros(len(docs)), "number": hashes >> HALF, "rest": hashes & LOWER, "text": None}
        else:
            value = _values(docs, self.column)
        return pl.DataFrame(value | {"id": docs["id"].cast(pa.large_string()), "doc": docs["doc"]}).cast(LINE)


BY_VALUE = ("number", "rest", "text")
TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)


def _values(docs: pa.Table, name: str) -> dict[str, Any]:
    """The values of a column: their kind, the number or time in seconds, what that lacks as a double, the text."""
    column = docs[name] if name in docs.column_names else pa.chunked_array([pa.nulls(len(docs))])
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    number, rest, text = numbers(column), np.zeros(len(docs), np.int64), pa.nulls(len(docs), pa.large_string())
    kind = np.where(np.isnan(number), NOTHING, NUMBER)
    if pa.types.is_temporal(column.type) and column.type.bit_width <= 64:  # an interval of months has no order
        number, rest = _times(column)
        kind = np.where(column.is_valid().to_numpy(), TIME, NOTHING)
    elif pa.types.is_integer(column.type):
        rest = _rest_of(pc.fill_null(column, 0).to_numpy(), number)
    elif any(is_text(column.type) for is_text in TEXTS):
        read = pl.Series(column).cast(pl.String)
        whole = read.cast(pl.Int64, strict=False)
        rest = np.where(whole.is_not_null().to_numpy(), _rest_of(whole.fill_null(0).to_numpy(), number), 0)
        is_text = np.full(len(docs), True) if name in SCHEMA.names else np.isnan(number)
        kind = np.where(read.is_null().to_numpy(), NOTHING, np.where(is_text, TEXT, NUMBER))
        text = pl.select(pl.when(pl.Series(kind == TEXT)).then(read.str.head(CHARACTERS))).to_series()
    known = kind <= TIME
    return {"kind": kind, "number": np.where(known, number, 0) + 0.0, "rest": np.where(known, rest, 0), "text": text}


def _rest_of(integers: NDArray[Any], rounded: NDArray[np.float64]) -> NDArray[np.int64]:
    """By how much integers are more than they are as doubles. Halves of 64 bits and all differences here are exact."""
    wide = integers.astype(np.uint64 if integers.dtype == np.uint64 else np.int64)
    half = wide.dtype.type(32)
    upper, lower = wide >> half, wide & wide.dtype.type(2**32 - 1)
    with np.errstate(invalid="ignore"):  # of nulls
        rest: NDArray[np.float64] = lower - (rounded - upper.astype(np.float64) * 2.0**32)
    return np.nan_to_num(rest).astype(np.int64)


def _times(column: pa.ChunkedArray) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Points in time, of the day, or lengths of it: whole seconds and nanoseconds. Times without a zone are UTC."""
    whole = pa.int32() if column.type.bit_width == 32 else pa.int64()
    chunks = [chunk.view(whole).cast(pa.int64()) for chunk in column.chunks]
    found = pc.fill_null(pa.chunked_array(chunks, pa.int64()), 0).to_numpy()
    if pa.types.is_date32(column.type):
        return found * 86_400.0, np.zeros(len(found), np.int64)
    parts = PER_SECOND["ms" if pa.types.is_date64(column.type) else column.type.unit]
    seconds, rest = np.divmod(found, parts)
    return seconds.astype(np.float64), rest * (10**9 // parts)


def _sizes(placed: pa.Table) -> pa.Table:
    return _keyed(pl.DataFrame(placed).group_by("range").agg(documents=pl.len()))


def _total(parts: Mapping[str, pa.Table]) -> pa.Table:
    """How many documents are in each range."""
    total = pl.DataFrame(parts["sorted"]).group_by("range").agg(pl.col("documents").cast(pl.Int64).sum()).sort("range")
    sizes: pa.Table = total.to_arrow()
    return sizes


def _ranks(placed: pa.Table, sizes: pa.Table) -> pa.Table:
    before = pl.DataFrame(sizes).select("range", before=pl.col("documents").cum_sum() - pl.col("documents"))
    ranked = pl.DataFrame(placed).join(before, on="range").select("doc", order_rank=pl.col("before") + pl.col("place"))
    return _keyed(ranked, spread(ranked["doc"].to_numpy()))


def _keyed(rows: pl.DataFrame, keys: NDArray[np.uint64] | None = None) -> pa.Table:
    """With their `key`; without keys, all in one partition."""
    keyed = rows.with_columns(key=pl.lit(0, pl.UInt64) if keys is None else pl.Series(keys, dtype=pl.UInt64))
    table: pa.Table = keyed.to_arrow()
    return table
