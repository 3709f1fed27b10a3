"""Parquet files, by row groups, without a Python object a row.

A row group that breaks costs the rows from there on; the others count. Files with Arrow extension types are
quarantined whole (footer.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from operators.document import SCHEMA, utf8
from operators.read.footer import Footer
from operators.read.rows import joined_columns, passed_name, quarantine
from operators.read.span import (
    BATCH_BYTES,
    BATCH_ROWS,
    LIMIT,
    Batch,
    Fields,
    ReadError,
    Span,
    Unfit,
    fallback_id,
)


def cut_parquet(span: Span, file: BinaryIO, target: int, fields: Fields) -> tuple[list[int], list[int]]:
    """First row groups of the spans, and the spans' sizes in compressed bytes. ReadError without the columns."""
    if (size := file.seek(0, 2)) == 0:
        return [0], [0]
    try:
        footer = Footer(file)
        _Shape(span, fields, footer.file.schema_arrow)
    except Unfit:  # reading quarantines it
        return [0], [size]
    starts, grouped = [0], [0]
    for group, bytes_ in enumerate(g.size for g in footer.groups):
        if grouped[-1] and grouped[-1] + bytes_ > target:
            starts.append(group)
            grouped.append(0)
        grouped[-1] += bytes_
    return starts, grouped


def read_parquet(span: Span, file: BinaryIO, fields: Fields) -> Iterator[Batch]:
    """Documents of the span's row groups. An empty file is no document."""
    if file.seek(0, 2) == 0:
        return
    try:
        footer = Footer(file)
    except Unfit as error:
        yield _lost(span, 0, -1, error.reason, str(error))
        return
    shape = _Shape(span, fields, footer.file.schema_arrow)
    last = len(footer.groups) if span.end < 0 else span.end
    row = sum(g.rows for g in footer.groups[: span.start])
    for group in range(span.start, last):
        end = row + footer.groups[group].rows
        held: list[pa.RecordBatch] = []
        bytes_held = 0
        broken: Unfit | None = None
        try:
            for batch in footer.batches(group):
                held.append(batch)
                bytes_held += batch.nbytes
                if bytes_held >= BATCH_BYTES or sum(b.num_rows for b in held) >= BATCH_ROWS:
                    table = pa.Table.from_batches(held)
                    held, bytes_held = [], 0
                    yield from shape.batches(table, row)
                    row += table.num_rows
        except Unfit as error:
            broken = error
        if held:
            table = pa.Table.from_batches(held)
            yield from shape.batches(table, row)
            row += table.num_rows
        if broken:
            yield _lost(span, row, end - row, broken.reason, str(broken))
        row = end


def _lost(span: Span, at: int, length: int, reason: str, detail: str) -> Batch:
    bad = (fallback_id(span.rel, at), span.rel, at, length, reason, detail[:200])
    return Batch(SCHEMA.empty_table(), quarantine([bad]))


class _Shape:
    """How the columns of one file become those of documents."""

    def __init__(self, span: Span, fields: Fields, schema: pa.Schema) -> None:
        self._span = span
        self._needs_id = fields.id is not None
        have = schema.names
        for named in (fields.text, fields.id, fields.url, fields.date):
            if named is not None and named not in have:
                raise ReadError(f"{span.rel}: no column {named!r}; it has {', '.join(have)}")
        self._from = {"text": fields.text} if fields.text is not None else {}
        for ours, named in (("id", fields.id), ("url", fields.url), ("date", fields.date)):
            if named is not None or ours in have:
                self._from[ours] = named or ours
        for ours, given, fits in (
            ("source", span.source is not None, _is_text),
            ("priority", span.priority != 0, pa.types.is_integer),
            ("weight", span.weight != 1.0, _is_number),
        ):
            if ours in have and not given and fits(_plain(schema.field(ours).type)):
                self._from.setdefault(ours, ours)
        for ours, theirs in self._from.items():
            found = _plain(schema.field(theirs).type)
            if not (_is_text(found) if ours == "text" else _prints(found)):
                raise ReadError(f"{span.rel}: column {theirs!r} is {found}, which cannot be read as {ours}")
        mapped = set(self._from.values())
        self._passed = {name: passed_name(name) for name in have if name not in mapped}

    def batches(self, table: pa.Table, row: int) -> Iterator[Batch]:
        """The rows of `table`, the first of which is the file's row `row`."""
        step = max(1, table.num_rows * BATCH_BYTES // max(1, table.nbytes))
        for at in range(0, table.num_rows, step):
            yield self._batch(table.slice(at, step), row + at)

    def _batch(self, table: pa.Table, row: int) -> Batch:
        rel = self._span.rel
        numbers = np.arange(row, row + table.num_rows)
        table = table.combine_chunks()
        valid = _valid(table)
        bad = [(fallback_id(rel, r), rel, r, 1, "invalid_utf8", "") for r in numbers[~valid].tolist()]
        if bad:
            table, numbers = table.filter(pa.array(valid)), numbers[valid]
        texts = self._texts(table)
        ids = self._ids(table)
        refused = self._refusals(texts, ids)
        made = zip(numbers.tolist(), ids.to_pylist(), strict=True)
        ids = pa.array([given or fallback_id(rel, r) for r, given in made], pa.string())
        hit = np.flatnonzero(refused != "")
        found = zip(ids.take(pa.array(hit)).to_pylist(), numbers[hit].tolist(), refused[hit].tolist(), strict=True)
        bad += [(identity, rel, r, 1, reason, "") for identity, r, reason in found]
        docs = self._documents(table, texts, ids)
        if len(hit):
            docs = docs.filter(pa.array(refused == ""))
        return Batch(docs, quarantine(sorted(bad, key=lambda row: row[2])))

    def _ids(self, table: pa.Table) -> pa.ChunkedArray:
        if "id" not in self._from:
            return pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
        return table[self._from["id"]].cast(pa.string())

    def _texts(self, table: pa.Table) -> pa.ChunkedArray:
        if "text" not in self._from:
            return pa.chunked_array([pa.nulls(table.num_rows, pa.large_string())])
        return table[self._from["text"]].cast(pa.large_string())

    def _refusals(self, texts: pa.ChunkedArray, ids: pa.ChunkedArray) -> NDArray[np.str_]:
        """Why each row is no document; empty for those that are."""
        data, bounds = utf8(texts)
        sizes = np.diff(bounds)
        why = np.full(len(texts), "", dtype="U12")
        if self._needs_id:
            why[pc.fill_null(pc.equal(ids, ""), True).to_numpy()] = "no_id"
        why[sizes > LIMIT] = "too_large"
        zeros = np.flatnonzero(data[bounds[0] : bounds[-1]] == 0) + bounds[0]
        why[np.searchsorted(bounds, zeros, side="right") - 1] = "nul"
        if "text" in self._from:
            why[pc.is_null(texts).to_numpy()] = "no_text"
        return why

    def _documents(self, table: pa.Table, texts: pa.ChunkedArray, ids: pa.Array) -> pa.Table:
        n = table.num_rows
        span = self._span
        columns: dict[str, object] = {field.name: pa.nulls(n, field.type) for field in SCHEMA}
        columns |= {"id": ids, "text": texts}
        columns |= {name: table[self._from[name]].cast(pa.string()) for name in ("url", "date") if name in self._from}
        given: tuple[tuple[str, object], ...] = (
            ("source", span.source),
            ("priority", span.priority),
            ("weight", span.weight),
        )
        for name, value in given:
            dtype = SCHEMA.field(name).type
            columns[name] = pa.repeat(pa.scalar(value, dtype), n)
            if name in self._from:
                columns[name] = pc.coalesce(_within(table[name], dtype), columns[name])
        docs = pa.table(columns, schema=SCHEMA)
        return joined_columns(docs, {ours: table[theirs] for theirs, ours in self._passed.items()})


def _plain(dtype: pa.DataType) -> pa.DataType:
    return dtype.value_type if pa.types.is_dictionary(dtype) else dtype


def _is_text(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype))


def _is_number(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_integer(dtype) or pa.types.is_floating(dtype))


def _prints(dtype: pa.DataType) -> bool:
    try:
        pa.nulls(0, dtype).cast(pa.string())
    except pa.ArrowNotImplementedError:
        return False
    return not pa.types.is_binary(dtype) and not pa.types.is_large_binary(dtype)


def _within(column: pa.ChunkedArray, dtype: pa.DataType) -> pa.ChunkedArray:
    """The user's source, priority or weight in our type, null where it does not fit."""
    if pa.types.is_string(dtype):
        return column.cast(dtype)
    number = column.cast(pa.float64(), safe=False)
    fits = pc.and_(pc.is_finite(number), pc.less(pc.abs(number), 2.0**31))
    return pc.if_else(fits, number, pa.scalar(None, pa.float64())).cast(dtype, safe=False)


def _valid(table: pa.Table) -> NDArray[np.bool_]:
    """Which rows hold valid UTF-8 in all their columns, nested ones too; Parquet readers do not check."""
    valid = np.ones(table.num_rows, np.bool_)
    for column in table.columns:
        if not _is_valid(column):
            valid &= [_is_valid(column.take(pa.array([i]))) for i in range(len(column))]
    return valid


def _is_valid(column: pa.ChunkedArray) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
