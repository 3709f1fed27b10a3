"""What was found in recordings beside what is in them: speech, speakers, language, words, quality.

Times are seconds. All is computed from intervals, not from frames, so hand-made cases come out exactly.

- Speech: recall and precision of the islands found, in seconds of what is said; false alarm over nothing but music.
- Diarisation error rate: (missed + false alarm + confusion) / speech, all in seconds of speaker, within speakers mapped
  so that most agrees. A collar on either side of the start and the end of whatever is said is not scored; nor is
  overlapping speech where `overlap` is false. As pyannote.metrics has it, whose `collar` is both sides together.
- Purity: in each utterance, the part of what is said that the speaker who says most of it says; the mean.
- Coverage: the part of what is said that lies in utterances.
- Language: of the clip that an utterance holds most of.
- Word error rate: edits / words of the reference. Utterances which hold parts of the same clips are scored as one, so
  cuts cost nothing and each word is counted once; those near speakers who overlap are not scored. Words are compared in
  lower case, without punctuation but for the apostrophe, and with е for ё: accents count.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from workflows.speech_sample import Said

COLLAR = 0.25  # seconds on each side
HELD = 0.5  # of a clip: as much as that makes it part of an utterance
TOUCHED = 0.05  # seconds of a clip in an utterance: less is its edge
Interval = tuple[float, float]
Turn = tuple[float, float, str]


class Utterance(NamedTuple):
    """What was found."""

    start: float
    end: float
    language: str = ""
    text: str = ""
    dnsmos: float | None = None


class Truth(NamedTuple):
    """What is in a recording."""

    recording: str
    seconds: float
    said: list[Said]
    music: list[Interval]


def truths(folder: Path) -> dict[str, Truth]:
    """All of a folder, by recording."""
    found = {}
    for path in sorted(folder.rglob("*.json")):
        told = json.loads(path.read_text("utf-8"))
        said = [Said(**clip) for clip in told["said"]]
        music = [(start, end) for start, end in told["music"]]
        found[told["recording"]] = Truth(told["recording"], told["seconds"], said, music)
    return found


@dataclass
class Ratio:
    """A sum over a sum; of nothing, `nan`."""

    part: float = 0.0
    whole: float = 0.0

    def add(self, part: float, whole: float) -> None:
        self.part += part
        self.whole += whole

    @property
    def value(self) -> float:
        return self.part / self.whole if self.whole else float("nan")


@dataclass
class Errors:
    """Seconds of a diarisation."""

    missed: float = 0.0
    false_alarm: float = 0.0
    confused: float = 0.0
    speech: float = 0.0

    def add(self, other: Errors) -> None:
        self.missed += other.missed
        self.false_alarm += other.false_alarm
        self.confused += other.confused
        self.speech += other.speech

    @property
    def rate(self) -> float:
        wrong = self.missed + self.false_alarm + self.confused
        return wrong / self.speech if self.speech else float("nan")


def union(intervals: Iterable[Sequence[Any]]) -> list[Interval]:
    """The same time, as disjoint intervals in order."""
    made: list[Interval] = []
    for start, end in sorted((one[0], one[1]) for one in intervals):
        if made and start <= made[-1][1]:
            made[-1] = (made[-1][0], max(made[-1][1], end))
        elif end > start:
            made.append((start, end))
    return made


def length(intervals: Iterable[Interval]) -> float:
    return sum(end - start for start, end in intervals)


def common(one: Iterable[Sequence[Any]], other: Iterable[Sequence[Any]]) -> float:
    """Seconds that are in both."""
    others = union(other)
    return sum(max(0.0, min(b, d) - max(a, c)) for a, b in union(one) for c, d in others)


def diarisation(
    reference: Sequence[Turn], found: Sequence[Turn], collar: float = COLLAR, overlap: bool = True
) -> Errors:
    """Errors of the turns found."""
    edges = [edge for start, end, _ in reference for edge in (start, end)]
    unscored = union((edge - collar, edge + collar) for edge in edges) if collar else []
    times = sorted({edge for one in (reference, found) for start, end, _ in one for edge in (start, end)})
    times = sorted({*times, *(edge for one in unscored for edge in one)})
    stretches: list[tuple[float, set[str], set[str]]] = []
    for start, end in zip(times, times[1:], strict=False):
        middle = (start + end) / 2
        if any(a < middle < b for a, b in unscored):
            continue
        real, heard = ({who for a, b, who in turns if a < middle < b} for turns in (reference, found))
        if (real or heard) and (overlap or len(real) < 2):
            stretches.append((end - start, real, heard))
    mapped = _mapping(stretches)
    errors = Errors()
    for seconds, real, heard in stretches:
        right = sum(1 for who in heard if mapped.get(who) in real)
        errors.speech += seconds * len(real)
        errors.missed += seconds * max(0, len(real) - len(heard))
        errors.false_alarm += seconds * max(0, len(heard) - len(real))
        errors.confused += seconds * (min(len(real), len(heard)) - right)
    return errors


def _mapping(stretches: Iterable[tuple[float, set[str], set[str]]]) -> dict[str, str]:
    """Speakers found to real ones, one to one, so that most agrees."""
    together: Counter[tuple[str, str]] = Counter()
    for seconds, real, heard in stretches:
        for pair in ((a, b) for a in heard for b in real):
            together[pair] += seconds
    rows, columns = (sorted({pair[side] for pair in together}) for side in (0, 1))
    table = np.array([[together[a, b] for b in columns] for a in rows]).reshape(len(rows), len(columns))
    return {rows[a]: columns[b] for a, b in zip(*linear_sum_assignment(-table), strict=True)}


def purity(said: Iterable[Said], utterance: Utterance) -> float | None:
    """Of one utterance; None where nothing is said in it."""
    by = defaultdict(list)
    for clip in said:
        by[clip.speaker].append(clip)
    shares = [common(clips, [utterance]) for clips in by.values()]
    return max(shares) / sum(shares) if sum(shares) else None


def words(text: str) -> list[str]:
    """As they are compared."""
    return re.sub(r"[^\w\s']", " ", text.lower().replace("’", "'").replace("ё", "е")).split()


def edits(reference: Sequence[str], found: Sequence[str]) -> int:
    """The least number of words put in, left out or replaced."""
    row = list(range(len(found) + 1))
    for number, word in enumerate(reference, 1):
        last, row[0] = row[0], number
        for place, other in enumerate(found, 1):
            last, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, last + (word != other))
    return row[-1]


def groups(said: Sequence[Said], utterances: Sequence[Utterance]) -> list[tuple[list[Said], list[Utterance]]]:
    """Utterances with the clips that are theirs; those that share a clip are together. Groups with a clip which another
    speaker talks into are left out."""
    left = sorted(utterances)
    made = []
    while left:
        held, clips = [left.pop(0)], set[int]()
        while True:
            clips = {n for n, clip in enumerate(said) for one in held if common([clip], [one]) > TOUCHED}
            more = [one for one in left if any(common([said[n]], [one]) > TOUCHED for n in clips)]
            if not more:
                break
            held, left = sorted([*held, *more]), [one for one in left if one not in more]
        mine = [said[n] for n in sorted(clips, key=lambda n: said[n].start)]
        if not any(common([one], [other]) for one in mine for other in said if other is not one):
            made.append(([clip for clip in mine if common([clip], held) >= HELD * (clip.end - clip.start)], held))
    return made


def condition(clips: Sequence[Said]) -> str:
    """What lies under the clips: `clean`, `music 20 dB`, `mixed`."""
    under = {f"{clip.bed} {clip.snr:g} dB" if clip.bed else "clean" for clip in clips}
    return under.pop() if len(under) == 1 else "mixed"


@dataclass
class Score:
    """Sums over recordings."""

    recall: Ratio = field(default_factory=Ratio)
    precision: Ratio = field(default_factory=Ratio)
    music_false_alarm: float = 0.0  # seconds
    errors: Errors = field(default_factory=Errors)
    errors_without_overlap: Errors = field(default_factory=Errors)
    speakers: list[tuple[str, int, int, float]] = field(default_factory=list)  # recording, real, found, its error rate
    coverage: Ratio = field(default_factory=Ratio)
    purity: Ratio = field(default_factory=Ratio)
    language: dict[str, Ratio] = field(default_factory=lambda: defaultdict(Ratio))  # by the real one
    words: dict[tuple[str, str], Ratio] = field(default_factory=lambda: defaultdict(Ratio))  # by language, condition
    dnsmos: dict[str, Ratio] = field(default_factory=lambda: defaultdict(Ratio))  # by condition

    def listened(self, truth: Truth, speech: Sequence[Interval], turns: Sequence[Turn] | None) -> None:
        """Add the speech and the turns found in a recording; None where speakers were not asked for."""
        said = union(truth.said)
        both = common(said, speech)
        self.recall.add(both, length(said))
        self.precision.add(both, length(union(speech)))
        self.music_false_alarm += common(truth.music, speech)
        if turns is None:
            return
        real = [(clip.start, clip.end, clip.speaker) for clip in truth.said]
        self.errors.add(errors := diarisation(real, turns))
        self.errors_without_overlap.add(diarisation(real, turns, overlap=False))
        heard = (len({turn[2] for turn in both}) for both in (real, turns))
        self.speakers.append((truth.recording, *heard, errors.rate))

    def cut(self, truth: Truth, utterances: Sequence[Utterance]) -> None:
        """Add the utterances of a recording, as they were cut."""
        said = union(truth.said)
        self.coverage.add(common(said, utterances), length(said))
        for utterance in utterances:
            if (share := purity(truth.said, utterance)) is not None:
                self.purity.add(share, 1)

    def named(self, truth: Truth, utterances: Sequence[Utterance]) -> None:
        """Add the languages of the utterances of a recording."""
        for utterance in utterances:
            shares = [common([clip], [utterance]) for clip in truth.said]
            if any(shares):
                real = truth.said[int(np.argmax(shares))].language
                self.language[real].add(utterance.language == real, 1)

    def transcribed(self, truth: Truth, utterances: Sequence[Utterance]) -> None:
        """Add the words of the utterances of a recording, and how they sound."""
        for utterance in utterances:
            clips = [clip for clip in truth.said if common([clip], [utterance]) > TOUCHED]
            if utterance.dnsmos is not None and clips:
                self.dnsmos[condition(clips)].add(utterance.dnsmos, 1)
        for clips, held in groups(truth.said, utterances):
            if clips and len(languages := {clip.language for clip in clips}) == 1:
                reference = [word for clip in clips for word in words(clip.text)]
                found = [word for one in held for word in words(one.text)]
                self.words[languages.pop(), condition(clips)].add(edits(reference, found), len(reference))

    def speaker_error(self) -> int:
        """The largest difference of the numbers of speakers."""
        return max((abs(real - found) for _, real, found, _ in self.speakers), default=0)

    def word_error(self, language: str, under: str | None = None) -> float:
        """Of a language, over all conditions or one."""
        total = Ratio()
        for (spoken, found), ratio in self.words.items():
            if spoken == language and under in (None, found):
                total.add(ratio.part, ratio.whole)
        return total.value
