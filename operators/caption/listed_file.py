"""Files of names that people publish beside recordings: a few columns of .csv, .tsv, .jsonl or .parquet, AudioSet's own
form among them; and what a file name says of a video."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from operators.document import Pinned
from operators.read.span import AUDIO

KINDS = ("csv", "tsv", "jsonl", "parquet")
MOST_BYTES = 1 << 30  # of a file
COMMENT = ("# ", "#\n", "#\r\n")  # begin lines that say nothing; a file's name may begin with # too
AUDIOSET = b"YTID,start_seconds,end_seconds,positive_labels\n"  # in its files a comment
AUDIOSET_ROW = re.compile(rb"[\w-]{11}, [\d.]+, [\d.]+, ")  # a blank is behind its commas, and none within its values
SECONDS = 10.0  # of a clip of AudioSet, AudioCaps, VGGSound
LATEST = 1000.0  # seconds: a start behind may be in milliseconds, as AudioSet's strong labels are
VIDEO = re.compile(r"([A-Za-z0-9_-]{11})(?:_(\d+(?:\.\d+)?)(?:_(\d+(?:\.\d+)?))?)?")
SUFFIX = re.compile(rf"\.(?:{'|'.join(AUDIO)})$", re.IGNORECASE)


class Columns(NamedTuple):
    """Which columns of a file are read."""

    places: Mapping[str, int]  # among the file's, by the names that they get
    bare: bool = False  # there is no header: what were the names is a row


def kind_of(file: Pinned) -> str:
    """The ending of its name, one of KINDS where it is a table."""
    return file.path.lower().rpartition(".")[2]


def data_of(file: Pinned) -> bytes:
    """Raises ValueError for a file of more than MOST_BYTES."""
    data = file.read()
    if len(data) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    return data


def rows_of(file: Pinned, choose: Callable[[Sequence[str]], Columns]) -> pa.Table:
    """The columns that `choose` takes of the file's names, of one of KINDS: texts of a .csv or .tsv, null where they
    are empty, of others what they are. Raises ValueError, OSError or pa.ArrowException."""
    kind, data = kind_of(file), data_of(file)
    if kind == "parquet":
        with pq.ParquetFile(pa.BufferReader(data)) as parquet:
            names = parquet.schema_arrow.names
            places = choose(names).places
            table = parquet.read(columns=[names[place] for place in places.values()])
        return pa.table({name: table[names[place]] for name, place in places.items()})
    if kind == "jsonl":
        names = list(dict.fromkeys(name for row in _objects(data) for name in row))
        places = choose(names).places
        values = [[row.get(names[place]) for place in places.values()] for row in _objects(data)]
        columns = zip(*values, strict=True)
        return pa.table({name: pa.array(column) for name, column in zip(places, columns, strict=True)})
    return _delimited(data, "\t" if kind == "tsv" else ",", choose)


def _objects(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.split(b"\n"):
        if line.strip():
            row = orjson.loads(line)
            if not isinstance(row, dict):
                raise ValueError("a line is no JSON object")
            yield row


def _delimited(data: bytes, delimiter: str, choose: Callable[[Sequence[str]], Columns]) -> pa.Table:
    data = data.removeprefix(b"\xef\xbb\xbf")
    while data.startswith(tuple(mark.encode() for mark in COMMENT)):
        data = data.partition(b"\n")[2]
    data = data.lstrip(b"\r\n")
    if AUDIOSET_ROW.match(data):
        data = AUDIOSET + data.replace(b", ", b",")
    text = io.TextIOWrapper(io.BytesIO(data), "utf-8", newline="")
    try:
        first = next(csv.reader(text, delimiter=delimiter), None)
    except csv.Error as error:
        raise ValueError(error) from error
    if first is None:
        raise ValueError("no line")
    places, bare = choose([cell.strip() for cell in first])
    columns = [f"f{place}" for place in places.values()]
    table = pa.csv.read_csv(
        pa.BufferReader(data),
        pa.csv.ReadOptions(autogenerate_column_names=True, skip_rows_after_names=0 if bare else 1),
        pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        pa.csv.ConvertOptions(
            include_columns=columns,
            column_types=dict.fromkeys(columns, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    return table.rename_columns(list(places))


def stem_of(name: str) -> str:
    """A file's name without folders and the ending of a recording."""
    return SUFFIX.sub("", name.strip().rpartition("/")[2])


def videos(stem: str) -> Iterator[tuple[str, float | None]]:
    """What a file name can mean as `ID`, `ID_START` or `ID_START_END`, with or without a Y before: a video of YouTube,
    and where in it, in seconds, a clip of SECONDS at most begins, if that is certain. Ids have eleven characters, `Y`,
    `-` and `_` among them, so there can be two readings."""
    for text in (stem, stem[1:]) if stem.startswith("Y") else (stem,):
        if found := VIDEO.fullmatch(text):
            start, end = seconds(found[2]), found[3]
            if start is not None and end is not None and not 0 <= round(float(end) - start, 3) <= SECONDS:
                start = None  # in milliseconds, or not cut as such clips are
            yield found[1], start


def seconds(value: object) -> float | None:
    """A start in seconds, None for what may be none."""
    try:
        start = math.nan if value is None else float(str(value))
    except ValueError:
        return None
    return start if 0 <= start < LATEST else None
