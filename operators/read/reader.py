"""Cut input files into spans, and read a span: the way in for every format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import BinaryIO

import pyarrow as pa

from operators.read.files import check_file, read_file
from operators.read.jsonl import check_jsonl, jsonl_offsets, read_jsonl
from operators.read.parquet import cut_parquet, read_parquet
from operators.read.recording import URL, read_recording
from operators.read.rows import Rows
from operators.read.span import (
    BATCH_BYTES,
    BATCH_ROWS,
    GONE,
    Batch,
    Fields,
    Open,
    ReadError,
    Span,
    Unreadable,
    is_audio,
)
from operators.read.streams import Raw
from operators.read.warc import check_warc, read_warc, warc_offsets


def cut(span: Span, open_: Open, target: int, fields: Fields) -> list[Span]:
    """Cut the span of a whole file into independently readable spans of about `target` bytes.

    One span where the format does not allow cutting; none is empty. Together they give the same rows and the same
    quarantine as the file uncut. Raises ReadError for a file that is not what it claims to be, or a Parquet file that
    lacks a column of `fields`.
    """
    if is_audio(span.format):
        return [replace(span, end=-1)]
    with _opened(span, open_) as file:
        if span.format == "parquet":
            starts, sizes = cut_parquet(span, file, target, fields)
            return _between(span, starts, sizes)
        if fields.text is None:
            raise ReadError(f"{span.rel}: only Parquet is read without text")
        raw = Raw(file)
        if span.format in ("warc", "wet"):
            check_warc(span, raw)
            offsets = _spaced(warc_offsets(span, raw), target) if raw.size > target else []
        elif span.format == "jsonl":
            check_jsonl(span, raw)
            offsets = jsonl_offsets(span, raw, target)
        else:
            check_file(span, raw)
            offsets = []
        bounds = [0, *offsets, raw.size]
        return _between(span, bounds[:-1], [b - a for a, b in pairwise(bounds)])


def read(span: Span, open_: Open, fields: Fields) -> Iterator[Batch]:
    """The documents of a span and what could not be read of it, in batches of bounded size.

    A file that cannot be read at all is one row of quarantine, `unreadable_file`. Raises ReadError for a Parquet file
    that lacks a column of `fields`. Errors of the network propagate: trying again may help.
    """
    if is_audio(span.format):
        yield from read_recording(span)
        return
    try:
        with _opened(span, open_) as file:
            if span.format == "parquet":
                yield from read_parquet(span, file, fields)
            elif span.format in ("warc", "wet"):
                yield from read_warc(span, Raw(file))
            elif span.format == "jsonl":
                yield from read_jsonl(span, Raw(file), fields)
            else:
                yield from read_file(span, Raw(file))
    except Unreadable as error:
        rows = Rows(span)
        rows.bad(span.start, -1, "unreadable_file", str(error), position=f"unreadable {span.start}")
        yield rows.take()


def joined(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same rows in fewer batches: neighbours of one schema together up to the bounds of a batch. A folder of
    small files is read a file at a time, and operators cost a fixed time a call. Recordings stay alone, and the next
    is asked for when one is done with: what is made of one is large, and it is read only then."""
    held: list[Batch] = []
    rows = size = 0
    for batch in batches:
        if URL in batch.docs.column_names:
            yield batch
            continue
        same = not held or batch.docs.schema == held[0].docs.schema
        if held and not (same and rows + batch.docs.num_rows <= BATCH_ROWS and size + batch.docs.nbytes <= BATCH_BYTES):
            yield _together(held)
            held, rows, size = [], 0, 0
        held.append(batch)
        rows += batch.docs.num_rows
        size += batch.docs.nbytes
    if held:
        yield _together(held)


def _together(batches: list[Batch]) -> Batch:
    return Batch(pa.concat_tables([b.docs for b in batches]), pa.concat_tables([b.quarantined for b in batches]))


def _opened(span: Span, open_: Open) -> BinaryIO:
    try:
        return open_(span.url)
    except GONE as error:
        raise Unreadable(f"{span.rel}: {error.strerror or error}") from error


def _spaced(offsets: Iterator[int], target: int) -> list[int]:
    """Of the offsets those that lie at least `target` after the last one taken, or after the start."""
    taken: list[int] = []
    last = 0
    for offset in offsets:
        if offset - last >= target:
            taken.append(offset)
            last = offset
    return taken


def _between(span: Span, starts: list[int], sizes: list[int]) -> list[Span]:
    ends = [*starts[1:], -1]
    return [replace(span, start=a, end=b, size=s) for a, b, s in zip(starts, ends, sizes, strict=True)]
