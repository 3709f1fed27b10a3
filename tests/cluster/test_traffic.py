"""What a process moves is counted, and the same work counts the same in a folder and in object storage."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.exchange import open_partition, read_table, write_partitions
from cluster.index import look_up, write_index
from cluster.inputs import open_input
from cluster.storage import AlreadyExists, Store, open_store
from cluster.tables import TableWriter, read_entry
from cluster.traffic import Traffic, count_read, traffic

ROWS = 1000


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(str(tmp_path) if request.param == "folder" else request.getfixturevalue("s3"))


def moved(work: Callable[[], object]) -> Traffic:
    before = traffic()
    work()
    return traffic().since(before)


def table() -> pa.Table:
    ids = [f"{n:06d}" for n in range(ROWS)]
    return pa.table({"id": ids, "text": [f"{n} {n * n} text" for n in range(ROWS)], "n": np.arange(ROWS)})


def test_whole_objects(store: Store) -> None:
    assert moved(lambda: store.write("a", b"12345")) == Traffic(0, 5)
    assert moved(lambda: store.read("a")) == Traffic(5)

    def taken() -> None:
        with pytest.raises(AlreadyExists):
            store.write("a", b"123", if_absent=True)

    assert moved(taken) == Traffic()  # nothing was written

    def published() -> None:
        with store.scratch() as folder:
            (folder / "b").write_bytes(b"x" * 1000)
            store.publish(folder / "b", "b")

    def handed_out() -> None:
        with store.local("a", "b"):
            pass

    assert moved(published) == Traffic(0, 1000)
    assert moved(handed_out) == Traffic(1005)


def test_files_of_stages_count_the_columns_that_are_read(store: Store) -> None:
    writer = TableWriter(store, "kept", 0)

    def written() -> None:
        with writer:
            writer.write(table())
            writer.write(table())

    assert moved(written) == Traffic(0, writer.entries[0]["bytes"])
    [entry] = writer.entries
    with store.open(entry["path"]) as file:
        metadata = pq.ParquetFile(file).metadata
    stored = [[metadata.row_group(g).column(i).total_compressed_size for i in range(3)] for g in range(2)]
    assert moved(lambda: read_entry(store, entry, ["text"])) == Traffic(stored[0][1] + stored[1][1])
    assert moved(lambda: read_entry(store, entry)) == Traffic(sum(map(sum, stored)))


def test_exchanges_count_the_partition_that_is_read(store: Store) -> None:
    rows = table()
    parts = np.arange(ROWS) % 4
    wrote = moved(lambda: write_partitions(store, "x.arrow", rows, parts, 4))
    assert wrote.written == wrote.shuffled > rows.nbytes * 0.9
    assert moved(lambda: read_table(store, "x.arrow")) == Traffic(wrote.written)

    def one() -> None:
        with open_partition(store, ["x.arrow"], 1) as found:
            assert found.num_rows == ROWS // 4

    assert wrote.written // 5 < moved(one).read < wrote.written // 3


def test_an_index_counts_what_was_found_in_it(store: Store) -> None:
    rows = pa.table({"key": pa.array(np.arange(ROWS), pa.uint64()), "doc": np.arange(ROWS)})
    wrote = moved(lambda: write_index(store, "index", rows))
    assert wrote.written > rows.nbytes
    assert wrote.shuffled == 0
    entries = write_index(store, "index", rows)
    keys = np.array([7, 9], np.uint64)
    assert moved(lambda: look_up(store, entries, keys)) == Traffic(read=2 * 16)


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_inputs_count_what_their_reader_takes(place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    data = bytes(range(256)) * 4000
    if place == "folder":
        url = str(tmp_path / "in.bin")
        Path(url).write_bytes(data)
    else:
        open_store(request.getfixturevalue("s3")).write("in.bin", data)
        url = f"{request.getfixturevalue('s3')}/in.bin"

    def whole() -> None:
        with open_input(url) as file:
            assert file.read() == data

    def by_pieces() -> None:
        with open_input(url) as file:
            while file.read(5000):
                pass

    def the_end() -> None:
        with open_input(url) as file:
            file.seek(-100, 2)
            assert file.read() == data[-100:]

    assert moved(whole) == moved(by_pieces) == Traffic(len(data))
    assert moved(the_end) == Traffic(100)


def test_threads_lose_nothing() -> None:
    def add() -> None:
        for _ in range(20_000):
            count_read(1)

    def together() -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: add(), range(4)))

    assert moved(together) == Traffic(80_000)
