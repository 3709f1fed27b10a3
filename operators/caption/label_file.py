"""What is known of recordings beforehand: files of labels, AudioSet's among them, looked up by the recording's name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
from numpy.typing import NDArray

from operators.document import Pinned
from operators.hashes import xxh3_64

AUDIOSET = {"YTID": "recording", "start_seconds": "start", "end_seconds": "end", "positive_labels": "labels"}
COLUMNS = {"recording": pa.string(), "labels": None, "start": pa.float64(), "end": pa.float64()}
YOUTUBE = 11  # characters of a video's id; AudioSet's clips are called so, or Y and that, or with _START_END behind
LONGEST = 200  # characters of a label
MOST_BYTES = 1 << 30  # of a file


class Encoded(NamedTuple):
    """The labels of lines, each value once."""

    places: pa.Array  # lists of places in `values`
    values: list[str]


class Labels:
    """The lines of a file, found by a recording's name; a name is kept as its hash."""

    def __init__(
        self, names: NDArray[np.uint64], times: Sequence[NDArray[np.float64]], labels: Encoded, audioset: bool
    ) -> None:
        """`names`: hashes of them; `times`: where lines start and end."""
        order = np.argsort(names, kind="stable")
        self.audioset = audioset
        self._names = names[order]
        self._start, self._end = (seconds[order] for seconds in times)
        self._labels, self._values = labels.places.take(pa.array(order)), labels.values
        same = np.lexsort((self._end, self._start, self._names))
        equal = np.ones(max(0, len(same) - 1), bool)
        for column in (self._names, self._start, self._end):
            equal &= column[same][1:] == column[same][:-1]
        self._repeated = np.zeros(len(same), bool)
        self._repeated[same[1:]] = equal

    def lines(self, recording: str) -> range:
        """The lines of the longest name that is listed: its path, ever less of it, then the same without its suffix."""
        asked = xxh3_64(pa.array(list(self._candidates(recording)), pa.large_string()))
        first, last = (np.searchsorted(self._names, asked, side) for side in ("left", "right"))
        found = np.flatnonzero(last > first)[:1].tolist()
        return range(first[found[0]], last[found[0]]) if found else range(0)

    def _candidates(self, recording: str) -> Iterator[str]:
        folders, _, file = recording.rpartition("/")
        stem = file.rpartition(".")[0] or file
        above = folders.split("/") if folders else []
        for name in (file, stem):
            yield from ("/".join((*above[depth:], name)) for depth in range(len(above) + 1))
        if self.audioset:
            for name in (stem, stem.removeprefix("Y")):
                if re.fullmatch(r"(_[\d.]+){0,2}", name[YOUTUBE:]):
                    yield name[:YOUTUBE]

    def within(self, lines: range, start: float, end: float) -> list[int]:
        """Of those lines the ones whose times lie within `start` and `end`, or the other way around, by half."""
        first, last = (np.clip(times[lines.start : lines.stop], start, end) for times in (self._start, self._end))
        shorter = np.minimum(end - start, self._end[lines.start : lines.stop] - self._start[lines.start : lines.stop])
        inside = (self._start[lines.start : lines.stop] < end) & (self._end[lines.start : lines.stop] >= start)
        return (lines.start + np.flatnonzero(inside & (last - first >= shorter / 2))).tolist()

    def labels(self, lines: Sequence[int]) -> list[str]:
        """Those of some lines, each once."""
        return list(dict.fromkeys(self._values[place] for line in lines for place in self._labels[line].as_py()))

    def repeated(self, lines: Sequence[int]) -> bool:
        """Whether one of the lines has the name and the times of another before it."""
        return bool(self._repeated[list(lines)].any())


@dataclass(frozen=True)
class LabelFile:
    """A file of labels, and of the names that stand for AudioSet's."""

    file: Pinned
    names: Pinned | None

    def load(self) -> Labels:
        """Raises ValueError naming the file and what is wrong with it."""
        try:
            table, audioset = _read(self.file)
            if audioset and self.names is None:
                raise ValueError("these are AudioSet's; `names` has to be its class_labels_indices.csv")
            labels = _named(_lists(table["labels"]), None if self.names is None else _names(self.names))
            start, end = (pc.fill_null(table[name], at).to_numpy() for name, at in (("start", 0.0), ("end", np.inf)))
            if len(bad := np.flatnonzero(~((start >= 0) & (start <= end) & (start < np.inf)))):
                raise ValueError(f"from {start[bad[0]]:g} to {end[bad[0]]:g} s: {table['recording'][bad[0]]}")
        except (ValueError, pa.ArrowException, OSError) as error:
            raise ValueError(f"file: {self.file.path}: {error}") from error
        return Labels(xxh3_64(table["recording"]), (start, end), labels, audioset)


def _read(file: Pinned) -> tuple[pa.Table, bool]:
    """The columns of COLUMNS, and whether the file is AudioSet's."""
    data = file.read()
    if len(data) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    kind = file.path.lower().rpartition(".")[2]
    if kind == "csv":
        table = _csv(_with_header(data))
    elif kind == "jsonl":
        table = pa.json.read_json(pa.BufferReader(data), pa.json.ReadOptions(block_size=len(data) + 1))
    elif kind == "parquet":
        table = pq.read_table(pa.BufferReader(data))
    else:
        raise ValueError("a file of labels is a .csv, .jsonl or .parquet")
    audioset = "YTID" in table.column_names
    table = table.rename_columns([AUDIOSET.get(name, name) for name in table.column_names])
    for name in ("recording", "labels"):
        if table.column_names.count(name) != 1:
            raise ValueError(f"{table.column_names.count(name)} columns {name!r}; there are: {table.column_names}")
    found = {
        name: pa.nulls(len(table), kind) if name not in table.column_names else table[name]
        for name, kind in COLUMNS.items()
    }
    table = pa.table({name: column.cast(COLUMNS[name] or column.type) for name, column in found.items()})
    table.validate(full=True)
    return table.filter(table["recording"].is_valid()), audioset


def _with_header(data: bytes) -> bytes:
    """A CSV without the comments that it begins with. AudioSet's last one is its header; a blank is behind its commas,
    and none within its values."""
    data, comment = data.removeprefix(b"\xef\xbb\xbf"), b""
    while data.startswith(b"#"):
        comment, _, data = data.partition(b"\n")
    if b"YTID" not in comment:
        return data
    return comment.lstrip(b"# ").replace(b" ", b"") + b"\n" + data.replace(b", ", b",")


def _csv(data: bytes) -> pa.Table:
    names = {*COLUMNS, *AUDIOSET}
    numbers = ("start", "end", "start_seconds", "end_seconds")
    types = {name: pa.float64() if name in numbers else pa.string() for name in names}
    return pa.csv.read_csv(pa.BufferReader(data), convert_options=pa.csv.ConvertOptions(column_types=types))


def _lists(labels: pa.ChunkedArray) -> pa.ListArray:
    """Lists as they are; of a text its parts, between semicolons, or commas where it has none of these."""
    if pa.types.is_list(labels.type) or pa.types.is_large_list(labels.type):
        return labels.cast(pa.list_(pa.string())).combine_chunks()
    text = labels.cast(pa.string())
    whole = pc.match_substring(text, ";")
    return pc.split_pattern(pc.if_else(whole, text, pc.replace_substring(text, ",", ";")), ";").combine_chunks()


def _named(labels: pa.ListArray, names: Mapping[str, str] | None) -> Encoded:
    """The labels, without those that are empty; by `names`, if there are any."""
    given = labels.flatten().dictionary_encode()
    values: dict[str, int] = {}
    place = np.full(len(given.dictionary) + 1, -1)  # the last is that of nulls
    for n, label in enumerate(given.dictionary.to_pylist()):
        label = " ".join(label.split())
        if names is not None and label:
            if label not in names:
                raise ValueError(f"{label!r} is not in the file of names")
            label = names[label]
        if len(label) > LONGEST:
            raise ValueError(f"a label of {len(label)} characters: {label[:40]}...")
        if label:
            place[n] = values.setdefault(label, len(values))
    codes = place[pc.fill_null(given.indices, -1).to_numpy(zero_copy_only=False)]
    rows = pc.list_parent_indices(labels).to_numpy()[codes >= 0]
    offsets = np.concatenate([[0], np.bincount(rows, minlength=len(labels)).cumsum()])
    return Encoded(pa.ListArray.from_arrays(offsets.astype(np.int32), codes[codes >= 0]), list(values))


def _names(file: Pinned) -> dict[str, str]:
    """Names by AudioSet's identifiers. Raises ValueError naming the file."""
    try:
        table = pa.csv.read_csv(pa.BufferReader(file.read()))
        columns = [table[name].cast(pa.string()).to_pylist() for name in ("mid", "display_name")]
    except (KeyError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"names: {file.path}: {error}") from error
    return {mid: " ".join(name.split()) for mid, name in zip(*columns, strict=True) if mid and name}
