"""Whether a caption fits its clip: by the facts, or by CLAP's similarity to the sound."""

from __future__ import annotations

import string
import threading
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Discriminator, Tag

from operators.caption.best import Judged
from operators.caption.evidence import claims, consistency
from operators.caption.facts import KINDS
from operators.caption.grammar import listed, names
from operators.caption.prompts import Clip, label_text
from operators.models.clap import RATE, Clap, Comparer
from operators.speech.codec import decode_at

BATCH = 16  # clips in memory as samples
_NO_PUNCTUATION = str.maketrans(string.punctuation, " " * len(string.punctuation))


class Verifier(Protocol):
    """Judges captions."""

    @property
    def name(self) -> str:
        """What `verified_by` says."""

    def judge(self, clip: Clip, text: str) -> Judged:
        """How well the text fits the clip."""


class Evidence:
    """See evidence.py. Labels are true; a listener's answers are, of what no expert listens for."""

    name: ClassVar[str] = "evidence"

    def __init__(self, accept: float) -> None:
        self._accept = accept

    def judge(self, clip: Clip, text: str) -> Judged:
        granted = claims(". ".join(clip.labels))
        heard = claims(". ".join(filter(None, clip.answers.values())))
        granted += [claim for claim in heard if claim.kind not in KINDS]
        score = consistency(text, clip.facts, granted).score
        return Judged(score, score >= self._accept)


class TextComparer(Protocol):
    """What is needed of models.clap.Comparer."""

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors."""


class Similarity:
    """CLAP (Wu et al. 2023, arXiv:2211.06687), by AudioSetCaps's rule: a caption is accepted if it is as similar to the
    sound as the labels are. `published`: of texts prepared as its script does."""

    name: ClassVar[str] = "clap"

    def __init__(self, comparer: TextComparer, published: bool) -> None:
        self._comparer, self._published, self._one = comparer, published, threading.Lock()

    def judge(self, clip: Clip, text: str) -> Judged:
        label = label_text(clip) if self._published else label_caption(clip)
        texts = [text, *([label] if label else [])]
        with self._one:
            vectors = self._comparer.texts(prepared(texts) if self._published else texts)
        scores = [round(float(score), 4) for score in np.asarray(vectors) @ clip.sound]
        return Judged(scores[0], label != "" and scores[0] >= scores[1], scores[1] if label else None)


def _backend(value: Any) -> str | None:
    """Which of the verifiers a recipe means."""
    if value == "evidence":
        return "evidence"
    return "class Clap" if isinstance(value, Clap) or (isinstance(value, dict) and "path" in value) else None


VerifierModel = Annotated[
    Annotated[Literal["evidence"], Tag("evidence")] | Annotated[Clap, Tag("class Clap")],
    Discriminator(
        _backend, custom_error_type="verifier", custom_error_message="must be evidence or {path: FOLDER of CLAP}"
    ),
]
"""Field type for who verifies."""


def heard(clips: Sequence[Clip], payload: pa.ChunkedArray, comparer: Comparer) -> list[Clip]:
    """The clips with the vectors of their sounds."""
    found: list[Clip] = []
    for start in range(0, len(clips), BATCH):
        own = clips[start : start + BATCH]
        sounds = [decode_at(payload[start + k].as_py(), RATE) for k in range(len(own))]
        vectors = comparer.audio(sounds)
        found += [clip._replace(sound=vector) for clip, vector in zip(own, vectors, strict=True)]
    return found


def label_caption(clip: Clip) -> str:
    """The labels as a caption, for a model that was trained on captions; empty where nothing is known."""
    sounds = [label.lower() for label in clip.labels] or names(clip.facts)
    return f"The sound of {listed(sounds)}." if sounds else ""


def prepared(texts: list[str]) -> list[str]:
    """Texts as AudioSetCaps's script compares them: with spaces for punctuation, each repeated as often as it goes into
    the longest one's characters, so that the longer one has no advantage."""
    plain = [text.translate(_NO_PUNCTUATION) for text in texts]
    longest = max(map(len, plain))
    return [text * (longest // max(1, len(text))) for text in plain]
