"""A stage of global operators whose worker is killed once in every pass, and what it must come to all the same."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import workflows.global_stage
from cluster.storage import open_store
from cluster.tables import TableWriter
from cluster.units import Record, Task, run_units
from workflows.global_stage import run_global_stage
from workflows.recipe import Recipe
from workflows.stage import Job, Manifest, Stage, folder_of, save_manifest


@dataclass(frozen=True)
class Mortal:
    """The task, but its process is killed the first time that unit 0 of the pass is done with its work (its files are
    written, its done-record is not), or, for every other pass, before it begins."""

    task: Task
    mark: Path

    def __call__(self, number: int, work: Any) -> Record:
        late = hashlib.sha256(self.mark.name.encode()).digest()[0] % 2
        if number == 0 and not late:
            self._die_once()
        record = self.task(number, work)
        if number == 0 and late:
            self._die_once()
        return record

    def _die_once(self) -> None:
        try:
            self.mark.touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


def killing(marks: Path, spared: Callable[[str], bool]) -> Any:
    """`run_units` for a stage: of each pass that is not spared a worker dies."""

    def run(store: Any, folder: str, works: Sequence[Any], task: Any, label: str, *rest: Any) -> list[Record]:
        if not works or spared(label):
            return run_units(store, folder, works, task, label, *rest)
        return run_units(store, folder, works, Mortal(task, marks / label.replace("/", "|")), label, *rest)

    return run


def run_stage(folder: Path, units: Sequence[pa.Table], steps: Sequence[Any], **workers: Any) -> Manifest:
    """The manifest of a stage of those operators over those documents (id, text, priority)."""
    stage = Stage("dedup", Stage("read", None, ()), tuple(steps))
    item = {"rel": "a.txt", "version": "1", "source": None, "priority": 0, "weight": 1.0}
    job = Job(open_store(str(folder)), Recipe(inputs=["a.txt"], output="o", workers=workers), (item,))
    entries = []
    for number, unit in enumerate(units):
        chars = pa.array([len(text or "") for text in unit["text"].to_pylist()], pa.int64())
        with TableWriter(job.store, "above", number) as out:
            out.write(unit.append_column("chars", chars))
        entries += out.entries
    count = sum(unit.num_rows for unit in units)
    manifest = run_global_stage(stage, job, {"name": "read", "kept": count, "files": {"kept": entries}})
    save_manifest(job.store, folder_of(stage, job), manifest)
    return manifest


def check_kills(
    folder: Path,
    units: Sequence[pa.Table],
    steps: Sequence[Any],
    patch: pytest.MonkeyPatch,
    spared: Callable[[str], bool] = lambda _: False,
) -> int:
    """Run the stage undisturbed and with the kills; the files must be the same. How many workers were killed."""
    expected = run_stage(folder / "calm", units, steps)
    marks = folder / "marks"
    marks.mkdir()
    patch.setattr(workflows.global_stage, "run_units", killing(marks, spared))
    found = run_stage(folder / "killed", units, steps)
    assert found["files"] == expected["files"]
    assert (found["dropped"], found["characters"]) == (expected["dropped"], expected["characters"])
    return len(list(marks.iterdir()))
