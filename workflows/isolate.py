"""Find the rows that end their worker process (a segmentation fault, no memory left) and do a unit without them.

One child process holds the task; each attempt to read spans or to apply the steps runs in a fork of it, so that a
crash costs a fork. A range of spans or rows whose attempt was ended by a signal is tried again by halves, down to
single ones: those become rows of quarantine with the reason `worker_crash`, the signal and the step that ran.
Tables come back through Arrow files in a scratch folder, in order. An exception is a bug and fails the unit.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TypeVar

import orjson
import pyarrow as pa
from ray import cloudpickle

from cluster.storage import Store
from cluster.units import UnitFailed
from operators.apply import Applied, Count, Step, apply
from operators.read.rows import quarantine
from operators.read.span import QUARANTINE, Batch, Span, fallback_id

MAX_CRASHES = 200  # of a unit; a row to blame costs about eleven
REASON = "worker_crash"
T = TypeVar("T")


class Crash(NamedTuple):
    """How an attempt ended that was ended by a signal."""

    signal: str
    at: str  # name of the step that ran, or `reading`

    def __str__(self) -> str:
        return f"{self.signal} in {self.at}"


class RowTask(Protocol):
    """What is needed of a task whose units can be done row by row."""

    @property
    def store(self) -> Store: ...
    @property
    def steps(self) -> tuple[Step, ...]: ...
    def batches(self, work: Any) -> Iterator[Batch]: ...


def bisected(attempt: Callable[[int, int], T | Crash], start: int, stop: int) -> Iterator[tuple[int, int, T | Crash]]:
    """(start, stop, outcome) of ranges that make up the given one, in order; a Crash only for ranges of length one."""
    outcome = attempt(start, stop)
    if not isinstance(outcome, Crash) or stop - start == 1:
        yield start, stop, outcome
        return
    middle = (start + stop) // 2
    yield from bisected(attempt, start, middle)
    yield from bisected(attempt, middle, stop)


def isolated(task: RowTask, work: Any) -> Iterator[tuple[Batch, Applied]]:
    """The unit's batches and what the steps made of them, with the rows to blame in quarantine."""
    parts = parts_of(work)
    row = 0  # of the upstream file
    with task.store.scratch() as folder, Attempts(task, work, folder) as attempts:
        for first, _, stems in bisected(attempts.read, 0, len(parts)):
            if isinstance(stems, Crash):
                yield _only(_lost_part(parts[first], stems), task.steps)
                continue
            for part, stem in stems:
                docs, bad = load(folder / f"{stem}.docs"), load(folder / f"{stem}.bad")
                yield _only(bad, task.steps)
                for start, stop, result in bisected(_applying(attempts, stem), 0, docs.num_rows) if docs else ():
                    rows = docs.slice(start, stop - start)
                    if isinstance(result, Crash):
                        yield _only(_lost_row(parts[part], rows["id"][0].as_py(), row + start, result), task.steps)
                    else:
                        yield Batch(rows, QUARANTINE.empty_table()), result
                row += docs.num_rows
                for kind in ("docs", "bad"):
                    (folder / f"{stem}.{kind}").unlink()


def parts_of(work: Any) -> list[Any]:
    """The parts of a unit's work that can be read one by one: its spans, or the one file of the stage above."""
    return [work | {"spans": [span]} for span in work["spans"]] if "spans" in work else [work]


def _applying(attempts: Attempts, stem: str) -> Callable[[int, int], Applied | Crash]:
    return lambda start, stop: attempts.apply(stem, start, stop)


def _only(bad: pa.Table, steps: tuple[Step, ...]) -> tuple[Batch, Applied]:
    """A batch that is nothing but quarantine; steps are not called without rows."""
    return Batch(NO_DOCUMENTS, bad), apply(steps, NO_DOCUMENTS)


NO_DOCUMENTS = pa.table({"id": pa.array([], pa.string()), "text": pa.array([], pa.large_string())})


def _lost_part(part: Any, crash: Crash) -> pa.Table:
    if "spans" not in part:
        raise UnitFailed(f"reading {part['path']}, a file of the stage above, ends the process: {crash}")
    span = Span(**part["spans"][0])
    return quarantine([(fallback_id(span.rel, span.start), span.rel, span.start, -1, REASON, str(crash))])


def _lost_row(part: Any, identity: str, row: int, crash: Crash) -> pa.Table:
    """In an input, readers do not say where a row stands: its file and where the span starts are named."""
    if "spans" not in part:
        return quarantine([(identity, part["path"], row, 1, REASON, str(crash))])
    span = Span(**part["spans"][0])
    return quarantine([(identity, span.rel, span.start, -1, REASON, str(crash))])


class Attempts:
    """The child that holds the task and forks for each attempt. Use as a context."""

    def __init__(self, task: RowTask, work: Any, folder: Path) -> None:
        self._folder = folder
        self._crashes = 0
        self._payload = cloudpickle.dumps((task, work))

    def __enter__(self) -> Attempts:
        command = [sys.executable, "-P", "-m", "workflows.isolate", str(self._folder), str(len(self._payload))]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self._send(self._payload)
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        with contextlib.suppress(BrokenPipeError):
            self._child.communicate()

    def read(self, start: int, stop: int) -> list[tuple[int, str]] | Crash:
        """Read parts of the unit: (part, name of the batch's files) of each batch."""
        return self._run("read", start, stop)

    def apply(self, stem: str, start: int, stop: int) -> Applied | Crash:
        """Apply the steps to rows of a batch that was read."""
        counts = self._run("apply", stem, start, stop)
        if isinstance(counts, Crash):
            return counts
        kept, dropped = load(self._folder / "kept"), load(self._folder / "dropped")
        return Applied(kept, dropped, [Count(**count) for count in counts])

    def _send(self, data: bytes) -> None:
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the child is gone: told when its answer is missing
            self._child.stdin.write(data)
            self._child.stdin.flush()

    def _run(self, *command: str | int) -> Any:
        for name in ("answer", "at", "error"):
            (self._folder / name).unlink(missing_ok=True)
        self._send(orjson.dumps(command, option=orjson.OPT_APPEND_NEWLINE))
        assert self._child.stdout is not None
        code = int(self._child.stdout.readline() or 1)
        if code < 0:
            self._crashes += 1
            crash = Crash(signal.Signals(-code).name, self._said("at"))
            if self._crashes > MAX_CRASHES:
                raise UnitFailed(f"{MAX_CRASHES} processes were ended, the last by {crash}: not by a few rows alone")
            return crash
        if code > 0 or not (self._folder / "answer").exists():
            raise UnitFailed(self._said("error") or "an isolated process ended without an answer")
        return orjson.loads(self._said("answer"))

    def _said(self, name: str) -> str:
        path = self._folder / name
        return path.read_text("utf-8").strip() if path.exists() else ""


class _Noted(tuple[Step, ...]):
    """Steps that note the name of the one that runs, for whoever finds the process dead."""

    note: Path

    def __iter__(self) -> Iterator[Step]:
        for step in super().__iter__():
            self.note.write_text(step.name)
            yield step


def save(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def load(path: Path) -> pa.Table:
    """The table in memory: the file may be overwritten."""
    with pa.OSFile(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def _read(task: RowTask, work: Any, folder: Path, start: int, stop: int) -> list[tuple[int, str]]:
    (folder / "at").write_text("reading")
    stems = []
    for part, some in enumerate(parts_of(work)[start:stop], start):
        for number, batch in enumerate(task.batches(some)):
            stem = f"{part}-{number}"
            save(batch.docs, folder / f"{stem}.docs")
            save(batch.quarantined, folder / f"{stem}.bad")
            stems.append((part, stem))
    return stems


def _apply(task: RowTask, folder: Path, stem: str, start: int, stop: int) -> list[dict[str, Any]]:
    docs = load(folder / f"{stem}.docs").slice(start, stop - start)
    steps = _Noted(task.steps)
    steps.note = folder / "at"
    result = apply(steps, docs)
    save(result.kept, folder / "kept")
    save(result.dropped, folder / "dropped")
    return [asdict(count) for count in result.counts]


def _give_way() -> None:
    """Let a row that eats all memory end this process, before it ends the worker that waits for it."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
        told = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        held = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    except OSError:
        return  # not on Linux
    kilobytes = int(held["VmData"].split()[0]) + int(told["MemAvailable"].split()[0]) // 2
    resource.setrlimit(resource.RLIMIT_DATA, (kilobytes << 10, resource.RLIM_INFINITY))


def main(folder: Path, size: int) -> None:
    """The child: take the task and its work, then fork for each line that comes, and answer how the fork ended."""

    def told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, MemoryError):
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel would
        (folder / "error").write_text("".join(traceback.format_exception_only(error)), "utf-8")
        sys.__excepthook__(kind, error, trace)

    sys.excepthook = told
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what operators print is no answer
    task, work = cloudpickle.loads(sys.stdin.buffer.read(size))
    for line in sys.stdin.buffer:
        if (pid := os.fork()) == 0:
            _give_way()
            what, *given = orjson.loads(line)
            answer = _read(task, work, folder, *given) if what == "read" else _apply(task, folder, *given)
            (folder / "answer").write_bytes(orjson.dumps(answer))
            os._exit(0)
        answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
