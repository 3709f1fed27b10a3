"""Captions written from facts by a grammar of templates: plain English that claims nothing else.

What is said are the facts that have to be (evidence.due) and, in some variants, those that may be (evidence.claimable).
So a caption is consistent with its facts by construction, whatever they are. It has no digits and at most MOST_WORDS.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from operators.caption.evidence import MOST, claimable, due
from operators.caption.facts import MUST, Fact
from operators.caption.vocabulary import SAID

T = TypeVar("T")
MOST_WORDS = 50
SOUNDING = ("sound", "event", "instrument")  # kinds that a sentence can be about
OF_SOUND = ("sound", "event", "pitch")  # kinds that the three answers tell of
OF_SPEECH = ("speech", "gender", "language", "quality")
OF_MUSIC = ("music", "tempo", "genre", "instrument")
NAMES = {"burst": "short sound", "series": "series of short sounds", "hum": "steady hum", "noise": "steady noise"}


class _Picks:
    """Choices that follow from a number, the same on all machines."""

    def __init__(self, variant: int) -> None:
        self._state = variant

    def __call__(self, options: Sequence[T]) -> T:
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        return options[(self._state >> 33) % len(options)]


class _Noun(NamedTuple):
    """What a sentence may be about."""

    text: str
    plural: bool = False

    @property
    def be(self) -> str:
        return "are" if self.plural else "is"

    @property
    def play(self) -> str:
        return "play" if self.plural else "plays"


class _Voice(NamedTuple):
    """Somebody who speaks or sings: "a man speaks in French", "a man speaking in French"."""

    clause: str
    noun: str
    be: str


Said = dict[str, list[str]]  # of each kind, values to say


def write(facts: Iterable[Fact], variant: int) -> str:
    """A caption, the same for the same facts and variant. ValueError: none of the facts may be claimed."""
    pick, facts = _Picks(variant), list(facts)
    must, may = due(facts), claimable(facts)
    if not may:
        raise ValueError("facts: there are none that may be claimed")
    while True:
        also = [fact for fact in may if fact not in must and pick((True, True, False))]
        if not any(fact.kind in SOUNDING for fact in (*must, *also)):
            also = may
        text = _written(must, also, pick)
        if len(text.split()) <= MOST_WORDS:
            return text


def answer(facts: Iterable[Fact]) -> dict[str, str | None]:
    """The three answers to AudioSetCaps's questions: `description`, of what kinds of sounds there are; `speech` and
    `music`; each None where there is nothing of it that may be claimed. They tell all that may be claimed."""
    facts = [fact._replace(score=max(fact.score, MUST)) for fact in claimable(facts)]

    def about(topics: Sequence[str]) -> list[Fact]:
        return [fact for fact in facts if fact.kind in topics or (fact.kind == "sound" and fact.value in topics)]

    speech, music = about(OF_SPEECH), about(OF_MUSIC)
    values = {fact.value for fact in facts if fact.kind == "sound"}
    return {
        "description": write(about(OF_SOUND) or facts, 0) if facts else None,
        "speech": write(speech, 0) if "speech" in values else None,
        "music": write(music, 0) if "music" in values else None,
    }


def listed(words: Sequence[str]) -> str:
    """Words as a list: "a, b and c"."""
    return " and ".join([*([", ".join(words[:-1])] if words[:-1] else []), *words[-1:]])


def names(facts: Iterable[Fact]) -> list[str]:
    """Names of the sounds that may be claimed, as labels are."""
    said = [fact for fact in claimable(facts) if fact.kind in SOUNDING]
    return [NAMES.get(fact.value, fact.value) for fact in said]


def _written(must: Sequence[Fact], also: Sequence[Fact], pick: _Picks) -> str:
    said: Said = {kind: [] for kind, _ in SAID}
    for fact in (*must, *also):
        if len(said[fact.kind]) < MOST.get(fact.kind, 1):
            said[fact.kind].append(fact.value)
    voice = _voice(said, pick) if {"speech", "singing"} & set(said["sound"]) else None
    sounding = _sounding(voice, _music(said, pick), pick)
    clauses = [sounding] if sounding else []
    if events := _events(said, pick):
        if not clauses:
            clauses = [pick((events.text, f"{events.text} {events.be} heard", f"{events.text} can be heard"))]
        elif pick((True, True, False)):
            clauses.append(pick((f"{events.text} {events.be} also heard", f"there {events.be} also {events.text}")))
        else:
            clauses[0] += f", along with {events.text}"
    if "silence" in said["sound"]:
        if clauses:
            clauses[-1] += pick((", with some silence", ", interrupted by silence"))
        else:
            clauses = [pick(("there is only silence", "nothing but silence is heard", "only silence can be heard"))]
    return " ".join(clause[0].upper() + clause[1:] + "." for clause in clauses)


def _voice(said: Said, pick: _Picks) -> _Voice:
    """Who speaks or sings, and how."""
    speech, singing = ("speech" in said["sound"], "singing" in said["sound"])
    form = pick((0, 0, 1, 2))
    genders = sorted(said["gender"], reverse=True)  # "male" first
    if len(genders) == 2:
        who = _Noun(
            ("a man and a woman", "male and female voices", "the voices of a man and a woman")[form], plural=True
        )
    elif genders:
        who = _Noun(SAID["gender", genders[0]][form])
    else:
        who = _Noun(("someone", "a voice", "a person")[form])
    verb = pick(SAID["sound", "speech" if speech else "singing"])
    tongues = [SAID["language", code][0] for code in said["language"]] if speech else []
    how = [f"in {listed(tongues)}"] if tongues else []
    for quality in said["quality"] if speech else ():
        way = pick(SAID["quality", quality])
        how.insert(0 if way.endswith("ly") else len(how), way)
    if speech and singing:
        too, doing_too = [f"and also {'sing' if who.plural else 'sings'}"], ["and also singing"]
    else:
        too, doing_too = [], []
    doing = pick(("speaking", "talking")) if speech else "singing"
    clause = [who.text, _of_several(verb) if who.plural else verb, *how, *too]
    noun = " ".join([who.text, doing, *how, *doing_too])
    return _Voice(" ".join(clause), noun, who.be)


def _of_several(verb: str) -> str:
    """The form of a verb for several: "speak" and "are speaking" of "speaks" and "is speaking"."""
    first, *rest = verb.split()
    return " ".join(["are" if first == "is" else first.removesuffix("s"), *rest])


def _music(said: Said, pick: _Picks) -> _Noun | None:
    """The music, as a noun; instruments alone where nothing says that they make music."""
    instruments = [SAID["instrument", one][0] for one in said["instrument"]]
    if "music" not in said["sound"]:
        plural = len(instruments) > 1 or said["instrument"] in (["drums"], ["strings"])
        return _Noun(listed(instruments), plural) if instruments else None
    kind = [pick(SAID["tempo", tempo]) for tempo in said["tempo"]]
    kind += [listed(said["genre"])] if said["genre"] else []
    bare = listed([name.removeprefix("an ").removeprefix("a ") for name in instruments])
    ways = ("with", "featuring", "that features", *(() if kind else ("played on", "made with")))
    how = [f"{pick(ways)} {bare}"] if bare else []
    if pick((True, True, False)) or not kind:
        return _Noun(" ".join([*kind, "music", *how]))
    piece = " ".join([*kind, pick(("piece", "piece of music", "tune"))])
    return _Noun(" ".join(["an" if piece[0] in "aeiou" else "a", piece, *how]))


def _events(said: Said, pick: _Picks) -> _Noun | None:
    """Sounds that have no name; the first has the pitch."""
    pitch = [f", {SAID['pitch', pitch][0]}" for pitch in said["pitch"]]
    phrases = [pick(SAID["event", event]) for event in said["event"]]
    texts = [phrase.replace("@", "".join(pitch[k : k + 1])) for k, phrase in enumerate(phrases)]
    return _Noun(listed(texts), len(texts) > 1 or texts[0].startswith("several")) if texts else None


def _sounding(voice: _Voice | None, music: _Noun | None, pick: _Picks) -> str | None:
    """Who speaks and what plays, if anything does."""
    if voice is None and music is None:
        return None
    if music is None:
        assert voice is not None
        there = f"there {voice.be} {voice.noun}"
        return pick((voice.clause, voice.clause, voice.clause, there, voice.noun, f"the sound of {voice.noun}"))
    if voice is None:
        return pick(
            (
                f"{music.text} {music.play}",
                f"{music.text} {music.be} playing",
                f"{music.text} {music.be} heard",
                f"{music.text} can be heard",
                f"the sound of {music.text}",
                f"there {music.be} {music.text}",
            )
        )
    return pick(
        (
            f"{voice.clause} while {music.text} {music.play} in the background",
            f"{voice.clause} as {music.text} {music.play}",
            f"{voice.clause}, accompanied by {music.text}",
            f"{voice.clause}, with {music.text} in the background",
            f"{music.text} {music.play} while {voice.clause}",
            f"{music.text} {music.play} in the background as {voice.clause}",
            f"there {voice.be} {voice.noun}, with {music.text} in the background",
            f"the sound of {voice.noun}, accompanied by {music.text}",
        )
    )
