"""What a person is told of a stage beside its counts: files of the recipe that had no part in it."""

from __future__ import annotations

from collections.abc import Iterator

from operators.caption.decontaminate import HELD_OUT
from operators.caption.label import LABELLED, UNLABELLED
from workflows.stage import Manifest


def notes(stage: Manifest) -> Iterator[str]:
    """A line for each list that held nothing out, and for labels of which no recording got any."""
    for operator in stage["operators"]:
        rows, counted = operator["rows_in"], operator["counted"]
        for key in (key for key, n in counted.items() if key.startswith(HELD_OUT) and rows and not n):
            told = f"{key.removeprefix(HELD_OUT)!r} held nothing out of {rows:,}; is it the list that was meant?"
            yield f"{operator['name']}: {told}"
        if counted.get(LABELLED) == 0 and (rows := counted[UNLABELLED]):
            told = f"no line of `file` is about any of {rows:,}; `recording` is the file's name, or the end of its path"
            yield f"{operator['name']}: {told}"
