"""Where answers of model servers are kept: each is paid for once, whatever crashes or is run again.

An answer is named by a hash of all that it was made of (chat.py). Whoever runs operators says where answers lie: in a
build that is its store, so that workers on all machines share them. Without one they last as long as the process.
"""

from __future__ import annotations

import threading
from typing import Protocol


class OverBudget(RuntimeError):
    """No more calls may be made. Nothing is lost: with a larger budget the work goes on where it ended."""


class Answers(Protocol):
    """Used by several threads at a time."""

    def get(self, key: str) -> bytes | None:
        """The answer of that name, if there is one."""

    def put(self, key: str, answer: bytes) -> None:
        """Keep an answer, for good once this returns."""

    def claim(self, most: int) -> None:
        """Take one call out of a budget of `most` that all workers of a stage share, over all its runs. Raises
        OverBudget."""


class InMemory:
    """Answers of this process."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.claimed = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        return self.kept.get(key)

    def put(self, key: str, answer: bytes) -> None:
        self.kept[key] = answer

    def claim(self, most: int) -> None:
        with self._lock:
            if self.claimed >= most:
                raise OverBudget(f"max_calls: {most} calls were made")
            self.claimed += 1


_answers: Answers = InMemory()


def keep_answers_in(answers: Answers) -> None:
    """From now on, in this process."""
    global _answers
    _answers = answers


def answers() -> Answers:
    """Where they are kept now."""
    return _answers
