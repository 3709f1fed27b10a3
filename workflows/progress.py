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
from workflows.notes import notes
from workflows.stage import Manifest, Progress

FIRST_SECONDS = 2.0  # before the first plain line of a pass: shorter ones have none
PLAIN_SECONDS = 10.0
EARLIER_SECONDS = 0.5  # units that come sooner are taken for those of an earlier run


class Pace:
    """How fast a pass goes: what units of this run did, not those of an earlier one, which come at once."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.units = self.rows = 0

    def unit(self, record: Record) -> None:
        """One unit of the pass is done."""
        if time.monotonic() - self.began > EARLIER_SECONDS:
            self.units += 1
            self.rows += record.get("rows_in", 0)


class ConsoleProgress(Progress):
    """Counts rows as units finish; `bars` is live on a terminal, else a line appears after two seconds and then
    every ten."""

    def __init__(self, console: Console, bars: Bars | None) -> None:
        self._console, self._bars = console, bars
        self._stages = 0
        self._begin("", 0)

    def started(self, stage: str, what: str, units: int) -> None:
        self._begin(f"{stage} {what}".strip(), units)
        if self._bars is not None:
            for task in self._bars.task_ids:
                self._bars.remove_task(task)
            self._bars.add_task(escape(self._label), total=units, rows="")

    def _begin(self, label: str, units: int) -> None:
        self._label, self._units = label, units
        self._done = self._rows = self._kept = self._dropped = self._quarantined = 0
        self._pace = Pace()
        self._tell_at = self._pace.began + FIRST_SECONDS

    def unit(self, record: Record) -> None:
        now = time.monotonic()
        self._done += 1
        self._rows += record.get("rows_in", 0)
        self._kept += record.get("kept", 0)
        self._dropped += sum(record.get("dropped", {}).values())
        self._quarantined += record.get("quarantined", 0)
        self._pace.unit(record)
        if self._bars is not None:
            self._bars.update(self._bars.task_ids[0], completed=self._done, rows=self._counts(now))
        elif now >= self._tell_at:
            self._tell_at = now + PLAIN_SECONDS
            told = [f"{self._label}: {self._done}/{self._units} units", self._counts(now)]
            if self._pace.units >= 2:
                left = (now - self._pace.began) / self._pace.units * (self._units - self._done)
                told.append(f"eta {left:.0f}s")
            self._console.print(f"  {escape('  '.join(filter(None, told)))}")

    def _counts(self, now: float) -> str:
        if not self._rows:
            return ""
        told = [f"{self._rows:,} in", f"{self._kept:,} kept", f"{self._dropped:,} dropped"]
        if self._quarantined:
            told.append(f"{self._quarantined:,} quarantined")
        if self._pace.rows:
            told.append(f"{self._pace.rows / (now - self._pace.began):,.0f} rows/s")
        return "  ".join(told)

    def waits(self, told: str) -> None:
        self._console.print(told, markup=False)

    def finished(self, manifest: Manifest, cached: bool) -> None:
        self._stages += 1
        rows, kept = manifest["rows_in"], manifest["kept"]
        share = f"({(kept - rows) / rows:+.1%})" if rows else ""
        state = "cached" if cached else f"in {manifest['seconds']:.1f}s"
        quarantined = f", {manifest['quarantined']:,} quarantined" if manifest["quarantined"] else ""
        line = f"{rows:,} -> {kept:,} {share}{quarantined} {state}"
        self._console.print(f"[{self._stages}] {manifest['name']:<8} OK  {line}", markup=False)
        for note in notes(manifest):
            self._console.print(f"    {note}", markup=False)


@contextmanager
def console_progress(console: Console) -> Iterator[Progress]:
    """Progress on `console`: live while the block runs when it is a terminal."""
    if not console.is_terminal:
        yield ConsoleProgress(console, None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rows]}"))
    with Bars(*columns, TimeRemainingColumn(), console=console, transient=True) as bars:
        yield ConsoleProgress(console, bars)
