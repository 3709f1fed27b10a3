"""Answers of model servers in the store of a build: `answers/ab/abcd...`, shared by all builds, workers and runs.

Each is an object of its own, there before it is used: what is killed, run again or built otherwise asks nobody the same
thing twice. The budget of a stage is counted in its folder, by objects that only one worker can make.
"""

from __future__ import annotations

import contextlib
import threading

from cluster.storage import AlreadyExists, Missing, Store
from operators.models.answers import OverBudget, keep_answers_in

FOLDER = "answers"
CALLS = "_calls"  # below a stage
BLOCK = 16  # calls that a worker takes out of the budget at a time; what it had left when it was killed is gone


class StoredAnswers:
    """`operators.models.answers.Answers` in a store, for the stage in `folder`."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store, self._calls = store, f"{folder}/{CALLS}"
        self._lock = threading.Lock()
        self._left = 0  # calls of the block that this worker has
        self._next: int | None = None  # the block that may be free

    def get(self, key: str) -> bytes | None:
        try:
            return self._store.read(_place(key))
        except Missing:
            return None

    def put(self, key: str, answer: bytes) -> None:
        self._store.write(_place(key), answer)

    def claim(self, most: int) -> None:
        with self._lock:
            if self._next is None:
                taken = [int(stored.key.rpartition("/")[2]) for stored in self._store.list(self._calls)]
                self._next = max(taken, default=-1) + 1
            while not self._left:
                first = self._next * BLOCK
                if first >= most:
                    told = "with more of them a build goes on where it ended, and pays for no answer twice"
                    raise OverBudget(f"max_calls: this stage has made the {most} calls that it may make; {told}")
                with contextlib.suppress(AlreadyExists):  # another worker has that block
                    self._store.write(f"{self._calls}/{self._next:09d}", b"", if_absent=True)
                    self._left = min(BLOCK, most - first)
                self._next += 1
            self._left -= 1


_held: dict[tuple[str, str], StoredAnswers] = {}  # one at most: what a worker has of a budget lasts from unit to unit


def keep_answers(store: Store, folder: str) -> None:
    """Whoever asks a server in this process keeps the answers in this store, at the expense of the stage there."""
    if (store.url, folder) not in _held:
        _held.clear()
        _held[store.url, folder] = StoredAnswers(store, folder)
    keep_answers_in(_held[store.url, folder])


def _place(key: str) -> str:
    return f"{FOLDER}/{key[:2]}/{key}"
