"""A stage of global operators: their phases run as shuffles through the store, their verdicts come back to the rows.

Only keys travel. What is written are layers over the files above: for each file the rows that stay, with the
columns the verdicts add. The text is not copied.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cluster.exchange import concatenate, open_partition, read_table, write_partitions, write_table
from cluster.index import IndexTask, look_up
from cluster.storage import Store
from cluster.tables import Entry, TableWriter, read_entry
from cluster.units import Record, Task, peak_rss_bytes, run_units
from operators.apply import Step
from operators.document import identity, with_columns
from operators.phases import (
    DOCUMENTS,
    HISTORY,
    VERDICT,
    GlobalOperator,
    Phase,
    distinct_keys,
    partition_of,
    with_doc,
    with_keepers,
)
from workflows import profile
from workflows.map_stage import EXPLAINING, explained
from workflows.recipe import RecipeError
from workflows.stage import (
    INDEX,
    Job,
    Manifest,
    Stage,
    basis_of,
    characters,
    folder_of,
    recalling,
    remembered,
    summarise,
)

HISTORY_BYTES = 1 << 30  # of the index of published builds that one reduce goes through
PROFILED = ("id", "chars", "source", "language", "language_score")


@dataclass(frozen=True)
class Routed:
    """The verdicts of one operator, partitioned by the number of the file they belong to."""

    name: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Remembering:
    """A phase that remembers, and what its map made of the documents: a file in the exchange for each of theirs."""

    operator: str
    phase: Phase
    keys: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.operator}/{self.phase.name}"


@dataclass
class Passes:
    """Runs the passes of a stage, each in its own folder of the exchange, and keeps their records."""

    stage: Stage
    job: Job
    upstream: Manifest
    records: list[Record] = field(default_factory=list)

    def folder(self, name: str) -> str:
        return f"{folder_of(self.stage, self.job)}/exchange/{name}"

    def run(self, name: str, works: Sequence[Any], task: Task) -> list[Record]:
        """Names of passes begin with the operator's, if it is one's."""
        store, progress = self.job.store, self.job.progress
        progress.started(self.stage.name, name, len(works))
        label = f"{self.stage.name}[{name}]"
        done = run_units(store, self.folder(name), works, task, label, progress.unit, basis_of(self.upstream))
        self.records.extend(record | {"operator": name.partition("/")[0]} for record in done)
        return done

    def exchange(self, name: str, works: Sequence[Any], task: Task) -> list[str]:
        """The same for a task that writes one file of rows for each work: those files."""
        self.run(name, works, task)
        return [row_file(self.folder(name), number) for number in range(len(works))]


def row_file(folder: str, number: int) -> str:
    return f"{folder}/{number:06d}.arrow"


def check_history(stage: Stage, job: Job) -> None:
    """Raises RecipeError where a published build remembers nothing that an operator could compare with."""
    for one in stage.chain():
        for step, build in itertools.product(recalling(one), job.history):
            before = next((found for found in build["stages"] if found["name"] == one.name), None)
            if problem := _incomparable(step, before):
                scope = "set `scope: build` to compare with nothing published, or " * hasattr(step.operator, "scope")
                raise RecipeError(
                    f"params.{step.name}: {problem} in the published build {build['build_id']}, to compare with: "
                    f"{scope}replace what is published by a new `build`"
                )


def _incomparable(step: Step, before: Manifest | None) -> str | None:
    """How the step differs from that of a published build, in all that decides what is remembered."""
    if before is None or step.name not in before["files"].get(INDEX, {}):
        return "there is no index for it"
    now = identity(step.operator)
    then = next(found["parameters"] for found in before["steps"] if found["name"] == step.name)
    for name in sorted((now.keys() | then.keys()) - {"scope"}):
        if now.get(name) != then.get(name):
            return f"{name} is {now.get(name)!r} here and {then.get(name)!r}"
    return None


def run_global_stage(stage: Stage, job: Job, upstream: Manifest) -> Manifest:
    """Run the stage to its manifest's content; the caller saves it and may then sweep `exchange/`."""
    started = time.perf_counter()
    folder = folder_of(stage, job)
    files: list[Entry] = upstream["files"]["kept"]
    passes = Passes(stage, job, upstream)
    verdicts: tuple[Routed, ...] = ()
    remembering: list[Remembering] = []
    for step in stage.steps if files else ():
        routed, found = _run_operator(passes, step, verdicts)
        verdicts = (*verdicts, routed)
        remembering += found
    index = _remember(passes, remembering, verdicts)
    job.progress.started(stage.name, "verdicts", len(files))
    task = ApplyTask(job.store, folder, verdicts, job.recipe.dropped_text)
    label = f"{stage.name}[verdicts]"
    records = run_units(job.store, folder, files, task, label, job.progress.unit, basis_of(upstream))
    manifest = summarise(stage, job, upstream, records, time.perf_counter() - started)
    manifest["files"][INDEX] = index
    cpu_seconds, peaks = (sum(r["cpu_seconds"] for r in passes.records), [r["peak_rss_bytes"] for r in passes.records])
    manifest["cpu_seconds"] = round(manifest["cpu_seconds"] + cpu_seconds, 3)
    manifest["peak_rss_bytes"] = max([manifest["peak_rss_bytes"], *peaks])
    for operator in manifest["operators"]:
        spent = sum(r["seconds"] for r in passes.records if r["operator"] == operator["name"])
        operator["seconds"] = round(spent, 3)
    return manifest


def _run_operator(passes: Passes, step: Step, verdicts: tuple[Routed, ...]) -> tuple[Routed, list[Remembering]]:
    """Run the phases of one operator, then route its verdicts to the files."""
    operator: GlobalOperator = step.operator
    store, files = passes.job.store, passes.upstream["files"]["kept"]
    columns = tuple(dict.fromkeys(["id", "priority", "chars", *operator.needs]))
    history = remembered(passes.stage, step.name, passes.job) if operator.recalls else {}
    outputs: dict[str, list[Any]] = {DOCUMENTS: files}
    remembering: list[Remembering] = []
    for phase in operator.phases(passes.upstream["kept"]):
        known = history.get(phase.name, [])
        name = f"{step.name}/{phase.name}"
        partitions = max(phase.partitions, -(-sum(entry["bytes"] for entry in known) // HISTORY_BYTES))
        mapped: dict[str, list[str]] = {}
        for source, function in phase.maps.items():
            pass_name = f"{name}-from-{source}"
            task = PhaseMap(store, passes.folder(pass_name), function, partitions, columns, verdicts)
            mapped[source] = passes.exchange(pass_name, outputs[source], task)
        reduce = PhaseReduce(store, passes.folder(name), phase.reduce, mapped, tuple(known))
        outputs[phase.name] = passes.exchange(name, list(range(partitions)), reduce)
        if phase.remember:
            remembering.append(Remembering(step.name, phase, tuple(mapped[DOCUMENTS])))
    route = RouteMap(store, passes.folder(f"{step.name}/route"), len(files))
    routed = passes.exchange(f"{step.name}/route", outputs[phase.name], route)
    return Routed(step.name, tuple(routed)), remembering


def _remember(passes: Passes, remembering: Sequence[Remembering], verdicts: tuple[Routed, ...]) -> dict[str, Any]:
    """Write what the operators remember of this build; the entries of its files by operator and phase."""
    stage, job, files = passes.stage, passes.job, passes.upstream["files"]["kept"]
    index: dict[str, dict[str, list[Entry]]] = {}
    for step in stage.steps:
        phases = step.operator.phases(passes.upstream["kept"])
        if kept := [phase.name for phase in phases if phase.remember]:
            index[step.name] = {name: [] for name in kept}
    if remembering:
        task = RememberTask(job.store, passes.folder("index"), tuple(remembering), verdicts)
        passes.run("index", files, task)
        exchanged = {one.name: [row_file(task.folder_of(one), n) for n in range(len(files))] for one in remembering}
        works = [[one.operator, one.phase.name, p] for one in remembering for p in range(one.phase.partitions)]
        write = IndexTask(job.store, f"{folder_of(stage, job)}/{INDEX}", exchanged)
        for one, record in zip(works, passes.run("index/files", works, write), strict=True):
            index[str(one[0])][str(one[1])] += record["entries"]
    return index


@dataclass(frozen=True)
class PhaseMap:
    """The map side of a phase on one unit of one source: rows to the partitions of their keys. The documents are those
    that earlier operators of the stage left."""

    store: Store
    folder: str
    map: Callable[[pa.Table], pa.Table]
    partitions: int
    columns: tuple[str, ...]
    verdicts: tuple[Routed, ...]

    def __call__(self, number: int, work: Any) -> Record:
        table = read_table(self.store, work) if isinstance(work, str) else self._documents(number, work)
        rows = self.map(table)
        partition = partition_of(rows["key"].to_numpy(), self.partitions)
        write_partitions(self.store, row_file(self.folder, number), rows, partition, self.partitions)
        return {"bytes": rows.nbytes, "peak_rss_bytes": peak_rss_bytes()}

    def _documents(self, number: int, work: Entry) -> pa.Table:
        docs = read_entry(self.store, work, self.columns)
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
    reduce: Callable[[Mapping[str, pa.Table]], pa.Table]
    mapped: dict[str, list[str]]
    history: tuple[Entry, ...]

    def __call__(self, number: int, work: int) -> Record:
        with ExitStack() as stack:
            parts = {
                source: stack.enter_context(open_partition(self.store, keys, work))
                for source, keys in self.mapped.items()
            }
            if self.history and (found := look_up(self.store, self.history, distinct_keys(parts))):
                parts[HISTORY] = concatenate(found)
            result = self.reduce(parts)
            write_table(self.store, row_file(self.folder, number), result)
            return {"bytes": result.nbytes, "peak_rss_bytes": peak_rss_bytes()}


@dataclass(frozen=True)
class RememberTask:
    """What the operators remember of one file's documents, to the partitions of their keys."""

    store: Store
    folder: str
    remembering: tuple[Remembering, ...]
    verdicts: tuple[Routed, ...]

    def folder_of(self, one: Remembering) -> str:
        return f"{self.folder}/{one.name}"

    def __call__(self, number: int, work: Entry) -> Record:
        docs = with_doc(read_entry(self.store, work, ["id"]), number)
        judged = {name: verdict for name, _, verdict in own_verdicts(self.store, self.verdicts, number)}
        for one in self.remembering:
            assert one.phase.remember
            rows = read_table(self.store, one.keys[number])
            index = one.phase.remember(rows, with_keepers(docs, judged[one.operator]))
            partition = partition_of(index["key"].to_numpy(), one.phase.partitions)
            write_partitions(self.store, row_file(self.folder_of(one), number), index, partition, one.phase.partitions)
        return {"peak_rss_bytes": peak_rss_bytes()}


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
        write_partitions(self.store, row_file(self.folder, number), verdict, partition, self.files)
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
