"""Inputs are found and read in object storage as they are in folders."""

from __future__ import annotations

import gzip
import io
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import boto3
import botocore.config
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from cluster import s3_client
from cluster.inputs import InputObject, describe_input, list_inputs, open_input
from cluster.storage import StorageError, open_store
from operators.read.reader import cut, read
from operators.read.span import Fields, Span, format_of
from tests.operators.read.archives import gz, record

TREE = [
    "a/1.txt",
    "a/b/2.txt",
    "a/b/3.html",
    "a/b-c/5.txt",
    "a/.hidden/4.txt",
    "a/b/.6.txt",
    ".5.txt",
    "ab/7.txt",
    "odd/[x].txt",
    "odd/x.txt",
    "odd/*",
    "odd/[y]/8.txt",
    "odd/y/9.txt",
    "odd/ä b+%20#.txt",
    "one",
]

Put = Callable[[str, bytes], str]


@pytest.fixture(params=["local", "s3"])
def put(request: pytest.FixtureRequest, tmp_path: Path) -> Put:
    """Makes an input of that name and returns its url; with an empty name, that of the folder of all."""
    base = str(tmp_path / "inputs") if request.param == "local" else request.getfixturevalue("s3")

    def make(name: str, data: bytes) -> str:
        if name:
            open_store(base).write(name, data)
        return f"{base}/{name}".rstrip("/")

    return make


@pytest.fixture
def tree(put: Put) -> str:
    for name in TREE:
        put(name, name.encode())
    return put("", b"")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a", ["1.txt", "b/2.txt", "b/3.html", "b-c/5.txt"]),
        ("a/", ["1.txt", "b/2.txt", "b/3.html", "b-c/5.txt"]),
        ("a/1.txt", ["1.txt"]),
        ("a/b/.6.txt", [".6.txt"]),
        ("a/.hidden", ["4.txt"]),
        ("a/*.txt", ["1.txt"]),
        ("a/*/*.txt", ["b/2.txt", "b-c/5.txt"]),
        ("a/**/*.txt", ["1.txt", "b/2.txt", "b-c/5.txt"]),
        ("a/b/[23].*", ["2.txt", "3.html"]),
        ("a*/[17].txt", ["a/1.txt", "ab/7.txt"]),
        ("a/b/?.txt", ["2.txt"]),
        ("odd/[x].txt", ["[x].txt"]),
        ("odd/[xyz].txt", ["x.txt"]),
        ("odd/*", ["*"]),
        ("odd/[y]", ["8.txt"]),
        ("odd/[yz]/*", ["y/9.txt"]),
        ("odd/ä*", ["ä b+%20#.txt"]),
        ("odd/ä b+%20#.txt", ["ä b+%20#.txt"]),
        ("one", ["one"]),
        ("**/*.html", ["a/b/3.html"]),
        (
            "",
            [
                "a/1.txt",
                "a/b/2.txt",
                "a/b/3.html",
                "a/b-c/5.txt",
                "ab/7.txt",
                "odd/*",
                "odd/[x].txt",
                "odd/[y]/8.txt",
                "odd/x.txt",
                "odd/y/9.txt",
                "odd/ä b+%20#.txt",
                "one",
            ],
        ),
    ],
)
def test_inputs_are_found_by_path_folder_and_glob(tree: str, pattern: str, expected: list[str]) -> None:
    found = list_inputs(f"{tree}/{pattern}" if pattern else tree)
    assert [item.rel for item in found] == expected
    for item in found:
        assert item.url.startswith(tree)
        name = item.url.removeprefix(f"{tree}/")
        assert item.size == len(name.encode())
        with open_input(item.url) as file:
            assert file.read() == name.encode()
        assert replace(describe_input(item.url), rel=item.rel) == item


@pytest.mark.parametrize("pattern", ["nothing", "a/*.csv", "a/1", "on", "one/below", "a/b/*/*", "no/thing/**"])
def test_inputs_that_are_not_there_are_an_error(tree: str, pattern: str) -> None:
    with pytest.raises(FileNotFoundError, match=pattern.split("/*")[0]):
        list_inputs(f"{tree}/{pattern}")


def test_an_input_that_is_gone_is_an_error(put: Put) -> None:
    gone = f"{put('there', b'1')}-not"
    for attempt in (describe_input, open_input):
        with pytest.raises(FileNotFoundError):
            attempt(gone)


def test_the_version_changes_with_the_content_and_only_then(put: Put) -> None:
    url = put("a", b"1")
    first = describe_input(url)
    assert describe_input(url) == first
    time.sleep(0.01)
    put("a", b"2")
    assert describe_input(url).version != first.version


def test_objects_that_stand_for_folders_are_no_inputs(s3: str) -> None:
    """As consoles and other tools make them."""
    bucket, _, prefix = s3.removeprefix("s3://").partition("/")
    client = boto3.client("s3", config=botocore.config.Config(s3={"addressing_style": "path"}))
    for name in ("folder/", "folder/inner/", "bare/"):
        client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=b"")
    open_store(s3).write("folder/inner/1.txt", b"1")
    for pattern in ("folder", "folder/", "folder/**", "**"):
        assert [item.url for item in list_inputs(f"{s3}/{pattern}")] == [f"{s3}/folder/inner/1.txt"]
    for pattern in ("bare", "bare/", "bare/*"):
        with pytest.raises(FileNotFoundError, match="bare"):
            list_inputs(f"{s3}/{pattern}")


def test_more_objects_than_a_request_lists_are_found(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client, "LISTED_KEYS", 3)
    names = [f"x/{n}.txt" for n in range(10)]
    for name in names:
        open_store(s3).write(name, b"")
    assert [item.rel for item in list_inputs(f"{s3}/*/*.txt")] == names
    assert sorted(stored.key for stored in open_store(s3).list("x")) == names


def test_an_address_with_keys_in_it_is_refused_and_not_repeated() -> None:
    for attempt in (list_inputs, describe_input, open_input):
        with pytest.raises(StorageError) as refused:
            attempt("s3://AKIA:secret@bucket/x")
        assert "secret" not in str(refused.value)


def test_any_pattern_of_reads_gives_the_bytes_of_the_file(put: Put) -> None:
    chance = random.Random(7)
    data = chance.randbytes(3 << 20)
    url = put("data", data)
    right = io.BytesIO(data)
    with open_input(url) as file:
        for _ in range(120):
            kind = chance.choice(["start", "here", "here", "end", "read", "read", "read", "line"])
            place = chance.choice([0, 1, 70_000, 1 << 20, chance.randrange(len(data))])
            size = chance.choice([0, 1, 100, 65_536, 1 << 20, 2 << 20])
            for each in (file, right):
                if kind == "start":
                    each.seek(place)
                elif kind == "end":
                    each.seek(-min(place, len(data)), io.SEEK_END)
                elif kind == "here":
                    each.seek(chance_of(each.tell(), place, len(data)), io.SEEK_CUR)
            if kind == "read":
                assert file.read(size) == right.read(size)
            elif kind == "line":
                assert file.readline(1000) == right.readline(1000)
            assert file.tell() == right.tell()
        assert file.seek(10, io.SEEK_END) == len(data) + 10
        assert file.read(5) == b""


def chance_of(here: int, step: int, size: int) -> int:
    """A step forward where there is room, else back."""
    return step if here + step <= size else -min(here, step)


def jsonl() -> bytes:
    return b"".join(b'{"id":"d%d","text":"%s"}\n' % (n, b"word " * (n % 50)) for n in range(3000)) + b"no json\n"


def warc() -> bytes:
    return (
        b"".join(
            gz(record(f"page-{n}", b"<p>%s</p>" % random.Random(n).randbytes(3000).hex().encode())) for n in range(300)
        )
        + b"rubbish"
    )


def parquet() -> bytes:
    out = io.BytesIO()
    texts = [random.Random(n).randbytes(100).hex() for n in range(5000)]
    table = pa.table({"id": [f"d{n}" for n in range(5000)], "text": texts, "n": range(5000)})
    pq.write_table(table, out, row_group_size=700)
    return out.getvalue()


KINDS: dict[str, Callable[[], bytes]] = {
    "a.warc.gz": warc,
    "a.jsonl": jsonl,
    "a.jsonl.gz": lambda: gzip.compress(jsonl(), mtime=0),
    "a.jsonl.zst": lambda: zstandard.compress(jsonl()),
    "a.parquet": parquet,
    "a.html": lambda: b"<p>" + b"page " * 50_000,
    "a.txt": lambda: "täxt ".encode() * 50_000,
    "empty.txt": lambda: b"",
}


def everything(item: InputObject, target: int) -> tuple[list[Span], list[pa.Table]]:
    """The spans of an input, and what is read of them."""
    kind = format_of(item.rel)
    assert kind is not None
    whole = Span(item.url, item.rel, kind, 0, -1, item.size, None, 0, 1.0)
    spans = cut(whole, open_input, target, Fields())
    batches = [batch for span in spans for batch in read(span, open_input, Fields())]
    return [replace(span, url="") for span in spans], [part for batch in batches for part in batch]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("target", [60_000, 1 << 30])
def test_every_reader_reads_the_same_from_object_storage_as_from_disk(
    s3: str, tmp_path: Path, name: str, target: int
) -> None:
    """The same spans, rows, ids and quarantine, whole and cut."""
    data = KINDS[name]()
    (tmp_path / name).write_bytes(data)
    open_store(s3).write(name, data)
    (here,), (there,) = list_inputs(str(tmp_path / name)), list_inputs(f"{s3}/{name}")
    assert (here.rel, here.size) == (there.rel, there.size)
    expected, found = everything(here, target), everything(there, target)
    assert found == expected
    if data:
        assert sum(table.num_rows for table in found[1]) > 0
