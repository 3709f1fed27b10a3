"""Whether a caption says what is known of a clip: all it claims has a fact, and nothing that is certain is left out.

A check that needs no model. Facts decide on what experts listen for; what they do not (a dog, a trumpet, a mood) has to
be granted by whoever knows, such as the ground-truth labels.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from operators.caption.facts import CLAIM, MUST, Fact
from operators.caption.vocabulary import OTHER, SAID, VOICE, Heard, recognise

MOST = {"gender": 2, "language": 2, "event": 2, "genre": 2, "instrument": 3, "sound": 4}  # said of a kind, else one
ABOUT = {  # kinds of facts that say nothing without one of these
    "language": (("sound", "speech"),),
    "quality": (("sound", "speech"),),
    "gender": (("sound", "speech"), ("sound", "singing")),
    "genre": (("sound", "music"),),
    "tempo": (("sound", "music"),),
    "pitch": (("event", "burst"), ("event", "series"), ("event", "hum"), ("event", "noise")),
}
_NOISE = (("event", "noise"), ("quality", "noisy"))
_MEANT = {  # what may be meant by words for something else
    VOICE: (("sound", "speech"), ("sound", "singing")),
    **dict.fromkeys(_NOISE, _NOISE),
}
_TELLS = {  # of claims of a kind: what there is as well, if they are true
    "language": (("sound", "speech"),),
    "genre": (("sound", "music"),),
    "instrument": (("sound", "music"),),
}
_ANY = (
    r"(?:(?:any|other|human|background|audible|discernible|clear|distinct|additional|accompanying|a|an|the|is|are|signs?"
    r"|of) )*"
)
_NOT_BEFORE = re.compile(
    r"(?:\b(?:no|not|never|without|nobody|neither|lacks?|lacking|absence of|free (?:of|from)|devoid of|no one)"
    rf"|n't) {_ANY}$"
)
_NOT_AFTER = re.compile(
    r" (?:(?:is|are|was|were) (?:absent|missing|not (?:present|heard|audible|detected))|can(?:not|'t) be heard)\b"
)
_AND_SO_ON = re.compile(rf",? (and|or|nor) {_ANY}$|, {_ANY}$")
_SPACES = re.compile(r"\s+")


class Claim(NamedTuple):
    """What a text says that there is; or, not `present`, that there is not."""

    kind: str
    value: str
    present: bool = True

    def __str__(self) -> str:
        return ("" if self.present else "no ") + self.value


class Verdict(NamedTuple):
    """`score`: 1 where all is supported and nothing is missing, else the share of what is neither, of all that is
    claimed or should be; rounded to four decimals."""

    score: float
    unsupported: tuple[Claim, ...]
    missing: tuple[Fact, ...]


def claims(text: str) -> list[Claim]:
    """What the text says, each once, in order."""
    text = _SPACES.sub(" ", text.strip().lower().replace("\u2019", "'"))
    heard = list(recognise(text))
    return list(
        dict.fromkeys(
            Claim(*one.what, present=not absent) for one, absent in zip(heard, _absent(text, heard), strict=True)
        )
    )


def _absent(text: str, heard: Sequence[Heard]) -> list[bool]:
    """Which of them the text denies: "no speech", and the others of a list that ends in "or music"."""
    absent = [
        bool(_NOT_BEFORE.search(text[max(0, one.start - 60) : one.start]) or _NOT_AFTER.match(text, one.end))
        for one in heard
    ]
    links = [_AND_SO_ON.fullmatch(text, one.end, other.start) for one, other in zip(heard, heard[1:], strict=False)]
    for first, denied in enumerate(absent):
        last = first
        while denied and last < len(links) and links[last]:
            last += 1
        if any(link and link[1] in ("or", "nor") for link in links[first:last]):
            absent[first : last + 1] = [True] * (last + 1 - first)
    return absent


def claimable(facts: Iterable[Fact]) -> list[Fact]:
    """Facts that may be said, each once, the surest of a kind first: sure enough, in the vocabulary, and about
    something that may be said itself."""
    surest: dict[tuple[str, str], Fact] = {}
    for fact in sorted(facts, key=lambda fact: (-fact.score, fact.kind, fact.value)):
        if fact.score >= CLAIM and (fact.kind, fact.value) in SAID:
            surest.setdefault((fact.kind, fact.value), fact)
    return [fact for fact in surest.values() if fact.kind not in ABOUT or surest.keys() & set(ABOUT[fact.kind])]


def due(facts: Iterable[Fact]) -> list[Fact]:
    """Facts that have to be said: those that are certain, but no more of a kind than a sentence has room for, and what
    they are about."""
    said: list[Fact] = []
    may = claimable(facts)
    for fact in may:
        if fact.score >= MUST and sum(other.kind == fact.kind for other in said) < MOST.get(fact.kind, 1):
            said.append(fact)
    for kind in {fact.kind for fact in said} & ABOUT.keys():
        about = [fact for fact in may if (fact.kind, fact.value) in ABOUT[kind]]
        if not set(about) & set(said):
            said.append(about[0])
    return said


def consistency(text: str, facts: Iterable[Fact], granted: Collection[Claim] = ()) -> Verdict:
    """Compare what `text` claims with `facts`. `granted`: claims that are true whatever the facts say."""
    facts = list(facts)
    known = {(fact.kind, fact.value) for fact in claimable(facts)}
    known |= {(claim.kind, claim.value) for claim in granted if claim.present}
    denied = {(claim.kind, claim.value) for claim in granted if not claim.present}
    unsupported: list[Claim] = []
    told: set[tuple[str, str]] = set()
    right = 0
    for claim in claims(text):
        meant = set(_MEANT.get((claim.kind, claim.value), ((claim.kind, claim.value),)))
        if claim.present == bool(meant & known) or (not claim.present and meant & denied):
            right += 1
            if claim.present:
                told |= meant | set(_TELLS.get(claim.kind, ()))
                if claim.kind == OTHER:  # a name for a sound, which then needs no description
                    told |= {fact[:2] for fact in facts if fact.kind in ("event", "pitch")}
        else:
            unsupported.append(claim)
    missing = tuple(fact for fact in due(facts) if (fact.kind, fact.value) not in told)
    wrong = len(unsupported) + len(missing)
    return Verdict(round(right / (right + wrong), 4) if wrong else 1.0, tuple(unsupported), missing)
