"""Files for the readers' tests, built by hand, and readers of them in one call."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from operators.document import SCHEMA
from operators.read.reader import cut, read
from operators.read.span import QUARANTINE, Fields, Span, format_of


def record(
    name: str, body: bytes = b"<p>page</p>", kind: str = "response", length: int | None = None, **head: str
) -> bytes:
    """One WARC record with the id `name`."""
    block = body
    media = "text/plain"
    if kind == "response":
        fields = {"Content-Type": "text/html; charset=utf-8", **{k.replace("_", "-"): v for k, v in head.items()}}
        http = "".join(f"{k}: {v}\r\n" for k, v in fields.items())
        block = f"HTTP/1.1 200 OK\r\n{http}\r\n".encode() + body
        media = "application/http; msgtype=response"
    size = len(block) if length is None else length
    header = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{name}>\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
        f"WARC-Target-URI: http://example.org/{name}\r\nContent-Type: {media}\r\nContent-Length: {size}\r\n\r\n"
    )
    return header.encode() + block + b"\r\n\r\n"


def gz(data: bytes, level: int = 6) -> bytes:
    return gzip.compress(data, level, mtime=0)


def opened(url: str) -> BinaryIO:
    return Path(url).open("rb")


def whole(path: Path) -> Span:
    kind = format_of(path.name)
    assert kind is not None
    size = path.stat().st_size if path.exists() else 0
    return Span(str(path), path.name, kind, 0, -1, size, None, 0, 1.0)


def everything(span: Span, fields: Fields | None = None) -> tuple[pa.Table, pa.Table]:
    """Documents and quarantine of a span."""
    batches = list(read(span, opened, fields or Fields()))
    for batch in batches:
        assert batch.docs.schema.names[: len(SCHEMA)] == SCHEMA.names
        batch.docs.validate(full=True)
        assert batch.quarantined.schema == QUARANTINE
    docs = pa.concat_tables([b.docs for b in batches] or [SCHEMA.empty_table()], promote_options="default")
    return docs, pa.concat_tables([b.quarantined for b in batches] or [QUARANTINE.empty_table()])


def rows(span: Span, fields: Fields | None = None) -> tuple[list[str], list[tuple[int, str]]]:
    """Ids of the documents, offset and reason of the quarantined spans."""
    docs, bad = everything(span, fields)
    return docs["id"].to_pylist(), list(zip(bad["offset"].to_pylist(), bad["reason"].to_pylist(), strict=True))


def same_when_cut(path: Path, target: int) -> int:
    """Check that the file cut at `target` reads as the file uncut; the count of spans."""
    spans = cut(whole(path), opened, target, Fields())
    docs, bad = everything(whole(path))
    parts = [everything(span) for span in spans]
    cut_docs = pa.concat_tables([part[0] for part in parts], promote_options="default")
    assert cut_docs.select(docs.column_names).to_pylist() == docs.to_pylist()
    assert pa.concat_tables([part[1] for part in parts]).to_pylist() == bad.to_pylist()
    assert spans[0].start == 0
    assert spans[-1].end == -1
    return len(spans)
