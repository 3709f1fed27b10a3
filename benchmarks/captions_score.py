"""What was found in clips beside what is in them: facts of experts, claims of captions.

A statement (a fact, or what a caption claims) is true of a clip, false, or cannot be told, where the truth says nothing
of it: those are not scored. `hallucinated` are the false ones, of all that could be told. Only facts count that are
sure enough for captions.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.speech_score import Ratio
from operators.caption.evidence import claimable, claims, consistency
from operators.caption.facts import Fact
from workflows.captions_sample import Known


def truths(folder: Path) -> dict[tuple[str, float], Known]:
    """All of a folder, by recording and where the clip starts."""
    found = {}
    for path in sorted(folder.rglob("*.json")):
        told = json.loads(path.read_text("utf-8"))
        for clip in told["clips"]:
            fields = {name: tuple(value) if isinstance(value, list) else value for name, value in clip.items()}
            found[told["recording"], clip["start"]] = Known(**{name: fields[name] for name in Known._fields})
    return found


def holds(kind: str, value: str, known: Known) -> bool | None:
    """Whether a statement is true of a clip; None where that cannot be told."""
    quiet = known.music is False  # there may be a voice in music, and it has a pace
    if (kind, value) == ("sound", "speech"):
        return known.speech
    if (kind, value) == ("sound", "music"):
        return known.music
    if (kind, value) == ("sound", "silence"):
        return True if known.kind == "silence" else None  # there may be pauses
    if kind == "language":
        return value == known.language
    if kind == "gender":
        return value == known.gender if known.speech else False if quiet else None
    if kind == "instrument":
        return None if known.instruments is None else value in known.instruments
    if kind == "quality":
        clean = {"speech": "clean", "speech over noise": "noisy"}.get(known.kind)
        return value == clean if clean else None if known.speech else False
    if (kind, value) == ("sound", "singing") or kind in ("genre", "tempo"):
        return False if quiet else None
    return None


@dataclass
class Score:
    """Sums over clips."""

    clips: int = 0
    speech: Ratio = field(default_factory=Ratio)  # whether there is any
    music: Ratio = field(default_factory=Ratio)
    language: dict[str, Ratio] = field(default_factory=lambda: defaultdict(Ratio))  # right, of all speech in it
    gender: dict[str, Ratio] = field(default_factory=lambda: defaultdict(Ratio))
    instruments: Ratio = field(default_factory=Ratio)  # clips of known instruments of which one was named
    hallucinated: dict[str, Ratio] = field(default_factory=lambda: defaultdict(Ratio))  # facts that are false, by kind
    claimed: Ratio = field(default_factory=Ratio)  # the same of what captions claim
    consistent: Ratio = field(default_factory=Ratio)  # captions that claim nothing but facts, and all that are certain
    agreement: Ratio = field(default_factory=Ratio)  # the score of that

    def heard(self, known: Known, facts: Iterable[Fact]) -> None:
        """Add the facts of a clip."""
        found = {(fact.kind, fact.value) for fact in claimable(facts)}
        self.clips += 1
        self.speech.add((("sound", "speech") in found) == known.speech, 1)
        if known.music is not None:
            self.music.add((("sound", "music") in found) == known.music, 1)
        if known.language is not None:
            self.language[known.language].add(("language", known.language) in found, 1)
        if known.gender is not None:
            self.gender[known.gender].add(("gender", known.gender) in found, 1)
        if known.instruments:
            self.instruments.add(any(("instrument", name) in found for name in known.instruments), 1)
        for kind, value in sorted(found):
            if (true := holds(kind, value, known)) is not None:
                self.hallucinated[kind].add(not true, 1)

    def told(self, known: Known, facts: Sequence[Fact], caption: str) -> None:
        """Add the caption of a clip."""
        for claim in claims(caption):
            if (true := holds(claim.kind, claim.value, known)) is not None:
                self.claimed.add(true != claim.present, 1)
        agreement = consistency(caption, facts).score
        self.agreement.add(agreement, 1)
        self.consistent.add(agreement == 1, 1)


def total(ratios: Iterable[Ratio]) -> Ratio:
    """All of them as one."""
    made = Ratio()
    for ratio in ratios:
        made.add(ratio.part, ratio.whole)
    return made
