"""What a rewriting must be beside its source: about as long, in the same language, in other words, about the same
thing, and no loop.

Each measure is a small function of two texts' words, which are those of deduplication (operators/dedup/words.py): case,
accents and punctuation do not count, and a letter of a script without spaces is a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

RUN = 5  # words: runs of so many are compared
LONG = 5  # letters: shorter words stand in every text
FEW = 5  # topical words: with fewer, a text is not told from others by them
EVERYWHERE = (  # English words that stand in every text
    "a about above after again against all almost along already also although always am among an and another any "
    "are around as at away be became because become been before behind being below between both but by came can "
    "come could did do does done during each either else enough even ever every few for from get give given go "
    "had has have having he her here him his how however i if in instead into is it its itself just later least "
    "less like made make makes making many may me might more most much must my neither never no nor not now of "
    "often on once one only or other others our out over own per perhaps put quite rather same shall she should "
    "since so some something still such than that the their them themselves then there therefore these they this "
    "those though through thus to together too toward towards under unless until up upon us used uses using "
    "usually very was we were what when where whether which while who whom whose why will with within without "
    "would yet you your"
)
FUNCTION = frozenset(EVERYWHERE.split())
SURE = 0.5  # of a language: what is less probable says nothing
Words = Sequence[str]


class Text(NamedTuple):
    """What is known of a source or of what was made of it."""

    words: Words
    language: str | None
    language_score: float


class Bounds(NamedTuple):
    """Of what is accepted; a value that equals its bound is."""

    min_ratio: float
    max_ratio: float
    max_repeated: float
    max_copied: float
    min_shared: float


class Violation(NamedTuple):
    """Why a rewriting is not taken: the reason, the number that decided and its bound, or what did in words."""

    reason: str
    value: float | None = None
    threshold: float | None = None
    detail: str | None = None


def violation(source: Text, written: Text, bounds: Bounds) -> Violation | None:
    """The first rule that a rewriting breaks; numbers are rounded before they are compared."""
    ratio = round(length_ratio(source.words, written.words), 4)
    if ratio < bounds.min_ratio:
        return Violation("too_short", ratio, bounds.min_ratio)
    if ratio > bounds.max_ratio:
        return Violation("too_long", ratio, bounds.max_ratio)
    if language_changed(source, written):
        return Violation("language_changed", detail=f"{source.language} to {written.language}")
    repeated = round(repeated_share(written.words), 4)
    if repeated > bounds.max_repeated:
        return Violation("repetitive", repeated, bounds.max_repeated)
    copied = round(copied_share(source.words, written.words), 4)
    if copied > bounds.max_copied:
        return Violation("copied", copied, bounds.max_copied)
    shared = round(shared_share(source.words, written.words), 4)
    if shared < bounds.min_shared:
        return Violation("unrelated", shared, bounds.min_shared)
    return None


def length_ratio(source: Words, written: Words) -> float:
    """Words written for each word of a source that has any."""
    return len(written) / len(source)


def language_changed(source: Text, written: Text) -> bool:
    """Whether both are surely of a language, and not of the same one."""
    sure = min(source.language_score, written.language_score) >= SURE
    return sure and source.language != written.language


def repeated_share(written: Words) -> float:
    """Of the runs of five words, those that stood before."""
    found = runs(written)
    return 1 - len(set(found)) / len(found) if found else 0.0


def copied_share(source: Words, written: Words) -> float:
    """Of the runs of five words that were written, those that stand in the source too."""
    found, theirs = runs(written), set(runs(source))
    return sum(run in theirs for run in found) / len(found) if found else 0.0


def shared_share(source: Words, written: Words) -> float:
    """Of what the text with fewer topical words has of them, what the other has too: a paraphrase keeps names and
    what it is about. A source with too few is compared by all its words, numbers among them; a rewriting with too few
    counts as if it had the least that tell a text from others, or as many as its source. 0 where there are none."""
    ours, theirs = topical(source), topical(written)
    if len(ours) < FEW:
        ours, theirs = topical(source, 1), topical(written, 1)
    fewer = min(len(ours), max(len(theirs), FEW))
    return len(ours & theirs) / fewer if fewer else 0.0


def topical(words: Words, long: int = LONG) -> set[tuple[str, ...]]:
    """The different words of so many letters or more that stand not in every text and, in scripts without spaces,
    pairs of letters."""
    pairs = {pair for pair in zip(words, words[1:], strict=False) if all(len(w) == 1 and not w.isascii() for w in pair)}
    return {(word,) for word in words if len(word) >= long and word not in FUNCTION} | pairs


def runs(words: Words) -> list[tuple[str, ...]]:
    """All runs of five words that follow each other; one of all words where there are fewer."""
    return [tuple(words[k : k + RUN]) for k in range(max(1, len(words) - RUN + 1))] if words else []
