"""Answers of model servers in the store of a build: `answers/ab/abcd...`, shared by all builds, workers and runs.

Each is an object of its own, there before it is used: what is killed, run again or built otherwise asks nobody the same
thing twice. The budget of a stage is counted in its folder, by an object for each call that only one worker can make.
"""

from __future__ import annotations

import random

from cluster.storage import AlreadyExists, Missing, Store
from operators.models.answers import OverBudget, keep_answers_in

FOLDER = "answers"
CALLS = "_calls"  # below a stage
GUESSES = 8  # at a call that is free, before those that are taken are listed


class StoredAnswers:
    """`operators.models.answers.Answers` in a store, for the stage in `folder`."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store, self._calls = store, f"{folder}/{CALLS}"

    def get(self, key: str) -> bytes | None:
        try:
            return self._store.read(_place(key))
        except Missing:
            return None

    def put(self, key: str, answer: bytes, replace: bool = False) -> bytes:
        try:
            self._store.write(_place(key), answer, if_absent=not replace)
        except AlreadyExists:  # another worker asked at the same time
            return self._store.read(_place(key))
        return answer

    def claim(self, who: str, most: int) -> None:
        """Workers do not know of each other, so each takes calls by chance: where many are free the first guess is."""
        guesses = [random.randrange(most) for _ in range(GUESSES)] if most else []
        if any(self._took(who, number) for number in guesses):
            return
        while free := sorted(set(range(most)) - self._taken(who)):
            if self._took(who, random.choice(free)):
                return
        raise OverBudget(f"max_calls: all {most} calls that this stage may make to the model are taken")

    def _took(self, who: str, number: int) -> bool:
        try:
            self._store.write(f"{self._calls}/{who}/{number:09d}", b"", if_absent=True)
        except AlreadyExists:
            return False
        return True

    def _taken(self, who: str) -> set[int]:
        return {int(stored.key.rpartition("/")[2]) for stored in self._store.list(f"{self._calls}/{who}")}


def keep_answers(store: Store, folder: str) -> None:
    """Whoever asks a server in this process keeps the answers in this store, at the expense of the stage there."""
    keep_answers_in(StoredAnswers(store, folder))


def _place(key: str) -> str:
    return f"{FOLDER}/{key[:2]}/{key}"
