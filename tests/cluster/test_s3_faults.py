"""Whatever the network and the server do, an operation on object storage does what it says or raises StorageError:
never wrong data, never half an object."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest

from cluster import commit, s3_client, s3_file, s3_store
from cluster.seaweed import Endpoint
from cluster.storage import AlreadyExists, Forbidden, Missing, StorageError, Store, check_writable, open_store
from tests.conftest import BUCKET
from tests.faults import Fault, FaultProxy, using

PART = 5 << 20
BIG = os.urandom(PART + 300_000)
SMALL = os.urandom(200_000)
PASSING = [
    Fault.SLOW_DOWN,
    Fault.INTERNAL_ERROR,
    Fault.CONFLICT,
    Fault.RESET,
    Fault.LOST_ACK,
    Fault.TRUNCATE,
    Fault.STALL,
]


@pytest.fixture(scope="module")
def through(seaweed: Endpoint) -> Iterator[FaultProxy]:
    with pytest.MonkeyPatch.context() as patch, FaultProxy(seaweed, stall=0.1) as proxy:
        patch.setattr(s3_store, "PART_BYTES", PART)
        patch.setattr(s3_client, "LONGEST_PAUSE", 0.05)
        patch.setenv("AWS_MAX_ATTEMPTS", "4")
        with using(proxy.endpoint):
            yield proxy


@pytest.fixture
def proxy(through: FaultProxy) -> FaultProxy:
    through.clear()
    through.stall = 0.1
    return through


@pytest.fixture
def fresh_client(proxy: FaultProxy) -> Iterator[None]:
    """For tests that change its settings."""
    s3_client.forget()
    yield
    s3_client.forget()


@pytest.fixture
def store(proxy: FaultProxy, s3: str) -> Store:
    store = open_store(s3)
    store.write("small", SMALL)
    proxy.clear()
    return store


def publish(store: Store, key: str = "big", data: bytes = BIG) -> None:
    with store.scratch() as folder:
        (folder / "made").write_bytes(data)
        store.publish(folder / "made", key)


def is_read(store: Store) -> bool:
    return store.read("small") == SMALL


def is_streamed(store: Store) -> bool:
    with store.open("small") as file:
        return b"".join(iter(lambda: file.read(70_000), b"")) == SMALL


def is_fetched(store: Store) -> bool:
    with store.local("small") as folder:
        return (folder / "small").read_bytes() == SMALL


def is_written(store: Store) -> bool:
    store.write("new", SMALL)
    return store.read("new") == SMALL


def is_created(store: Store) -> bool:
    with contextlib.suppress(AlreadyExists):  # by this very call
        store.write("new", SMALL, if_absent=True)
    return store.read("new") == SMALL


def is_published(store: Store) -> bool:
    publish(store)
    return store.read("big") == BIG


def is_deleted(store: Store) -> bool:
    store.delete(["small"])
    return not store.exists("small")


def is_listed(store: Store) -> bool:
    return [stored[:2] for stored in store.list("")] == [("small", len(SMALL))]


def is_there(store: Store) -> bool:
    return store.exists("small")


def takes_commits(store: Store) -> bool:
    check_writable(store)
    return True


def is_swept(store: Store) -> bool:
    return store.sweep(0) == 0


OPERATIONS: list[tuple[Callable[[Store], bool], str, str]] = [
    (is_read, "GET", "small"),
    (is_streamed, "GET", "small"),
    (is_fetched, "GET", "small"),
    (is_there, "GET", "small"),
    (is_listed, "GET", "list-type"),
    (is_written, "PUT", "new"),
    (is_created, "PUT", "new"),
    (takes_commits, "PUT", "_writable"),
    (takes_commits, "POST", "?delete"),
    (is_deleted, "POST", "?delete"),
    (is_published, "POST", "?uploads"),
    (is_published, "PUT", "partNumber=2"),
    (is_published, "POST", "?uploadId"),
    (is_swept, "GET", "?uploads"),
]


@pytest.mark.parametrize(("operation", "method", "key"), OPERATIONS)
def test_what_passes_is_tried_again(
    store: Store, proxy: FaultProxy, operation: Callable[[Store], bool], method: str, key: str
) -> None:
    """Each fault once before each request of each operation."""
    for fault in [*PASSING, *([Fault.ERROR_IN_200] if method == "POST" else [])]:
        proxy.next(fault, method, key)
        assert operation(store), fault
        store.write("small", SMALL)
        store.delete(["new", "big"])
        assert proxy.faults()[fault] == 1
        proxy.clear()


@pytest.mark.parametrize(("operation", "method", "key"), OPERATIONS)
@pytest.mark.parametrize("fault", [Fault.INTERNAL_ERROR, Fault.DENIED])
def test_what_does_not_pass_is_an_error_that_names_the_object_and_leaves_nothing_half_done(
    store: Store, proxy: FaultProxy, operation: Callable[[Store], bool], method: str, key: str, fault: Fault
) -> None:
    proxy.next(fault, method, key, times=4)
    with pytest.raises(StorageError, match=f"{store.url}.*{fault}") as failed:
        operation(store)
    denied = fault is Fault.DENIED
    assert isinstance(failed.value, Forbidden) == denied
    assert not isinstance(failed.value, Missing | AlreadyExists)
    assert proxy.faults()[fault] == (1 if denied else 4)
    proxy.clear()
    assert not store.exists("big")
    assert not store.exists("new")
    assert store.sweep(time.time() + 3600) == 0  # parts were taken back


def test_a_cut_answer_is_taken_up_where_it_ended(store: Store, proxy: FaultProxy) -> None:
    store.write("long", BIG)
    proxy.clear()
    proxy.next(Fault.TRUNCATE, "GET", "long", times=3)
    assert store.read("long") == BIG
    ranges = [request.range for request in proxy.requests]
    assert ranges[0] is None
    starts = [int(str(asked).removeprefix("bytes=").split("-")[0]) for asked in ranges[1:]]
    assert len(starts) == 3
    assert starts == sorted(set(starts))
    assert starts[0] >= len(BIG) // 2 - s3_file.PIECE_BYTES


def test_an_answer_that_gets_on_is_not_given_up_however_often_it_breaks(store: Store, proxy: FaultProxy) -> None:
    store.write("long", BIG)
    proxy.next(Fault.TRUNCATE, "GET", "long", times=8)
    assert store.read("long") == BIG
    assert proxy.faults()[Fault.TRUNCATE] == 8


def test_a_read_that_never_gets_on_is_an_error(store: Store, proxy: FaultProxy) -> None:
    store.write("byte", b"1")
    proxy.next(Fault.TRUNCATE, "GET", "byte", times=100)
    with pytest.raises(StorageError, match="byte.*without a byte"):
        store.read("byte")
    assert proxy.faults()[Fault.TRUNCATE] == 4


def test_an_object_that_changes_while_it_is_read_is_an_error(store: Store, proxy: FaultProxy) -> None:
    with store.open("small") as file:
        assert file.read(10) == SMALL[:10]
        store.write("small", SMALL[::-1])
        file.seek(100_000)
        with pytest.raises(StorageError, match="changed while it was read"):
            file.read(10)
    for shorter in (SMALL[:10], b""):
        store.write("small", SMALL)
        with store.open("small") as file:
            store.write("small", shorter)
            with pytest.raises(StorageError, match="changed while it was read"):
                file.read(10)
    store.write("small", SMALL)
    with store.open("small") as file:
        store.delete(["small"])
        with pytest.raises(Missing):
            file.read(10)


@pytest.mark.usefixtures("fresh_client")
def test_an_answer_that_stops_is_given_up(store: Store, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client, "READ_TIMEOUT", 0.5)
    s3_client.forget()
    proxy.stall = 1.0
    proxy.next(Fault.STALL, "GET", "small", times=2)
    assert is_read(store)
    assert proxy.count("GET", "small") == 3


def test_keys_that_could_not_be_deleted_are_tried_again_and_then_named(store: Store, proxy: FaultProxy) -> None:
    keys = ["small", "a&b", "c"]
    for key in keys:
        store.write(key, b"1")
    proxy.next(Fault.UNDELETED, "POST", "?delete", times=4)
    with pytest.raises(StorageError, match=f"{store.url}/small: InternalError"):
        store.delete(keys)
    assert all(store.exists(key) for key in keys)
    proxy.next(Fault.UNDELETED, "POST", "?delete", times=3)
    store.delete(keys)
    assert list(store.list("")) == []


def test_a_write_whose_answer_was_lost_finds_itself(store: Store, proxy: FaultProxy) -> None:
    proxy.next(Fault.LOST_ACK, "PUT", "mine")
    with pytest.raises(AlreadyExists, match="mine"):
        store.write("mine", b"my nonce", if_absent=True)
    assert store.read("mine") == b"my nonce"


@pytest.mark.parametrize("fault", [Fault.LOST_ACK, Fault.CONFLICT, Fault.SLOW_DOWN, Fault.RESET])
def test_a_commit_knows_its_own_entry(store: Store, proxy: FaultProxy, fault: Fault) -> None:
    first = commit.append(store, None, "build", {"a": "0" * 64})
    proxy.next(fault, "PUT", "_log/00000002")
    second = commit.append(store, first, "build", {"b": "1" * 64})
    assert commit.head(store) == second
    proxy.next(fault, "PUT", "_log/00000002")
    with pytest.raises(commit.CommitLost, match="entry 2"):
        commit.append(store, first, "build", {"c": "2" * 64})
    assert commit.head(store) == second


def test_an_upload_in_parts_whose_end_was_not_told_is_recognised(store: Store, proxy: FaultProxy) -> None:
    """Some servers have forgotten an upload when they are asked a second time to end it."""
    proxy.next(Fault.LOST_ACK, "POST", "uploadId")
    proxy.next(Fault.GONE, "POST", "uploadId")
    publish(store)
    assert store.read("big") == BIG
    assert proxy.faults() == {Fault.LOST_ACK: 1, Fault.GONE: 1}


def test_an_upload_in_parts_that_somebody_ended_is_an_error_though_the_key_is_taken(
    store: Store, proxy: FaultProxy
) -> None:
    """An object of the same size under the same key is no proof."""
    publish(store, data=BIG[::-1])
    proxy.next(Fault.GONE, "POST", "uploadId")
    with pytest.raises(StorageError, match="NoSuchUpload"):
        publish(store)
    assert store.read("big") == BIG[::-1]
    assert store.sweep(time.time() + 3600) == 0


def test_parts_that_cannot_be_taken_back_are_noted_and_swept(store: Store, proxy: FaultProxy) -> None:
    proxy.next(Fault.DENIED, "PUT", "partNumber=2")
    proxy.next(Fault.DENIED, "DELETE", "uploadId")
    with pytest.raises(Forbidden) as failed:
        publish(store)
    assert any("left for `gc`" in note for note in failed.value.__notes__)
    assert [stored.key for stored in store.list("")] == ["small"]
    assert store.sweep(time.time() - 3600) == 0
    assert store.sweep(time.time() + 3600) == 1


def test_all_of_many_uploads_are_swept_and_those_of_others_left(
    store: Store, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a request lists."""
    monkeypatch.setattr(s3_store, "LISTED_KEYS", 2)
    bucket, _, prefix = store.url.removeprefix("s3://").partition("/")
    for key in ("a", "a", "a", "b", "c/d"):
        s3_client.call(key, "create_multipart_upload", Bucket=bucket, Key=f"{prefix}/{key}")
    s3_client.call("other", "create_multipart_upload", Bucket=bucket, Key=f"{prefix}-other/a")
    assert store.sweep(time.time() + 3600) == 5
    assert store.sweep(time.time() + 3600) == 0
    assert open_store(f"{store.url}-other").sweep(time.time() + 3600) == 1


def test_a_server_that_knows_no_conditions_is_refused(store: Store, proxy: FaultProxy) -> None:
    proxy.next(Fault.ACCEPTED, "PUT", "_writable", after=1)
    with pytest.raises(StorageError, match="no safe commit"):
        check_writable(store)
    assert [stored.key for stored in store.list("")] == ["small"]


def test_an_interrupted_upload_takes_its_parts_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(s3_store.S3Store, "_complete", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish(store)
    assert store.sweep(time.time() + 3600) == 0


@pytest.mark.usefixtures("fresh_client")
def test_the_body_of_a_write_is_checked_by_the_server(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it would be after damage between the hash and the disk."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3_client.forget()
    monkeypatch.setattr(s3_store, "_sha256", lambda data: "A" * 43 + "=")
    with pytest.raises(StorageError, match="BadDigest|checksum"):
        store.write("damaged", b"1")
    assert not store.exists("damaged")


@pytest.mark.parametrize("seed", range(3))
def test_everything_at_random(seaweed: Endpoint, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """A third of all requests fail, in all ways: the same bytes come out."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "20")
    monkeypatch.setattr(s3_store, "PART_BYTES", PART)
    monkeypatch.setattr(s3_client, "LONGEST_PAUSE", 0.05)
    with FaultProxy(seaweed, seed=seed, rate=0.33) as proxy, using(proxy.endpoint):
        store = open_store(f"s3://{BUCKET}/random-{seed}")  # what happens to a request depends on its key
        for number in range(15):
            store.write(f"few/{number}", SMALL[:number])
        publish(store)
        assert store.read("big") == BIG
        with store.open("big") as file:
            assert file.read() == BIG
        assert {stored.key: stored.size for stored in store.list("few")} == {f"few/{n}": n for n in range(15)}
        table = pa.table({"n": range(50_000)})
        with store.scratch() as folder:
            with pa.OSFile(str(folder / "t"), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
                writer.write_table(table, max_chunksize=5000)
            store.publish(folder / "t", "t")
        with store.open("t") as file:
            assert pa.ipc.open_file(file).read_all() == table
        entry = None
        for name in "abcdef":
            entry = commit.append(store, entry, "build", {name: "0" * 64})
        assert commit.head(store) == entry
        assert [found.build for found in commit.entries(store)] == list("fedcba")
        store.delete([stored.key for stored in store.list("")])
        assert list(store.list("")) == []
        assert len(proxy.faults()) >= 5, proxy.faults()
