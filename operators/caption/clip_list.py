"""Lists of the clips of evaluation sets, as they are published, and looking up recordings in them by file name."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from operators.document import Pinned
from operators.read.span import AUDIO

NAMES = ("youtube_id", "ytid", "video_id", "file_name", "filename", "fname", "id", "name")  # of columns, the first wins
STARTS = ("start_time", "start_seconds", "start")
MOST_BYTES = 1 << 30
SECONDS = 10.0  # of a clip of AudioSet, AudioCaps, VGGSound: starts nearer than that are of clips that overlap
VIDEO = re.compile(r"([A-Za-z0-9_-]{11})(?:_(\d+(?:\.\d+)?)(?:_\d+(?:\.\d+)?)?)?")
MOST_ODD = 0.05  # share of a list of videos that cannot be read as such
SUFFIX = re.compile(rf"\.(?:{'|'.join(AUDIO)})$", re.IGNORECASE)


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
        stem = stem_of(recording)
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
                entries = [(stem_of(entry), start) for entry, start in _entries(file, column)]
            except (ValueError, UnicodeDecodeError, pa.ArrowException, csv.Error) as error:
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


def stem_of(name: str) -> str:
    """A file's name without folders and the ending of a recording."""
    return SUFFIX.sub("", name.strip().rpartition("/")[2])


def videos(stem: str) -> Iterator[tuple[str, float | None]]:
    """What a file name can mean as `ID`, `ID_START` or `ID_START_END`, with or without a Y before: video, and start in
    seconds. Ids have eleven characters, `Y`, `-` and `_` among them, so there can be two readings."""
    for text in (stem, stem[1:]) if stem.startswith("Y") else (stem,):
        if found := VIDEO.fullmatch(text):
            yield found[1], None if found[2] is None else float(found[2])


def _entries(file: Pinned, column: str | None) -> Iterator[tuple[str, float | None]]:
    """(name, start) of each entry: lines, or rows of .csv, .tsv, .jsonl or .parquet."""
    data = file.read()
    if len(data) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    kind = file.path.lower().rpartition(".")[2]
    if kind == "parquet":
        table = pq.read_table(pa.BufferReader(data))
        columns = [table[name].to_pylist() for name in table.column_names]
        return _of_rows(table.column_names, list(zip(*columns, strict=True)), column)
    lines = [line for line in data.decode("utf-8-sig").splitlines() if line.strip() and not line.startswith("#")]
    if kind == "jsonl":
        rows = [orjson.loads(line) for line in lines]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("a line is no JSON object")
        names = list(dict.fromkeys(name for row in rows for name in row))
        return _of_rows(names, [[row.get(name) for name in names] for row in rows], column)
    if kind in ("csv", "tsv"):
        cells = list(csv.reader(lines, delimiter="," if kind == "csv" else "\t", skipinitialspace=True))
        header = [cell.strip() for cell in cells[0]] if cells else []
        if column is None and not {cell.lower() for cell in header} & set(NAMES):
            return _of_rows(["name", "start"], cells, None)  # AudioSet's and VGGSound's have no header
        return _of_rows(header, cells[1:], column)
    if column is not None:
        raise ValueError(f"column: {column!r}, but this is a list of lines")
    return ((line, None) for line in lines)


def _of_rows(
    names: Sequence[str], rows: Sequence[Sequence[Any]], column: str | None
) -> Iterator[tuple[str, float | None]]:
    lower = [name.lower() for name in names]
    known = [name for name in NAMES if name in lower] if column is None else [column] * (column in names)
    if not known:
        raise ValueError(f"no column {column!r}" if column else f"none of the columns {', '.join(NAMES)}")
    at = names.index(column) if column else lower.index(known[0])
    begins = next((lower.index(name) for name in STARTS if name in lower), None)
    for row in rows:
        if len(row) > at and row[at] is not None and str(row[at]).strip():
            start = row[begins] if begins is not None and len(row) > begins else None
            yield str(row[at]), _number(start)


def _number(value: object) -> float | None:
    try:
        return None if value is None else float(str(value))
    except ValueError:
        return None
