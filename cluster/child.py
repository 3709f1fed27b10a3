"""Servers that a process of ours starts on this machine: none outlives the process, none leaves a process behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

TOLD_BYTES = 2000  # of the log of a child that did not start

# Run by a Python that then becomes the server: the kernel kills it when the thread that started it ends.
DIE_WITH_PARENT = f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, {int(signal.SIGKILL)})  # PR_SET_PDEATHSIG, kept over exec
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


def start_child(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    """Run a command in `folder`, with nothing but that environment, in a session and process group of its own.

    It ends with the thread that called this, however that ends. What it prints replaces the file `log`.
    """
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", DIE_WITH_PARENT, str(os.getpid()), *command],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def kill_child(process: subprocess.Popen[bytes]) -> None:
    """End a child as a crash would, with all that it started; returns when none of them is left."""
    while members := [process.pid] * (process.poll() is None) + session_members(process.pid):
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def write_private(path: Path, data: bytes) -> None:
    """A file that only the user can read, also while it is written: keys of a server, and how to reach it."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


def log_tail(log: Path) -> str:
    """The end of what a child printed."""
    return log.read_bytes()[-TOLD_BYTES:].decode(errors="replace")


def session_members(leader: int) -> list[int]:
    """The processes of a session but its leader, also those that have a process group of their own; no zombies, which
    only their parent can take away."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state, _, _, session = stat.read_text("utf-8").rpartition(")")[2].split()[:4]
            if int(session) == leader and state not in "ZX" and int(stat.parent.name) != leader:
                found.append(int(stat.parent.name))
    return found
