"""Remove what evaluation sets have from the texts: n-gram decontamination (GPT-3, app. C; MT-NLG, arXiv 2201.11990).

A first pass finds the keys of the sets in the texts (operators/dedup/ngrams.py). Keys that occur `max_occurrences`
times or more in the whole dataset are taken for ordinary phrases. A second pass looks at the texts that have others:
around each occurrence `margin` characters are cut on both sides, on to the end of the sentence; of what is left, pieces
of fewer than `min_piece` characters go as well. Where joined pieces make a key again, that is cut in turn.

The published code keeps a text that is no longer than the item it equals and misses what is at its end; this does not.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pydantic
from pydantic import Field

from operators.dedup.evaluation import MOST_BYTES, EvaluationSets
from operators.dedup.ngrams import Index, occurrences
from operators.document import PinnedFile, loaded, parameters
from operators.hashes import spread
from operators.phases import CUTS, DOCUMENTS, MEMORY, VERDICT, GlobalOperator, Phase, as_mapped

HITS, HIT_BYTES = 1, 32  # a document, for estimates
ROUNDS = 100  # of looking at seams; a text that has a key even then was made to, and goes as a whole
SENTENCE_END = re.compile("[.!?\n。｡！？।؟۔]")
Ranges = list[tuple[int, int]]


def _bounded(value: object) -> object:
    """Refuses a file that is too large before it is read."""
    if isinstance(value, str) and Path(value).is_file() and Path(value).stat().st_size > MOST_BYTES:
        raise ValueError(f"{value}: more than {MOST_BYTES} bytes")
    return value


def _listed(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


@parameters
class EvaluationSet:
    """A file of items, JSON lines (.gz, .zst) or Parquet; `fields` are the ones that count, all where it is empty."""

    path: Annotated[PinnedFile, pydantic.BeforeValidator(_bounded, json_schema_input_type=str)]
    fields: Annotated[tuple[str, ...], pydantic.BeforeValidator(_listed, json_schema_input_type=list[str])] = ()


def _by_path(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


@parameters
class Decontaminate(GlobalOperator):
    """`sets`: evaluation sets by name, each a path or {path, fields}."""

    name: ClassVar[str] = "decontaminate"
    sets: Annotated[
        dict[
            Annotated[str, Field(pattern="^[^,]+$")],
            Annotated[EvaluationSet, pydantic.BeforeValidator(_by_path, json_schema_input_type=str | EvaluationSet)],
        ],
        Field(min_length=1, max_length=63),
    ]
    ngram: Annotated[int, Field(ge=2, le=64)] = 13
    min_ngram: Annotated[int, Field(ge=2, le=64)] = 8
    max_occurrences: Annotated[int, Field(ge=2)] | None = 10
    action: Literal["splice", "drop"] = "splice"
    margin: Annotated[int, Field(ge=0)] = 200
    min_piece: Annotated[int, Field(ge=0)] = 200
    max_pieces: Annotated[int, Field(ge=1)] = 10
    revision: Literal[1] = 1

    @pydantic.model_validator(mode="after")
    def _sets_can_be_used(self) -> Decontaminate:
        if self.min_ngram > self.ngram:
            raise ValueError(f"min_ngram: {self.min_ngram} is more than ngram: {self.ngram}")
        loaded(self._model)  # says what is wrong with a file before any work
        return self

    @property
    def _model(self) -> EvaluationSets:
        sets = tuple((name, one.path, one.fields) for name, one in sorted(self.sets.items()))
        return EvaluationSets(sets, self.ngram, self.min_ngram)

    @property
    def adds(self) -> tuple[str, ...]:
        return ()

    def phases(self, rows: int, _memory: int = MEMORY) -> Sequence[Phase]:
        size = rows * HITS * HIT_BYTES
        return [
            Phase("occurrences", {DOCUMENTS: self._occurrences}, self._rare, bytes=size),
            Phase("splices", {DOCUMENTS: self._splices}, as_mapped, bytes=size, own="occurrences"),
        ]

    def _occurrences(self, docs: pa.Table) -> pa.Table:
        """A row for each key (`number` in the index) of a document, with how often it is there; one row for a key that
        is an ordinary phrase by these documents alone."""
        index: Index = loaded(self._model)
        found = occurrences(docs["text"], index)
        rows = pl.DataFrame({"number": found.number, "doc": docs["doc"].to_numpy()[found.row]})
        counted = rows.group_by("number", "doc").agg(count=pl.len().cast(pl.Int64))
        if self.max_occurrences is not None:
            common = pl.col("count").sum() >= self.max_occurrences
            docs_of = pl.when(common).then(pl.col("doc").min()).otherwise(pl.col("doc"))
            counted = counted.with_columns(docs_of.over("number")).group_by("number", "doc").agg(pl.col("count").sum())
        table: pa.Table = counted.to_arrow()
        return table.append_column("key", pa.array(spread(counted["number"].to_numpy().astype(np.uint64))))

    def _rare(self, parts: Mapping[str, pa.Table]) -> pa.Table:
        """The documents of each key that is no ordinary phrase."""
        rows = pl.DataFrame(parts[DOCUMENTS])
        if self.max_occurrences is not None:
            rows = rows.filter(pl.col("count").sum().over("number") < self.max_occurrences)
        rare: pa.Table = rows.select("number", "doc").to_arrow()
        return rare

    def _splices(self, docs: pa.Table, rare: pa.Table) -> pa.Table:
        """The verdicts on the documents that have such keys."""
        numbers = {doc: set(of) for doc, of in pl.DataFrame(rare).group_by("doc").agg("number").iter_rows()}
        rows = docs.filter(pa.array(np.isin(docs["doc"].to_numpy(), rare["doc"].to_numpy())))
        verdicts = [self._verdict(row["doc"], row["text"], numbers[row["doc"]]) for row in rows.to_pylist()]
        schema = pa.schema([*VERDICT, pa.field(CUTS, pa.large_list(pa.int64()))])
        table = pa.Table.from_pylist(verdicts, schema)
        return table.append_column("key", pa.array(spread(table["doc"].to_numpy())))

    def _verdict(self, doc: int, text: str, rare: set[int]) -> dict[str, Any]:
        index: Index = loaded(self._model)
        hits = _hits(text, index)
        common = {number for number, _, _ in hits} - rare  # keys that seams make are not among them
        names = sorted({name for number in rare for name in index.names[index.owners[number]]})
        verdict: dict[str, Any] = {"doc": doc, "drop_detail": ",".join(names)}
        found = [(start, end) for number, start, end in hits if number in rare]
        verdict["drop_value"] = float(len(found))
        if self.action == "drop":
            return verdict | {"drop_reason": "contaminated"}
        ranges: Ranges = []
        ends = [match.end() for match in SENTENCE_END.finditer(text)]
        for _ in range(ROUNDS):
            if not found:
                break
            widened = [self._widened(ends, a, b, len(text)) for a, b in _merged(found)]
            ranges = self._pieces_cut(text, _merged([*ranges, *widened]))
            left = _left(text, ranges)
            found = [_before_cuts(a, b, ranges) for number, a, b in _hits(left, index) if number not in common]
        if found:
            ranges = [(0, len(text))]
        pieces = len(_gaps(ranges, len(text)))
        if not pieces:
            return verdict | {"drop_reason": "contaminated"}
        if pieces > self.max_pieces:
            return verdict | {"drop_reason": "shredded", "drop_value": float(pieces), "drop_threshold": self.max_pieces}
        places = [len(text[:at].encode()) for pair in ranges for at in pair]
        return verdict | {"drop_value": None, CUTS: places}

    def _widened(self, ends: list[int], start: int, end: int, size: int) -> tuple[int, int]:
        """The characters to cut around an occurrence: margins, and on to where a sentence ends."""
        before = bisect.bisect_right(ends, max(0, start - self.margin))
        after = bisect.bisect_right(ends, end + self.margin)
        return ends[before - 1] if before else 0, ends[after] if after < len(ends) else size

    def _pieces_cut(self, text: str, ranges: Ranges) -> Ranges:
        """The ranges with the pieces between them that are too short."""
        short = [gap for gap in _gaps(ranges, len(text)) if gap[1] - gap[0] < self.min_piece]
        return _merged([*ranges, *short])


def _hits(text: str, index: Index) -> list[tuple[int, int, int]]:
    """(number of the key, first and last character) of each occurrence in a text."""
    found = occurrences(pa.array([text], pa.large_string()), index)
    data = text.encode()
    if len(data) == len(text):
        places = zip(found.number.tolist(), found.start.tolist(), found.end.tolist(), strict=True)
        return list(places)
    begins = np.flatnonzero((np.frombuffer(data, np.uint8) & 0xC0) != 0x80)
    start, end = (np.searchsorted(begins, places) for places in (found.start, found.end))
    return list(zip(found.number.tolist(), start.tolist(), end.tolist(), strict=True))


def _merged(ranges: Ranges) -> Ranges:
    merged: Ranges = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _gaps(ranges: Ranges, size: int) -> Ranges:
    """What merged ranges leave of `size` characters."""
    bounds = [0, *(at for pair in ranges for at in pair), size]
    return [(a, b) for a, b in zip(bounds[::2], bounds[1::2], strict=True) if a < b]


def _left(text: str, ranges: Ranges) -> str:
    return "".join(text[a:b] for a, b in _gaps(ranges, len(text)))


def _before_cuts(start: int, end: int, ranges: Ranges) -> tuple[int, int]:
    """Where characters `start` to `end` of what is left were before the ranges were cut."""
    for a, b in ranges:
        start += (b - a) * (a <= start)
        end += (b - a) * (a < end)
    return start, end
