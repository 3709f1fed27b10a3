"""Captions verified by CLAP, with a tiny one of random weights, as AudioSetCaps's script does it."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("torch", reason="needs the extra `encoder`: make test-encoders")

from benchmarks.chat_server import chat_server  # noqa: E402
from operators.caption.compose import Compose  # noqa: E402
from operators.caption.writers import TRIES  # noqa: E402
from operators.document import loaded, with_columns  # noqa: E402
from operators.models.answers import InMemory, keep_answers_in  # noqa: E402
from operators.models.chat import Chat  # noqa: E402
from operators.models.clap import RATE, Clap, Comparer  # noqa: E402
from operators.speech import spool  # noqa: E402
from operators.speech.codec import decode_at, encode_flac  # noqa: E402
from tests.encoders.test_clap import folder  # noqa: E402, F401  (a fixture)
from tests.operators.caption.clips import SPEECH, clips  # noqa: E402

WORDS = ("the cat sat", "a dog, ran", "numbers", "dogs", "a cat; ran", "dogs ran", "number dogs, number")
LABELS = ("dogs", "the cat sat", "a dog, ran", "numbers")


def reply(body: dict[str, Any]) -> str:
    """Another caption for each clip and seed."""
    number = int(str(body["messages"][-1]["content"]).partition("number ")[2].partition("}")[0])
    return WORDS[(number + 2 * (body["seed"] % TRIES)) % len(WORDS)]


def published(comparer: Comparer, sound: np.ndarray, caption: str, label: str) -> tuple[float, float]:
    """Similarities of the caption and of the labels, told from the script's description."""
    texts = ["".join(" " if letter in string.punctuation else letter for letter in text) for text in (caption, label)]
    longest = max(len(text) for text in texts)
    texts = [text + text * ((longest - len(text)) // len(text)) for text in texts]
    first, second = (round(float(sound @ vector), 4) for vector in comparer.texts(texts))
    return first, second


def test_the_published_rule(folder: Path) -> None:  # noqa: F811
    keep_answers_in(InMemory())
    random = np.random.default_rng(0)
    sounds = [random.normal(0, 0.1, spool.RATE).astype(np.float32) for _ in range(12)]
    labels = [[LABELS[k % len(LABELS)], f"number {k}"] for k in range(len(sounds))]
    payload = pa.array([encode_flac(sound) for sound in sounds], pa.large_binary())
    docs = with_columns(clips([SPEECH] * len(sounds), labels), {"payload": payload})
    clap = Clap(path=folder)  # type: ignore[arg-type]
    comparer: Comparer = loaded(clap)
    vectors = comparer.audio([decode_at(clip.as_py(), RATE) for clip in payload])
    with chat_server("tests.encoders.test_compose_clap:reply") as server:
        chat = Chat(endpoint=server.url, model="mistral", temperature=0.8)
        rows = Compose(mode="published", writer=chat, verifier=clap)(docs).to_pylist()
    accepted = 0
    for number, (row, sound) in enumerate(zip(rows, vectors, strict=True)):
        tries = [WORDS[(number + 2 * seed) % len(WORDS)] for seed in range(2)]
        scores = [published(comparer, sound, text, ", ".join(labels[number])) for text in tries]
        holds = [caption >= label for caption, label in scores]
        best = holds.index(True) if any(holds) else int(scores[1][0] > scores[0][0])
        assert (row["text"], row["accepted"]) == (tries[best], any(holds))
        assert row["attempts"] == (best + 1 if any(holds) else 2)
        assert (row["caption_score"], row["label_score"]) == pytest.approx(scores[best], abs=1e-6)
        assert (row["written_by"], row["verified_by"], row["drop_reason"]) == ("mistral", "clap", None)
        accepted += row["accepted"]
    assert 0 < accepted < len(rows)


def test_floor_and_grammar(folder: Path) -> None:  # noqa: F811
    payload = pa.array([encode_flac(np.full(spool.RATE, 0.1, np.float32))], pa.large_binary())
    docs = with_columns(clips([SPEECH], [["dogs"]]), {"payload": payload})
    clap = Clap(path=folder)  # type: ignore[arg-type]
    (row,) = Compose(verifier=clap, floor=1.0, attempts=2)(docs).to_pylist()
    assert (row["drop_reason"], row["drop_threshold"]) == ("unverified", 1.0)
    assert row["drop_value"] == pytest.approx(row["caption_score"])
    with pytest.raises(ValueError, match=r"accept: 0\.5 has no meaning with CLAP"):
        Compose(verifier=clap, accept=0.5)
