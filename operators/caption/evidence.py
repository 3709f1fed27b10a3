"""Whether a caption says what is known of a clip: all it claims has a fact, and nothing that is certain is left out.

A check that needs no model. Facts decide on what experts listen for; what they do not (a dog, a trumpet, a mood, or any
word that is not known to be harmless) has to be granted by whoever knows, such as the ground-truth labels.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from operators.caption.facts import CLAIM, MUST, Fact
from operators.caption.vocabulary import OTHER, PACE, SAID, VOICE, Heard, recognise

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
_OF_TWO = {(OTHER, "several"), (OTHER, "conversation")}  # true of a man and a woman
_MEANT = {  # what may be meant by words, beside themselves
    VOICE: (("sound", "speech"), ("sound", "singing")),
    **dict.fromkeys(_NOISE, _NOISE),
}
_TELLS = {  # of claims of a kind, or of one: what there is as well, if they are true
    "language": (("sound", "speech"),),
    "genre": (("sound", "music"),),
    "instrument": (("sound", "music"),),
    (OTHER, "conversation"): (("sound", "speech"),),
    (OTHER, "address"): (("sound", "speech"),),
    (OTHER, "choir"): (("sound", "singing"),),
}
_SOUNDING = ("sound", "instrument", "genre", "event")  # kinds of what may have a pace
_ANY = (
    r"(?:(?:any|other|human|background|audible|discernible|clear|distinct|additional|accompanying|actual|longer|a|an"
    r"|the|is|are|signs?|of|single|person|individual|can|could|be|being|heard|hears?|ever|actually|really|to) )*"
)
_NOT_BEFORE = re.compile(
    r"(?:\b(?:no|not|never|without|nobody|neither|lacks?|lacking|absence of|free (?:of|from)|devoid of|no one|hardly"
    rf"|barely|scarcely|zero|instead of|rather than|stops?|stopped|ceases?(?: to)?|fails? to)|n't) {_ANY}$"
)
_THERE = (
    "(?:present|heard|audible|detect(?:ed|able)|playing|played|sounding|there|included|discernible|noticeable|used"
    "|perceptible)"
)
_NOT_AFTER = re.compile(
    r"(?: of any (?:kind|sort))? (?:"
    rf"(?:is|are|was|were)(?:n't| not| never| no longer| nowhere| hardly| barely)(?: \w+ly)?(?: to be| being)? {_THERE}"
    r"|(?:is|are|was|were|remains?|seems?)(?: (?:\w+ly|all|now))? (?:absent|missing|lacking|gone|over|silent|inaudible)"
    r"|(?:do|does|did)(?:n't| not) (?:play|sound|occur|appear|exist)|never plays?"
    r"|(?:can't|can ?not|could(?:n't| not)) be heard"
    r"|(?:(?:has|have) )?(?:stops?|stopped|ceases?|ceased)(?=[.,;]| and|$)"
    r")(?!\w)"
)
_OF_SEVERAL = (" are", " were", " do ", " don't", " have")  # how what denies a list of subjects begins
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
    claimed or should be; rounded to four decimals; 0 where nothing that is there is told of."""

    score: float
    unsupported: tuple[Claim, ...]
    missing: tuple[Fact, ...]


def claims(text: str) -> list[Claim]:
    """What the text says, each once, in order."""
    text = _SPACES.sub(" ", text.strip().lower().replace("\u2019", "'"))
    heard = _paced(list(recognise(text)))
    return list(
        dict.fromkeys(
            Claim(*one.what, present=not absent) for one, absent in zip(heard, _absent(text, heard), strict=True)
        )
    )


def _paced(heard: Sequence[Heard]) -> list[Heard]:
    """A pace is a tempo, but for that of speech, which no expert knows: of what is told of before it, or else after."""
    found: list[Heard] = []
    for k, one in enumerate(heard):
        if one.what[0] != PACE:
            found.append(one)
            continue
        nearest = (other.what for other in (*reversed(heard[:k]), *heard[k:]) if other.what[0] in _SOUNDING)
        if next(nearest, None) not in (("sound", "speech"), VOICE):
            found.append(one._replace(what=("tempo", one.what[1])))
    return found


def _absent(text: str, heard: Sequence[Heard]) -> list[bool]:
    """Which of them the text denies: "no speech", and the others of a list that ends in "or music"."""
    after = [_NOT_AFTER.match(text, one.end) for one in heard]
    absent = [
        bool(_NOT_BEFORE.search(text[max(0, one.start - 60) : one.start]) or late)
        for one, late in zip(heard, after, strict=True)
    ]
    links = [_AND_SO_ON.fullmatch(text, one.end, other.start) for one, other in zip(heard, heard[1:], strict=False)]
    for first, denied in enumerate(absent):
        last = first
        while denied and last < len(links) and links[last]:
            last += 1
        if any(link and link[1] in ("or", "nor") for link in links[first:last]):
            absent[first : last + 1] = [True] * (last + 1 - first)
    for last, late in enumerate(after):
        first = last
        while late and late[0].startswith(_OF_SEVERAL) and first and links[first - 1]:
            first -= 1
            absent[first] = True
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
    for claim in granted:
        if claim.present:
            known |= {(claim.kind, claim.value), *_told_by(claim)}
    if known >= {("gender", "male"), ("gender", "female")}:
        known |= _OF_TWO
    denied = {(claim.kind, claim.value) for claim in granted if not claim.present}
    unsupported: list[Claim] = []
    told: set[tuple[str, str]] = set()
    right, says = 0, False
    for claim in claims(text):
        what = claim.kind, claim.value
        meant = {what, *_MEANT.get(what, ())}
        if claim.present == bool(meant & known) or (not claim.present and meant & denied):
            right += claim.present or claim.kind != OTHER  # of which nobody knows that there is none
            if claim.present:
                says = True
                told |= {what, *_told_by(claim)}
                if len(meant & known) == 1:
                    told |= meant
                if claim.kind == OTHER:  # a name for a sound, which then needs no description
                    told |= {fact[:2] for fact in facts if fact.kind in ("event", "pitch")}
        else:
            unsupported.append(claim)
    missing = tuple(fact for fact in due(facts) if (fact.kind, fact.value) not in told)
    wrong = len(unsupported) + len(missing)
    return Verdict(round(right / (right + wrong), 4) if says else 0.0, tuple(unsupported), missing)


def _told_by(claim: Claim) -> tuple[tuple[str, str], ...]:
    return _TELLS.get((claim.kind, claim.value), _TELLS.get(claim.kind, ()))
