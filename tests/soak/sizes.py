"""Inputs of sizes that crawls have, made from the pages of the sample."""

from __future__ import annotations

import gzip
import re
import struct
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

MEMBER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # a gzip header without name and time
NAMES = re.compile(rb"^(WARC-Record-ID|WARC-Target-URI): [^\r\n]*\r\n", re.M)
LITTLE = 400  # characters of a small file, about


def small_texts(sample: Path, count: int) -> Iterator[tuple[str, bytes]]:
    """(path, content) of small text files, no two alike, a thousand a folder."""
    texts = pq.read_table(sample / "sample.parquet", columns=["text"])["text"].to_pylist()
    parts = [text[at : at + LITTLE] for text in texts for at in range(0, min(len(text), 40 * LITTLE), LITTLE)]
    for number in range(count):
        content = f"Part {number} of the collection.\n{parts[number % len(parts)]}\n"
        yield f"{number // 1000:04d}/{number:07d}.txt", content.encode()


def write_warc(path: Path, sample: Path, size: int) -> int:
    """Write the sample's pages again and again, under addresses and ids of their own, each record a gzip member of its
    own, until the file has `size` bytes. How many records. What stays the same of a record is compressed once."""
    made = [_prepared(record) for record in _records(sample / "sample.warc.gz")]
    written = count = 0
    with path.open("wb") as file:
        while written < size:
            for names, rest, packed in made:
                file.write(member := _member(count, names, rest, packed))
                written += len(member)
                count += 1
    return count


def _records(path: Path) -> Iterator[bytes]:
    whole = gzip.decompress(path.read_bytes())
    starts = [found.start() for found in re.finditer(rb"^WARC/1\.[01]\r\nWARC-Type: ", whole, re.M)]
    for start, end in zip(starts, [*starts[1:], len(whole)], strict=True):
        yield whole[start:end]


def _prepared(record: bytes) -> tuple[bytes, bytes, bytes]:
    """(the first line, the rest without its names, that rest as a last deflate block)."""
    line, _, rest = record.partition(b"\r\n")
    head, _, content = rest.partition(b"\r\n\r\n")
    rest = NAMES.sub(b"", head + b"\r\n") + b"\r\n" + content
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return line + b"\r\n", rest, packer.compress(rest) + packer.flush()


def _member(number: int, line: bytes, rest: bytes, packed: bytes) -> bytes:
    names = f"WARC-Record-ID: <urn:uuid:{uuid.UUID(int=number)}>\r\nWARC-Target-URI: https://example.org/{number}\r\n"
    first = line + names.encode()
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    begin = packer.compress(first) + packer.flush(zlib.Z_FULL_FLUSH)
    crc = zlib.crc32(rest, zlib.crc32(first))
    return MEMBER + begin + packed + struct.pack("<II", crc, (len(first) + len(rest)) & 0xFFFFFFFF)
