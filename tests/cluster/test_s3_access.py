"""Who may not reach an object is told why, without a secret. Each process has its client, and no request is wasted."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import boto3
import botocore.config
import pytest

from cluster import s3_client, s3_file
from cluster.inputs import describe_input, list_inputs, open_input
from cluster.seaweed import Endpoint
from cluster.storage import Forbidden, Missing, StorageError, Store, check_writable, open_store
from tests.conftest import BUCKET
from tests.faults import FaultProxy, using

SECRET = "canary0secret0canary0secret0canary0secret"


@pytest.fixture
def new_settings(seaweed: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The AWS settings of this process, to be changed before the first request."""
    with using(seaweed):
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
        monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
        yield monkeypatch


def ways_in(url: str) -> dict[str, Callable[[], object]]:
    store = open_store(url)
    return {
        "read": lambda: store.read("k"),
        "open": lambda: store.open("k"),
        "exists": lambda: store.exists("k"),
        "list": lambda: list(store.list("")),
        "write": lambda: store.write("k", b"1"),
        "create": lambda: store.write("k", b"1", if_absent=True),
        "sweep": lambda: store.sweep(0),
        "check": lambda: check_writable(store),
        "inputs": lambda: list_inputs(f"{url}/*.txt"),
        "describe": lambda: describe_input(f"{url}/k"),
        "input": lambda: open_input(f"{url}/k"),
        "delete": lambda: store.delete(["k"]),
    }


def refused(kind: type[StorageError], told: str, url: str, *, spared: tuple[str, ...] = ()) -> None:
    """Each way in raises exactly that kind of error, which names the url and says why, and no secret."""
    for name, attempt in ways_in(url).items():
        if name in spared:
            attempt()
            continue
        with pytest.raises(StorageError, match=told) as error:
            attempt()
        assert type(error.value) is kind, name
        assert url in str(error.value), name
        assert SECRET not in repr(error.value), name


def test_a_wrong_secret_is_forbidden(new_settings: pytest.MonkeyPatch, s3: str) -> None:
    new_settings.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    refused(Forbidden, "SignatureDoesNotMatch|403", s3)


def test_an_unknown_key_is_forbidden(new_settings: pytest.MonkeyPatch, s3: str) -> None:
    new_settings.setenv("AWS_ACCESS_KEY_ID", "unknown")
    refused(Forbidden, "InvalidAccessKeyId|403", s3)


def test_no_credentials_are_forbidden(new_settings: pytest.MonkeyPatch, s3: str) -> None:
    new_settings.delenv("AWS_ACCESS_KEY_ID")
    new_settings.delenv("AWS_SECRET_ACCESS_KEY")
    refused(Forbidden, "no AWS credentials on this machine", s3)


def test_who_may_only_read_may_not_write(new_settings: pytest.MonkeyPatch, s3: str) -> None:
    open_store(s3).write("k", b"1")
    open_store(s3).write("a.txt", b"1")
    below = f"arn:aws:s3:::{s3.removeprefix('s3://')}/*"
    rule = {"Effect": "Deny", "Principal": "*", "Action": ["s3:PutObject"], "Resource": [below]}
    owner = boto3.client("s3", config=botocore.config.Config(s3={"addressing_style": "path"}))
    owner.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [rule]}))
    try:
        reading = ("read", "open", "exists", "list", "sweep", "inputs", "describe", "input")
        refused(Forbidden, "AccessDenied", s3, spared=(*reading, "delete"))
    finally:
        owner.delete_bucket_policy(Bucket=BUCKET)
    assert [stored.key for stored in open_store(s3).list("")] == ["a.txt"]  # `delete` took what was there


def test_a_bucket_that_is_not_there_is_no_missing_object(new_settings: pytest.MonkeyPatch) -> None:
    """But by HEAD, whose answer does not tell."""
    url = "s3://no-such-bucket/x"
    for name, attempt in ways_in(url).items():
        if name in ("read", "open", "exists", "list", "input"):
            with pytest.raises(StorageError, match=f"{url}.*NoSuchBucket") as error:
                attempt()
            assert type(error.value) is StorageError
    with pytest.raises(Missing, match=url):
        describe_input(f"{url}/k")
    with pytest.raises(StorageError, match="NoSuchBucket"):
        list_inputs(f"{url}/*.txt")


def test_nobody_listening_is_an_error_that_names_the_server(new_settings: pytest.MonkeyPatch, s3: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    new_settings.setattr(s3_client, "LONGEST_PAUSE", 0.01)
    new_settings.setenv("AWS_ENDPOINT_URL", f"http://user:{SECRET}@127.0.0.1:{port}")
    refused(StorageError, rf"no answer from 127\.0\.0\.1:{port}: EndpointConnectionError \(2 attempts\)", s3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ENDPOINT_URL", f"user:{SECRET}@ not an address"),
        ("AWS_MAX_ATTEMPTS", "many"),
        ("AWS_PROFILE", "unheard of"),
        ("AWS_REGION", "no region!"),
        ("AWS_SECRET_ACCESS_KEY", None),
    ],
)
def test_settings_that_are_none_are_an_error(new_settings: pytest.MonkeyPatch, s3: str, name: str, value: str) -> None:
    if value is None:
        new_settings.delenv(name)
    else:
        new_settings.setenv(name, value)
        new_settings.setenv(name.replace("AWS_REGION", "AWS_DEFAULT_REGION"), value)
    for way in ("read", "inputs"):  # all look the settings up in one place
        with pytest.raises(StorageError, match="AWS settings") as error:
            ways_in(s3)[way]()
        assert SECRET not in repr(error.value)
        assert isinstance(error.value, Forbidden) == (value is None)


def test_a_name_that_is_no_bucket_is_an_error(new_settings: pytest.MonkeyPatch) -> None:
    refused(StorageError, "Invalid bucket name", "s3://no bucket/x")


def test_the_address_style_of_the_profile_is_kept(
    new_settings: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert s3_client._connection().client.meta.config.s3 == {"addressing_style": "path"}
    profile = tmp_path_factory.mktemp("aws") / "config"
    profile.write_text("[default]\nmax_attempts = 7\ns3 =\n  addressing_style = virtual\n")
    new_settings.setenv("AWS_CONFIG_FILE", str(profile))
    new_settings.delenv("AWS_MAX_ATTEMPTS")
    s3_client.forget()
    assert s3_client._connection().client.meta.config.s3["addressing_style"] == "virtual"
    assert s3_client.attempts() == 7


def test_sixteen_threads_begin_with_one_client(new_settings: pytest.MonkeyPatch, s3: str) -> None:
    begin = threading.Barrier(16)
    clients = set()

    def write(number: int) -> None:
        begin.wait()
        open_store(s3).write(str(number), str(number).encode())
        clients.add(id(s3_client._connection().client))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, range(16)))
    assert len(clients) == 1
    assert {stored.key for stored in open_store(s3).list("")} == {str(n) for n in range(16)}


def _work(store: Store, number: int) -> bytes:
    store.write(f"child-{number}", str(number).encode())
    return store.read(f"child-{number}") + store.read("parent")


def test_forks_of_a_process_that_uses_its_client_all_the_while_get_their_own(s3: str) -> None:
    """Connections must not be shared: answers would reach the wrong process."""
    store = open_store(s3)
    store.write("parent", b"p" * 100_000)
    done = threading.Event()
    seen = []

    def read() -> None:
        while not done.is_set():
            seen.append(store.read("parent") == b"p" * 100_000)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        with multiprocessing.get_context("fork").Pool(2) as pool:
            found = pool.starmap(_work, [(store, number) for number in range(4)])
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert found == [str(number).encode() + b"p" * 100_000 for number in range(4)]
    assert seen
    assert all(seen)


CHILD = """
import pickle, sys
store = pickle.load(sys.stdin.buffer)
sys.stdout.buffer.write(store.read("k"))
"""


def test_a_store_travels_without_its_keys(seaweed: Endpoint, s3: str) -> None:
    """To Ray's workers and other children, which have settings of their own."""
    import pickle

    store = open_store(s3)
    store.write("k", b"1")
    data = pickle.dumps(store)
    for hidden in (seaweed.secret_key, seaweed.access_key, seaweed.url):
        assert hidden.encode() not in data
        assert hidden not in repr(store)
    child = subprocess.run([sys.executable, "-c", CHILD], input=data, stdout=subprocess.PIPE, check=True)
    assert child.stdout == b"1"


@pytest.fixture
def counting(seaweed: Endpoint, s3: str) -> Iterator[tuple[FaultProxy, Store]]:
    with FaultProxy(seaweed) as proxy, using(proxy.endpoint):
        store = open_store(s3)
        store.write("warm", b"")
        proxy.clear()
        yield proxy, store


def test_each_operation_costs_one_request_on_one_connection(counting: tuple[FaultProxy, Store]) -> None:
    proxy, store = counting
    data = os.urandom(50_000)
    store.write("k", data)
    store.write("c", data, if_absent=True)
    assert store.read("k") == data
    assert store.exists("k")
    assert not store.exists("nothing")
    assert len(list(store.list(""))) == 3
    with store.open("k") as file:
        assert file.read() == data
    store.delete(["k", "c", "nothing"])
    methods = [request.method for request in proxy.requests]
    assert methods == ["PUT", "PUT", "GET", "GET", "GET", "GET", "GET", "POST"]
    assert proxy.connections == 0  # that of the first write


def test_reading_in_order_takes_few_requests_of_growing_size(counting: tuple[FaultProxy, Store]) -> None:
    proxy, store = counting
    data = os.urandom(20 << 20)
    with store.scratch() as folder:
        (folder / "big").write_bytes(data)
        store.publish(folder / "big", "big")
    proxy.clear()
    with open_input(f"{store.url}/big") as file:
        assert b"".join(iter(lambda: file.read(1 << 20), b"")) == data
    sizes = [_size(request.range) for request in proxy.requests[1:]]
    assert len(sizes) <= 6
    assert sizes[:-1] == sorted(sizes[:-1])
    assert sum(sizes) + s3_file.TAIL_BYTES == len(data)
    assert proxy.connections == 0


def test_reading_here_and_there_fetches_little_more_than_is_asked_for(counting: tuple[FaultProxy, Store]) -> None:
    proxy, store = counting
    data = os.urandom(20 << 20)
    store.write("big", data)
    proxy.clear()
    with store.open("big") as file:
        for place in (15 << 20, 3 << 20, 9 << 20):
            file.seek(place)
            assert file.read(100) == data[place : place + 100]
        file.seek(9 << 20)
        assert file.read(1000) == data[9 << 20 :][:1000]  # at hand
        file.seek(-10, 2)
        assert file.read() == data[-10:]  # came when it was opened
    assert [_size(request.range) for request in proxy.requests[1:]] == [s3_file.FIRST_WINDOW] * 3
    assert proxy.connections == 0


def _size(asked: str | None) -> int:
    start, _, end = str(asked).removeprefix("bytes=").partition("-")
    return int(end) - int(start) + 1
