"""What a music tagger's tags say of a clip, in the vocabulary of facts.

A tag's probability is no measure of how sure one may be: taggers learn tags that listeners left out as often as not.
So each tag that has a word in the vocabulary has two thresholds, set on music, single instruments, speech and noise:
from the first on the fact may be claimed (score facts.CLAIM), from the second on it has to be told (facts.MUST).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from operators.caption.events import between
from operators.caption.facts import Fact

LEAST = 0.25  # score: what is less likely is no fact


class Tag(NamedTuple):
    """A tag of Musicnn, the fact that it stands for, and the probabilities from which that may, and has to be told."""

    tag: str
    kind: str
    value: str
    claim: float
    must: float


TAGS = (
    Tag("mtt/guitar", "instrument", "guitar", 0.38, 0.7),
    Tag("mtt/piano", "instrument", "piano", 0.3, 0.6),
    Tag("mtt/drums", "instrument", "drums", 0.45, 0.65),
    Tag("mtt/strings", "instrument", "strings", 0.32, 0.5),
    Tag("mtt/violin", "instrument", "strings", 0.6, 0.85),  # also said of cellos, and of some brass
    Tag("mtt/cello", "instrument", "cello", 0.6, 0.8),
    Tag("mtt/flute", "instrument", "flute", 0.35, 0.7),
    Tag("mtt/harp", "instrument", "harp", 0.2, 0.45),
    Tag("mtt/harpsichord", "instrument", "harpsichord", 0.5, 0.8),
    Tag("mtt/sitar", "instrument", "sitar", 0.7, 0.9),  # also said of banjos
    Tag("mtt/synth", "instrument", "synthesizer", 0.28, 0.5),
    Tag("mtt/ambient", "genre", "ambient", 0.35, 0.6),
    Tag("msd/ambient", "genre", "ambient", 0.45, 0.7),
    Tag("msd/blues", "genre", "blues", 0.35, 0.55),
    Tag("mtt/classical", "genre", "classical", 0.4, 0.6),
    Tag("mtt/country", "genre", "country", 0.3, 0.5),
    Tag("msd/country", "genre", "country", 0.3, 0.5),
    Tag("mtt/electronic", "genre", "electronic", 0.35, 0.55),
    Tag("msd/electronic", "genre", "electronic", 0.5, 0.7),
    Tag("mtt/techno", "genre", "electronic", 0.35, 0.6),
    Tag("msd/folk", "genre", "folk", 0.38, 0.58),
    Tag("msd/Hip-Hop", "genre", "hip hop", 0.78, 0.9),  # also said of speech
    Tag("msd/jazz", "genre", "jazz", 0.5, 0.75),
    Tag("mtt/metal", "genre", "metal", 0.3, 0.5),
    Tag("msd/metal", "genre", "metal", 0.35, 0.55),
    Tag("msd/pop", "genre", "pop", 0.4, 0.6),
    Tag("mtt/rock", "genre", "rock", 0.35, 0.6),
    Tag("msd/rock", "genre", "rock", 0.35, 0.6),
    Tag("mtt/slow", "tempo", "slow", 0.42, 0.65),  # hardly follows beats a minute
    Tag("mtt/fast", "tempo", "fast", 0.35, 0.6),
)


def music_facts(tags: Mapping[str, float]) -> list[Fact]:
    """Facts of the clip that the probabilities are of, those of LEAST and more, each once: of several tags that stand
    for one fact the surest counts. They are about music: whoever asks knows that there is some."""
    scores: dict[tuple[str, str], float] = {}
    for one in TAGS:
        score = between(tags[one.tag], (0, one.claim, one.must, 1))
        fact = one.kind, one.value
        scores[fact] = max(score, scores.get(fact, 0))
    return [Fact(kind, value, score) for (kind, value), score in scores.items() if score >= LEAST]
