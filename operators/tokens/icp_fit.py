"""Packing that keeps a path of documents and cuts none that fits: next fit along the path, gaps filled best fit.

Cutting a path every `seq_len` tokens, as In-Context Pretraining does (Shi et al. 2024, arXiv 2310.10638), cuts
documents that would fit; best fit (arXiv 2404.10830) cuts none, but puts each with strangers. Here documents stay in
path order, and four things close the gaps where the next one does not fit:

- A document longer than a sequence has to be cut anyway: its first piece fills what is left of the sequence before it.
- Gaps of a quarter of a sequence or more are filled from the next such document of the path, in advance, as long as
  more than a sequence of it is left for its own place.
- Where gaps are more than what may leave the path, documents that do not fit go back to one of the 2, 4, ... 64 latest
  sequences, best fit.
- Short documents that are weakly linked leave the path and fill the other gaps, best-fit decreasing: as many as the
  gaps need, of all lengths.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from operators.tokens.best_fit import doubled, histogram, place, plan
from operators.tokens.pieces import Filled, Integers, Pieces

PART = 4  # of a sequence: fillers are at most, pieces cut in advance at least one in so many
OPEN = (1, 2, 4, 8, 16, 32, 64)  # sequences that documents may go to
LONGER = 2 / 3  # of the tokens of fillers are of the longer half of lengths, and so on: the more, the less is moved,
# but the fewer are left for small gaps


def icp_fit(lengths: Integers, links: NDArray[Any], seq_len: int, share: float) -> Filled:
    """Sequences of `seq_len` of documents of `lengths` in path order. `links[i]`: similarity of document i to the one
    before it, NaN where there is none; `share` of all tokens may leave the path. Fillers come last in a sequence, and
    sequences of fillers alone after all others."""
    most = share * int(lengths.sum())
    leaves = np.zeros(len(lengths), np.bool_)
    for number in OPEN:
        _, room = _along(lengths, leaves, seq_len, number)
        if room.sum() <= most:
            break
    fillers = weakest(lengths, links, seq_len // PART, min(most, float(room.sum())))
    leaves[fillers] = True
    rows, room = _along(lengths, leaves, seq_len, number)
    packed = plan(histogram(lengths[fillers], seq_len), histogram(room, seq_len))
    by_room = np.concatenate([np.argsort(room, kind="stable"), np.arange(len(room), packed.bins)])
    sequence = by_room[place(packed, lengths[fillers])]
    added = np.stack([fillers, np.zeros_like(fillers), lengths[fillers], sequence])
    columns = np.concatenate([rows.T, added], axis=1)
    return Filled(Pieces(*columns[:3]), columns[3], np.full(packed.bins, seq_len))


def weakest(lengths: Integers, links: NDArray[Any], most: int, tokens: float) -> Integers:
    """Documents of 1 to `most` tokens, `tokens` together at most, ascending. Of those longer than half of `most`, two
    thirds of the tokens, then of those longer than a quarter, two thirds of the rest, and so on; within such a class
    those whose better link is the worst."""
    link = np.nan_to_num(links.astype(np.float64), nan=0.0)
    strength = np.rint(np.maximum(link, np.append(link[1:], 0.0)).clip(0, 1) * 65_535).astype(np.uint16)
    found = [np.zeros(0, np.int64)]
    while most:
        alike = np.flatnonzero((lengths > most // 2) & (lengths <= most))
        alike = alike[np.argsort(strength[alike], kind="stable")]  # linear for 16 bits
        ends = np.cumsum(lengths[alike])
        taken = int(np.searchsorted(ends, tokens * LONGER if most > 1 else tokens, side="right"))
        found.append(alike[:taken])
        tokens -= float(ends[taken - 1]) if taken else 0.0
        most //= 2
    return np.sort(np.concatenate(found))


@numba.njit(nogil=True, cache=True)
def _best(room: Any, first: Any, end: Any, length: Any) -> Any:
    """Of the sequences from `first` on, before `end`, the one with the least room for `length`; -1 where none has."""
    best = -1
    for k in range(max(first, 0), end):
        if room[k] >= length and (best < 0 or room[k] < room[best]):
            best = k
    return best


@numba.njit(nogil=True, cache=True)
def _along(lengths: Any, leaves: Any, seq_len: Any, number: Any) -> Any:
    """Next fit of all documents but those that leave, with `number` sequences to choose from: (document, start, length,
    sequence of each piece; room left in each sequence)."""
    likely = lengths.shape[0] + 2 * (lengths.sum() // seq_len) + 1
    rows, room = np.empty((likely, 4), np.int64), np.empty(likely, np.int64)
    begun = np.zeros(lengths.shape[0], np.int64)  # tokens of a document that have a place
    least = max(seq_len // PART, 1)
    count, latest, ahead = 0, -1, 0
    for d in range(lengths.shape[0]):
        while not leaves[d] and begun[d] < lengths[d]:
            rest, left = lengths[d] - begun[d], room[latest] if latest >= 0 else 0
            document, taken, sequence = d, min(rest, left), latest
            if left == 0 or left < rest <= seq_len:
                earlier = _best(room, latest - number + 1, latest, rest)
                if earlier < 0 and left >= least:
                    ahead = max(ahead, d + 1)
                    while ahead < lengths.shape[0] and lengths[ahead] - begun[ahead] <= seq_len + left:
                        ahead += 1
                if earlier >= 0:
                    taken, sequence = rest, earlier
                elif left >= least and ahead < lengths.shape[0]:
                    document, taken = ahead, left
                else:
                    latest += 1
                    room = doubled(room) if latest == room.shape[0] else room
                    room[latest] = seq_len
                    taken, sequence = min(rest, seq_len), latest
            if count == rows.shape[0]:
                rows = doubled(rows)
            rows[count] = document, begun[document], taken, sequence
            count += 1
            begun[document] += taken
            room[sequence] -= taken
    return rows[:count], room[: latest + 1]
