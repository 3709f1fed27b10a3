"""A process that asks and is killed (test_chat.py), whose answers are in files."""

from __future__ import annotations

import sys
from pathlib import Path

from operators.models.answers import keep_answers_in
from operators.models.chat import Chat, Turn


class InFiles:
    """Answers that outlive a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> bytes | None:
        path = self.folder / key
        return path.read_bytes() if path.exists() else None

    def put(self, key: str, answer: bytes, replace: bool = False) -> bytes:
        assert not replace
        new = self.folder / f"{key}.new"
        new.write_bytes(answer)
        new.rename(self.folder / key)
        return answer

    def claim(self, who: str, most: int) -> None:
        raise NotImplementedError


def ask_all(url: str, folder: Path) -> None:
    """200 questions, eight at a time."""
    keep_answers_in(InFiles(folder))
    asker = Chat(endpoint=url, model="m", concurrency=8).load()
    asker.each(lambda k: asker.ask([Turn("user", (f"question {k}",))], "template"), range(200))


if __name__ == "__main__":
    ask_all(sys.argv[1], Path(sys.argv[2]))
