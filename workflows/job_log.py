"""The log of a submitted job: what it says to people, and in marked lines what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

RESULT = "corpusmill-result: "  # before pieces of what `build --json` prints
SUMMARY = "corpusmill: "  # before lines of what `build` prints
PIECE = 16_000  # characters of a result in a line: logs are read by lines


def marked(result: dict[str, Any], summary: str) -> Iterator[str]:
    """The lines that say what came of a job."""
    text = json.dumps(result)  # without line ends
    yield from (f"{RESULT}{text[at : at + PIECE]}\n" for at in range(0, len(text), PIECE))
    yield from (f"{SUMMARY}{line}\n" for line in summary.splitlines())


class JobLog:
    """A job's log as it comes: what is marked is kept, the rest goes on to `tell`, line by line."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._rest = ""
        self._result: list[str] = []
        self._summary: list[str] = []

    def take(self, text: str) -> None:
        """The next piece of the log, of whole lines or not."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._line(line + "\n")

    def close(self) -> None:
        """The log ends here, perhaps within a line."""
        if self._rest:
            self._line(self._rest)
        self._rest = ""

    def forget(self) -> None:
        """What was said of a result is not of the job that comes now."""
        self._result.clear()
        self._summary.clear()

    def _line(self, line: str) -> None:
        if line.startswith(RESULT):
            self._result.append(line.removeprefix(RESULT).removesuffix("\n"))
        elif line.startswith(SUMMARY):
            self._summary.append(line.removeprefix(SUMMARY))
        else:
            self._tell(line)

    @property
    def result(self) -> dict[str, Any] | None:
        """What `build --json` prints, once the job has said all of it."""
        return json.loads("".join(self._result)) if self._result else None

    @property
    def summary(self) -> str:
        """What `build` prints."""
        return "".join(self._summary)
