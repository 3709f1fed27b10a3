"""Small files that decode to much: made in little memory, because what is repeated is never written out."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from tests.operators.read.archives import gz, record

MIB = 1 << 20


def zeros_gz(mebibytes: int) -> bytes:
    """Members of one letter, 64 MiB each."""
    return gz(b"0" * (64 * MIB)) * (mebibytes // 64)


def zeros_zst(mebibytes: int, opening: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zstandard.ZstdCompressor().stream_writer(buffer, closefd=False) as file:
        file.write(opening)
        for _ in range(mebibytes):
            file.write(b"0" * MIB)
    return buffer.getvalue()


def repeated(rows: int, value: str, **columns: pa.Array) -> pa.Table:
    """A table of one text, held once."""
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value]))
    return pa.table({"text": text, **columns})


def parquet_rows(path: Path) -> None:
    """20,000 rows of one text of a mebibyte: 20 GiB."""
    pq.write_table(repeated(20_000, "x" * MIB), path, compression="zstd")


def parquet_list(path: Path) -> None:
    """One row whose list has 70 million elements, run-length encoded."""
    values = pa.array(np.zeros(70_000_000, np.bool_))
    held = pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values)
    pq.write_table(pa.table({"text": ["listed"], "list": held}), path, compression="zstd")


def parquet_strings(path: Path) -> None:
    """One row whose list has 10,000 strings of a mebibyte, each the same entry of a dictionary."""
    strings = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10_000, np.int32)), pa.array(["y" * MIB]))
    held = pa.ListArray.from_arrays(pa.array([0, len(strings)], pa.int32()), strings)
    pq.write_table(pa.table({"text": ["listed"], "list": held}), path, compression="zstd")


def parquet_prefixes(path: Path) -> None:
    """2,000 texts of a mebibyte that differ in their ends: each is told by the one before."""
    texts = pa.array(["z" * MIB + str(n) for n in range(200)], pa.large_string())
    encoding = {"text": "DELTA_BYTE_ARRAY"}
    table = pa.table({"text": pa.chunked_array([texts] * 10)})
    pq.write_table(table, path, use_dictionary=False, column_encoding=encoding, compression="zstd")


def parquet_padding(path: Path) -> None:
    """A null in a column of lists of fixed length, which has to hold 200 million elements all the same."""
    nulls = pa.nulls(1, pa.list_(pa.int8(), 200_000_000))
    pq.write_table(pa.table({"text": ["padded"], "list": nulls}), path)


def parquet_columns(path: Path) -> None:
    """10,000 columns: what is done a column and not a row takes long."""
    pq.write_table(pa.table({"text": ["wide"], **{f"c{n}": pa.array([1]) for n in range(10_000)}}), path)


def parquet_depth(path: Path) -> None:
    """A column within 100 others, which decoders follow by recursion."""
    column: pa.Array = pa.array([1])
    for _ in range(100):
        column = pa.StructArray.from_arrays([column], ["in"])
    pq.write_table(pa.table({"text": ["deep"], "column": column}), path)


def parquet_codec(path: Path) -> None:
    """A codec that does not exist: Arrow's Python binding ends the process when asked for it."""
    pq.write_table(pa.table({"text": ["a text"]}), path, compression="none", use_dictionary=False)
    data = path.read_bytes()
    footer = data.rindex(b"\x18\x04text\x15\x00")
    path.write_bytes(data[: footer + 7] + b"\x3f" + data[footer + 8 :])


def parquet_shared(path: Path) -> None:
    """Two row groups of the same bytes; with a million of them a file has any number of rows."""
    rows = pa.table({"text": ["one text"] * 50})
    pq.write_table(rows, path, row_group_size=25, compression="none", use_dictionary=False, write_statistics=False)
    groups = [pq.read_metadata(path).row_group(g).column(0).data_page_offset for g in range(2)]
    assert groups[0] == 4
    data, second = path.read_bytes(), _zigzag(groups[1])
    at = data.rindex(second)  # the row group's own place, which nobody reads; the column's is before it
    at = data.rindex(second, 0, at)
    path.write_bytes(data[:at] + b"\x88\x00" + data[at + 2 :])
    assert pq.read_metadata(path).row_group(1).column(0).data_page_offset == 4


def _zigzag(value: int) -> bytes:
    """An integer as Thrift's compact protocol writes it, in two bytes."""
    value <<= 1
    assert 1 << 7 <= value < 1 << 14
    return bytes([value & 127 | 128, value >> 7])


def warc_lies(path: Path) -> None:
    """A record that states 2^60 bytes, between two good ones."""
    path.write_bytes(record("b1") + record("lies", length=1 << 60) + record("b2"))


def warc_encodings(path: Path) -> None:
    """A body that is compressed four times: 64 MiB in a few hundred bytes."""
    body = b"0" * (64 * MIB + 1)
    for _ in range(4):
        body = gz(body, 9)
    path.write_bytes(gz(record("b3", body, Content_Encoding="gzip, gzip, gzip, gzip") + record("b4")))


def warc_member(path: Path) -> None:
    """A record of 512 MiB in one gzip member."""
    engine = zlib.compressobj(9, zlib.DEFLATED, 31)
    pieces = [engine.compress(record("big", length=512 * MIB).removesuffix(b"<p>page</p>\r\n\r\n"))]
    pieces += [engine.compress(bytes(MIB)) for _ in range(513)]
    path.write_bytes(gz(record("b5")) + b"".join(pieces) + engine.flush() + gz(record("b6")))


LINE = b'{"text": "a good line"}\n'

PARQUET: dict[str, tuple[Callable[[Path], None], str]] = {
    "rows.parquet": (parquet_rows, "too_large"),
    "list.parquet": (parquet_list, "too_large"),
    "strings.parquet": (parquet_strings, "too_large"),
    "prefixes.parquet": (parquet_prefixes, "too_large"),
    "padding.parquet": (parquet_padding, "unreadable_file"),
    "columns.parquet": (parquet_columns, "unreadable_file"),
    "depth.parquet": (parquet_depth, "unreadable_file"),
    "codec.parquet": (parquet_codec, "bad_row_group"),
    "shared.parquet": (parquet_shared, "unreadable_file"),
}
STREAMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "line.jsonl.gz": (lambda p: p.write_bytes(gz(LINE) + zeros_gz(256)), "line_too_long"),
    "line.jsonl.zst": (lambda p: p.write_bytes(zeros_zst(256, LINE)), "line_too_long"),
    "ratio.jsonl.zst": (lambda p: p.write_bytes(zeros_zst(1100, LINE)), "too_large"),
    "page.html.gz": (lambda p: p.write_bytes(zeros_gz(256)), "too_large"),
    "text.txt.zst": (lambda p: p.write_bytes(zeros_zst(256)), "too_large"),
    "twice.txt.gz": (lambda p: p.write_bytes(gz(zeros_gz(1024), 9)), "invalid_utf8"),
    "lies.warc": (warc_lies, "truncated_record"),
    "encodings.warc.gz": (warc_encodings, "too_large"),
    "member.warc.gz": (warc_member, "bad_record"),
}
