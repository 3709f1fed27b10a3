"""Object storage as the stores use it, beside Arrow's own S3 file system: rates and ratios.

    python -m benchmarks.storage

Both talk to one SeaweedFS on this machine, which needs most of the processor itself: the ratios say more than the
rates. Ours sends a sha256 with what it writes and checks it in what it reads whole; Arrow's does neither. Seconds of
the clock, the better of two.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from cluster.exchange import open_partition, write_partitions
from cluster.inputs import open_input
from cluster.seaweed import Endpoint, serve
from cluster.storage import Store, open_store

BUCKET = "bench"
SMALL = os.urandom(2000)
SMALLS = 100
BIG_BYTES = 96 << 20  # more than one part
FILES, PARTITIONS, ROWS = 60, 16, 8000
THREADS = 16


def seconds(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(2):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def peer(endpoint: Endpoint) -> pyarrow.fs.S3FileSystem:
    return pyarrow.fs.S3FileSystem(
        access_key=endpoint.access_key,
        secret_key=endpoint.secret_key,
        endpoint_override=endpoint.url.removeprefix("http://"),
        scheme="http",
        region="us-east-1",
    )


Row = tuple[str, str, float, Callable[[], object], Callable[[], object]]


def small_objects(store: Store, other: pyarrow.fs.S3FileSystem) -> Iterator[Row]:
    names = [str(n) for n in range(SMALLS)]

    def put(name: str) -> None:
        with other.open_output_stream(f"{BUCKET}/theirs/{name}") as out:
            out.write(SMALL)

    def get(name: str) -> bytes:
        with other.open_input_file(f"{BUCKET}/theirs/{name}") as file:
            return bytes(file.read())

    def ours(name: str) -> None:
        store.write(f"ours/{name}", SMALL)

    def read(name: str) -> bytes:
        return store.read(f"ours/{name}")

    yield "small writes", "objects/s", SMALLS, lambda: list(map(ours, names)), lambda: list(map(put, names))
    yield "small reads", "objects/s", SMALLS, lambda: list(map(read, names)), lambda: list(map(get, names))
    with ThreadPoolExecutor(THREADS) as pool:
        many = f"{THREADS} threads"
        yield (
            f"small writes, {many}",
            "objects/s",
            SMALLS,
            lambda: list(pool.map(ours, names)),
            lambda: list(pool.map(put, names)),
        )
        yield (
            f"small reads, {many}",
            "objects/s",
            SMALLS,
            lambda: list(pool.map(read, names)),
            lambda: list(pool.map(get, names)),
        )


def big_objects(store: Store, other: pyarrow.fs.S3FileSystem) -> Iterator[Row]:
    data = os.urandom(BIG_BYTES)

    def publish() -> None:
        with store.scratch() as folder:
            (folder / "big").write_bytes(data)
            store.publish(folder / "big", "big")

    def upload() -> None:
        with other.open_output_stream(f"{BUCKET}/big") as out:
            out.write(data)

    def stream() -> None:
        with open_input(f"{store.url}/big") as file:
            while file.read(1 << 20):
                pass

    def download() -> None:
        with other.open_input_stream(f"{BUCKET}/big") as file:
            while file.read(1 << 20):
                pass

    megabytes = BIG_BYTES / 1e6
    yield "big write", "MB/s", megabytes, publish, upload
    yield "big read, a MiB at a time", "MB/s", megabytes, stream, download


def tables(store: Store, other: pyarrow.fs.S3FileSystem) -> Iterator[Row]:
    chance = np.random.default_rng(7)
    table = pa.table({"key": chance.integers(0, 2**62, ROWS), "doc": np.arange(ROWS), "x": chance.random(ROWS)})
    keys = [f"exchange/{n}.arrow" for n in range(FILES)]
    for key in keys:
        write_partitions(store, key, table, np.arange(ROWS) % PARTITIONS, PARTITIONS)

    def ours() -> int:
        with open_partition(store, keys, 7) as found:
            return int(found.num_rows)

    def batch(key: str) -> pa.RecordBatch:
        with other.open_input_file(f"{BUCKET}/{key}") as file:
            return pa.ipc.open_file(file).get_batch(7)

    def theirs() -> int:
        with ThreadPoolExecutor(THREADS) as pool:
            return int(pa.Table.from_batches(list(pool.map(batch, keys))).num_rows)

    yield f"a partition of {FILES} files", "files/s", FILES, ours, theirs
    wide = pa.table({"text": [chance.bytes(500).hex() for _ in range(20_000)], "n": range(20_000)})
    with store.scratch() as folder:
        pq.write_table(wide, folder / "p", row_group_size=2000)
        store.publish(folder / "p", "p")

    def scan(file: pa.NativeFile) -> int:
        with file, pq.ParquetFile(file, pre_buffer=True) as parquet:
            return sum(parquet.read_row_group(group).num_rows for group in range(parquet.num_row_groups))

    yield (
        "Parquet by row group",
        "MB/s",
        wide.nbytes / 1e6,
        lambda: scan(store.open("p")),
        lambda: scan(other.open_input_file(f"{BUCKET}/p")),
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder), [BUCKET]) as endpoint:
        os.environ.update(endpoint.environment())
        store, other = open_store(f"s3://{BUCKET}"), peer(endpoint)
        print(f"{'':28s} {'ours':>8s} {'Arrow':>8s}   ratio")
        for measure in (small_objects, big_objects, tables):
            for name, unit, amount, ours, theirs in measure(store, other):
                rates = [amount / seconds(work) for work in (ours, theirs)]
                print(f"{name:28s} {rates[0]:8.0f} {rates[1]:8.0f} {rates[0] / rates[1]:7.2f}   {unit}")


if __name__ == "__main__":
    main()
