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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TypeVar

import orjson
import pyarrow as pa
from ray import cloudpickle

from cluster.storage import Store
from cluster.units import UnitFailed
from operators.apply import Applied, Count, Step, apply
from operators.document import SCHEMA
from operators.read.rows import quarantine
from operators.read.span import QUARANTINE, Batch, Span, fallback_id
from workflows.answers import keep_answers

MAX_CRASHES = 200  # of a unit; a row to blame costs about eleven
MIN_MEMORY = 2 << 30  # that an attempt may take; more where more is free
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
    def folder(self) -> str: ...
    @property
    def steps(self) -> tuple[Step, ...]: ...
    def batches(self, work: Any) -> Iterator[Batch]: ...


def bisected(attempt: Callable[[int, int], T | Crash], start: int, stop: int) -> Iterator[tuple[int, int, T | Crash]]:
    """(start, stop, outcome) of ranges that make up the given one, in order; a Crash only for ranges of length one."""
    if start == stop:
        return
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
    steps = task.steps
    row = 0  # of the upstream file
    with task.store.scratch() as folder, Attempts(task, work, folder) as attempts:
        for first, _, stems in bisected(attempts.read, 0, len(parts)):
            if isinstance(stems, Crash):
                yield _only(_lost(parts[first], stems), steps)
                continue
            for part, stem in stems:
                docs, bad = load(folder / f"{stem}.docs"), load(folder / f"{stem}.bad")
                yield _only(bad, steps, docs.schema)
                for start, stop, result in bisected(partial(attempts.apply, stem), 0, docs.num_rows):
                    rows = docs.slice(start, stop - start)
                    if isinstance(result, Crash):
                        bad = _lost(parts[part], result, rows["id"][0].as_py(), row + start)
                        yield _only(bad, steps, docs.schema)
                    else:
                        yield Batch(rows, QUARANTINE.empty_table()), result
                row += docs.num_rows
                for kind in ("docs", "bad"):
                    (folder / f"{stem}.{kind}").unlink()


class DocumentTask(Protocol):
    """What is needed of a task that makes of documents something else, where those to blame are only left out."""

    @property
    def store(self) -> Store: ...
    def rows(self, number: int, work: Any) -> pa.Table: ...
    def mapped(self, number: int, table: pa.Table) -> contextlib.AbstractContextManager[pa.Table]: ...


def survivors(task: DocumentTask, number: int, work: Any) -> tuple[pa.Table, list[tuple[int, str]]]:
    """The unit's documents without those that end the process, and of these `doc` and the signal."""
    with task.store.scratch() as folder, Attempts(task, work, folder) as attempts:
        if isinstance(crash := attempts.rows(number), Crash):
            raise UnitFailed(f"{work['path']}, a file of the stage above, cannot be read: {crash}")
        docs = load(folder / "docs")
        left, lost = [docs.slice(0, 0)], []
        for start, stop, outcome in bisected(partial(attempts.mapped, number), 0, docs.num_rows):
            if isinstance(outcome, Crash):
                lost.append((docs["doc"][start].as_py(), outcome.signal))
            else:
                left.append(docs.slice(start, stop - start))
        return pa.concat_tables(left), lost


def parts_of(work: Any) -> list[Any]:
    """The parts of a unit's work that can be read one by one: its spans, or the one file of the stage above."""
    return [work | {"spans": [span]} for span in work["spans"]] if "spans" in work else [work]


def _only(bad: pa.Table, steps: tuple[Step, ...], schema: pa.Schema = SCHEMA) -> tuple[Batch, Applied]:
    """A batch that is nothing but quarantine; steps are not called without rows."""
    return Batch(schema.empty_table(), bad), apply(steps, schema.empty_table())


def _lost(part: Any, crash: Crash, identity: str | None = None, row: int = 0) -> pa.Table:
    """The row of quarantine for a document, or for a part that cannot be read.

    Readers do not tell where in an input a document stands: its span is named. Of a file of ours it is the row.
    """
    if "spans" in part:
        span = Span(**part["spans"][0])
        at = (identity or fallback_id(span.rel, span.start), span.rel, span.start, -1)
    elif identity is not None:
        at = (identity, part["path"], row, 1)
    else:
        raise UnitFailed(f"{part['path']}, a file of the stage above, cannot be read: {crash}")
    return quarantine([(*at, REASON, str(crash))])


class Attempts:
    """The child that holds the task and forks for each attempt. Use as a context."""

    def __init__(self, task: RowTask | DocumentTask, work: Any, folder: Path) -> None:
        self._folder = folder
        self._crashes = 0
        self._payload = cloudpickle.dumps((task, work))

    def __enter__(self) -> Attempts:
        command = [sys.executable, "-P", "-m", "workflows.isolate", str(self._folder), str(len(self._payload))]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self._send(self._payload)
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        with contextlib.suppress(BrokenPipeError):
            self._child.communicate()

    def read(self, start: int, stop: int) -> list[tuple[int, str]] | Crash:
        """Read parts of the unit: (part, name of the batch's files) of each batch."""
        stems: list[tuple[int, str]] | Crash = self._run("read", start, stop)
        return stems

    def apply(self, stem: str, start: int, stop: int) -> Applied | Crash:
        """Apply the steps to rows of a batch that was read."""
        counts = self._run("apply", stem, start, stop)
        if isinstance(counts, Crash):
            return counts
        kept, dropped = load(self._folder / "kept"), load(self._folder / "dropped")
        return Applied(kept, dropped, [Count(**count) for count in counts])

    def rows(self, number: int) -> None | Crash:
        """Read the documents of a unit that are left, into `docs`."""
        crash: None | Crash = self._run("rows", number)
        return crash

    def mapped(self, number: int, start: int, stop: int) -> None | Crash:
        """Map some of these documents."""
        crash: None | Crash = self._run("mapped", number, start, stop)
        return crash

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


def _noted(steps: Iterable[Step], note: Path) -> Iterator[Step]:
    """The steps; the note says which one runs, for whoever finds the process dead."""
    for step in steps:
        note.write_text(step.name)
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


def _apply(task: RowTask, _work: Any, folder: Path, stem: str, start: int, stop: int) -> list[dict[str, Any]]:
    docs = load(folder / f"{stem}.docs").slice(start, stop - start)
    keep_answers(task.store, task.folder)
    result = apply(_noted(task.steps, folder / "at"), docs)
    save(result.kept, folder / "kept")
    save(result.dropped, folder / "dropped")
    return [asdict(count) for count in result.counts]


def _rows(task: DocumentTask, work: Any, folder: Path, number: int) -> None:
    (folder / "at").write_text("reading")
    save(task.rows(number, work), folder / "docs")


def _mapped(task: DocumentTask, _work: Any, folder: Path, number: int, start: int, stop: int) -> None:
    (folder / "at").write_text("a map")
    with task.mapped(number, load(folder / "docs").slice(start, stop - start)):
        pass


COMMANDS: dict[str, Callable[..., Any]] = {"read": _read, "apply": _apply, "rows": _rows, "mapped": _mapped}


def _give_way() -> None:
    """Let a row that eats all memory end this process, before it ends the worker that waits for it; dump no core."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with contextlib.suppress(FileNotFoundError):  # not on Linux
        Path("/proc/self/oom_score_adj").write_text("1000")
        bound = _size("/proc/self/status", "VmData") + max(MIN_MEMORY, _free_memory() // 2)
        resource.setrlimit(resource.RLIMIT_DATA, (bound, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _free_memory() -> int:
    free = _size("/proc/meminfo", "MemAvailable")
    with contextlib.suppress(FileNotFoundError, ValueError):  # in no container, or in one without a limit
        most, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        free = min(free, most - used + _size("/sys/fs/cgroup/memory.stat", "inactive_file"))
    return free


def _size(path: str, name: str) -> int:
    """Bytes, from one of the kernel's lists of names and values."""
    lines = (line.split() for line in Path(path).read_text().splitlines())
    return next(int(words[1]) << 10 * (words[-1] == "kB") for words in lines if words[0].rstrip(":") == name)


def main(folder: Path, size: int) -> None:
    """The child: take the task and its work, then fork for each line that comes, and answer how the fork ended.

    It does no work itself, so it has no threads that a fork could tear apart.
    """

    def told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, MemoryError):
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel would
        (folder / "error").write_text("".join(traceback.format_exception_only(error)), "utf-8")
        sys.__excepthook__(kind, error, trace)

    sys.excepthook = told
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what operators print is no answer
    task, work = cloudpickle.loads(sys.stdin.buffer.read(size))
    pa.array([0])  # what pyarrow loads at first use is loaded once, not in each fork
    for line in sys.stdin.buffer:
        if (pid := os.fork()) == 0:
            _give_way()
            what, *given = orjson.loads(line)
            answer = COMMANDS[what](task, work, folder, *given)
            (folder / "answer").write_bytes(orjson.dumps(answer))
            os._exit(0)
        answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
