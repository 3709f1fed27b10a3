"""How far a build is, for those who are not its console: metrics, and a record in the store that `status` shows.

A thread of the driver tells both, so that no unit waits for it; the record can be missing or late, never the build
wrong. It goes when the build is done; of a build that failed it stays and says why, until the next run or `gc`.
"""

from __future__ import annotations

import dataclasses
import datetime
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import orjson

from cluster.commit import CommitLost
from cluster.metrics import Metrics, Value, driver, session_is_open
from cluster.storage import StorageError, Store
from cluster.units import Record
from workflows.console import err
from workflows.gates import GateRefused
from workflows.progress import Pace
from workflows.stage import Manifest, Progress, Stage, fingerprint
from workflows.tally import PassTally, StageTally

if TYPE_CHECKING:
    from workflows.build import Prepared

RUNNING = "_running"
ROWS = "rows"  # the pass of a stage whose operators go through each row once
TELL_SECONDS = 1.0  # between settings of metrics
WRITE_SECONDS = 10.0  # between writings of the record, while it changes
ALIVE_SECONDS = 60.0  # between writings while it does not: who reads it knows that the driver lives
TOLD_CHARACTERS = 500  # of an error
OUTCOMES = {  # of SIGTERM, Ray makes the end of the process
    GateRefused: "refused",
    KeyboardInterrupt: "interrupted",
    SystemExit: "interrupted",
}


class Watched(Progress):
    """Adds up what happens and passes it on; `record` and `values` are how far the build is."""

    def __init__(self, build: str, workflow: str, op: str, stages: Sequence[Stage], inner: Progress) -> None:
        self.began = False
        self._build, self._workflow, self._op, self._inner = build, workflow, op, inner
        self._operators = {stage.name: [step.name for step in stage.steps] for stage in stages}
        self._lock = threading.Lock()  # the driver adds while its thread reads
        self._stages: dict[str, StageTally] = {}
        self._stage = self._pass = ""
        self._started = self._progressed = time.time()
        self._pace = Pace()
        self.changes = 0

    def started(self, stage: str, what: str, units: int) -> None:
        with self._lock:
            self._stage, self._pass = stage, what or ROWS
            self._tally(stage).begin(self._pass, units)
            self._pace = Pace()
            self.began = True
            self._progress()
        self._inner.started(stage, what, units)

    def unit(self, record: Record) -> None:
        with self._lock:
            self._stages[self._stage].unit(self._pass, record)
            self._pace.unit(record)
            self._progress()
        self._inner.unit(record)

    def waits(self, told: str) -> None:
        self._inner.waits(told)

    def finished(self, manifest: Manifest, cached: bool) -> None:
        with self._lock:
            if cached:
                self._tally(manifest["name"]).rows(manifest)
            self._progress()
        self._inner.finished(manifest, cached)

    def _tally(self, stage: str) -> StageTally:
        return self._stages.setdefault(stage, StageTally.of(self._operators[stage]))

    def _progress(self) -> None:
        self._progressed = time.time()
        self.changes += 1

    def record(self) -> dict[str, Any]:
        """The part of the live record that changes."""
        with self._lock:
            seconds = time.monotonic() - self._pace.began
            now = self._stages[self._stage].passes[self._pass] if self.began else PassTally(0)
            return {
                "build_id": self._build,
                "op": self._op,
                "workflow": self._workflow,
                "started": _iso(self._started),
                "progressed": _iso(self._progressed),
                "updated": _iso(time.time()),
                "stage": self._stage,
                "pass": self._pass,
                "units": now.units,
                "units_done": now.done,
                "units_per_second": round(self._pace.units / seconds, 3),
                "rows_per_second": round(self._pace.rows / seconds, 1),
                "stages": [tally.told(name) for name, tally in self._stages.items()],
            }

    def values(self, running: bool) -> list[Value]:
        """The build's metrics now."""
        with self._lock:
            yours: list[Value] = [
                ("build_running", (self._workflow, self._op), float(running)),
                ("build_progress_timestamp_seconds", (), self._progressed),
            ]
            return yours + [value for name, tally in self._stages.items() for value in tally.values(name)]


class Teller:
    """The thread that tells, from the first pass on. Without a session there are no metrics: all is cached."""

    def __init__(self, store: Store, watched: Watched, build: str) -> None:
        self._store, self._watched = store, watched
        self._key = f"{RUNNING}/{build}.json"
        self._metrics = Metrics(build) if session_is_open() else None
        self._where: dict[str, Any] = {"host": socket.gethostname(), "job": None, "dashboard": None}
        self._where |= driver() if self._metrics else {}
        self._written = self._failed = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="corpusmill-watch", daemon=True)
        self._thread.start()

    def _tell(self) -> None:
        told, written, at = 0, 0, float("-inf")
        while not self._stop.wait(TELL_SECONDS):
            changes, now = self._watched.changes, time.monotonic()
            if not self._watched.began:
                continue
            if self._metrics and changes != told:
                self._metrics.set(self._watched.values(running=True))
                told = changes
            if now - at >= (WRITE_SECONDS if changes != written else ALIVE_SECONDS):
                self._write({})
                written, at = changes, now

    def _write(self, added: dict[str, str]) -> None:
        record = self._watched.record() | self._where | added
        try:
            self._store.write(self._key, orjson.dumps(record, option=orjson.OPT_INDENT_2))
            self._written = True
        except StorageError as error:
            self._complain(error)

    def _complain(self, error: StorageError) -> None:
        """Once: the build goes on, or fails with an error of its own."""
        if not self._failed:
            err.print(f"`corpusmill status` cannot follow this build: {error}", markup=False)
        self._failed = True

    def end(self, workflow: str, op: str, outcome: str, failed: str | None) -> None:
        """Tell the end, and leave no record but of a failure."""
        self._stop.set()
        self._thread.join()
        if self._metrics and self._watched.began:
            self._metrics.set(self._watched.values(running=False))
            self._metrics.ended(workflow, op, outcome)
        if failed is not None:
            self._write({"failed": failed})
        else:
            try:
                self._store.delete([self._key])  # one that a failed run left, too
            except StorageError as error:
                self._complain(error)


@contextmanager
def watched(prepared: Prepared) -> Iterator[Prepared]:
    """The same build, watched while the block runs. Its errors pass."""
    job, op, workflow = prepared.job, prepared.op, prepared.recipe.workflow
    build = fingerprint(prepared.stage, job)
    progress = Watched(build, workflow, op, prepared.stage.chain(), job.progress)
    teller = Teller(job.store, progress, build)
    outcome, failed = "done", None
    try:
        yield dataclasses.replace(prepared, job=dataclasses.replace(job, progress=progress))
    except BaseException as error:
        lines = str(error).splitlines() or [""]
        failed = f"{type(error).__name__}: {lines[0]}"[:TOLD_CHARACTERS]
        outcome = next((named for kind, named in OUTCOMES.items() if isinstance(error, kind)), "failed")
        if isinstance(error, CommitLost) and op == "nightly":  # built again on what the other one committed
            outcome, failed = "superseded", None
        raise
    finally:
        teller.end(workflow, op, outcome, failed)


def _iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
