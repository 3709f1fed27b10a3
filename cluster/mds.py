"""MosaicML Streaming's MDS (streaming/base/format/mds): samples with named columns, found by offsets at the beginning.

    u32 samples; u32 offsets[samples + 1], from the beginning of the file; a description of the columns as JSON; samples
    sample: u32 size of each column that has no fixed one; the columns' values. Columns are in the order of their names

A reader opens a folder by its `index.json`, an entry a shard. Each shard carries its own entry in a file beside it,
and those of a folder are put together when all are there. Nothing here is pickled: readers refuse that by default.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cluster.flat_formats import ShardError
from cluster.storage import Store
from cluster.tables import file_sha256

INDEX = "index.json"
MOST_BYTES = (1 << 32) - 1  # offsets are u32
READERS = 16  # threads that fetch entries
BYTES = pa.large_binary()


class Encoded(NamedTuple):
    """A column: its encoding, the bytes of a value where all have the same, the values in parts to be joined."""

    encoding: str
    size: int | None
    parts: list[pa.Array]  # of BYTES


def write_mds(folder: Path, name: str, rows: int, groups: Iterable[pa.Table]) -> list[Path]:
    """Write `rows` samples, those of `groups` in order, as `<name>-<sha12>.mds` and its entry beside it; both paths.

    Integers become `int`, strings `str`, lists of numbers `ndarray:<type>`, lists of strings `json`.
    Raises ShardError from 4 GiB on, where offsets end.
    """
    made = folder / "samples.mds"
    sizes = [np.zeros(1, np.int64)]
    config: dict[str, Any] = {}
    with made.open("wb") as file:
        for group in groups:
            columns = {column: _encoded(group[column]) for column in sorted(group.column_names)}
            if not config:
                config = _config(columns)
                head = orjson.dumps(config, option=orjson.OPT_SORT_KEYS)
                start = 4 + 4 * (rows + 1) + len(head)
                file.seek(start - len(head))
                file.write(head)
            bounds, samples = _samples(list(columns.values()))
            sizes.append(np.diff(bounds))
            file.write(samples)
        offsets = start + np.cumsum(np.concatenate(sizes))
        if offsets[-1] > MOST_BYTES:
            raise ShardError(
                f"{name}: {offsets[-1]} bytes, a shard of mds ends at 4 GiB: lower shards.tokens_per_shard"
            )
        file.seek(0)
        file.write(np.array([rows], "<u4").tobytes() + offsets.astype("<u4").tobytes())
    target = folder / f"{name}-{file_sha256(made)[:12]}.mds"
    made.rename(target)
    with target.open("rb") as file:
        sha1 = hashlib.file_digest(file, "sha1").hexdigest()
    data = {"basename": target.name, "bytes": int(offsets[-1]), "hashes": {"sha1": sha1}}
    entry = target.with_suffix(f".mds.{INDEX}")
    entry.write_bytes(_index([config | {"raw_data": data, "samples": rows, "zip_data": None}]))
    return [target, entry]


def write_indexes(store: Store, shards: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Write the index of every folder that has shards of mds; what was written, as the manifest's `indexes`: path,
    sha256, bytes. `shards` are records as manifests have them.

    An index is named by its content, as a manifest that names it is never to change. `index.json`, the only name that
    readers know, is a copy of the newest one.
    """
    written = []
    for folder, index in indexes_of(store, shards):
        sha256 = hashlib.sha256(index).hexdigest()
        path = f"{folder}/index-{sha256[:12]}.json"
        store.write(path, index)
        put_index(store, path)
        written.append({"path": path, "sha256": sha256, "bytes": len(index)})
    return written


def put_index(store: Store, path: str) -> None:
    """Make `index.json` a copy of that index, where it is none."""
    index, copy = store.read(path), index_beside(path)
    if not store.exists(copy) or store.read(copy) != index:
        store.write(copy, index)


def index_beside(path: str) -> str:
    """The `index.json` in the folder of a file."""
    return f"{path.rpartition('/')[0]}/{INDEX}"


def indexes_of(store: Store, shards: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, bytes]]:
    """(folder, index) of those shards, in their order, from the entries beside them."""
    folders: dict[str, list[str]] = {}
    for shard in shards:
        if shard["format"] == "mds":
            entries = folders.setdefault(shard["path"].rpartition("/")[0], [])
            entries += [sidecar["path"] for sidecar in shard["sidecars"]]
    with ThreadPoolExecutor(READERS) as pool:
        for folder, entries in folders.items():
            yield folder, merge_indexes(pool.map(store.read, entries))


def merge_indexes(indexes: Iterable[bytes]) -> bytes:
    """One index of all shards that those have."""
    return _index([entry for index in indexes for entry in orjson.loads(index)["shards"]])


def _index(entries: list[dict[str, Any]]) -> bytes:
    return orjson.dumps({"shards": entries, "version": 2}, option=orjson.OPT_SORT_KEYS)


def _config(columns: Mapping[str, Encoded]) -> dict[str, Any]:
    return {
        "version": 2,
        "format": "mds",
        "compression": None,
        "hashes": ["sha1"],
        "size_limit": None,
        "column_names": list(columns),
        "column_encodings": [column.encoding for column in columns.values()],
        "column_sizes": [column.size for column in columns.values()],
    }


def _samples(columns: list[Encoded]) -> tuple[NDArray[np.int64], pa.Buffer]:
    """(offsets, samples end to end) of a group."""
    sizes = [sum(pc.binary_length(part).to_numpy() for part in c.parts) for c in columns if c.size is None]
    head = _fixed(np.stack(sizes, axis=1).astype("<u4"))
    parts = [part for column in columns for part in column.parts]
    samples = pc.binary_join_element_wise(head, *parts, pa.scalar(b"", BYTES))
    _, ends, data = samples.buffers()
    offsets = np.frombuffer(ends, np.int64, len(samples) + 1)
    return offsets, data[: offsets[-1]]


def _encoded(column: pa.ChunkedArray) -> Encoded:
    """A column of one chunk without nulls."""
    [values] = column.chunks
    if pa.types.is_integer(values.type):
        return Encoded("int", 8, [_fixed(values.to_numpy().astype("<i8").reshape(-1, 1))])
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return Encoded("str", None, [values.cast(pa.large_string()).cast(BYTES)])
    if not pa.types.is_integer(values.type.value_type):
        return Encoded("json", None, [pa.array(map(orjson.dumps, values.to_pylist()), BYTES)])
    numbers = values.flatten().to_numpy(zero_copy_only=False)
    lengths = values.value_lengths().to_numpy().astype(np.int64)
    kind = numbers.dtype
    data = np.ascontiguousarray(numbers, kind.newbyteorder("<"))
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]) * kind.itemsize
    return Encoded(f"ndarray:{kind.name}", None, [_shapes(lengths), _binary(ends, data)])


def _shapes(lengths: NDArray[np.int64]) -> pa.Array:
    """What an array of one axis begins with: a byte for `one axis, shape in 2^code bytes` and its length."""
    code = (lengths >= 1 << 8).astype(np.uint8) + (lengths >= 1 << 16)
    told = np.concatenate([(code | 1 << 2)[:, None], lengths.astype("<u4")[:, None].view(np.uint8)], axis=1)
    size = 1 + (1 << code.astype(np.int64))
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(size)])
    return _binary(ends, told[np.arange(5) < size[:, None]])


def _fixed(values: NDArray[Any]) -> pa.Array:
    """The rows of a matrix as bytes."""
    width = values.shape[1] * values.itemsize
    return _binary(np.arange(len(values) + 1, dtype=np.int64) * width, np.ascontiguousarray(values))


def _binary(ends: NDArray[np.int64], data: NDArray[Any]) -> pa.Array:
    return pa.Array.from_buffers(BYTES, len(ends) - 1, [None, pa.py_buffer(ends), pa.py_buffer(data)])
