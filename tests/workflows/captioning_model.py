"""An audio language model and a language model for tests: what they answer follows from the request alone. The caption
of the first try claims what nobody heard; that of the second one follows what was measured."""

from __future__ import annotations

import json
import re
from typing import Any

from operators.caption.chain import QUESTIONS
from operators.caption.writers import TRIES


def reply(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    asked = content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)
    if QUESTIONS["description"] in asked:
        return (
            "Something can be heard in this recording that was made indoors, and nothing else can be heard beside it."
        )
    if QUESTIONS["speech"] in asked:
        return "The speaker sounds calm."
    if QUESTIONS["music"] in asked:
        return "The music is gentle."
    if description := re.search(r"Description: (.*)", asked):
        return json.dumps({"pairs": [{"question": "What can be heard?", "answer": description[1]}]})
    measured = re.search(r"What was measured: (.*)", asked)
    assert measured is not None, asked
    first = body["seed"] % TRIES == 0
    return json.dumps({"caption": "A choir sings while a sitar plays." if first else caption(measured[1])})


def caption(measured: str) -> str:
    """A sentence that names all that was measured."""
    notes = [note for note in measured.split(", ") if not note.startswith("no ")]
    return f"There is {', '.join(notes)}." if notes else "Something can be heard."
