"""A shuffle through files in the store: it survives lost nodes and drivers, and resumes where it stopped.

Each map unit writes one Arrow file whose p-th record batch holds the rows for partition p; each reduce unit maps
the files into memory and reads batch p of each. Ray's own shuffles hang or fail when a node dies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from cluster.storage import Store
from cluster.traffic import count_read, count_shuffled

READERS = 16
MOST_MAPPED = 16_384  # files of a partition; a process may have four times as many mappings (vm.max_map_count)


def write_partitions(store: Store, key: str, table: pa.Table, partition: NDArray[np.int64], partitions: int) -> None:
    """Write `table` as one Arrow file of `partitions` record batches; row i goes into batch `partition[i]`."""
    if partitions <= 1 << 16:  # NumPy sorts these by radix
        partition = partition.astype(np.uint16)
    order = np.argsort(partition, kind="stable")
    bounds = np.searchsorted(partition[order], np.arange(partitions + 1))
    with _written(store, key, table.schema) as out:
        for p in range(partitions):
            part = table.take(pa.array(order[bounds[p] : bounds[p + 1]]))
            out.write_batch(_one_batch(part))


@contextmanager
def _written(store: Store, key: str, schema: pa.Schema) -> Iterator[pa.ipc.RecordBatchFileWriter]:
    with store.scratch() as folder:
        path = folder / "table.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as out:
            yield out
        size = path.stat().st_size
        store.publish(path, key)
        count_shuffled(size)


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    if not batches:
        return pa.RecordBatch.from_pylist([], schema=table.schema)
    if len(batches) > 1:
        raise ValueError(
            f"a partition of {table.num_rows} rows does not fit one record batch: use large_string columns"
        )
    return batches[0]


@contextmanager
def open_partition(store: Store, keys: Sequence[str], p: int) -> Iterator[pa.Table]:
    """The rows of partition `p` from the files at `keys`, in the order of `keys`; local files are mapped."""

    def batch(key: str) -> pa.Table:
        with store.open(key) as opened:  # what is mapped stays so while the table is used
            file = opened if len(keys) <= MOST_MAPPED else pa.PythonFile(opened, mode="r")  # reads a copy
            rows = pa.ipc.open_file(file).get_batch(p)
            count_read(rows.nbytes)
            return pa.Table.from_batches([rows])

    with ThreadPoolExecutor(READERS) as pool:  # in object storage each read waits for an answer
        tables = list(pool.map(batch, keys))
    yield concatenate(tables)


def concatenate(tables: Sequence[pa.Table]) -> pa.Table:
    """The rows of all tables; a column that has several types gets the one that holds them all, at worst text."""
    if len({table.schema for table in tables}) <= 1:
        return pa.concat_tables(tables)
    types: dict[str, list[pa.DataType]] = {}
    for table in tables:
        for field in table.schema:
            if field.type not in types.setdefault(field.name, []):
                types[field.name].append(field.type)
    schema = pa.schema([(name, _common(name, found)) for name, found in types.items()])
    return pa.concat_tables([_cast(table, schema) for table in tables])


def _common(name: str, types: Sequence[pa.DataType]) -> pa.DataType:
    """A type that holds the values of all: wider numbers of one kind, else text. Never one that rounds."""
    if len(types) == 1:
        return types[0]
    signed = all(pa.types.is_signed_integer(t) for t in types)
    kinds = (pa.types.is_unsigned_integer, pa.types.is_floating, _is_text)
    if signed or any(all(kind(t) for t in types) for kind in kinds):
        return pa.unify_schemas([pa.schema([(name, t)]) for t in types], promote_options="permissive").field(0).type
    return pa.large_string()


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        _as_type(table[field.name], field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _as_type(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_nested(column.type) and not pa.types.is_nested(kind):  # as JSONL readers keep nested values
        values = [None if v is None else orjson.dumps(v, default=str).decode() for v in column.to_pylist()]
        return pa.chunked_array([pa.array(values, kind)])
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return pa.chunked_array([pa.array([None if v is None else v.hex() for v in column.to_pylist()], kind)])
    return column.cast(kind)


def write_table(store: Store, key: str, table: pa.Table) -> None:
    """Write one Arrow file."""
    with _written(store, key, table.schema) as out:
        out.write_table(table)


def read_table(store: Store, key: str) -> pa.Table:
    """Read one Arrow file into memory."""
    with store.open(key) as file:
        count_read(file.size())
        return pa.ipc.open_file(file).read_all()
