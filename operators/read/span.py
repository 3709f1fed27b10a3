"""What is read, and what reading gives: spans of input files, batches of documents, rows of quarantine.

An id may depend on the file's `rel` and on a position in it, never on how the file was cut into spans or batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import xxhash

Open = Callable[[str], BinaryIO]
"""Opens an input by its url for seekable binary reading; raises OSError."""

QUARANTINE = pa.schema(
    [
        pa.field("id", pa.string()),  # the document's, where it could be told, else made like the fallback id
        pa.field("file", pa.string()),  # rel
        pa.field("offset", pa.int64()),  # bytes into the file (decoded bytes for compressed JSONL); rows for Parquet
        pa.field("length", pa.int64()),  # in the same unit; -1 is unknown
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
    ]
)
LIMIT = 64 << 20  # bytes of one document, line or record's content; more is quarantined unread
MOST_RATIO = 1000  # decoded bytes a byte of a compressed file or row group, beyond MOST_DECODED: no text is like that
MOST_DECODED = 1 << 30
MOST_COLUMNS = 4096  # of a table, or keys of the lines of a file
BATCH_BYTES = 32 << 20
BATCH_ROWS = 2000
GONE = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)  # trying again does not help

AUDIO = (  # recordings, videos with a sound track among them
    "aac", "ac3", "aif", "aifc", "aiff", "amr", "ape", "asf", "au", "caf", "eac3", "flac", "g722", "m4a", "m4b", "m4r",
    "mka", "mp2", "mp3", "oga", "ogg", "opus", "snd", "spx", "tta", "w64", "wav", "wma", "wv",
    "3g2", "3gp", "avi", "flv", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts", "ogv", "ts", "webm", "wmv",
)  # fmt: skip
_FORMATS = {
    "warc": "warc",
    "wet": "wet",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "jsonl",
    "html": "html",
    "htm": "html",
    "txt": "text",
    "md": "text",
    "parquet": "parquet",
    **dict.fromkeys(AUDIO, "audio"),
}
_CODECS = {
    "warc": ("gz",),
    "wet": ("gz",),
    "jsonl": ("gz", "zst"),
    "html": ("gz", "zst"),
    "text": ("gz", "zst"),
    "parquet": (),
    "audio": (),
}


class ReadError(ValueError):
    """A file that cannot be read as what it claims to be, or that lacks a column the recipe names."""


class Unreadable(ReadError):
    """Missing, forbidden, or not the format at all: one row of quarantine where work has already started."""


class Unfit(ValueError):
    """Data that give no document; `reason` is for quarantine."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Span:
    """An independently readable part of an input file."""

    url: str  # what Open takes
    rel: str  # path relative to the input's fixed prefix, "/" separated: the only path that enters ids
    format: str  # as format_of says
    start: int
    end: int  # bytes, or row groups for Parquet; -1: to the end of the file
    size: int  # bytes of work, for grouping and progress
    source: str | None
    priority: int
    weight: float


@dataclass(frozen=True)
class Fields:
    """Names of the user's columns in tabular input. A named column must exist; unnamed ones are used if present."""

    text: str | None = "text"  # None: documents have none, and there is only Parquet
    id: str | None = None
    url: str | None = None
    date: str | None = None


class Batch(NamedTuple):
    docs: pa.Table
    quarantined: pa.Table


def format_of(rel: str) -> str | None:
    """The format that a file's name claims, or None for what we do not read."""
    stem, _, codec = rel.lower().rpartition("/")[2].rpartition(".")
    if codec in ("gz", "zst"):
        kind = _FORMATS.get(stem.rpartition(".")[2]) if "." in stem else None
        return kind if kind and codec in _CODECS[kind] else None
    return _FORMATS.get(codec) if stem else None


def is_audio(format_: str | None) -> bool:
    """Whether files of a format are recordings, which only operators that listen can take."""
    return format_ == "audio"


def codec_of(rel: str) -> str | None:
    """The compression that a file's name claims: gz, zst or none."""
    suffix = rel.lower().rpartition(".")[2]
    return suffix if suffix in ("gz", "zst") else None


def fallback_id(rel: str, position: int | str) -> str:
    """The id of a document that has none: 32 hex digits of where it stands."""
    return xxhash.xxh3_128_hexdigest(f"{rel}\0{position}".encode("utf-8", "surrogateescape"))


def text_of(data: bytes) -> str:
    """The text of a file or record in UTF-8, without byte order mark. Raises Unfit."""
    if len(data) > LIMIT:
        raise Unfit("too_large", f"over {LIMIT} bytes")
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise Unfit("invalid_utf8", f"byte {error.start}: {error.reason}") from error
    if "\0" in text:
        raise Unfit("nul", f"character {text.index(chr(0))}")
    return text


def group(spans: Iterable[Span], target: int, max_files: int = 2000) -> list[list[Span]]:
    """Consecutive spans, grouped into units of work of about `target` bytes."""
    units: list[list[Span]] = []
    size = 0
    for span in spans:
        if not units or size + span.size > target or len(units[-1]) >= max_files:
            units.append([])
            size = 0
        units[-1].append(span)
        size += span.size
    return units
