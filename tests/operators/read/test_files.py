"""Single-document files, formats by name, and grouping."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from operators.read.span import LIMIT, Span, fallback_id, format_of, group
from tests.operators.read.archives import everything, gz, rows, same_when_cut, whole


@pytest.mark.parametrize(
    ("rel", "kind"),
    [
        ("a.warc", "warc"),
        ("a.WARC.gz", "warc"),
        ("d.x/a.warc.wet.gz", "wet"),
        ("a.wet", "wet"),
        ("a.jsonl.zst", "jsonl"),
        ("a.json", "jsonl"),
        ("a.ndjson.gz", "jsonl"),
        ("a.htm", "html"),
        ("a.html.gz", "html"),
        ("a.md", "text"),
        ("a.txt.gz", "text"),
        ("a.parquet", "parquet"),
        ("a.parquet.gz", None),
        ("a.warc.zst", None),
        ("a.gz", None),
        ("gz", None),
        ("jsonl.gz", None),
        (".parquet", None),
        ("x.parquet/readme", None),
        ("a.pkl", None),
    ],
)
def test_format_by_name(rel: str, kind: str | None) -> None:
    assert format_of(rel) == kind


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gz), (".zst", zstandard.compress)])
def test_one_document_a_file(tmp_path: Path, suffix: str, pack: type[bytes]) -> None:
    page = write(tmp_path, f"a.html{suffix}", pack(b"<p>\xff"))
    docs, _ = everything(whole(page))
    assert (docs["payload"].to_pylist(), docs["content_type"].to_pylist()) == ([b"<p>\xff"], ["text/html"])
    text = write(tmp_path, f"a.txt{suffix}", pack("\ufefftäxt".encode()))
    docs, _ = everything(whole(text))
    assert (docs["text"].to_pylist(), docs["id"].to_pylist()) == (["täxt"], [fallback_id(f"a.txt{suffix}", 0)])
    assert same_when_cut(text, 1) == 1
    assert rows(whole(write(tmp_path, f"b.txt{suffix}", b""))) == ([], [])


def bomb() -> bytes:
    engine = zlib.compressobj(9, zlib.DEFLATED, 31)
    return engine.compress(b" " * (LIMIT + 1)) + engine.flush()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.txt", b"\xff", "invalid_utf8"),
        ("a.md", b"a\0", "nul"),
        ("a.txt.gz", gz(b"hello")[:-3], "truncated_stream"),
        ("a.txt.gz", b"hello", "unreadable_file"),
        ("a.html.zst", b"hello", "unreadable_file"),
        ("a.html.gz", bomb(), "too_large"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    assert rows(whole(write(tmp_path, name, data))) == ([], [(0, reason)])


def test_group() -> None:
    span = Span("u", "r", "text", 0, -1, 10, None, 0, 1.0)
    spans = [replace(span, size=size) for size in (10, 10, 10, 50, 5, 5)]
    assert [[s.size for s in unit] for unit in group(spans, 20)] == [[10, 10], [10], [50], [5, 5]]
    assert [len(unit) for unit in group(spans, 1000, max_files=4)] == [4, 2]
    assert group([], 20) == []
