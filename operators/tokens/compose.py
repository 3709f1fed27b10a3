"""Interleaved documents as tokens: what interleave.py planned, with loss masks and where every segment lies.

A segment begins with `<speech>` or `<text>` where the kind changes, and at the beginning of the document; a run of text
is encoded an utterance at a time. Ids: the tokenizer's own, then those two, then the units'. A document ends with the
tokenizer's end, begins with its beginning where it was asked for one, and has them nowhere else. The mask is 0 where
nothing is to be learned: on speech and the `<speech>` before it, with InSerter's rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from operators.tokens.interleave import SEPARATOR, Interleave, Span, Utterance, plan, utterance_of
from operators.tokens.tokenizer import MAX_UINT16_VOCAB, Tokenizer

SWITCHES = ("speech_id", "text_id")  # in the order of their ids
NEEDS = ("id", "recording", "start", "text", "words", "units", "unit_rate")
INHERITED = ("recording", "url", "date", "source", "priority", "weight")  # the same for all utterances of a recording
ADDED = ("id", "text", "input_ids", "tokens", "segments", "speech_share", "members")
LOSS_MASK = "loss_mask"  # beside the tokens wherever those are
PLACES = "scratch/places"  # where each member begins in the tokens: for the index of a build, no column of shards
SEGMENT = pa.struct(
    [
        pa.field("modality", pa.string()),  # text or speech
        pa.field("text", pa.string()),
        pa.field("start_token", pa.int64()),  # in input_ids, with the switch that opens it
        pa.field("end_token", pa.int64()),
        pa.field("utterance", pa.string()),
        pa.field("start", pa.float64()),  # seconds in the utterance; null without word times
        pa.field("end", pa.float64()),
    ]
)
BLOCK = 4096  # utterances out of Arrow at a time


class Document(NamedTuple):
    id: str
    row: int  # of its first utterance
    utterances: list[Utterance]


class Tokens(NamedTuple):
    """A document's tokens, what is to be learned of them, its segments and where each utterance begins."""

    ids: NDArray[np.int32]
    mask: NDArray[np.uint8]
    segments: list[dict[str, Any]]
    places: list[int]


@dataclass(frozen=True)
class Composer:
    """Utterances to documents; `clusters`: how many different units there are."""

    interleave: Interleave
    tokenizer: Tokenizer
    clusters: int

    def describe(self) -> dict[str, Any]:
        """What a manifest says of the tokenizer, JSON-able: `vocab_size` and `dtype` count the ids that are not its
        own, which begin at `base_vocab_size`."""
        told = self.tokenizer.describe()
        base = told["vocab_size"]
        size = base + len(SWITCHES) + self.clusters
        dtype = np.dtype(np.uint16 if size < MAX_UINT16_VOCAB else np.int32).name
        own = {name: base + k for k, name in enumerate(SWITCHES)}
        own |= {"first_unit_id": base + len(SWITCHES), "units": self.clusters}
        return told | own | {"base_vocab_size": base, "vocab_size": size, "dtype": dtype}

    def __call__(self, utterances: pa.Table) -> tuple[pa.Table, Counter[str]]:
        """(a row a document, ordered by recording and time; what there is in all). Columns are those of ADDED and
        INHERITED, LOSS_MASK and PLACES. The same utterances in any order give the same."""
        told, counts = self.describe(), Counter[str]()
        tables = []
        documents: list[Document] = []
        for rows in _recordings(utterances):
            documents += self._documents(rows)
            if sum(len(document.utterances) for document in documents) >= BLOCK:
                tables.append(self._table(documents, utterances, told, counts))
                documents = []
        tables.append(self._table(documents, utterances, told, counts))
        return pa.concat_tables(tables), counts

    def _documents(self, rows: list[dict[str, Any]]) -> Iterator[Document]:
        """The utterances of one recording, cut before a document has more words than it may."""
        recording = rows[0]["id"].rpartition("/")[0] or rows[0]["id"]
        number = words = 0
        held: list[Utterance] = []
        first = 0
        for row in rows:
            one = utterance_of(row, SEPARATOR if held else "")
            if held and words + len(one.pieces) > self.interleave.max_words:
                yield Document(f"{recording}/i{number:05d}", first, held)
                number, words, held, one = number + 1, 0, [], utterance_of(row, "")
            first = first if held else row["row"]
            held.append(one)
            words += len(one.pieces)
        yield Document(f"{recording}/i{number:05d}", first, held)

    def _table(
        self, documents: list[Document], utterances: pa.Table, told: dict[str, Any], counts: Counter[str]
    ) -> pa.Table:
        plans = [plan(document.utterances, self.interleave, document.id) for document in documents]
        made = [self._tokens(d.utterances, spans, told) for d, spans in zip(documents, plans, strict=True)]
        words = [sum(span.last - span.first for span in spans) for spans in plans]
        spoken = [sum(span.last - span.first for span in spans if span.speech) for spans in plans]
        offsets = pa.array(np.cumsum([0, *(len(one.ids) for one in made)]))
        ids = np.concatenate([np.zeros(0, np.int32), *(one.ids for one in made)]).astype(told["dtype"])
        mask = np.concatenate([np.zeros(0, np.uint8), *(one.mask for one in made)])
        speech = [s for one in made for s in one.segments if s["modality"] == "speech"]
        counts.update(
            {
                "documents": len(documents),
                "words": sum(words),
                "spoken_words": sum(spoken),
                "speech_segments": len(speech),
                "speech_tokens": sum(segment["end_token"] - segment["start_token"] for segment in speech),
                "masked_tokens": len(mask) - int(mask.sum()),
            }
        )
        shares = np.array(spoken, np.float64) / np.maximum(1, words)
        names = [[utterance.id for utterance in document.utterances] for document in documents]
        texts = ["".join(segment["text"] for segment in one.segments) for one in made]
        columns = {
            "id": pa.array([document.id for document in documents], pa.string()),
            "text": pa.array(texts, pa.large_string()),
            "input_ids": pa.LargeListArray.from_arrays(offsets, pa.array(ids)),
            "tokens": pa.array([len(one.ids) for one in made], pa.int64()),
            LOSS_MASK: pa.LargeListArray.from_arrays(offsets, pa.array(mask)),
            "segments": pa.array([one.segments for one in made], pa.list_(SEGMENT)),
            "speech_share": pa.array(shares.round(4), pa.float32()),
            "members": pa.array(names, pa.list_(pa.string())),
            PLACES: pa.array([one.places for one in made], pa.list_(pa.int64())),
        }
        first = pa.array([document.row for document in documents], pa.int64())
        columns |= {n: utterances[n].take(first) for n in INHERITED if n in utterances.column_names}
        return pa.table(columns)

    def _tokens(self, utterances: Sequence[Utterance], spans: Sequence[Span], told: dict[str, Any]) -> Tokens:
        texts = ["".join(utterances[s.utterance].pieces[s.first : s.last]) for s in spans]
        encoded = self.tokenizer.backend().encode([t for s, t in zip(spans, texts, strict=True) if not s.speech])
        if (encoded.lengths < 0).any():
            raise ValueError(f"{utterances[0].id}: the tokenizer took its text, but not a part of it")
        pieces = iter(np.split(encoded.ids, np.cumsum(encoded.lengths)[:-1]))
        parts: list[NDArray[np.int32]] = [] if told["bos_id"] is None else [np.array([told["bos_id"]], np.int32)]
        learned = [np.ones(len(part), np.uint8) for part in parts]
        at, before = len(parts), None
        segments: list[dict[str, Any]] = []
        places: list[int] = []
        for span, text in zip(spans, texts, strict=True):
            one = utterances[span.utterance]
            places += [at if places else 0] * (span.utterance == len(places))
            ids = told["first_unit_id"] + self._units(one, span) if span.speech else next(pieces)
            switch = [told["speech_id" if span.speech else "text_id"]] * (span.speech != before)
            before = span.speech
            parts.append(np.concatenate([np.array(switch, np.int32), ids.astype(np.int32)]))
            learned.append(np.full(len(parts[-1]), not (span.speech and self.interleave.masks), np.uint8))
            start, end = (
                (float(one.times[span.first, 0]), float(one.times[span.last - 1, 1])) if one.timed else (None,) * 2
            )
            segment = {"modality": "speech" if span.speech else "text", "text": text, "start_token": at}
            at += len(parts[-1])
            segments.append(segment | {"end_token": at, "utterance": one.id, "start": start, "end": end})
        ids = np.concatenate([*parts, np.array([told["eos_id"]], np.int32)])
        return Tokens(ids, np.concatenate([*learned, np.ones(1, np.uint8)]), segments, places)

    def _units(self, utterance: Utterance, span: Span) -> NDArray[np.int64]:
        units = utterance.units[utterance.bounds[span.first] : utterance.bounds[span.last]].astype(np.int64)
        if units.max(initial=0) >= self.clusters:
            raise ValueError(f"{utterance.id}: unit {units.max()} of {self.clusters}")
        return units[np.append(True, np.diff(units) != 0)] if self.interleave.deduplicate else units


def _recordings(utterances: pa.Table) -> Iterator[list[dict[str, Any]]]:
    """The rows of each recording, in time, with their numbers as `row`."""
    keys = [(name, "ascending") for name in ("recording", "start", "id")]
    order = pc.sort_indices(utterances.select(["recording", "start", "id"]), keys)
    held: list[dict[str, Any]] = []
    for start in range(0, len(order), BLOCK):
        numbers = order.slice(start, BLOCK)
        for number, row in zip(numbers.to_pylist(), utterances.select(NEEDS).take(numbers).to_pylist(), strict=True):
            if held and held[-1]["recording"] != row["recording"]:
                yield held
                held = []
            held.append(row | {"row": number})
    if held:
        yield held
