"""What a person sees during a build: live bars on a terminal, plain lines elsewhere, one summary line a stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from cluster.units import Record
from workflows.stage import Manifest, Progress

PLAIN_SECONDS = 10.0


class ConsoleProgress(Progress):
    """Counts rows as units finish; `bars` is live on a terminal, else a line appears every ten seconds."""

    def __init__(self, console: Console, bars: Bars | None) -> None:
        self._console, self._bars = console, bars
        self._label, self._units, self._done = "", 0, 0
        self._rows, self._kept, self._began, self._told = 0, 0, time.monotonic(), time.monotonic()
        self._stages = 0

    def started(self, stage: str, what: str, units: int) -> None:
        self._label = f"{stage} {what}".strip()
        self._units, self._done, self._rows, self._kept = units, 0, 0, 0
        self._began = time.monotonic()
        if self._bars is not None:
            for task in self._bars.task_ids:
                self._bars.remove_task(task)
            self._bars.add_task(escape(self._label), total=units, rows="")

    def unit(self, record: Record) -> None:
        self._done += 1
        self._rows += record.get("rows_in", 0)
        self._kept += record.get("kept", 0)
        if self._bars is not None:
            self._bars.update(self._bars.task_ids[0], completed=self._done, rows=self._counts())
        elif time.monotonic() - self._told > PLAIN_SECONDS:
            self._told = time.monotonic()
            left = (time.monotonic() - self._began) / self._done * (self._units - self._done)
            counts = f"{self._done}/{self._units} units  {self._counts()}  eta {left:.0f}s"
            self._console.print(f"  {escape(self._label)}  {counts}")

    def _counts(self) -> str:
        if not self._rows:
            return ""
        rate = self._rows / max(time.monotonic() - self._began, 1e-6)
        dropped = self._rows - self._kept
        return f"{self._rows:,} in  {self._kept:,} kept  {dropped:,} dropped  {rate:,.0f} rows/s"

    def finished(self, manifest: Manifest, cached: bool) -> None:
        self._stages += 1
        rows, kept = manifest["rows_in"], manifest["kept"]
        share = f"({(kept - rows) / rows:+.1%})" if rows else ""
        state = "cached" if cached else f"in {manifest['seconds']:.1f}s"
        quarantined = f", {manifest['quarantined']:,} quarantined" if manifest["quarantined"] else ""
        line = f"{rows:,} -> {kept:,} {share}{quarantined} {state}"
        self._console.print(f"[{self._stages}] {manifest['name']:<8} OK  {line}", markup=False)


@contextmanager
def console_progress(console: Console) -> Iterator[Progress]:
    """Progress on `console`: live while the block runs when it is a terminal."""
    if not console.is_terminal:
        yield ConsoleProgress(console, None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rows]}"))
    with Bars(*columns, TimeRemainingColumn(), console=console, transient=True) as bars:
        yield ConsoleProgress(console, bars)
