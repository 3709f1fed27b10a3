"""What is known of recordings beforehand: files of labels, AudioSet's among them, looked up by the recording's name."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from operators.caption.listed_file import KINDS, Columns, kind_of, rows_of, stem_of, videos
from operators.document import Pinned
from operators.hashes import xxh3_64

AUDIOSET = {"YTID": "recording", "start_seconds": "start", "end_seconds": "end", "positive_labels": "labels"}
COLUMNS = {"recording": pa.string(), "labels": None, "start": pa.float64(), "end": pa.float64()}
LONGEST = 200  # characters of a label


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
        folders, _, file = unicodedata.normalize("NFC", recording).rpartition("/")
        stem = file.rpartition(".")[0] or file
        above = folders.split("/") if folders else []
        for name in (file, stem):
            yield from ("/".join((*above[depth:], name)) for depth in range(len(above) + 1))
        if self.audioset:
            yield from (video for video, _ in videos(stem_of(file)))

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
    if kind_of(file) not in KINDS:
        raise ValueError(f"a file of labels is one of .{', .'.join(KINDS)}")
    told: list[str] = []

    def choose(names: Sequence[str]) -> Columns:
        told[:] = names
        return _columns([AUDIOSET.get(name, name) for name in names])

    table = rows_of(file, choose)
    found = {name: table[name] if name in table.column_names else pa.nulls(len(table)) for name in COLUMNS}
    table = pa.table({name: column.cast(COLUMNS[name] or column.type) for name, column in found.items()})
    table = table.set_column(0, "recording", pc.utf8_normalize(table["recording"], "NFC"))
    table.validate(full=True)
    return table.filter(table["recording"].is_valid()), "YTID" in told


def _columns(names: Sequence[str]) -> Columns:
    for name in ("recording", "labels"):
        if names.count(name) != 1:
            raise ValueError(f"{names.count(name)} columns {name!r}; there are: {', '.join(names)}")
    return Columns({name: names.index(name) for name in COLUMNS if name in names})


def _lists(labels: pa.ChunkedArray) -> pa.ListArray:
    """Lists as they are; of a text its parts, between semicolons, or, where it has none of these, between commas that
    no blank follows, as one does within AudioSet's names."""
    if pa.types.is_list(labels.type) or pa.types.is_large_list(labels.type):
        return labels.cast(pa.list_(pa.string())).combine_chunks()
    text = labels.cast(pa.string())
    between = pc.replace_substring_regex(text, r",+([^,\s]|$)", r";\1")
    return pc.split_pattern(pc.if_else(pc.match_substring(text, ";"), text, between), ";").combine_chunks()


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
