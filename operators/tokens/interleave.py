"""Utterances with word times to documents in which speech and text take turns: no speech has to be synthesised.

- `glm`: as GLM-4-Voice (Zeng et al. 2024, arXiv:2411.17607) and slamkit make them: spans of Poisson(10) words become
  speech until that is 30% of all words; a model learns from every token.
- `inserter`: as InSerter (Wang et al. 2025, arXiv:2503.02769): at least five words in a row, 30% of all, or whole
  sentences, 40%; a model learns from text only. The published law of lengths is not known here: Poisson's stands in.

The utterances of one recording follow each other in time, put end to end with a space between; a word begins where the
one before it ended, so the space before it is its own, and the texts of all segments make up the text exactly. A word
has the units from its start to the next word's, the last one to its end: none twice, none left out between two. What
has no word times, no units, or words other than its text stays text. compose.py makes tokens of this.

A document's spans depend on its id, its words and the seed, never on what other documents there are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import Field, model_validator

from operators.document import parameters

Integers = NDArray[np.int64]

SEPARATOR = " "  # between utterances
SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？", "؟", "।")
CLOSING = "\"'”’»)]"
REFUSALS = 64  # spans in a row that overlap others, after which the next one is cut to what room there is


@parameters
class Interleave:
    """`share`: of all words that become speech; unset 0.3, or 0.4 of sentences. `span`: words of a span, the mean of a
    Poisson law. `min_words`: of the shortest; unset 1, or 5 of `inserter`. `level`: what `inserter` makes speech of.
    `deduplicate`: of repeated units of a span one stays. `max_words`: of a document, unless one utterance has more."""

    name: ClassVar[str] = "interleave"

    mode: Literal["glm", "inserter"] = "glm"
    level: Literal["words", "sentences"] = "words"
    share: Annotated[float | None, Field(gt=0, le=0.5)] = None
    span: Annotated[float, Field(ge=1, le=1000)] = 10.0
    min_words: Annotated[int | None, Field(ge=1, le=1000)] = None
    max_words: Annotated[int, Field(ge=1, le=1 << 16)] = 2000
    deduplicate: bool = False
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    revision: Literal[1] = 1

    @model_validator(mode="after")
    def _fields_fit_together(self) -> Self:
        if self.mode == "glm" and self.level != "words":
            raise ValueError(f"level: {self.level!r} has no effect with mode: glm")
        if self.level == "sentences":
            for field in ("span", "min_words"):
                if (value := getattr(self, field)) != getattr(type(self), field):
                    raise ValueError(f"{field}: {value} has no effect with level: sentences")
        return self

    @property
    def target(self) -> float:
        """The share of words that is to be speech."""
        return self.share or (0.4 if self.level == "sentences" else 0.3)

    @property
    def least(self) -> int:
        """Words of the shortest span."""
        return self.min_words or (5 if self.mode == "inserter" and self.level == "words" else 1)

    @property
    def masks(self) -> bool:
        """Whether there are tokens that a model is not to learn from."""
        return self.mode == "inserter"


class Utterance(NamedTuple):
    """An utterance as words: `pieces` make up its text; those of `timed` ones have `bounds[k]` to `bounds[k + 1]` of
    the units, and times."""

    id: str
    pieces: list[str]
    timed: bool
    sentences: list[int]  # numbers of the words that end one
    units: NDArray[np.uint16]
    bounds: Integers
    times: NDArray[np.float64]  # a row a word: start, end


class Span(NamedTuple):
    """Words `first` to `last - 1` of the utterance with that number, as speech or as text."""

    speech: bool
    utterance: int
    first: int
    last: int


def utterance_of(row: Mapping[str, Any], before: str) -> Utterance:
    """The utterance of a row, its text with `before` put before it."""
    text = before + (row["text"] or "")
    words, units, rate = row["words"], row["units"], row["unit_rate"]
    if words and units is not None and len(units) and rate:
        pieces = _pieces(text, len(before), [word["word"] or "" for word in words])
        times = np.array([(word["start"], word["end"]) for word in words], np.float64)  # None becomes NaN
        if pieces and (times[:, 0] <= times[:, 1]).all() and (np.diff(times[:, 0]) >= 0).all() and times[0, 0] >= 0:
            bounds = np.minimum(np.rint(np.append(times[:, 0], times[-1, 1]) * rate), len(units)).astype(np.int64)
            ends = [k for k, piece in enumerate(pieces) if _ends_sentence(piece) or k == len(pieces) - 1]
            return Utterance(row["id"], pieces, True, ends, np.asarray(units, np.uint16), bounds, times)
    pieces = _split(text)
    nothing = np.zeros(0, np.int64)
    return Utterance(row["id"], pieces, False, [], nothing.astype(np.uint16), nothing, np.zeros((0, 2)))


def _pieces(text: str, at: int, words: Sequence[str]) -> list[str]:
    """The text in as many pieces as there are words, each ending with its word, the last with the text; none where the
    words are not those of the text, in order, with nothing but signs between them."""
    ends = []
    for word in map(str.strip, words):
        found = text.find(word, at)
        if not word or found < 0 or any(map(str.isalnum, text[at:found])):
            return []
        ends.append(at := found + len(word))
    if any(map(str.isalnum, text[at:])):
        return []
    ends[-1] = len(text)
    return [text[a:b] for a, b in itertools.pairwise([0, *ends])]


def _split(text: str) -> list[str]:
    """The text in words, each with the space before it, the last with what is after it too."""
    words = text.split()
    return _pieces(text, 0, words) if words else [text]


def _ends_sentence(piece: str) -> bool:
    return piece.rstrip().rstrip(CLOSING).endswith(SENTENCE_ENDS)


def plan(utterances: Sequence[Utterance], interleave: Interleave, document: str) -> list[Span]:
    """The document's words in spans, in order: of text, at most one utterance each, and of speech, with a word of text
    between any two."""
    sizes = np.array([len(utterance.pieces) for utterance in utterances], np.int64)
    firsts = np.cumsum(sizes) - sizes
    seed = xxhash.xxh3_64_intdigest(document.encode(), interleave.seed)
    rng = np.random.Generator(np.random.PCG64(seed))
    target = round(interleave.target * int(sizes.sum()))
    by_sentence = interleave.level == "sentences"
    chosen = sorted(_sentences(utterances, target, rng) if by_sentence else _spans(utterances, target, interleave, rng))
    spans: list[Span] = []
    ahead = iter([*chosen, (int(sizes.sum()), int(sizes.sum()))])
    start, stop = next(ahead)
    for number, (first, size) in enumerate(zip(firsts.tolist(), sizes.tolist(), strict=True)):
        at, end = first, first + size
        while at < end:
            until = min(start, end)
            if at < until:
                spans.append(Span(False, number, at - first, until - first))
            if until < end:
                spans.append(Span(True, number, start - first, stop - first))
                until = stop
                start, stop = next(ahead)
            at = until
    return spans


def _spans(
    utterances: Sequence[Utterance], target: int, interleave: Interleave, rng: np.random.Generator
) -> Iterator[tuple[int, int]]:
    """Spans of Poisson lengths at places drawn from all that are free, in no order, none of them across utterances. One
    that would overlap another is drawn anew; the last one has as many words as are missing."""
    sizes = [len(utterance.pieces) for utterance in utterances]
    free = np.repeat([utterance.timed for utterance in utterances], sizes)
    ends = np.repeat(np.cumsum(sizes), sizes)  # of the utterance that a word is in
    begins, stops = _unit_bounds(utterances)
    least, missing, refusals = interleave.least, target, 0
    while missing > 0 and 2 * missing >= least:
        taken = np.append(np.flatnonzero(~free), len(free))
        places = np.flatnonzero(free)
        room = np.minimum(taken[np.searchsorted(taken, places)], ends[places]) - places
        places, room = places[room >= least], room[room >= least]
        if not len(places):
            return
        k = int(rng.integers(len(places)))
        first, length = int(places[k]), max(least, int(rng.poisson(interleave.span)))  # a law that gives zeros
        length = min(length, max(least, missing), int(ends[places[k]]) - first)
        if length > room[k]:
            refusals += 1
            if refusals < REFUSALS:
                continue
            length = int(room[k])
        refusals = 0
        if stops[first + length - 1] <= begins[first]:  # shorter than a unit
            free[first] = False
            continue
        yield first, first + length
        free[max(0, first - 1) : first + length + 1] = False
        missing -= length


def _sentences(utterances: Sequence[Utterance], target: int, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Whole sentences, in an order drawn, as long as they fit what is missing and touch none before."""
    begins, stops = _unit_bounds(utterances)
    found: list[tuple[int, int]] = []
    before = 0
    for utterance in utterances:
        starts = [before, *(before + end + 1 for end in utterance.sentences)]
        found += [(a, b) for a, b in itertools.pairwise(starts) if stops[b - 1] > begins[a]]
        before += len(utterance.pieces)
    taken: set[int] = set()
    for k in rng.permutation(len(found)).tolist():
        first, last = found[k]
        if last - first <= target and first - 1 not in taken and last not in taken:
            yield first, last
            taken.update((first, last - 1))
            target -= last - first


def _unit_bounds(utterances: Sequence[Utterance]) -> tuple[Integers, Integers]:
    """Of each word the first of its units, and the first that is no more its own."""
    own = [u.bounds if u.timed else np.zeros(len(u.pieces) + 1, np.int64) for u in utterances]
    return np.concatenate([one[:-1] for one in own]), np.concatenate([one[1:] for one in own])
