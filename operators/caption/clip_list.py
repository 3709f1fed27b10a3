"""Lists of the clips of evaluation sets, as they are published, and looking up recordings in them by file name."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from operators.caption.listed_file import (
    COMMENT,
    KINDS,
    SECONDS,
    SUFFIX,
    Columns,
    data_of,
    kind_of,
    rows_of,
    seconds,
    stem_of,
    videos,
)
from operators.document import Pinned

NAMES = ("youtube_id", "ytid", "video_id", "file_name", "filename", "fname", "id", "name")  # of columns, the first wins
STARTS = ("start_time", "start_seconds", "start")
MOST_ODD = 0.05  # share of a list of videos that cannot be read as such


class Clip(NamedTuple):
    """A clip of a video on a list."""

    listed: str  # set and name as it is there, for people
    start: float | None  # seconds into the video


class ClipIndex:
    """The entries of all lists by file name, and the clips by video."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.videos: dict[str, list[Clip]] = {}

    def find(self, recording: str, overlapping: bool) -> str | None:
        """What of the lists a recording's file name says, the first of it; if `overlapping`, no clip of a video whose
        start is SECONDS or more from the recording's, where both are known."""
        stem = _stem(recording)
        if stem in self.names:
            return self.names[stem]
        for video, start in videos(stem):
            for clip in self.videos.get(video, ()):
                if not overlapping or start is None or clip.start is None or abs(start - clip.start) < SECONDS:
                    return clip.listed
        return None


@dataclass(frozen=True)
class ClipLists:
    """(name, file, column) of each list; a column that is None is one of NAMES."""

    sets: tuple[tuple[str, Pinned, str | None], ...]

    def load(self) -> ClipIndex:
        """A list of which (nearly) all entries can be read as videos of YouTube is one of videos. Any other is one of
        file names: one that looks like a video, as `rain_street` does, is nothing but itself there. Raises ValueError
        naming a list and what is wrong with it."""
        index = ClipIndex()
        for name, file, column in self.sets:
            try:
                entries = [(_stem(entry), start) for entry, start in _entries(file, column) if entry.strip()]
            except (ValueError, pa.ArrowException, OSError) as error:
                raise ValueError(f"sets.{name}: {file.path}: {error}") from error
            if not entries:
                raise ValueError(f"sets.{name}: {file.path}: no entry")
            odd = sum(not any(videos(stem)) for stem, _ in entries)
            for stem, start in entries:
                index.names.setdefault(stem, f"{name}: {stem}")
                for video, said in videos(stem) if odd <= MOST_ODD * len(entries) else ():
                    clip = Clip(f"{name}: {stem}", start if said is None else said)
                    index.videos.setdefault(video, []).append(clip)
        return index


def _stem(name: str) -> str:
    """As file systems that take names apart and lists that do not both write it."""
    return unicodedata.normalize("NFC", stem_of(name))


def _entries(file: Pinned, column: str | None) -> Iterator[tuple[str, float | None]]:
    """(name, start) of each entry: lines, or rows of a table."""
    if kind_of(file) not in KINDS:
        if column is not None:
            raise ValueError(f"column: {column!r}, but this is a list of lines")
        lines = data_of(file).decode("utf-8-sig").split("\n")
        first = 1 if lines[0].strip().lower() in NAMES else 0
        return ((line, None) for line in lines[first:] if not f"{line}\n".startswith(COMMENT))
    table = rows_of(file, functools.partial(_columns, column, kind_of(file) in ("csv", "tsv")))
    names = table["name"].cast(pa.string()).to_pylist()
    starts = table["start"].to_pylist() if "start" in table.column_names else [None] * len(names)
    return ((name, seconds(start)) for name, start in zip(names, starts, strict=True) if name is not None)


def _columns(column: str | None, may_be_bare: bool, names: Sequence[str]) -> Columns:
    """Those of names and starts. AudioSet's and VGGSound's files have no header, but begin with an entry."""
    lower = [name.lower() for name in names]
    start = next(({"start": lower.index(name)} for name in STARTS if name in lower), {})
    if column is not None:
        if column not in names:
            raise ValueError(f"no column {column!r}")
        return Columns({"name": names.index(column), **start})
    for name in NAMES:
        if name in lower:
            return Columns({"name": lower.index(name), **start})
    if may_be_bare and (SUFFIX.search(names[0]) or any(videos(names[0]))):
        return Columns({"name": 0, **({"start": 1} if len(names) > 1 else {})}, bare=True)
    told = ", and the first cell is no recording" if may_be_bare else ""
    raise ValueError(f"none of the columns {', '.join(NAMES)}{told}: {', '.join(names)[:80]}")
