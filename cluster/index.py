"""Sorted rows that later builds look up by key: what a build remembers.

A file is one Arrow record batch of rows sorted by the uint64 column `key`, at most about FILE_BYTES of them, and its
entry in the manifest says which keys it holds from `low` to `high`. So entries are all the directory there is: a
reader opens the files whose range it needs, takes the rows of its keys out of each, and never holds more than a few.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from cluster.exchange import open_partition
from cluster.storage import StorageError, Store
from cluster.tables import Entry, file_sha256
from cluster.traffic import count_read
from cluster.units import Record, peak_rss_bytes

FILE_BYTES = 64 << 20
READERS = 4  # files in memory at once where they cannot be mapped

Keys = NDArray[np.uint64]


@dataclass(frozen=True)
class IndexTask:
    """Sorts one partition of exchanged rows and writes its part of an index to `<folder>/<operator>/<phase>/`. Work:
    [operator, phase, partition]; the record has the `entries` {path, rows, bytes, sha256, low, high}."""

    store: Store
    folder: str
    exchanged: dict[str, list[str]]  # files of rows, by <operator>/<phase>

    def __call__(self, _number: int, work: list[Any]) -> Record:
        operator, phase, partition = work
        name = f"{operator}/{phase}"
        with open_partition(self.store, self.exchanged[name], partition) as rows:
            entries = write_index(self.store, f"{self.folder}/{name}/{partition:06d}", rows)
        return {"entries": entries, "peak_rss_bytes": peak_rss_bytes()}


def write_index(store: Store, prefix: str, rows: pa.Table) -> list[Entry]:
    """Write the distinct rows to `<prefix>-<part>-<sha12>.arrow`, sorted by all columns: the bytes depend on the rows
    alone."""
    table = _distinct(rows).combine_chunks()
    step = max(1, FILE_BYTES * len(table) // max(1, table.nbytes))
    return [_write(store, f"{prefix}-{at // step:03d}", table.slice(at, step)) for at in range(0, len(table), step)]


def _distinct(rows: pa.Table) -> pa.Table:
    """The distinct rows, sorted."""
    names = ["key", *(name for name in rows.column_names if name != "key")]
    frame = pl.DataFrame(rows).sort(names)
    other = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in names)
    first = pl.int_range(pl.len()) == 0
    distinct: pa.Table = frame.filter(other | first).to_arrow().cast(rows.schema)
    return distinct


def _write(store: Store, prefix: str, table: pa.Table) -> Entry:
    (batch,) = table.to_batches()
    with store.scratch() as folder:
        path = folder / "index.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
            out.write_batch(batch)
        sha256 = file_sha256(path)
        entry: Entry = {"path": f"{prefix}-{sha256[:12]}.arrow", "rows": len(table), "bytes": path.stat().st_size}
        entry |= {"sha256": sha256, "low": table["key"][0].as_py(), "high": table["key"][-1].as_py()}
        store.publish(path, entry["path"])
    return entry


def look_up(store: Store, entries: Sequence[Entry], keys: Keys) -> list[pa.Table]:
    """The rows that have one of `keys` (distinct, ascending), a table for each file that has any. StorageError for
    a file that is not the one that was written, as far as its size and its ends tell: `verify` reads all of it."""

    def rows_of(entry: Entry) -> pa.Table:
        with store.open(entry["path"]) as file:
            try:
                table = pa.Table.from_batches([pa.ipc.open_file(file).get_batch(0)])
                ends = [table["key"][0].as_py(), table["key"][-1].as_py()]
            except (pa.ArrowException, IndexError, KeyError, OSError) as error:
                raise StorageError(f"{store.url}/{entry['path']}: damaged: {error}") from error
            if [table.num_rows, *ends] != [entry["rows"], entry["low"], entry["high"]]:
                raise StorageError(f"{store.url}/{entry['path']}: not the index that was written")
            found = matching(table, keys)
            count_read(found.nbytes)
            return found

    near = [entry for entry in entries if _between(keys, entry["low"], entry["high"]).size]
    with ThreadPoolExecutor(READERS) as pool:
        return [table for table in pool.map(rows_of, near) if table.num_rows]


def matching(table: pa.Table, keys: Keys) -> pa.Table:
    """The rows of a table sorted by `key` that have one of `keys`, copied. Takes time by the keys, not by the rows."""
    held: Keys = table["key"].chunk(0).to_numpy()  # a view: of a mapped file only the pages that are hit are read
    wanted = _between(keys, held[0], held[-1])
    first = held.searchsorted(wanted)
    there = held[first] == wanted
    first, wanted = first[there], wanted[there]
    counts = held.searchsorted(wanted, side="right") - first
    starts = np.repeat(first - np.cumsum(counts) + counts, counts)
    return table.take(pa.array(starts + np.arange(len(starts))))


def _between(keys: Keys, low: Any, high: Any) -> Keys:
    return keys[keys.searchsorted(np.uint64(low)) : keys.searchsorted(np.uint64(high), side="right")]
