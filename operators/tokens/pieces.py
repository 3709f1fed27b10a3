"""Pieces of documents in sequences: cut, arranged, copied, and what it cost."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


class Pieces(NamedTuple):
    """Stretches of documents, int64[n] each; those of one sequence in their order there."""

    document: Integers
    start: Integers  # in the document
    length: Integers


class Filled(NamedTuple):
    """What a mode makes of documents: the sequence of each piece, and the length of each sequence, padding included.
    Sequences are numbered along the path, by what stands first in them."""

    pieces: Pieces
    sequence: Integers
    lengths: Integers


def cut(lengths: Integers, most: int) -> Pieces:
    """Documents in pieces of `most` tokens and the rest; none of an empty document."""
    counts = -(-lengths // most)
    document = np.repeat(np.arange(len(lengths)), counts)
    start = (np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)) * most
    return Pieces(document, start, np.minimum(lengths[document] - start, most))


def numbered(bins: Integers, count: int) -> Integers:
    """The bins of pieces, numbered in the order of first use; all of `count` are used."""
    numbers: Integers = _numbered(bins, count)
    return numbers


@numba.njit(nogil=True, cache=True)
def _numbered(bins: Any, count: Any) -> Any:
    numbers = np.full(count, -1, np.int64)
    found = np.empty_like(bins)
    used = 0
    for i in range(bins.shape[0]):
        if numbers[bins[i]] < 0:
            numbers[bins[i]] = used
            used += 1
        found[i] = numbers[bins[i]]
    return found


def arranged(lengths: Integers, seed: int | None) -> Integers:
    """The order in which sequences of these lengths are written: by length, those of a length in path order or, with a
    seed, drawn so that no neighbours along the path are neighbours then (where there are more than three)."""
    order = np.argsort(lengths, kind="stable")
    if seed is None:
        return order
    random = np.random.RandomState(seed)  # its numbers are the same in every version of NumPy
    bounds = np.flatnonzero(np.diff(lengths[order], prepend=-1, append=-1))
    for first, last in zip(bounds[:-1], bounds[1:], strict=True):
        drawn = random.permutation(last - first)
        while len(drawn) > 3 and (np.abs(np.diff(drawn)) == 1).any():  # one in seven is as wanted
            drawn = random.permutation(last - first)
        order[first:last] = order[first:last][drawn]
    return order


def by_sequence(pieces: Pieces, sequence: Integers) -> tuple[Pieces, Integers, Integers]:
    """(pieces in the order of sequences, the sequence of each, where it starts in it)."""
    order = _order(sequence, int(sequence.max(initial=-1)) + 1)
    pieces, sequence = Pieces(*(column[order] for column in pieces)), sequence[order]
    before = np.cumsum(pieces.length) - pieces.length
    first = np.flatnonzero(np.diff(sequence, prepend=-1))
    counts = np.diff(first, append=len(sequence))
    return pieces, sequence, before - np.repeat(before[first], counts)


@numba.njit(nogil=True, cache=True)
def _order(sequence: Any, count: Any) -> Any:
    """A stable counting sort."""
    at = np.zeros(count + 1, np.int64)
    for s in sequence:
        at[s + 1] += 1
    at = np.cumsum(at)
    order = np.empty(sequence.shape[0], np.int64)
    for i in range(sequence.shape[0]):
        order[at[sequence[i]]] = i
        at[sequence[i]] += 1
    return order


def copied(source: NDArray[Any], at: Integers, target: NDArray[Any], to: Integers, lengths: Integers) -> None:
    """Copy `lengths[i]` tokens from `source[at[i]:]` to `target[to[i]:]`."""
    width = source.dtype.itemsize
    _copy(source.view(np.uint8), at * width, target.view(np.uint8), to * width, lengths * width)


@numba.njit(nogil=True, cache=True)
def _copy(source: Any, at: Any, target: Any, to: Any, lengths: Any) -> None:
    for i in range(lengths.shape[0]):
        target[to[i] : to[i] + lengths[i]] = source[at[i] : at[i] + lengths[i]]


def costs(pieces: Pieces, sequence: Integers, lengths: Integers, most: int, links: NDArray[Any]) -> dict[str, float]:
    """What packing documents of `lengths` into sequences of at most `most` tokens cost, in numbers that add up over
    shards. `links[i]`: similarity of document i to the one before it in the path, NaN where there is none.

    documents, documents_cut (of at most `most` tokens, in more than one sequence), links, similarity (their sum),
    similarity_kept (of those whose two documents share a sequence). Similarities are rounded to 2^-16, so that their
    sums are exact in any order."""
    counts = np.bincount(pieces.document, minlength=len(lengths))
    linked = np.isfinite(links)
    links = np.rint(links.astype(np.float64) * (1 << 16)) / (1 << 16)
    kept = linked & _shared(pieces.document, sequence, len(lengths))
    return {
        "documents": len(lengths),
        "documents_cut": int(((counts > 1) & (lengths <= most)).sum()),
        "links": int(linked.sum()),
        "similarity": float(links[linked].sum()),
        "similarity_kept": float(links[kept].sum()),
    }


@numba.njit(nogil=True, cache=True)
def _shared(document: Any, sequence: Any, documents: Any) -> Any:
    """Whether each document has a piece in a sequence with one of the document before it; pieces by sequence."""
    shared = np.zeros(documents, np.bool_)
    latest = np.full(documents, -1, np.int64)  # the sequence that a document was last seen in
    first = 0
    for i in range(sequence.shape[0]):
        latest[document[i]] = sequence[i]
        if i + 1 == sequence.shape[0] or sequence[i + 1] != sequence[i]:
            for j in range(first, i + 1):
                d = document[j]
                if d and latest[d - 1] == sequence[i]:
                    shared[d] = True
            first = i + 1
    return shared
