"""Try several times, and keep the best.

AudioSetCaps's script forgets its best caption at every try, so where none is accepted it keeps the last one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from operators.caption.lint import Rejected

T = TypeVar("T")


class Judged(NamedTuple):
    """What a verifier says: `score` ranks tries, `accepted` ends them. `label_score`: of the label caption, which the
    rule may compare with."""

    score: float
    accepted: bool
    label_score: float | None = None


class Kept(NamedTuple, Generic[T]):
    """Of all tries."""

    best: tuple[T, Judged] | None  # the earliest accepted, else the earliest of those with the highest score
    attempts: int  # tries made
    rejected: Rejected | None  # why the last one that could not be judged could not


def best_of(write: Callable[[int], T | Rejected], judge: Callable[[T], Judged], attempts: int) -> Kept[T]:
    """Call `write` with 0, 1, ... and judge what it gives, until one is accepted or `attempts` were made. What is
    rejected is not judged, and counts as a try; no other follows one that is final."""
    best: tuple[T, Judged] | None = None
    rejected: Rejected | None = None
    for attempt in range(attempts):
        draft = write(attempt)
        if isinstance(draft, Rejected):
            rejected = draft
            if draft.final:
                return Kept(best, attempt + 1, rejected)
            continue
        judged = judge(draft)
        if judged.accepted:
            return Kept((draft, judged), attempt + 1, rejected)
        if best is None or judged.score > best[1].score:
            best = draft, judged
    return Kept(best, attempts, rejected)
