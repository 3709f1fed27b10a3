"""Recordings: read as references, a row a file; operators open them for themselves, and only as long as they listen.

Whoever runs operators says how an input is opened (`open_with`): operators know nothing of stores.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from operators.read.rows import Doc, Rows, joined_columns
from operators.read.span import Batch, Open, Span, fallback_id

URL = "scratch/url"  # hidden column: where the recording lies now, which must not show in what is made of it
RECORDING = "recording"  # its path below the input's fixed prefix, with its source: the same on every machine

_opens: list[Open] = []


def open_with(open_: Open) -> None:
    """From now on recordings are opened by `open_`, in this process."""
    _opens[:] = [open_]


def open_recording(url: str) -> BinaryIO:
    """The recording, for seekable reading. Raises OSError."""
    return _opens[0](url) if _opens else open(url, "rb")


def read_recording(span: Span) -> Iterator[Batch]:
    """The recording's row."""
    rows = Rows(span)
    rows.add(Doc(fallback_id(span.rel, 0), None, None, None, None, None, 0))
    docs, bad = rows.take()
    names = {RECORDING: pa.array([span.rel], pa.string()), URL: pa.array([span.url], pa.string())}
    yield Batch(joined_columns(docs, names), bad)
