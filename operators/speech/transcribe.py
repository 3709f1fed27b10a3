"""Text and language of utterances, by Whisper (Radford et al. 2022, arXiv:2212.04356); see models/whisper.py.

As in Emilia-Pipe (He et al. 2024, arXiv:2407.05361), an utterance whose language is not certain is dropped. What the
model is likely to have invented is dropped as well, by the bounds that its authors set for decoding again (4.5): text
that repeats itself, text that the model itself holds for unlikely, and unlikely text of what may be no speech.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from operators.document import Operator, drop, loaded, parameters, with_columns
from operators.models import weights
from operators.models.whisper import (
    HALVES,
    RATE,
    UNSPACED,
    WINDOW,
    Compute,
    Heard,
    Hearing,
    Recogniser,
    Samples,
    Whisper,
)
from operators.models.whisper_folder import ModelFolder
from operators.speech import spool
from operators.speech.codec import decode_at

WORDS = pa.list_(pa.struct([("word", pa.string()), ("start", pa.float64()), ("end", pa.float64())]))
EMILIA_LANGUAGES = ("zh", "en", "fr", "ja", "ko", "de")
EMILIA_BEAM = 5
EMILIA_PROMPT = (  # so that hesitation is written down
    "Um, Uh, Ah. Like, you know. I mean, right. Actually. Basically, and right? okay. Alright. Emm. So. Oh. "
    "生于忧患,死于安乐。岂不快哉?当然,嗯,呃,就,这样,那个,哪个,啊,呀,哎呀,哎哟,唉哇,啧,唷,哟,噫!微斯人,吾谁与归?"  # noqa: RUF001
    "ええと、あの、ま、そう、ええ。äh, hm, so, tja, halt, eigentlich. euh, quoi, bah, ben, tu vois, tu sais, t'sais, "
    "eh bien, du coup. genre, comme, style. 응,어,그,음."
)
REPETITION, LOG_PROBABILITY, NO_SPEECH = 2.4, -1.0, 0.6


class Reason(NamedTuple):
    """Why an utterance is dropped."""

    reason: str
    value: float
    threshold: float
    detail: str | None = None


@parameters
class Transcribe(Operator):
    """Adds `language`, `language_score`, `text`, `utterance_key` (who says what) and, if asked, `words` with their
    times in seconds of the utterance. Drops as `language` what is in none of `languages` (none: in any) with a
    probability above `min_language_score`; as `no_text` what has no letter or digit, or is improbable and perhaps no
    speech; as `hallucination` what repeats itself or is improbable.

    Mode `emilia` is Emilia-Pipe's: six languages unless others are named, beams, a prompt that keeps hesitation,
    windows of 30 s, and no other bound than that of the language. `model`: a folder with any model of faster-whisper
    (none: the multilingual base). `compute` float16, bfloat16 and int8_float16 need a GPU, on which `batch` utterances
    are heard at once."""

    name: ClassVar[str] = "transcribe"
    mode: Literal["default", "emilia"] = "default"
    languages: Annotated[tuple[str, ...], Field(min_length=1)] | None = None  # codes, such as en
    min_language_score: Annotated[float, Field(ge=0, lt=1)] = 0.8
    words: bool = False
    max_repetition: Annotated[float, Field(gt=1)] | None = None  # characters to a byte of the compressed text: 2.4
    min_log_probability: Annotated[float, Field(le=0)] | None = None  # of a token, on average: -1
    max_no_speech: Annotated[float, Field(ge=0, le=1)] | None = None  # probability: 0.6
    model: ModelFolder | None = None
    compute: Compute = "int8"
    batch: Annotated[int, Field(ge=1, le=256)] = 16
    revision: Literal[1] = 1

    @model_validator(mode="after")
    def _fields_fit_together(self) -> Self:
        for name in ("max_repetition", "min_log_probability", "max_no_speech"):
            if self.mode == "emilia" and (value := getattr(self, name)) is not None:
                raise ValueError(f"{name}: {value:g} has no meaning in mode emilia")
        weights.needs("faster_whisper", "ctranslate2", "soundfile", "soxr")
        known = self._whisper.languages
        for code in self.languages or ():
            if code not in known:
                raise ValueError(f"languages: the model knows no language {code!r}; it knows {' '.join(sorted(known))}")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        return ("payload", "samples", "speaker")

    @property
    def adds(self) -> tuple[str, ...]:
        return ("language", "language_score", "utterance_key", *(("words",) if self.words else ()))

    @property
    def gpu(self) -> bool:
        """Whether a worker with a GPU does this faster: the base model has no need of one, unless it is asked to."""
        return self.model is not None or self.compute in HALVES

    @property
    def measures(self) -> tuple[str, ...]:
        return ("language_score",)

    @property
    def cuts(self) -> Mapping[str, tuple[float, ...]]:
        return {"language_score": (self.min_language_score,)}

    def counted(self, marked: pa.Table) -> Mapping[str, int]:
        """Milliseconds that were listened to, and that there is text of."""
        heard, told = (pc.sum(marked["samples"].filter(pc.is_valid(marked[name]))) for name in ("language", "text"))
        return {
            name: (total.as_py() or 0) * 1000 // spool.RATE for name, total in (("heard_ms", heard), ("text_ms", told))
        }

    def __call__(self, docs: pa.Table) -> pa.Table:
        recogniser: Recogniser = loaded(self._whisper)
        hearing = self._hearing()
        payload = docs["payload"]
        found: list[Heard | None] = [None] * docs.num_rows
        rows = [row for row in np.argsort(docs["samples"].to_numpy(), kind="stable") if payload[row].is_valid]
        for start in range(0, len(rows), recogniser.batch):  # no more samples in memory than are heard at once
            batch = rows[start : start + recogniser.batch]
            windows = [_windows(decode_at(payload[row].as_py(), RATE)) for row in batch]
            heard = iter(recogniser.hear([clip for clips in windows for clip in clips], hearing))
            for row, clips in zip(batch, windows, strict=True):
                found[row] = _joined([next(heard) for _ in clips], clips)
        return self._marked(docs, found)

    @property
    def _whisper(self) -> Whisper:
        return Whisper(self.model, self.compute, self.batch)

    def _wanted(self, language: str, score: float) -> bool:
        languages = self.languages or (EMILIA_LANGUAGES if self.mode == "emilia" else None)
        return score > self.min_language_score and (languages is None or language in languages)

    def _hearing(self) -> Hearing:
        if self.mode == "emilia":
            return Hearing(self._wanted, lambda _: False, EMILIA_BEAM, EMILIA_PROMPT, self.words, short_windows=False)
        return Hearing(self._wanted, lambda heard: self._invented(heard) is not None, words=self.words)

    def _invented(self, heard: Heard) -> Reason | None:
        most = REPETITION if self.max_repetition is None else self.max_repetition
        least = LOG_PROBABILITY if self.min_log_probability is None else self.min_log_probability
        if heard.repetition > most:
            return Reason("hallucination", heard.repetition, most, "repetition")
        if heard.log_probability < least:
            return Reason("hallucination", heard.log_probability, least, "improbable")
        return None

    def _reason(self, heard: Heard | None) -> Reason | None:
        """Why an utterance is dropped, if it is."""
        most = NO_SPEECH if self.max_no_speech is None else self.max_no_speech
        if heard is None:  # no audio
            return Reason("no_text", 1.0, most)
        if heard.text is None:
            return Reason("language", heard.language_score, self.min_language_score, heard.language)
        if self.mode == "emilia":
            return None
        invented = self._invented(heard)
        silent = heard.no_speech > most and invented is not None and invented.detail == "improbable"
        if silent or not any(map(str.isalnum, heard.text)):
            return Reason("no_text", heard.no_speech, most)
        return invented

    def _marked(self, docs: pa.Table, found: Sequence[Heard | None]) -> pa.Table:
        text = pa.array([one and one.text for one in found], pa.large_string())
        who = docs["speaker"].cast(pa.large_string())
        if who.null_count:
            who = pc.coalesce(who, pc.replace_substring_regex(docs["id"], r"/[^/]*$", "").cast(pa.large_string()))
        columns = {
            "language": pa.array([one and one.language for one in found], pa.string()),
            "language_score": pa.array([one and one.language_score for one in found], pa.float32()),
            "text": text,
            "utterance_key": pc.binary_join_element_wise(who, text, pa.scalar(": ", pa.large_string())).cast(
                pa.string()
            ),
        }
        if self.words:
            words = [one and one.words and [word._asdict() for word in one.words] for one in found]
            columns["words"] = pa.array(words, WORDS)
        reasons = [self._reason(one) for one in found]
        return drop(
            with_columns(docs, columns),
            [one and one.reason for one in reasons],
            np.array([np.nan if one is None else one.value for one in reasons]),
            np.array([np.nan if one is None else one.threshold for one in reasons]),
            [one and one.detail for one in reasons],
        )


def _windows(samples: Samples) -> list[Samples]:
    """An utterance as parts of the same length that can be heard at once."""
    return np.array_split(samples, max(1, -(-len(samples) // WINDOW)))


def _joined(heard: Sequence[Heard], clips: Sequence[Samples]) -> Heard:
    """What was heard in consecutive parts as one; its numbers are the least certain ones, but `no_speech`, which all
    parts have to be. Parts of several languages make an utterance of none for certain."""
    least = min(heard, key=lambda part: (part.text is not None, part.language_score))
    if len(heard) == 1 or least.text is None:
        return least
    if len({part.language for part in heard}) > 1:
        return least._replace(language_score=0.0, text=None, words=None)
    texts = [part.text for part in heard if part.text]
    starts = np.cumsum([0, *map(len, clips[:-1])]) / RATE
    moved = [
        word._replace(start=round(word.start + start, 3), end=round(word.end + start, 3))
        for part, start in zip(heard, starts.tolist(), strict=True)
        for word in part.words or ()
    ]
    return least._replace(
        text=("" if least.language in UNSPACED else " ").join(texts),
        words=None if least.words is None else tuple(moved),
        log_probability=min(part.log_probability for part in heard),
        repetition=max(part.repetition for part in heard),
        no_speech=min(part.no_speech for part in heard),
    )
