"""Five nights of real processes: two schedulers, a night that fails, one that is missed, schedulers that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from cluster.schedule_state import ScheduleState
from tests.soak.building import COMMAND
from tests.workflows.test_nightly import Corpus, texts

__all__ = ["texts"]
DOCUMENTS = 4
SECONDS = 20  # between nights
PATIENCE = 600.0  # of a night on a machine under load


class Watched:
    """A corpus, schedulers of it, and the nights that run on this machine, counted all the time."""

    def __init__(self, folder: Path, texts: Sequence[str]) -> None:
        self.corpus, self.texts, self.folder = Corpus(folder), texts, folder
        self.alerts = folder / "alerts"
        self.alerts.touch()
        self.schedulers: list[subprocess.Popen[bytes]] = []
        self.most, self.stopped = 0, threading.Event()
        self.watcher = threading.Thread(target=self._watch)
        self.watcher.start()

    def nights(self) -> list[int]:
        """Processes that build it. A child of one looks like it until it has become what it was forked for."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
                parent = int((path.parent / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has ended
                continue
            if b"workflows.attempt" in words and os.fsencode(self.corpus.recipe) in words:
                found[int(path.parent.name)] = parent
        return [process for process, parent in found.items() if parent not in found]

    def _watch(self) -> None:
        while not self.stopped.wait(0.05):
            self.most = max(self.most, len(self.nights()))

    def deliver(self, night: int) -> None:
        """What is new, and a copy of what came before."""
        new = {f"n{night}-{k}": self.texts[night * DOCUMENTS + k] for k in range(DOCUMENTS)}
        copy = {f"n{night}-copy": self.texts[night * DOCUMENTS - 1].upper()} if night else {}
        self.corpus.deliver(f"night-{night}", new | copy)

    def start(self) -> subprocess.Popen[bytes]:
        options = ["--cron", f"*/{SECONDS} * * * * *", "--lease", "15s", "--retries", "1", "--retry-wait", "2s"]
        alert = ["--alert-command", f"sh -c 'cat >> {self.alerts}; echo >> {self.alerts}'"]
        with (self.folder / f"scheduler-{len(self.schedulers)}").open("wb") as log:
            command = [COMMAND, "schedule", self.corpus.recipe, *options, *alert]
            self.schedulers.append(subprocess.Popen(command, stdout=log, stderr=log))
        return self.schedulers[-1]

    def stop(self) -> None:
        for one in self.schedulers:
            if one.poll() is None:
                one.kill()
            one.wait()
        self.stopped.set()
        self.watcher.join()

    def runs(self) -> list[Any]:
        return ScheduleState(self.corpus.store, "recipe").newest(999)[::-1]

    def until(self, what: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE
        while not (found := what()):
            assert time.monotonic() < deadline, self.told()
            time.sleep(0.2)
        return found

    def published(self, builds: int) -> None:
        """Wait for that many builds, and for the end of the night of the last."""
        self.until(lambda: sum(bool(run.end and run.end.outcome == "published") for run in self.runs()) >= builds)

    def running(self) -> None:
        """Wait until a night is in the middle of its build."""
        stages = self.corpus.output / "stages"
        known = set(stages.iterdir()) if stages.exists() else set()
        self.until(lambda: self.nights() and set(stages.iterdir()) - known)

    def told(self) -> str:
        return "\n".join((self.folder / f"scheduler-{n}").read_text() for n in range(len(self.schedulers)))

    def alerted(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.alerts.read_text().splitlines() if line]


@pytest.mark.skipif(sys.platform != "linux", reason="it looks at /proc")
@pytest.mark.timeout(3600)
def test_five_nights(tmp_path: Path, texts: Sequence[str], capsys: Any) -> None:
    began = time.monotonic()
    watched = Watched(tmp_path, texts)
    try:
        _five_nights(watched)
    finally:
        watched.stop()
    corpus = watched.corpus
    ids = [doc for build in corpus.published() for doc in build]
    assert sorted(ids) == sorted(f"n{night}-{k}" for night in range(5) for k in range(DOCUMENTS))
    assert corpus.intact()
    assert watched.most == 1
    runs = watched.runs()
    assert [run.claim.number for run in runs] == list(range(1, len(runs) + 1))
    outcomes = [run.end.outcome if run.end else "missed" for run in runs]
    assert {"failed", "lost", "interrupted"} <= set(outcomes)
    for before, after in zip(runs, runs[1:], strict=False):
        assert before.end is None or before.end.ended <= after.claim.started
    events = [alert["event"] for alert in watched.alerted()]
    assert "failed" in events
    assert "missed" in events
    with capsys.disabled():
        print(  # noqa: T201
            f"\nfive nights in {time.monotonic() - began:.0f} s: {len(corpus.published())} builds, {len(ids)} documents"
            f", attempts {', '.join(outcomes)}; alerts {', '.join(events)}; at most {watched.most} night at once"
        )


def _five_nights(watched: Watched) -> None:
    corpus = watched.corpus
    watched.deliver(0)
    both = [watched.start(), watched.start()]
    watched.published(1)

    first = corpus.inputs / "night-0.jsonl"
    content, known = first.read_bytes(), first.stat()
    first.write_bytes(content + content[:10])  # a published input that changes fails the second night
    watched.deliver(1)
    told = len(watched.alerted())
    watched.until(lambda: any(alert["event"] == "failed" for alert in watched.alerted()[told:]))
    assert len(corpus.published()) == 1
    first.write_bytes(content)
    os.utime(first, ns=(known.st_atime_ns, known.st_mtime_ns))
    watched.published(2)  # caught up

    watched.deliver(2)
    watched.running()
    for one in both:
        one.kill()
        one.wait()
    watched.until(lambda: not watched.nights())  # it dies with its scheduler
    watched.deliver(3)
    time.sleep(2 * SECONDS)  # nights that nobody is there for
    third = watched.start()
    watched.published(3)

    watched.deliver(4)
    watched.running()
    third.send_signal(signal.SIGTERM)
    assert third.wait(PATIENCE) == 0
    assert not watched.nights()
    assert watched.runs()[-1].end.outcome in ("interrupted", "published")
    last = watched.start()
    watched.until(lambda: sum(len(build) for build in corpus.published()) == 5 * DOCUMENTS)
    last.send_signal(signal.SIGTERM)
    assert last.wait(PATIENCE) == 0
