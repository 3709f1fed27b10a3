"""A language model for tests: what it answers follows from the request, and from nothing else."""

from __future__ import annotations

import json
import re
from typing import Any

from operators.caption.writers import TRIES

WRONG = (
    "There is a 0.97 probability of speech.",  # no caption
    "A choir sings an opera while a dog barks in the rain.",  # that fits nothing
)


def caption(body: dict[str, Any]) -> str:
    """Good captions of those clips whose tag names the seed, "good at 2", else a wrong one."""
    prompt = str(body["messages"][-1]["content"])
    good = re.search(r"good at (\d)", prompt)
    facts = re.search(r"What was measured: (.*)", prompt)
    assert facts is not None
    text = WRONG[body["seed"] % TRIES % 2]
    if good and int(good[1]) == body["seed"] % TRIES:
        who = re.fullmatch(r"(a \w+) speaking in (\w+)", facts[1])
        text = f"{who[1].capitalize()} is talking in {who[2]}." if who else "Music can be heard."
    return json.dumps({"caption": text})


def pairs(body: dict[str, Any]) -> str:
    """Two pairs, one of which no description supports."""
    description = re.search(r"Description: (.*)", str(body["messages"][-1]["content"]))
    assert description is not None
    good = {"question": "What is heard?", "answer": description[1]}
    bad = {"question": "What else is heard?", "answer": "A dog barks."}
    return json.dumps({"pairs": [bad, good]})


def barking(body: dict[str, Any]) -> str:
    """A dog's caption, which quotes a label that has a comma in it."""
    quoted = "Dog, barking" in str(body["messages"])
    return json.dumps({"caption": "A dog, barking." if quoted else "A dog barks."})


def music(body: dict[str, Any]) -> str:  # noqa: ARG001
    """The same to all, in quotation marks."""
    return json.dumps({"caption": '"Music plays."'})


def unwilling(body: dict[str, Any]) -> str | dict[str, Any]:
    """Says nothing about people, nothing in JSON about music, and nothing at all about the rest."""
    prompt = str(body["messages"][-1]["content"])
    if "in French" in prompt:
        return {"content": None, "refusal": "I would rather not."}
    return "Is it music? Yes." if "usic" in prompt else json.dumps({"pairs": [{"question": " ", "answer": "Yes."}]})
