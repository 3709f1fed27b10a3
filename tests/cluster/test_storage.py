"""A store, local or in object storage, publishes whole objects or nothing and behaves like a dictionary of bytes."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster import s3_client, s3_store
from cluster.local_store import LocalStore
from cluster.storage import AlreadyExists, Missing, StorageError, Store, check_writable, open_store

PART = 5 << 20  # the least that servers take
ODD_KEYS = [
    "a b",
    "a+b",
    "a%20b",
    "a%b",
    "ünï/ço∂é",
    "a#b",
    "a?b=c",
    "a&b",
    "日本😀",
    "q'uo\"te",
    "<x>",
    "[x]*",
    " x ",
    "-",
    "...",
]
BAD_KEYS = [
    "",
    "/",
    "a/",
    "/a",
    "a//b",
    "..",
    "a/../b",
    "../x",
    "./a",
    "a/.",
    "a\0b",
    "a\nb",
    "a\x7fb",
    "a\\b",
    "a\udcffb",
    "_scratch/a",
]
TOO_LONG = ["n" * 256, "/".join(["n" * 200] * 5), "é" * 128]


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(s3_store, "PART_BYTES", PART)
    return open_store(str(tmp_path / "store") if request.param == "local" else request.getfixturevalue("s3"))


def keys(store: Store, prefix: str = "") -> list[str]:
    return sorted(stored.key for stored in store.list(prefix))


def publish(store: Store, key: str, data: bytes) -> None:
    with store.scratch() as folder:
        (folder / "made").write_bytes(data)
        store.publish(folder / "made", key)
        assert not (folder / "made").exists()


def test_a_written_key_is_read_back_listed_and_deleted(store: Store) -> None:
    store.write("a/b.json", b"1")
    store.write("a/b.json", b"123")
    assert store.read("a/b.json") == b"123"
    assert store.exists("a/b.json")
    assert not store.exists("a")
    (stored,) = store.list("a")
    assert stored[:2] == ("a/b.json", 3)
    assert abs(stored.modified - time.time()) < 600
    store.delete(["a/b.json", "not/there"])
    assert not store.exists("a/b.json")
    assert keys(store) == []


def test_an_empty_object_is_an_object(store: Store) -> None:
    store.write("empty", b"")
    publish(store, "published", b"")
    assert store.exists("empty")
    assert store.read("empty") == store.read("published") == b""
    with store.open("empty") as file:
        assert file.read() == b""
    with store.local("empty") as folder:
        assert (folder / "empty").read_bytes() == b""
    assert [stored.size for stored in store.list("")] == [0, 0]


def test_a_prefix_is_a_folder_and_not_the_start_of_a_name(store: Store) -> None:
    for key in ("a/1", "a/b/2", "ab/3", "a.4"):
        store.write(key, b"")
    assert keys(store, "a") == keys(store, "a/") == ["a/1", "a/b/2"]
    assert keys(store, "a/b") == ["a/b/2"]
    assert keys(store, "a/1") == keys(store, "nothing") == []
    assert keys(store) == ["a.4", "a/1", "a/b/2", "ab/3"]


def test_if_absent_takes_one_of_sixteen_at_once(store: Store) -> None:
    def attempt(number: int) -> bool:
        try:
            store.write("k", str(number).encode(), if_absent=True)
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(attempt, range(16)))
    assert sum(won) == 1
    assert store.read("k") == str(won.index(True)).encode()


def test_where_if_absent_holds_a_store_is_fit_for_commits(store: Store) -> None:
    check_writable(store)
    assert keys(store) == []


@pytest.mark.parametrize("size", [10, PART, 2 * PART + 1])
def test_a_published_file_is_there_whole(store: Store, size: int) -> None:
    data = os.urandom(size)
    publish(store, "a/big", b"old")
    publish(store, "a/big", data)
    assert store.read("a/big") == data
    with store.local("a/big") as folder:
        assert (folder / "a/big").read_bytes() == data
    assert keys(store) == ["a/big"]
    assert store.sweep(time.time() + 3600) == 0


def test_what_fails_before_it_is_published_leaves_nothing(store: Store) -> None:
    def fail_half_way() -> Path:
        with store.scratch() as folder:
            (folder / "k").write_bytes(b"half")
            left.append(folder)
            raise RuntimeError

    left: list[Path] = []
    with pytest.raises(RuntimeError):
        fail_half_way()
    assert keys(store) == []
    assert not left[0].exists()


def test_what_is_not_there_is_missing_by_every_way_in(store: Store) -> None:
    store.write("there/file", b"1")
    for key in ("nothing", "there", "there/file/below", "there/nothing"):
        assert not store.exists(key)
        for attempt in (store.read, store.open, lambda key: store.local(key).__enter__()):
            with pytest.raises(Missing, match=key):
                attempt(key)
        store.delete([key])
    assert store.read("there/file") == b"1"


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_names_are_names(store: Store, key: str) -> None:
    store.write(key, key.encode(), if_absent=True)
    publish(store, f"folder/{key}", b"2")
    assert store.read(key) == key.encode()
    assert keys(store) == sorted([key, f"folder/{key}"])
    with store.open(key) as file, store.local(key) as folder:
        assert file.read() == (folder / key).read_bytes() == key.encode()
    store.delete([key])
    assert keys(store) == [f"folder/{key}"]


@pytest.mark.parametrize("key", BAD_KEYS + TOO_LONG)
def test_a_key_that_some_store_would_take_for_another_is_refused_by_all(store: Store, tmp_path: Path, key: str) -> None:
    (tmp_path / "mine").write_bytes(b"")
    for attempt in (
        lambda: store.write(key, b""),
        lambda: store.read(key),
        lambda: store.open(key),
        lambda: store.exists(key),
        lambda: store.delete([key]),
        lambda: store.publish(tmp_path / "mine", key),
        lambda: store.local(key).__enter__(),
        lambda: list(store.list(key)) if key.strip("/") and not key.endswith("/") else store.read(key),
    ):
        with pytest.raises(StorageError, match="not a key") as refused:
            attempt()
        assert not isinstance(refused.value, Missing)
    assert (tmp_path / "mine").exists()


def test_all_of_many_keys_are_listed_and_deleted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a request lists or deletes."""
    monkeypatch.setattr(s3_client, "LISTED_KEYS", 70)
    monkeypatch.setattr(s3_store, "DELETE_KEYS", 70)
    many = [f"many/{n:04d}" for n in range(150)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: store.write(key, key.encode()), many))
    store.write("other", b"")
    assert keys(store, "many") == many
    store.delete(iter([*many[:-1], "many/never"]))
    assert keys(store) == [many[-1], "other"]


def test_tables_are_read_by_random_access(store: Store) -> None:
    """Groups and batches in any order, and columns of them."""
    table = pa.table({"n": range(30_000), "text": [secrets.token_hex(40) for _ in range(30_000)]})
    with store.scratch() as folder:
        pq.write_table(table, folder / "p", row_group_size=2500, compression="none")
        with pa.OSFile(str(folder / "a"), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
            writer.write_table(table, max_chunksize=2500)
        store.publish(folder / "p", "p")
        store.publish(folder / "a", "a")
    with store.open("p") as source, pq.ParquetFile(source, pre_buffer=True) as file:
        for group in (7, 0, 1, 2, 11, 3):
            assert file.read_row_group(group) == table.slice(2500 * group, 2500)
        assert file.read_row_group(5, columns=["n"])["n"].to_pylist() == list(range(12_500, 15_000))
        assert file.read() == table
    with store.open("a") as source:
        file = pa.ipc.open_file(source)
        for batch in (3, 0, 1, 11):
            assert pa.table(file.get_batch(batch)) == table.slice(2500 * batch, 2500)
        assert file.read_all() == table


def test_a_table_outlives_the_file_it_was_read_from(store: Store) -> None:
    table = pa.table({"n": range(10_000)})
    with store.scratch() as folder:
        with pa.OSFile(str(folder / "a"), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
            writer.write_table(table)
        store.publish(folder / "a", "a")
    with store.open("a") as source:
        found = pa.ipc.open_file(source).read_all()
    store.delete(["a"])
    assert found == table


KILLED = """
import sys, time
from pathlib import Path
from cluster import s3_client, s3_store
from cluster.storage import open_store
s3_store.PART_BYTES = 5 << 20
store = open_store(sys.argv[1])
with store.scratch() as folder:
    (folder / "big").write_bytes(bytes(12 << 20))
    if sys.argv[2] == "publish":
        s3_store.S3Store._complete = lambda *_: print("half", flush=True) or time.sleep(600)
        store.publish(folder / "big", "big")
    print("half", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_writer_left_is_swept_once_it_is_old(store: Store, tmp_path: Path) -> None:
    how = "scratch" if isinstance(store, LocalStore) else "publish"
    command = [sys.executable, "-c", KILLED, store.url, how]
    environment = os.environ | {"TMPDIR": str(tmp_path)}  # its scratch folder stays
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"half\n"
        child.kill()
    assert keys(store) == []
    store.write("live", b"1")
    assert store.sweep(time.time() - 3600) == 0
    assert store.sweep(time.time() + 3600) == 1
    assert store.sweep(time.time() + 3600) == 0
    assert keys(store) == ["live"]


def test_sweeping_a_folder_takes_empty_folders_only(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for key in ("a/b/gone", "a/kept"):
        store.write(key, b"1")
    store.delete(["a/b/gone"])
    store.sweep(time.time() - 3600)
    assert (tmp_path / "a/b").is_dir()
    store.sweep(time.time() + 3600)
    assert not (tmp_path / "a/b").exists()
    assert keys(store) == ["a/kept"]


def test_writers_do_not_mind_a_sweep_of_the_folders_they_write_to(tmp_path: Path) -> None:
    """Writers who use a folder that is empty between two of their files, against one who removes such folders."""
    store = open_store(str(tmp_path))

    def write(number: int) -> None:
        for _ in range(15):
            store.write(f"a/b/{number}", b"1")
            store.delete([f"a/b/{number}"])
            time.sleep(0.03)

    removed = 0
    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, number) for number in range(2)]
        while not all(writer.done() for writer in writers):
            for folder in (tmp_path / "a/b", tmp_path / "a"):
                with contextlib.suppress(OSError):  # not empty, or not there
                    if folder.stat().st_mtime < time.time() - 0.02:
                        folder.rmdir()
                        removed += 1
        for writer in writers:
            writer.result()
    assert removed > 0


def test_an_address_that_is_no_store_is_refused() -> None:
    for url in ("ftp://x/y", "s3://", "s3:///x", "s3://b/a//b", "s3://b/../c", "s3://b/a\0", "s3://b/\udcff"):
        with pytest.raises(StorageError):
            open_store(url)


def test_keys_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(StorageError) as refused:
        open_store("s3://AKIA:secret@bucket/x")
    assert "secret" not in str(refused.value)


KEY = st.sampled_from(["a", "b/1", "b/2", "c d/é", "e/f/g"])
DATA = st.sampled_from([b"", b"1", b"x" * 70_000])
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), KEY, DATA),
        st.tuples(st.just("create"), KEY, DATA),
        st.tuples(st.just("publish"), KEY, DATA),
        st.tuples(st.just("delete"), st.lists(KEY, max_size=3), st.just(b"")),
        st.tuples(st.just("list"), st.sampled_from(["", "b", "e", "e/f", "a"]), st.just(b"")),
        st.tuples(st.just("read"), KEY, st.just(b"")),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
def test_a_store_is_a_dictionary(store: Store, operations: Iterable[tuple[str, str | list[str], bytes]]) -> None:
    fresh = open_store(f"{store.url}/{secrets.token_hex(6)}")
    model: dict[str, bytes] = {}
    for what, key, data in operations:
        if isinstance(key, list):
            fresh.delete(key)
            model = {k: v for k, v in model.items() if k not in key}
        elif what == "list":
            expected = {k: len(v) for k, v in model.items() if not key or k.startswith(f"{key}/")}
            assert {stored.key: stored.size for stored in fresh.list(key)} == expected
        elif what == "read":
            assert fresh.exists(key) == (key in model)
            if key in model:
                with fresh.open(key) as file:
                    assert fresh.read(key) == file.read() == model[key]
        elif what == "create" and key in model:
            with pytest.raises(AlreadyExists, match=key):
                fresh.write(key, data, if_absent=True)
        else:
            if what == "publish":
                publish(fresh, key, data)
            else:
                fresh.write(key, data, if_absent=what == "create")
            model[key] = data
    assert {key: fresh.read(key) for key in keys(fresh)} == model
