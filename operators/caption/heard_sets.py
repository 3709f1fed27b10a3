"""Evaluation sets as fingerprints: what `corpusmill fingerprint` writes, and clips looked up in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from operators.caption.fingerprint import BANDS, FINGERPRINT, FRAME, HOP, LOW_RATE, WORDS
from operators.caption.listed_file import data_of
from operators.dedup.acoustic import Offsets, Words, candidates_of, flat, keys_of, likeness
from operators.document import Pinned

NAME = "name"
KIND, WORDS_ARE = b"fingerprint", f"1: {LOW_RATE} {FRAME} {HOP} {BANDS}".encode()  # metadata: what words mean
SCHEMA = pa.schema([pa.field(NAME, pa.string()), pa.field(FINGERPRINT, WORDS)], {KIND: WORDS_ARE})
MOST = 32  # clips of the sets that are found by one key


def write(path: Path, names: Sequence[str], fingerprints: Sequence[NDArray[np.uint32]]) -> None:
    """Write a set."""
    pq.write_table(pa.table([names, pa.array(fingerprints, WORDS)], SCHEMA), path, compression="zstd")


class Matches(NamedTuple):
    """For each clip asked for how like the most similar one of the sets is, 0 if none is, and that one's number."""

    similarity: NDArray[np.float64]
    other: NDArray[np.int64]


class HeardIndex:
    """The clips of all sets by their keys; `names` with the set's before. Of a key that more than MOST clips have it
    holds those that have the fewest keys besides such ones, so what many clips have in common costs in proportion to
    the clips asked for, and who has little else can be found by it."""

    def __init__(self, names: Sequence[str], words: Words, offsets: Offsets) -> None:
        self.names, self._clips = names, (words, offsets)
        keys, clip, place = keys_of(words, offsets)
        _, of, count = np.unique(keys, return_inverse=True, return_counts=True)
        own = np.bincount(clip[count[of] <= MOST], minlength=len(offsets) - 1)
        order = np.lexsort((clip, own[clip], keys))
        order = order[np.arange(len(keys)) - np.repeat(np.cumsum(count) - count, count) < MOST]
        self._keys, self._clip, self._place = keys[order], clip[order], place[order]

    def matches(self, words: Words, offsets: Offsets, min_overlap: float) -> Matches:
        """The best match of each clip, over at least `min_overlap` words; of equal ones the first in the sets."""
        keys, clip, place = keys_of(words, offsets)
        first, last = (np.searchsorted(self._keys, keys, side) for side in ("left", "right"))
        count = last - first
        asked = np.repeat(np.arange(len(keys)), count)
        at = np.arange(len(asked)) - np.repeat(np.cumsum(count) - count, count) + first[asked]
        lag = place[asked] - self._place[at]
        found = candidates_of(pl.DataFrame({"left": self._clip[at], "right": clip[asked], "lag": lag}))
        left, right = (found[side].cast(pl.Int64).to_numpy() for side in ("left", "right"))
        alike = likeness(self._clips, (words, offsets), (left, right, found["lag"].to_numpy()), min_overlap)
        best = np.lexsort((-left, alike))  # the last one counts
        matches = Matches(np.zeros(len(offsets) - 1), np.zeros(len(offsets) - 1, np.int64))
        matches.similarity[right[best]], matches.other[right[best]] = alike[best], left[best]
        return matches


@dataclass(frozen=True)
class HeardSets:
    """(name, file) of each set."""

    sets: tuple[tuple[str, Pinned], ...]

    def load(self) -> HeardIndex:
        """Raises ValueError naming a set and what is wrong with it."""
        names: list[str] = []
        columns: list[pa.ChunkedArray] = []
        for name, file in self.sets:
            try:
                table = _read(file)
            except (ValueError, pa.ArrowException, OSError) as error:
                raise ValueError(f"sets.{name}: {file.path}: {error}") from error
            names += [f"{name}: {clip}" for clip in table[NAME].to_pylist()]
            columns.append(table[FINGERPRINT])
        return HeardIndex(
            names, *flat(pa.chunked_array([chunk for column in columns for chunk in column.chunks], WORDS))
        )


def _read(file: Pinned) -> pa.Table:
    with pq.ParquetFile(pa.BufferReader(data_of(file))) as parquet:
        if (parquet.schema_arrow.metadata or {}).get(KIND) != WORDS_ARE or parquet.schema_arrow != SCHEMA:
            raise ValueError("not written by this version of `corpusmill fingerprint`")
        table = parquet.read(columns=SCHEMA.names)
    if table[NAME].null_count or table[FINGERPRINT].null_count or pc.list_flatten(table[FINGERPRINT]).null_count:
        raise ValueError("a name, a fingerprint or a word is null")
    return table
