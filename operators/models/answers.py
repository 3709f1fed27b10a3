"""Where answers of model servers are kept: each is paid for once, whatever crashes or is run again.

An answer is named by a hash of all that it was made of (chat.py). Whoever runs operators says where answers lie: in a
build that is its store, so that workers on all machines share them. Without one they last as long as the process.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import ClassVar, Protocol


class OverBudget(RuntimeError):
    """No more calls may be made. Nothing is lost: with a larger budget the work goes on where it ended."""

    remedy: ClassVar[str] = "with a larger one the same command goes on where it ended, and pays for no answer twice"


class Answers(Protocol):
    """Used by several threads at a time."""

    def get(self, key: str) -> bytes | None:
        """The answer of that name, if there is one."""

    def put(self, key: str, answer: bytes, replace: bool = False) -> bytes:
        """Keep an answer, for good once this returns. The one that was kept first is the answer, whoever asked;
        `replace` it where it is damaged."""

    def claim(self, who: str, most: int) -> None:
        """Take one of `most` calls to `who`, which the workers of a stage share over its runs. Raises OverBudget."""


class InMemory:
    """Answers of this process."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.claimed = Counter[str]()
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        return self.kept.get(key)

    def put(self, key: str, answer: bytes, replace: bool = False) -> bytes:
        if replace:
            self.kept[key] = answer
        return self.kept.setdefault(key, answer)

    def claim(self, who: str, most: int) -> None:
        with self._lock:
            if self.claimed[who] >= most:
                raise OverBudget(f"max_calls: {most} calls were made")
            self.claimed[who] += 1


_answers: Answers = InMemory()


def keep_answers_in(answers: Answers) -> None:
    """From now on, in this process."""
    global _answers
    _answers = answers


def answers() -> Answers:
    """Where they are kept now."""
    return _answers
