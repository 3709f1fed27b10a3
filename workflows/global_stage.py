"""A stage of global operators: their phases run as shuffles through the store, their verdicts come back to the rows.

Only keys travel. What is written are layers over the files above: for each file the rows that stay, with the
columns the verdicts add. The text is not copied.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cluster.exchange import open_partition, read_table, write_partitions, write_table
from cluster.storage import Store
from cluster.tables import Entry, TableWriter, read_entry
from cluster.units import Record, Task, peak_rss_bytes, run_units
from operators.apply import Step
from operators.document import with_columns
from operators.phases import DOCUMENTS, VERDICT, GlobalOperator, Phase, partition_of, with_doc
from workflows import profile
from workflows.map_stage import EXPLAINING, explained
from workflows.stage import Job, Manifest, Stage, basis_of, characters, folder_of, summarise

PROFILED = ("id", "chars", "source", "language", "language_score")


@dataclass(frozen=True)
class Routed:
    """The verdicts of one operator, partitioned by the number of the file they belong to."""

    name: str
    keys: tuple[str, ...]


def run_global_stage(stage: Stage, job: Job, upstream: Manifest) -> Manifest:
    """Run the stage to its manifest's content; the caller saves it and may then sweep `exchange/`."""
    started = time.perf_counter()
    folder = folder_of(stage, job)
    files: list[Entry] = upstream["files"]["kept"]
    verdicts: tuple[Routed, ...] = ()
    passes: list[Record] = []
    for step in stage.steps if files else ():
        routed, records = _run_operator(stage, job, step, upstream, verdicts)
        passes += records
        verdicts = (*verdicts, routed)
    job.progress.started(stage.name, "verdicts", len(files))
    task = ApplyTask(job.store, folder, verdicts, job.recipe.dropped_text)
    label = f"{stage.name}[verdicts]"
    records = run_units(job.store, folder, files, task, label, job.progress.unit, basis_of(upstream))
    manifest = summarise(stage, job, upstream, records, time.perf_counter() - started)
    manifest["cpu_seconds"] = round(manifest["cpu_seconds"] + sum(r["cpu_seconds"] for r in passes), 3)
    manifest["peak_rss_bytes"] = max([manifest["peak_rss_bytes"], *(r["peak_rss_bytes"] for r in passes)])
    for operator in manifest["operators"]:
        operator["seconds"] = round(sum(r["seconds"] for r in passes if r["operator"] == operator["name"]), 3)
    return manifest


def _run_operator(
    stage: Stage, job: Job, step: Step, upstream: Manifest, verdicts: tuple[Routed, ...]
) -> tuple[Routed, list[Record]]:
    """Run the phases of one operator, then route its verdicts to the files."""
    operator: GlobalOperator = step.operator
    base = f"{folder_of(stage, job)}/exchange/{step.name}"
    files, rows, basis = upstream["files"]["kept"], upstream["kept"], basis_of(upstream)
    outputs: dict[str, list[Any]] = {DOCUMENTS: files}
    records: list[Record] = []

    def run(where: str, works: Sequence[Any], task: Task) -> list[str]:
        name = f"{step.name}/{where}"
        job.progress.started(stage.name, name, len(works))
        label = f"{stage.name}[{name}]"
        done = run_units(job.store, f"{base}/{where}", works, task, label, job.progress.unit, basis)
        records.extend(record | {"operator": step.name} for record in done)
        return [f"{base}/{where}/{number:06d}.arrow" for number in range(len(works))]

    for phase in operator.phases(rows):
        mapped = {}
        for source in phase.maps:
            where = f"{phase.name}-from-{source}"
            task = PhaseMap(job.store, f"{base}/{where}", operator, rows, phase.name, source, verdicts)
            mapped[source] = run(where, outputs[source], task)
        reduce = PhaseReduce(job.store, f"{base}/{phase.name}", operator, rows, phase.name, mapped)
        outputs[phase.name] = run(phase.name, list(range(phase.partitions)), reduce)
    route = RouteMap(job.store, f"{base}/route", len(files))
    return Routed(step.name, tuple(run("route", outputs[phase.name], route))), records


def _phase(operator: GlobalOperator, rows: int, name: str) -> Phase:
    return next(phase for phase in operator.phases(rows) if phase.name == name)


@dataclass(frozen=True)
class PhaseMap:
    """The map side of a phase on one unit of one source: rows to the partitions of their keys."""

    store: Store
    folder: str
    operator: GlobalOperator
    rows: int
    phase: str
    source: str
    verdicts: tuple[Routed, ...]

    def __call__(self, number: int, work: Any) -> Record:
        phase = _phase(self.operator, self.rows, self.phase)
        table = self._documents(number, work) if self.source == DOCUMENTS else read_table(self.store, work)
        rows = phase.maps[self.source](table)
        partition = partition_of(rows["key"].to_numpy(), phase.partitions)
        write_partitions(self.store, f"{self.folder}/{number:06d}.arrow", rows, partition, phase.partitions)
        return {"bytes": rows.nbytes, "peak_rss_bytes": peak_rss_bytes()}

    def _documents(self, number: int, work: Entry) -> pa.Table:
        """The file's documents that earlier operators of the stage left, with their column `doc`."""
        columns = list(dict.fromkeys(["id", "priority", "chars", *self.operator.needs]))
        docs = read_entry(self.store, work, columns)
        docs = with_doc(docs, number)
        alive = np.ones(docs.num_rows, bool)
        for _, rows, verdict in own_verdicts(self.store, self.verdicts, number):
            alive[rows[pc.is_valid(verdict["drop_reason"]).to_numpy()]] = False
        return docs.filter(pa.array(alive))


def own_verdicts(store: Store, routed: Sequence[Routed], number: int) -> list[tuple[str, NDArray[np.int64], pa.Table]]:
    """(operator, rows of file `number`, their verdicts), ordered by row, for each operator in turn."""
    found = []
    for one in routed:
        with open_partition(store, one.keys, number) as table:
            verdict = table.sort_by("doc")
            rows = (verdict["doc"].to_numpy() & np.uint64(0xFFFFFFFF)).astype(np.int64)
            found.append((one.name, rows, verdict.combine_chunks()))
    return found


@dataclass(frozen=True)
class PhaseReduce:
    """The reduce side of a phase on one partition."""

    store: Store
    folder: str
    operator: GlobalOperator
    rows: int
    phase: str
    mapped: dict[str, list[str]]

    def __call__(self, number: int, work: int) -> Record:
        phase = _phase(self.operator, self.rows, self.phase)
        with ExitStack() as stack:
            opened = {
                source: stack.enter_context(open_partition(self.store, keys, work))
                for source, keys in self.mapped.items()
            }
            result = phase.reduce(opened)
            write_table(self.store, f"{self.folder}/{number:06d}.arrow", result)
            return {"bytes": result.nbytes, "peak_rss_bytes": peak_rss_bytes()}


@dataclass(frozen=True)
class RouteMap:
    """Sends verdicts to the files of their documents."""

    store: Store
    folder: str
    files: int

    def __call__(self, number: int, work: str) -> Record:
        verdict = read_table(self.store, work)
        missing = {f.name: pa.nulls(verdict.num_rows, f.type) for f in VERDICT if f.name not in verdict.column_names}
        verdict = with_columns(verdict, missing)
        partition = (verdict["doc"].to_numpy() >> np.uint64(32)).astype(np.int64)
        write_partitions(self.store, f"{self.folder}/{number:06d}.arrow", verdict, partition, self.files)
        return {"bytes": verdict.nbytes, "peak_rss_bytes": peak_rss_bytes()}


@dataclass(frozen=True)
class ApplyTask:
    """Writes the layer over one file: the rows that stay with what the verdicts add, and the rows that do not."""

    store: Store
    folder: str
    verdicts: tuple[Routed, ...]
    dropped_text: bool

    def __call__(self, number: int, work: Entry) -> Record:
        docs = read_entry(self.store, work, list(dict.fromkeys([*PROFILED, *EXPLAINING])))
        chars = docs["chars"].to_numpy()
        alive = np.ones(docs.num_rows, bool)
        added: dict[str, pa.Array] = {"cluster": docs["id"].combine_chunks(), "cluster_size": pa.array(alive * 1)}
        dead: list[pa.Table] = []
        operators = []
        for name, rows, verdict in own_verdicts(self.store, self.verdicts, number):
            goes = pc.is_valid(verdict["drop_reason"]).to_numpy()
            operators.append(_count(name, alive, rows[goes], chars, verdict))
            alive[rows[goes]] = False
            dead.append(self._dead(docs, work, rows[goes], verdict.filter(pa.array(goes)), name))
            for column in [c for c in verdict.column_names if c not in VERDICT.names or c in added]:
                added[column] = _scatter(added.get(column), verdict[column].combine_chunks(), rows, docs.num_rows)
        stays = pa.array(np.flatnonzero(alive))
        layer = pa.table({"row": stays.cast(pa.uint32()), "id": docs["id"].take(stays)})
        layer = with_columns(layer, {name: column.take(stays) for name, column in added.items()})
        dropped = pa.concat_tables(dead, promote_options="permissive") if dead else docs.slice(0, 0)
        writers = {
            "kept": TableWriter(self.store, f"{self.folder}/kept", number, over=work),
            "dropped": TableWriter(self.store, f"{self.folder}/dropped", number),
        }
        with writers["kept"] as kept_file, writers["dropped"] as dropped_file:
            kept_file.write(layer)
            dropped_file.write(dropped)
        kept_profile, dropped_profile = profile.profile(docs.take(stays)), profile.profile(dropped)
        reasons = {reason: n for operator in operators for reason, n in operator["dropped"].items()}
        return {
            "rows_in": docs.num_rows,
            "created": 0,
            "kept": len(stays),
            "dropped": reasons,
            "quarantined": 0,
            "quarantine_reasons": {},
            "characters": characters(operators, int(chars[alive].sum())),
            "operators": operators,
            "profile": {
                "in": profile.merge([kept_profile, dropped_profile]),
                "kept": kept_profile,
                "dropped": profile.drop_profile(dropped),
            },
            "files": {"quarantined": [], **{fate: writer.entries for fate, writer in writers.items()}},
            "peak_rss_bytes": peak_rss_bytes(),
        }

    def _dead(self, docs: pa.Table, work: Entry, rows: NDArray[np.int64], verdict: pa.Table, name: str) -> pa.Table:
        taken = docs.take(pa.array(rows))
        if self.dropped_text and len(rows):
            taken = taken.append_column("text", read_entry(self.store, work, ["text"])["text"].take(pa.array(rows)))
        reasons = pc.binary_join_element_wise(name, verdict["drop_reason"], "/")
        columns = {c: verdict[c] for c in VERDICT.names if c not in ("doc", "drop_reason")}
        return explained(with_columns(taken, {"drop_reason": reasons, **columns}), self.dropped_text)


def _count(name: str, alive: NDArray[np.bool_], gone: NDArray[np.int64], chars: Any, verdict: pa.Table) -> Record:
    """One operator's line of the unit's record."""
    tally = pc.value_counts(verdict["drop_reason"].drop_null())
    chars_in, chars_dropped = int(chars[alive].sum()), int(chars[gone].sum())
    return {
        "name": name,
        "rows_in": int(alive.sum()),
        "created": 0,
        "dropped": {f"{name}/{e['values'].as_py()}": e["counts"].as_py() for e in tally},
        "chars_in": chars_in,
        "chars_dropped": chars_dropped,
        "chars_out": chars_in - chars_dropped,
        "seconds": 0.0,
    }


def _scatter(column: pa.Array | None, values: pa.Array, rows: NDArray[np.int64], n: int) -> pa.Array:
    """The column with `values` put at `rows`; rows without one keep what they had. Null values put nothing."""
    where = np.zeros(n, bool)
    valid = pc.is_valid(values).to_numpy(zero_copy_only=False)
    where[rows[valid]] = True
    base = column if column is not None else pa.nulls(n, values.type)
    return pc.replace_with_mask(base, pa.array(where), values.filter(pa.array(valid)).cast(base.type))
