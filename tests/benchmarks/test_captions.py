"""The peer asks what the operators ask."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.captions import ANSWERS, CAPTION, SERVER, asking, published
from benchmarks.chat_server import chat_server
from operators.caption.chain import QUESTIONS
from operators.caption.facts import FACTS
from operators.models.answers import InMemory, keep_answers_in
from operators.models.chat import Chat

pytest.importorskip("soundfile")
from operators.speech.codec import encode_flac  # noqa: E402


def test_both_ask_four_questions_a_clip() -> None:
    keep_answers_in(InMemory())
    payload = encode_flac(np.random.default_rng(0).normal(0, 0.1, 24_000).astype(np.float32))
    with chat_server(SERVER) as server:
        assert published(server.url, payload) == CAPTION
        theirs = server.bodies()
        extract, compose = asking(Chat(endpoint=server.url, model="benchmark"))
        docs = pa.table(
            {
                "id": ["a"],
                "payload": pa.array([payload], pa.large_binary()),
                "facts": pa.array([[]], FACTS),
                "labels": pa.array([None], pa.list_(pa.string())),
            }
        )
        found = compose(extract(docs))
        ours = server.bodies()[len(theirs) :]
    assert found["text"].to_pylist() == [CAPTION]
    assert found["answers"].to_pylist() == [dict(zip(QUESTIONS, ANSWERS, strict=True))]
    assert len(theirs) == len(ours) == 4
    for one, other in zip(theirs[:3], ours[:3], strict=True):
        assert one["messages"] == other["messages"]
