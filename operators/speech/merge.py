"""Utterances out of islands of speech and speakers' turns, and chunks for pretraining out of islands alone
(IndicWav2Vec: Javed et al. 2021, arXiv 2111.03945). All places are in samples; emilia.py has Emilia-Pipe's way.

No speech is lost but what is too short by itself, spoken by several at once, or by nobody known: stretches of one
speaker are joined where less than `max_gap` is between them and nobody else has a turn; what is too long then is cut in
the longest pause of the later half of what may be taken, or of the earlier one, that leaves no part too short, and only
where there is no such pause, where it is quietest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.speech.spool import RATE
from operators.speech.stretches import Stretch, Turn

NOBODY = -1  # speaker of what nobody was named for
OVERLAP, UNKNOWN = -2, -3  # labels of speech that is no one's: of several, of nobody near
LOST = {OVERLAP: "overlap", UNKNOWN: "no_speaker"}
SLIVER = RATE // 100  # what is dropped and shorter than that joins a neighbour
SILENCE = ("no_speech", "music")


class Span(NamedTuple):
    """A part of a recording: an utterance, or what is dropped for `reason`."""

    start: int
    stop: int
    speaker: int = NOBODY
    reason: str = ""


class Limits(NamedTuple):
    """How long utterances are, how far apart what is joined, and how much silence is left at their edges."""

    least: int = 3 * RATE
    most: int = 30 * RATE
    max_gap: int = RATE
    pad: int = RATE // 10


def utterances(
    length: int,
    speech: Sequence[Stretch],
    turns: Sequence[Turn] | None,
    limits: Limits,
    quietest: Callable[[int, int], int],
) -> list[Span]:
    """The recording's utterances and what is dropped of its speech; silence is between them. Without `turns` all speech
    is one unnamed speaker's. `quietest(start, stop)` is a place between the two to cut at."""
    scene = _scene(length, speech, turns, limits.max_gap)
    found: list[Span] = []
    run: list[Turn] = []
    for piece in scene.pieces:
        if run and not (
            piece.speaker == run[-1].speaker
            and piece.start - run[-1].stop < limits.max_gap
            and not scene.interrupted(run[-1].stop, piece.start, piece.speaker)
        ):
            found += _cut(run, limits, quietest)
            run = []
        if piece.speaker in LOST:
            found.append(Span(piece.start, piece.stop, NOBODY, LOST[piece.speaker]))
        else:
            run.append(piece)
    return [*found, *(_cut(run, limits, quietest) if run else ())]


def _cut(run: Sequence[Turn], limits: Limits, quietest: Callable[[int, int], int]) -> Iterator[Span]:
    """A run of one speaker, in parts of at most `most`."""
    least, most = limits.least, limits.most
    start, stop, speaker = run[0].start, run[-1].stop, run[0].speaker
    begin = np.array([piece.stop for piece in run[:-1]], np.int64)
    end = np.array([piece.start for piece in run[1:]], np.int64)
    while stop - start > most:
        within = (begin > start) & (begin <= start + most)
        lossless = within & (begin - start >= least) & (stop - end >= least)  # no part is too short
        for allowed in (lossless & (begin - start >= most // 2), lossless):
            if len(places := np.flatnonzero(allowed)):
                pause = places[np.lexsort((begin[places], (end - begin)[places]))[-1]]  # the longest, of those the last
                here, start_after = int(begin[pause]), int(end[pause])
                break
        else:
            high = min(start + most, stop - least)
            here = start_after = quietest(max(start + least, high - most // 4), high)
        yield _judged(start, here, speaker, least)
        start = start_after
    yield _judged(start, stop, speaker, least)


def _judged(start: int, stop: int, speaker: int, least: int) -> Span:
    return Span(start, stop, speaker, "too_short" if stop - start < least else "")


class _Scene(NamedTuple):
    """Who speaks where: the stretches of speech with their labels, and how many have a turn between two edges, who."""

    pieces: list[Turn]
    edges: NDArray[np.int64]
    turning: NDArray[np.int64]
    who: NDArray[np.int64]  # the last of them

    def interrupted(self, start: int, stop: int, speaker: int) -> bool:
        """Whether anybody else has a turn between two edges."""
        at = slice(*np.searchsorted(self.edges, (start, stop)))
        other = (self.turning[at] > 1) | ((self.turning[at] == 1) & (self.who[at] != speaker))
        return bool(other.any())


def _scene(length: int, speech: Sequence[Stretch], turns: Sequence[Turn] | None, reach: int) -> _Scene:
    islands = np.clip(np.array(speech, np.int64).reshape(-1, 2), 0, length)
    known = np.array(turns or [], np.int64).reshape(-1, 3)
    known[:, :2] = np.clip(known[:, :2], 0, length)
    known = known[known[:, 1] > known[:, 0]]
    edges = np.unique(np.concatenate([islands.ravel(), known[:, :2].ravel()]))
    here = edges[:-1]
    voiced = _inside(islands, here)
    turning, who = np.zeros(len(here), np.int64), np.full(len(here), NOBODY)
    for speaker in np.unique(known[:, 2]):
        open_ = np.zeros(len(edges), np.int64)
        own = known[known[:, 2] == speaker]
        np.add.at(open_, np.searchsorted(edges, own[:, 0]), 1)
        np.add.at(open_, np.searchsorted(edges, own[:, 1]), -1)
        speaks = open_.cumsum()[:-1] > 0
        turning += speaks
        who[speaks] = speaker
    label = np.where(turning > 1, OVERLAP, who)
    if turns is not None:
        for k in np.flatnonzero(voiced & (turning == 0)):
            label[k] = _nearest(known, int(edges[k]), int(edges[k + 1]), reach)
    spoken = [Turn(int(edges[k]), int(edges[k + 1]), int(label[k])) for k in np.flatnonzero(voiced)]
    return _Scene(_joined(spoken), edges, turning, who)


def _inside(stretches: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which places lie in one of the stretches, which ascend and are disjoint."""
    if not len(stretches):
        return np.zeros(len(places), bool)
    at = np.searchsorted(stretches[:, 0], places, "right") - 1
    return np.asarray((at >= 0) & (places < stretches[np.maximum(at, 0), 1]))


def _nearest(turns: NDArray[np.int64], start: int, stop: int, reach: int) -> int:
    """Who has the turn nearest to a stretch without any, where both are short: turns and islands have other edges."""
    distance = np.maximum(start - turns[:, 1], turns[:, 0] - stop)
    if stop - start >= reach or not len(turns) or distance.min() >= reach:
        return UNKNOWN
    return int(turns[distance.argmin(), 2])


def _joined(pieces: Iterable[Turn]) -> list[Turn]:
    """Adjacent pieces of one label as one; an overlap too short to be heard is the speaker's before."""
    found: list[Turn] = []
    for start, stop, label in pieces:
        adjacent = bool(found) and found[-1].stop == start
        if adjacent and (found[-1].speaker == label or (label == OVERLAP and stop - start < SLIVER)):
            found[-1] = found[-1]._replace(stop=stop)
        else:
            found.append(Turn(start, stop, label))
    return found


def whole(length: int, spans: Iterable[Span], music: Sequence[Stretch], pad: int = 0, most: int = 0) -> list[Span]:
    """The spans, in order, and what is between them, as `music` where most of it is, else as `no_speech`: together the
    whole recording. Utterances are widened by `pad` into silence, as long as they are not longer than `most`."""
    found: list[Span] = []
    played = np.array(music, np.int64).reshape(-1, 2)
    reached = 0
    for span in [*sorted(spans), Span(length, length, NOBODY, "end")]:
        span = span._replace(stop=min(span.stop, length))  # resampled places may lie a sample behind the end
        gap = span.start - reached
        if gap > 0:
            left = min(pad, _room(found[-1], most), gap) if found else 0
            right = min(pad, _room(span, most), gap)
            if left + right > gap:
                left = min(left, max(gap - right, gap // 2))
                right = gap - left
            if left:
                found[-1] = found[-1]._replace(stop=reached + left)
            start, stop = reached + left, span.start - right
            if start < stop:
                heard = (np.minimum(played[:, 1], stop) - np.maximum(played[:, 0], start)).clip(0).sum()
                found.append(Span(start, stop, NOBODY, "music" if 2 * heard > stop - start else "no_speech"))
            span = span._replace(start=stop)
        if span.stop > span.start:
            found.append(span)
        reached = max(reached, span.stop)
    return _without_slivers(found, most)


def _room(span: Span, most: int) -> int:
    """How far an utterance may grow at either end."""
    return 0 if span.reason else max(0, most - (span.stop - span.start)) // 2


def _without_slivers(spans: Sequence[Span], most: int) -> list[Span]:
    """The same without silence too short to be told of: a neighbour takes it, the one that is dropped first."""
    found: list[Span] = []
    for n, span in enumerate(spans):
        if found and found[-1].reason == "sliver":
            span = span._replace(start=found.pop().start)
        if span.reason in SILENCE and span.stop - span.start < SLIVER:
            before = found[-1] if found and found[-1].stop == span.start else None
            after = spans[n + 1] if n + 1 < len(spans) and spans[n + 1].start == span.stop else None
            if before and (before.reason or (not (after and after.reason) and span.stop - before.start <= most)):
                found[-1] = before._replace(stop=span.stop)
                continue
            if after and (after.reason or after.stop - span.start <= most):
                span = span._replace(reason="sliver")
        found.append(span)
    return found


def chunks(speech: Sequence[Stretch], size: int, longest: int, least: int) -> Iterator[Span]:
    """Each island by itself, cut into pieces of `size` where its whole seconds are more than `longest`; the last one is
    what is left. No one's."""
    for start, stop in speech:
        step = size if (stop - start) // RATE > longest // RATE else stop - start
        for at in range(start, stop, step):
            yield _judged(at, min(at + step, stop), NOBODY, least)
