"""One attempt at a night: `corpusmill nightly`, or `submit`, as a process of its own.

The process dies with its scheduler: what is taken over after a scheduler's death is not running any more. Its standard
error goes to ours, with the night in front of each line; its standard output is the result.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from typing import IO, NamedTuple, Protocol

import orjson

from cluster.child import kill_child

SAID_LINES, SAID_CHARACTERS = 8, 2000  # of its standard error, kept with the result
STOP_SECONDS = 60.0  # from being asked to end until being made to
READ_SECONDS = 5.0  # for what it said last


class Result(NamedTuple):
    code: int  # exit code; negative: the signal that ended the process
    output: bytes
    said: str


class Running(Protocol):
    def wait(self, seconds: float) -> Result | None:
        """The result once there is one, or None after about that many seconds."""
        ...

    def stop(self, number: int) -> Result:
        """Pass a signal on and wait for the end."""
        ...


class Child:
    """A process of the `corpusmill` command with these arguments."""

    def __init__(self, arguments: Sequence[str], label: str) -> None:
        self._label = label
        self._lines: deque[str] = deque(maxlen=SAID_LINES)
        self._output = b""
        # In a session of its own: Ctrl-C in a terminal comes to the scheduler alone, which passes it on once.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "workflows.attempt", str(os.getpid()), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        readers = ((self._keep, self._process.stdout), (self._pass_on, self._process.stderr))
        self._readers = [threading.Thread(target=read, args=(pipe,), daemon=True) for read, pipe in readers]
        for reader in self._readers:
            reader.start()

    def _keep(self, pipe: IO[bytes]) -> None:
        self._output = pipe.read()

    def _pass_on(self, pipe: IO[bytes]) -> None:
        for raw in pipe:
            line = raw.decode("utf-8", "replace").rstrip()
            self._lines.append(line)
            sys.stderr.write(f"[{self._label}] {line}\n")
            sys.stderr.flush()

    def wait(self, seconds: float) -> Result | None:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        return self._ended()

    def _ended(self) -> Result:
        for reader in self._readers:
            reader.join(READ_SECONDS)  # a process that was left behind may hold the pipes
        return Result(self._process.returncode, self._output, "\n".join(self._lines)[-SAID_CHARACTERS:])

    def stop(self, number: int) -> Result:
        self._process.send_signal(number)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            kill_child(self._process)
        return self._ended()


def read_result(output: bytes) -> dict[str, object]:
    """What `--json` printed; nothing where it is no object."""
    try:
        found = orjson.loads(output)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _run(parent: int, arguments: Sequence[str]) -> None:
    """Be the command, for as long as the scheduler lives."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            return
    sys.argv = ["corpusmill", *arguments]
    from workflows.cli import main

    main()


if __name__ == "__main__":
    _run(int(sys.argv[1]), sys.argv[2:])
