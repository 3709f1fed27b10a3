"""WARC reading: what is a document, what damage costs, and that cutting changes nothing."""

from __future__ import annotations

import gzip
import os
import random
import zlib
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.read import warc
from operators.read.reader import cut, read
from operators.read.span import Fields, ReadError
from operators.read.warc import LIMIT
from tests.operators.read.archives import everything, gz, opened, record, rows, same_when_cut, whole

NOISE = random.Random(7).randbytes(3000)
A, B, C = record("a"), record("b", b"<p>" + b"b" * 500), record("c", b"c" * 50)


def write(folder: Path, data: bytes, name: str = "x.warc") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_columns_of_response_resource_and_conversion(tmp_path: Path) -> None:
    data = [record("i", kind="warcinfo"), record("q", kind="request"), A, record("v", kind="revisit")]
    data += [record("r", b"raw", kind="resource"), record("t", "täxt".encode(), kind="conversion")]
    docs, bad = everything(whole(write(tmp_path, b"".join(gz(d) for d in data), "x.warc.gz")))
    assert bad.num_rows == 0
    assert docs["id"].to_pylist() == ["a", "r", "t"]
    assert docs["payload"].to_pylist() == [b"<p>page</p>", b"raw", None]
    assert docs["text"].to_pylist() == [None, None, "täxt"]
    assert docs["content_type"].to_pylist() == ["text/html; charset=utf-8", "text/plain", "text/plain"]
    assert docs["url"].to_pylist()[0] == "http://example.org/a"
    assert docs["date"].to_pylist()[0] == "2026-01-01T00:00:00Z"


def chunked(body: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (body[:5], body[5:])) + b"0\r\n\r\n"


BODY = b"<html>" + b"body " * 40
RAW_DEFLATE = zlib.compressobj(9, zlib.DEFLATED, -15)
RAW_DEFLATED = RAW_DEFLATE.compress(BODY) + RAW_DEFLATE.flush()


@pytest.mark.parametrize(
    ("stored", "head"),
    [
        (chunked(BODY), {"Transfer_Encoding": "chunked"}),
        (BODY, {"Transfer_Encoding": "chunked"}),  # stored without its chunks
        (gzip.compress(BODY, mtime=0), {"Content_Encoding": "gzip"}),
        (BODY, {"Content_Encoding": "gzip"}),  # stored decoded
        (BODY, {"Content_Encoding": "br"}),
        (zlib.compress(BODY), {"Content_Encoding": "deflate"}),
        (RAW_DEFLATED, {"Content_Encoding": "deflate"}),
        (zstandard.compress(BODY), {"Content_Encoding": "zstd"}),
        (
            chunked(gzip.compress(zlib.compress(BODY), mtime=0)),
            {"Transfer_Encoding": "chunked", "Content_Encoding": "deflate, gzip"},
        ),
        (BODY, {"Content_Encoding": "identity"}),
    ],
)
def test_http_encodings(tmp_path: Path, stored: bytes, head: dict[str, str]) -> None:
    docs, bad = everything(whole(write(tmp_path, record("a", stored, **head))))
    assert bad.to_pylist() == []
    assert docs["payload"].to_pylist() == [BODY]


BOMB = gzip.compress(bytes(LIMIT + 5), 9)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (record("x", b"5\r\nhello\r\nff\r\nshort", Transfer_Encoding="chunked"), "bad_encoding"),
        (record("x", gzip.compress(NOISE, mtime=0)[:1000], Content_Encoding="gzip"), "bad_encoding"),
        (record("x", b"\x1f\x8b" + NOISE, Content_Encoding="gzip"), "bad_encoding"),
        (record("x", zstandard.compress(NOISE)[:500], Content_Encoding="zstd"), "bad_encoding"),
        (record("x", b"\xff\xfe\xfd" * 9, Content_Encoding="br"), "bad_encoding"),
        (record("x", BOMB, Content_Encoding="gzip"), "too_large"),
        (record("x", b"\xc3(", kind="conversion"), "invalid_utf8"),
        (record("x", b"a\0b", kind="conversion"), "nul"),
        (record("x", b"no http").replace(b"HTTP/1.1", b"SPDY/1.1"), "bad_http"),
        (record("x", b"").replace(b"utf-8\r\n\r\n", b"utf-8\r\nab")[:-4] + b"\r\n\r\n", "bad_http"),
    ],
)
@pytest.mark.parametrize("name", ["x.warc", "x.warc.gz"])
def test_bad_records_are_quarantined_one_by_one(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    pack = gz if name.endswith("gz") else bytes
    path = write(tmp_path, pack(A) + pack(data) + pack(B), name)
    assert rows(whole(path)) == (["a", "b"], [(len(pack(A)), reason)])
    _, bad = everything(whole(path))
    assert bad["id"].to_pylist() == ["x"]
    assert same_when_cut(path, 1) == 3


PLAIN = {
    "length too big, swallows the next": (A + record("x", length=500) + B + C, ["a", "b", "c"], ["truncated_record"]),
    "length beyond the end": (A + record("x", length=2**60) + B, ["a", "b"], ["truncated_record"]),
    "length too small": (A + record("x", NOISE, length=900) + B, ["a", "b"], ["bad_record"]),
    "garbage between": (A + b"garbage\r\nWARC/9\r\n" + B, ["a", "b"], ["bad_record"]),
    "no length": (A + record("x").replace(b"Content-Length", b"Content-Width ") + B, ["a", "b"], ["bad_record"]),
    "cut in the body": (A + B[:-100], ["a"], ["truncated_record"]),
    "cut in the headers": (A + B[:60], ["a"], ["truncated_record"]),
    "blank lines": (A + b"\r\n\r\n" + B + b"\r\n", ["a", "b"], []),
    "no blank lines at the end": (A + B[:-4], ["a", "b"], []),
    "garbage first": (b"junk\n" + A + B, ["a", "b"], ["bad_record"]),
    "garbage last": (A + B + b"junk", ["a", "b"], ["bad_record"]),
}


@pytest.mark.parametrize("case", PLAIN)
def test_damage_in_plain_files(tmp_path: Path, case: str) -> None:
    data, ids, reasons = PLAIN[case]
    path = write(tmp_path, data)
    kept, bad = rows(whole(path))
    assert kept == ids
    assert [reason for _, reason in bad] == reasons
    assert all(
        at == (0 if case == "garbage first" else data.index(B) + len(B) if case == "garbage last" else len(A))
        for at, _ in bad
    )
    for target in (1, 300, 900):
        same_when_cut(path, target)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :]


N = record("n", NOISE)
GZIPPED = {
    "corrupt data": ([A, flipped(gz(N), 400), B], ["a", "b"], ["bad_record"]),
    "corrupt checksum": ([A, flipped(gz(N), -7 + len(gz(N))), B], ["a", "b"], ["bad_record"]),
    "truncated member": ([A, gz(N)[:1500], B], ["a", "b"], ["truncated_record"]),
    "truncated stored member": ([A, gz(N, 0)[:1500], B], ["a", "b"], ["truncated_record"]),
    "truncated last": ([A, B, gz(N)[:1500]], ["a", "b"], ["truncated_record"]),
    "truncated trailer": ([A, B, gz(N)[:-3]], ["a", "b"], ["truncated_record"]),
    "garbage between": ([A, b"garbage \x1f\x8b\x08 more", B], ["a", "b"], ["bad_record"]),
    "zeros at the end": ([A, B, bytes(40)], ["a", "b"], ["bad_record"]),
    "length too big": ([A, gz(record("x", length=5000)), B], ["a", "b"], ["truncated_record"]),
    "length too small": ([A, gz(record("x", NOISE, length=800)), B], ["a", "b"], ["bad_record"]),
    "member of something else": ([A, gz(b"hello"), B], ["a", "b"], ["bad_record"]),
    "empty member": ([A, gz(b""), B], ["a", "b"], []),
    "two records in a member": ([A, gz(B + C)], ["a", "b", "c"], []),
    "gzip inside a stored member": ([A, gz(record("n", gz(C), kind="resource"), 0), B], ["a", "n", "b"], []),
}


@pytest.mark.parametrize("case", GZIPPED)
def test_damage_in_gzipped_files(tmp_path: Path, case: str) -> None:
    parts, ids, reasons = GZIPPED[case]
    parts = [gz(p) if p in (A, B) else p for p in parts]
    path = write(tmp_path, b"".join(parts), "x.warc.gz")
    kept, bad = rows(whole(path))
    assert kept == ids
    assert [reason for _, reason in bad] == reasons
    where = 2 if parts[1] == gz(B) else 1
    assert all(at == len(b"".join(parts[:where])) for at, _ in bad)
    for target in (1, 300, 900):
        same_when_cut(path, target)


def test_single_member_is_one_span_and_keeps_what_came_before_the_break(tmp_path: Path) -> None:
    records = [record(f"r{i}", random.Random(i).randbytes(40_000)) for i in range(60)]
    data = gz(b"".join(records))
    path = write(tmp_path, data, "x.warc.gz")
    assert len(cut(whole(path), opened, 1, Fields())) == 1
    assert rows(whole(path)) == ([f"r{i}" for i in range(60)], [])
    path = write(tmp_path, data[:-500_000], "x.warc.gz")
    kept, bad = rows(whole(path))
    assert kept == [f"r{i}" for i in range(len(kept))]
    assert 40 < len(kept) < 50
    assert bad == [(0, "truncated_record")]


def test_lying_record_in_a_large_member(tmp_path: Path) -> None:
    big = [record(f"r{i}", random.Random(i).randbytes(400_000)) for i in range(30)]
    path = write(tmp_path, gz(b"".join([*big[:15], record("x", length=2**40), *big[15:]]), 1), "x.warc.gz")
    kept, bad = rows(whole(path))
    assert kept == [f"r{i}" for i in range(30)]
    assert bad == [(0, "truncated_record")]


def test_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warc, "LIMIT", 1000)
    monkeypatch.setattr(warc, "_HTTP_HEAD", 100)
    huge = record("x", NOISE)
    for name, pack in (("x.warc", bytes), ("x.warc.gz", gz)):
        path = write(tmp_path, pack(A) + pack(huge) + pack(B), name)
        assert rows(whole(path)) == (["a", "b"], [(len(pack(A)), "too_large")])


def test_ids_fall_back_to_the_place_in_the_file(tmp_path: Path) -> None:
    bare = A.replace(b"WARC-Record-ID: <urn:uuid:a>\r\n", b"")
    path = write(tmp_path, gz(bare) + gz(bare + bare), "x.warc.gz")
    ids, _ = rows(whole(path))
    assert len(set(ids)) == 3
    assert all(len(i) == 32 for i in ids)
    same_when_cut(path, 1)


@pytest.mark.parametrize(
    ("name", "data"), [("x.warc", b"hello" * 9), ("x.warc.gz", b"hello" * 9), ("x.warc.gz", gz(b"x"))]
)
def test_what_is_no_warc_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    path = write(tmp_path, data, name)
    with pytest.raises(ReadError, match="no WARC record"):
        cut(whole(path), opened, 10, Fields())
    assert rows(whole(path)) == ([], [(0, "unreadable_file")])


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="No such file"):
        cut(whole(tmp_path / "none.warc"), opened, 10, Fields())
    assert rows(whole(tmp_path / "none.warc")) == ([], [(0, "unreadable_file")])
    assert list(read(whole(write(tmp_path, b"")), opened, Fields())) == []
    assert list(read(whole(write(tmp_path, b"", "x.warc.gz")), opened, Fields())) == []


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_cutting_a_damaged_file_changes_nothing(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """And no damage, wherever it is, raises or touches a record outside of it."""
    zipped = data.draw(st.booleans())
    records = [record(f"r{i}", random.Random(i).randbytes(data.draw(st.integers(0, 900)))) for i in range(12)]
    parts = [gz(r) if zipped else r for r in records]
    name = "x.warc.gz" if zipped else "x.warc"
    hurt = data.draw(st.sets(st.integers(1, 11), max_size=3))
    for k in hurt:
        at = data.draw(st.integers(0, len(parts[k]) - 1))
        how = data.draw(st.sampled_from(["flip", "cut", "insert"]))
        tail = {"flip": flipped(parts[k], at)[at:], "cut": b"", "insert": b"\r\nWARC/1.0\r\n" + parts[k][at:]}[how]
        parts[k] = parts[k][:at] + tail
    path = write(tmp_path_factory.mktemp("w"), b"".join(parts), name)
    kept, _ = rows(whole(path))
    assert {f"r{i}" for i in range(12) if i not in hurt and (zipped or i - 1 not in hurt)} <= set(kept)
    same_when_cut(path, data.draw(st.integers(1, 3000)))


def test_memory_of_a_bomb_is_bounded(tmp_path: Path) -> None:
    """A member of 200 MB of zeros is decoded piece by piece."""
    import tracemalloc

    bomb = record("x", b"").replace(b"Content-Length: ", b"Content-Length: 2")[:-4]
    size = int(bomb.split(b"Content-Length: ")[1].split(b"\r\n")[0])
    engine = zlib.compressobj(9, zlib.DEFLATED, 31)
    zipped = engine.compress(bomb) + b"".join(engine.compress(bytes(1 << 20)) for _ in range(200)) + engine.flush()
    path = write(tmp_path, gz(A) + zipped + gz(B), "x.warc.gz")
    assert size < 200 << 20
    tracemalloc.start()
    kept, bad = rows(whole(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert kept == ["a", "b"]
    assert [reason for _, reason in bad] == ["bad_record"]
    assert peak < 40 << 20
    assert os.path.getsize(path) < 1 << 20
