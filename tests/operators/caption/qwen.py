"""What the models of test_extract.py say, in the server's process: as Qwen-Audio does, and by their names."""

from __future__ import annotations

import base64
import hashlib
import io
import wave
from typing import Any

import orjson

from operators.caption.chain import AT_ONCE, QUESTIONS

DESCRIPTION = "This is a recording of a person who speaks in a small room, and a chair creaks once in the background."
SPEECH = "The speaker is a male, speaking in English, in a neutral mood."
NO_MUSIC = "There is no music in this audio."


def listener(body: dict[str, Any]) -> str | dict[str, Any]:
    """Checks that it was asked as it should be, and answers."""
    model, messages = body["model"], body["messages"]
    sound, question = messages[0]["content"]
    with wave.open(io.BytesIO(base64.b64decode(sound["input_audio"]["data"]))) as heard:
        assert (heard.getframerate(), heard.getnchannels(), heard.getsampwidth()) == (16_000, 1, 2)
        digest = hashlib.sha256(heard.readframes(heard.getnframes())).hexdigest()[:8]
    if question["text"] == AT_ONCE:
        return (
            "{}"
            if model == "no object"
            else orjson.dumps({"description": f"{DESCRIPTION} {digest}", "speech": SPEECH, "music": NO_MUSIC}).decode()
        )
    assert all(turn["content"] for turn in messages)  # servers refuse empty ones
    asked = [question["text"], *(turn["content"] for turn in messages[2::2])]
    name = next((name for name, text in QUESTIONS.items() if text == asked[-1]), None)
    if name is None:  # whether the server answers at all
        return "Yes."
    answers = [turn["content"] for turn in messages[1::2]]
    assert [turn["role"] for turn in messages] == ["user", "assistant"] * len(answers) + ["user"]
    assert not answers or answers[0].startswith(DESCRIPTION[:4])
    if model == "says nothing":
        return ""
    if model == f"no {name}":
        return ""
    if model == f"never {name}":
        return {"content": None, "refusal": "No."}
    if model == f"null {name}":
        return {"content": None}
    if model == "first short" and body["seed"] == 0:
        return {"description": "This.", "speech": "Yes.", "music": "No."}[name]
    if model == "too long" and name == "music":
        return "Rock. " * 100
    return {"description": f"{DESCRIPTION} {digest}", "speech": SPEECH, "music": NO_MUSIC}[name]
