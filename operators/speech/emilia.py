"""How Emilia-Pipe makes utterances of turns (He et al. 2024, arXiv 2407.05361; the rules are those of its published
code, which the paper leaves open). All places are in samples.

Of turns in order of time, one that ends no later than an earlier one is left out, whoever speaks. Turns of more than
20 s go through voice activity detection, and are halved in the largest gap until none is 20 s long. What is 30 s long
is cut after each 30 s; a part shorter than 3 s is joined to the one before where that is the same speaker's, less than
2 s away, and both together are shorter than 30 s; what is still shorter than 3 s is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from operators.speech.merge import Span
from operators.speech.spool import RATE
from operators.speech.stretches import Stretch, Turn

UNTOUCHED = 20 * RATE  # longest turn that is taken as it is
LEAST, MOST, MERGE_GAP = 3 * RATE, 30 * RATE, 2 * RATE


def emilia(turns: Sequence[Turn], voiced: Callable[[int, int], Sequence[Stretch]]) -> list[Span]:
    """Utterances and what is dropped as `nested` or `too_short`; utterances may overlap. `voiced(start, stop)` are the
    islands of speech in a stretch."""
    taken, nested = unnested(turns)
    parts = [part for turn in taken for part in split_long(turn, voiced)]
    cut = [Span(*turn, "" if turn.stop - turn.start >= LEAST else "too_short") for turn in cut_by_speaker(parts)]
    return [*cut, *(Span(*turn, "nested") for turn in nested)]


def unnested(turns: Iterable[Turn]) -> tuple[list[Turn], list[Turn]]:
    """The turns that are taken, and those that end no later than one before them."""
    taken: list[Turn] = []
    nested: list[Turn] = []
    for turn in turns:
        inside = turn.stop <= (taken[-1].stop if taken else 0)
        (nested if inside else taken).append(turn)
    return taken, nested


def split_long(turn: Turn, voiced: Callable[[int, int], Sequence[Stretch]]) -> Iterator[Turn]:
    """The turn, or where it is long its parts: islands joined across all but the largest gaps between them."""
    if turn.stop - turn.start <= UNTOUCHED:
        yield turn
        return
    islands = voiced(turn.start, turn.stop)
    left = [(0, len(islands) - 1)] if islands else []
    while left:
        first, last = left.pop()
        if first == last or islands[last][1] - islands[first][0] < UNTOUCHED:
            yield Turn(islands[first][0], islands[last][1], turn.speaker)
            continue
        at = max(range(first, last), key=lambda n: islands[n + 1][0] - islands[n][1])  # of equal gaps the first
        left += [(at + 1, last), (first, at)]


def cut_by_speaker(parts: Iterable[Turn]) -> list[Turn]:
    """The parts, long ones cut and short ones joined; those that stayed too short are among them."""
    found: list[Turn] = []
    for start, stop, speaker in parts:
        if stop - start >= MOST:
            # the remainder counts as the part before even where nothing is left of it
            found += [Turn(at, min(at + MOST, stop), speaker) for at in range(start, stop + 1, MOST)]
            continue
        last = found[-1] if found else None
        if (
            last is None
            or last.speaker != speaker
            or stop - start >= LEAST
            or start - last.stop >= MERGE_GAP
            or stop - last.start >= MOST
        ):
            found.append(Turn(start, stop, speaker))
        else:
            found[-1] = last._replace(stop=stop)
    return found
