"""Pages are read in a child process that can be lost: no page can hang, crash or swell the worker.

The child is this module run as a program. It lives as long as the worker and reads pages in order, pipelined: the
parent writes ahead while it reads answers. Before each page it arms a timer of processor time whose signal kills it
even inside C code; its address space is bounded. When it dies, the first page without an answer is the culprit: it
alone is dropped, and a new child goes on with the rest. A crash may be the fault of what earlier pages left behind,
so a culprit is tried once more in the new child; that way the answer depends on the page alone.

Pages and answers travel as length-prefixed bytes. The child ends when its standard input does, so it cannot outlive
its parent. Nothing is forked from a process with threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from operators.text.page import Page, Settings, read_page

PAGE = struct.Struct("<II")  # bytes of content type, of payload
ANSWER = struct.Struct("<iIIII")  # decode errors; bytes of problem, detail, title, text
READY = b"\n"
CHUNK = 1 << 20  # bytes a call; pipes hold less
OUT_OF_MEMORY = 77  # exit status
IDLE_FACTOR, IDLE_SECONDS = 10, 120  # silence after which a child that uses no processor counts as hung


class Request(NamedTuple):
    content_type: str
    payload: memoryview | bytes


class SandboxError(RuntimeError):
    """The child does not start, or ended in a way that no page can cause: a fault of the program."""


class _Died(Exception):
    """The child was lost over a page."""

    def __init__(self, problem: str, detail: str) -> None:
        super().__init__(problem, detail)
        self.problem, self.detail = problem, detail


@dataclass(frozen=True)
class Sandbox:
    """Describes the child: how it reads pages, its processor seconds a page, its mebibytes above an idle one."""

    settings: Settings
    timeout: float
    memory_mb: int

    def load(self) -> Reader:
        return Reader(self)


class Reader:
    """Reads pages in one child, started when first needed and again whenever it is lost."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._lock = threading.Lock()

    def read(self, requests: Sequence[Request]) -> list[Page]:
        """One page for each request, in order."""
        pages: list[Page] = []
        suspect = -1
        with self._lock:
            while len(pages) < len(requests):
                try:
                    self._exchange(requests, pages)
                except _Died as death:
                    if death.problem == "crashed" and suspect != len(pages):
                        suspect = len(pages)
                    else:
                        pages.append(Page(death.problem, death.detail))
        return pages

    def _exchange(self, requests: Sequence[Request], pages: list[Page]) -> None:
        """Read the requests that follow `pages`, appending to it, until all are read or the child is lost."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        into, out_of = process.stdin.fileno(), process.stdout.fileno()
        pieces = _pieces(requests[len(pages) :])
        piece = next(pieces)
        answers = bytearray()
        poll = select.poll()
        poll.register(out_of, select.POLLIN)
        poll.register(into, select.POLLOUT)
        while len(pages) < len(requests):
            ready = dict(poll.poll(1000 * (IDLE_FACTOR * self.sandbox.timeout + IDLE_SECONDS)))
            if not ready:
                process.kill()
                raise self._lost(process, hung=True)
            if into in ready:
                try:
                    piece = piece[os.write(into, piece) :] or next(pieces)
                except (StopIteration, BrokenPipeError):  # all is written, or the child is gone: its output tells
                    poll.unregister(into)
            if out_of in ready:
                got = os.read(out_of, CHUNK)
                if not got:
                    raise self._lost(process)
                answers += got
                pages += _parse(answers)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():  # this process was forked from the one that owns the child
            self._owner, self.process = os.getpid(), None
        if self.process is None:
            self.process = _start(self.sandbox)
            self._end = weakref.finalize(self, _stop, self.process, self._owner)  # runs at exit, too
        return self.process

    def _lost(self, process: subprocess.Popen[bytes], hung: bool = False) -> _Died:
        self.process = None
        status = process.wait()
        self._end()
        if hung or status == -signal.SIGPROF:
            return _Died("timeout", "")
        if status == OUT_OF_MEMORY:
            return _Died("crashed", "memory")
        if status >= 0:
            raise SandboxError(f"the page reader ended with status {status}; its standard error says why")
        return _Died("crashed", signal.Signals(-status).name)


def _start(sandbox: Sandbox) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).parents[2])
    paths = [path or os.getcwd() for path in sys.path]  # as the parent has them, and in its order
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths if root in paths else [*paths, root])}
    settings = json.dumps([sandbox.settings, sandbox.timeout, sandbox.memory_mb])
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "operators.text.sandbox", settings],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env=environment,
        start_new_session=True,  # the terminal's interrupt is for the parent
    )
    assert process.stdin is not None
    assert process.stdout is not None
    if process.stdout.read(len(READY)) != READY:
        raise SandboxError(f"the page reader did not start: status {process.wait()}; its standard error says why")
    os.set_blocking(process.stdin.fileno(), False)
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(PermissionError):  # beyond the user's share of pipe memory: slower, not wrong
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, CHUNK)
    return process


def _stop(process: subprocess.Popen[bytes], owner: int) -> None:
    if owner != os.getpid():
        return
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _pieces(requests: Sequence[Request]) -> Iterator[memoryview]:
    for content_type, payload in requests:
        kind = content_type.encode()
        yield memoryview(PAGE.pack(len(kind), len(payload)) + kind)
        if len(payload):
            yield memoryview(payload)


def _parse(answers: bytearray) -> Iterator[Page]:
    """The complete answers at the front of `answers`, which are removed from it."""
    while len(answers) >= ANSWER.size:
        errors, *lengths = ANSWER.unpack_from(answers)
        end = ANSWER.size + sum(lengths)
        if len(answers) < end:
            return
        at = ANSWER.size
        strings = []
        for length in lengths:
            strings.append(answers[at : at + length].decode())
            at += length
        del answers[:end]
        problem, detail, title, text = strings
        yield Page(problem, detail, text, title, errors)


def _serve(requests: BinaryIO, answers: BinaryIO, settings: Settings, timeout: float) -> None:
    """The child's loop."""
    while header := requests.read(PAGE.size):
        kind, size = PAGE.unpack(header)
        content_type, payload = requests.read(kind).decode(), requests.read(size)
        if len(payload) < size:
            return  # the parent died in the middle of a page
        signal.setitimer(signal.ITIMER_PROF, timeout)
        page = read_page(payload, content_type, settings)
        strings = [s.encode("utf-8", "replace") for s in (page.problem, page.detail, page.title, page.text)]
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(ANSWER.pack(page.decode_errors, *map(len, strings)) + b"".join(strings))
        answers.flush()


def _main() -> None:
    settings, timeout, memory_mb = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints goes to standard error, never among the answers
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])
    if settings[0] == "trafilatura":
        import trafilatura  # noqa: F401  (slow to import, which no page should pay for)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (memory_mb << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers.write(READY)
    answers.flush()
    try:
        _serve(sys.stdin.buffer, answers, Settings(*settings), timeout)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except BrokenPipeError:
        os._exit(0)  # the parent is gone


if __name__ == "__main__":
    _main()
