"""The Parquet files of stages: written in row groups, hashed, and read back through the layers below them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.cuts import PREFIX, cut
from cluster.storage import Store
from cluster.traffic import count_read

FILE_BYTES = 64 << 20  # of tables in memory: of a file, where the writer is not told otherwise

Entry = dict[str, Any]
"""A file as a manifest names it: {path, rows, bytes, sha256, over}. `over` is the entry of the file whose rows this
one selects by its column `row`, adding columns, and cutting the text where it has columns of cuts: verdicts and ranks
are written without copying the text."""


class TableWriter:
    """Writes tables to `<prefix>/<number>-<sha12>.parquet`: what a manifest names is never written over. A new file
    starts where the schema changes, unless columns are only missing, and after `file_bytes` of tables in
    memory: later stages take a file whole. Use as a context."""

    def __init__(
        self, store: Store, prefix: str, number: int, over: Entry | None = None, file_bytes: int = FILE_BYTES
    ) -> None:
        self.entries: list[Entry] = []
        self._file_bytes = file_bytes
        self._store, self._prefix, self._number, self._over = store, prefix, number, over
        self._stack = ExitStack()
        self._writer: pq.ParquetWriter | None = None
        self._path = Path()
        self._rows = self._size = 0

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is None:
            self._finish()
        else:
            if self._writer is not None:
                self._writer.close()
            self._stack.__exit__(kind, error, trace)

    def write(self, table: pa.Table) -> None:
        if table.num_rows == 0:
            return
        if self._writer is not None:
            table = _filled(table, self._writer.schema)
            if self._size > self._file_bytes or table.schema != self._writer.schema:
                self._finish()
        if self._writer is None:
            self._path = self._stack.enter_context(self._store.scratch()) / "table.parquet"
            self._writer = pq.ParquetWriter(
                self._path, table.schema, compression="zstd", write_page_checksum=True, store_schema=True
            )
        self._writer.write_table(table)
        self._rows += table.num_rows
        self._size += table.nbytes

    def _finish(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        sha256 = file_sha256(self._path)
        part = f"-{len(self.entries)}" if self.entries else ""
        key = f"{self._prefix}/{self._number:06d}{part}-{sha256[:12]}.parquet"
        entry: Entry = {"path": key, "rows": self._rows, "bytes": self._path.stat().st_size}
        self._store.publish(self._path, key)
        self._stack.close()
        self.entries.append(entry | {"sha256": sha256, "over": self._over})
        self._rows = self._size = 0


def _filled(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table in that schema where it only lacks columns of it (rows of JSON state different keys), else as it is."""
    if not all(schema.get_field_index(f.name) >= 0 and schema.field(f.name).type == f.type for f in table.schema):
        return table
    columns = [
        table[field.name] if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parquet(source: pa.NativeFile) -> pq.ParquetFile:
    return pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=True)


def _leaves(schema: pq.ParquetSchema, columns: Sequence[str]) -> list[int]:
    """What is stored for these columns: a nested one is stored as several."""
    paths = [schema.column(i).path for i in range(len(schema))]
    return [i for i, path in enumerate(paths) if any(path == c or path.startswith(f"{c}.") for c in columns)]


def columns_of(store: Store, entry: Entry) -> list[str]:
    """The columns of a file itself, without those of the layers below it."""
    with store.open(entry["path"]) as source, _parquet(source) as file:
        return [str(name) for name in file.schema_arrow.names]


def read_entry(store: Store, entry: Entry, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a manifest's file with the asked columns that exist (all without `columns`), layers resolved."""
    return pa.concat_tables(list(iterate_entry(store, entry, columns)), promote_options="default")


def iterate_entry(store: Store, entry: Entry, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The same, a row group of the lowest layer at a time, so that memory is bounded by row groups. Never empty; has
    `id` where a file has none of the columns, for its number of rows."""
    if entry["over"] is None:
        with store.open(entry["path"]) as source, _parquet(source) as file:
            names = file.schema_arrow.names
            asked = names if columns is None else [c for c in columns if c in names]
            wanted = asked or ["id"]
            if file.metadata.num_row_groups == 0:
                yield file.read(columns=wanted)
            else:
                stored = _leaves(file.metadata.schema, wanted)
                for group in range(file.metadata.num_row_groups):
                    told = file.metadata.row_group(group)
                    count_read(sum(told.column(i).total_compressed_size for i in stored))
                    yield file.read_row_group(group, columns=wanted)
        return
    with store.open(entry["path"]) as source, _parquet(source) as file:
        layer = file.read()
        count_read(entry["bytes"])
    cutting = [name for name in layer.column_names if name.startswith(PREFIX)]
    own = [name for name in layer.column_names if name != "row" and name not in cutting]
    extra = [name for name in own if columns is None or name in columns]
    below = None if columns is None else [c for c in columns if c not in extra] or ["id"]
    rows = layer["row"].to_numpy()
    start = 0
    for table in iterate_entry(store, entry["over"], below):
        first, last = rows.searchsorted(start), rows.searchsorted(start + table.num_rows)
        taken = table.take(pa.array(rows[first:last] - start))
        for name in extra:
            column = layer[name].slice(first, last - first)
            at = taken.schema.get_field_index(name)
            taken = taken.append_column(name, column) if at < 0 else taken.set_column(at, name, column)
        for name in cutting if "text" in taken.column_names else ():
            text = cut(taken["text"], layer[name].slice(first, last - first))
            taken = taken.set_column(taken.schema.get_field_index("text"), "text", text)
        yield taken if columns is None else taken.select([c for c in taken.column_names if c in columns])
        start += table.num_rows
