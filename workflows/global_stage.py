"""A stage of global operators: their phases run as shuffles through the store, their verdicts come back to the rows.

Only keys travel. What is written are layers over the files above: for each file the rows that stay, with the
columns the verdicts add and the ranges they cut out of the text. The text is not copied.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cluster import cuts
from cluster.exchange import concatenate, open_partition, read_table, write_partitions, write_table
from cluster.index import IndexTask, look_up
from cluster.storage import Store
from cluster.tables import Entry, TableWriter, iterate_entry, read_entry
from cluster.units import Record, Task, UnitFailed, peak_rss_bytes, run_units
from operators.apply import Step
from operators.document import identity, with_columns
from operators.histogram import histogram, numbers
from operators.phases import (
    CUTS,
    DOCUMENTS,
    HISTORY,
    MEMORY,
    PUBLISHED_NUMBER,
    SHARE,
    VERDICT,
    Fold,
    GlobalOperator,
    Phase,
    distinct_keys,
    partition_of,
    with_doc,
    with_keepers,
)
from operators.read.rows import quarantine
from operators.read.span import QUARANTINE
from workflows import profile
from workflows.isolate import REASON as CRASHED
from workflows.isolate import survivors
from workflows.map_stage import AUDIO, EXPLAINING, HEARD, explained
from workflows.recipe import RecipeError
from workflows.stage import (
    INDEX,
    Histograms,
    Job,
    Manifest,
    Stage,
    StageError,
    basis_of,
    characters,
    folder_of,
    recalled_builds,
    recalling,
    remembered,
    summarise,
)

READERS = 16  # threads that ask the store for files
HISTORY_SHARE = 2  # of what a process may take goes to the index of published builds that one reduce goes through
CLUSTER = ("cluster", "cluster_size")  # what an earlier stage has found of them stays
TOPIC = "topic"
PROFILED = ("id", TOPIC, "chars", "source", "language", "language_score")


@dataclass(frozen=True)
class Routed:
    """Rows of one operator (its verdicts, or what a phase found out), partitioned by the file of their documents."""

    name: str
    keys: tuple[str, ...]
    measures: tuple[str, ...] = ()
    quarantines: bool = False  # no verdicts, but the documents that ended the processes of the phase `name`


@dataclass(frozen=True)
class Remembering:
    """A phase that remembers, and what its map made of the documents: a file in the exchange for each of theirs."""

    operator: str
    phase: Phase
    partitions: int
    keys: tuple[str, ...]  # none where it has no such map

    @property
    def name(self) -> str:
        return f"{self.operator}/{self.phase.name}"


@dataclass
class Passes:
    """Runs the passes of a stage, each in its own folder of the exchange, and keeps their records."""

    stage: Stage
    job: Job
    upstream: Manifest
    memory: int
    records: list[Record] = field(default_factory=list)

    def folder(self, name: str) -> str:
        return f"{folder_of(self.stage, self.job)}/exchange/{name}"

    def run(self, name: str, works: Sequence[Any], task: Task, gpu: bool = False) -> list[Record]:
        """Names of passes begin with the operator's, if it is one's."""
        store, progress = self.job.store, self.job.progress
        progress.started(self.stage.name, name, len(works))
        label = f"{self.stage.name}[{name}]"
        basis = f"{basis_of(self.upstream)}/{self.memory}"  # which decides how rows are partitioned
        ask = self.job.recipe.workers.ask(gpu)
        done = run_units(store, self.folder(name), works, task, label, progress.unit, basis, ask)
        self.records.extend(record | {"pass": name, "operator": name.partition("/")[0]} for record in done)
        return done

    def exchange(self, name: str, works: Sequence[Any], task: Task, gpu: bool = False) -> list[str]:
        """The same for a task that writes one file of rows for each work: those files."""
        self.run(name, works, task, gpu)
        return [row_file(self.folder(name), number) for number in range(len(works))]

    def route(self, name: str, tables: Sequence[str], schema: pa.Schema) -> tuple[str, ...]:
        """Send rows with a `doc` to the files of their documents; columns of `schema` that are missing are null."""
        files = len(self.upstream["files"]["kept"])
        route = RouteMap(self.job.store, self.folder(name), files, schema)
        return tuple(self.exchange(name, tables, route))


def row_file(folder: str, number: int) -> str:
    return f"{folder}/{number:06d}.arrow"


def check_history(stage: Stage, job: Job) -> None:
    """Raises RecipeError where a build that is compared with remembers nothing that an operator could compare."""
    for one in stage.chain():
        for step in recalling(one):
            for build in recalled_builds(step, job):
                before = next((found for found in build["stages"] if found["name"] == one.name), None)
                problem = _incomparable(step, before)
                if isinstance(step.operator.recalls, tuple):
                    problem = problem or _collected(step, before, job.store)
                    kind, wayout = "listed", "leave it out of `scope`"
                else:
                    scope = "set `scope: build` to compare with nothing published, or "
                    wayout = scope * hasattr(step.operator, "scope") + "replace what is published by a new `build`"
                    kind = "published"
                if problem:
                    where = f"in the {kind} build {build['build_id']}, to compare with"
                    raise RecipeError(f"params.{step.name}: {problem} {where}: {wayout}")


def _collected(step: Step, before: Manifest | None, store: Store) -> str | None:
    """Whether files of a build that need not be visible are gone."""
    index = before["files"][INDEX][step.name] if before else {}
    keys = [entry["path"] for entries in index.values() for entry in entries]
    with ThreadPoolExecutor(READERS) as pool:
        gone = list(pool.map(store.exists, keys)).count(False)
    return f"{gone} of {len(keys)} files of its index were collected by gc" if gone else None


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
    passes = Passes(stage, job, upstream, memory_of(job))
    verdicts: tuple[Routed, ...] = ()
    remembering: list[Remembering] = []
    summaries: dict[str, Mapping[str, Any]] = {}
    for step in stage.steps if files else ():
        routed, found, summaries[step.name] = _run_operator(passes, step, verdicts)
        verdicts = (*verdicts, *routed)
        remembering += found
    index = _remember(passes, remembering, verdicts)
    job.progress.started(stage.name, "verdicts", len(files))
    task = ApplyTask(job.store, folder, verdicts, job.recipe.dropped_text)
    label = f"{stage.name}[verdicts]"
    histograms = Histograms(job.progress)
    ask = job.recipe.workers.ask()
    records = run_units(job.store, folder, files, task, label, histograms.unit, basis_of(upstream), ask)
    seconds = time.perf_counter() - started
    manifest = summarise(stage, job, upstream, records, seconds, histograms, passes.records)
    manifest["files"][INDEX] = index
    for operator in manifest["operators"]:
        operator["summary"] = dict(summaries.get(operator["name"], {}))
    return manifest


def memory_of(job: Job) -> int:
    """Bytes that one process may take for rows of an exchange."""
    return job.recipe.workers.memory_bytes or MEMORY


def estimate(stage: Stage, job: Job, rows: int) -> list[dict[str, Any]]:
    """What the exchanges of a stage of `rows` documents are expected to move and to hold, a line for each phase."""
    memory = memory_of(job)
    lines = []
    for step in stage.steps if stage.is_global else ():
        for phase in step.operator.phases(rows, memory):
            line = {"operator": step.name, "phase": phase.name}
            if isinstance(phase, Fold):
                lines.append(line | {"bytes": 0, "partitions": 1, "memory": phase.bytes})
            else:
                partitions = phase.partitions_in(memory)
                most = phase.bytes if phase.partitions else phase.bytes * SHARE // partitions
                lines.append(line | {"bytes": phase.bytes, "partitions": partitions, "memory": most})
    return lines


Told = tuple[Routed, list[Remembering], Mapping[str, Any]]
"""An operator's verdicts, what it remembers and its summary."""


def _run_operator(
    passes: Passes, step: Step, verdicts: tuple[Routed, ...]
) -> tuple[list[Routed], list[Remembering], Mapping[str, Any]]:
    """Run the phases of one operator, then route its verdicts to the files; with its summary.

    Documents that end the processes of a map are out from the operator's first phase on: where an earlier phase has
    seen them, it starts again without them. So no document goes as a duplicate of one that is not there.
    """
    phases = step.operator.phases(passes.upstream["kept"], passes.memory)
    for held in (one for one in phases if isinstance(one, Fold) and one.bytes > passes.memory):
        raise StageError(
            f"stage {passes.stage.name}: {step.name}/{held.name} would hold about {held.bytes / 1e9:.1f} GB in one "
            f"process, and workers.memory_bytes is {passes.memory}: raise it, or have the operator divide its work"
        )
    lost: list[Routed] = []
    for again in range(len(phases) + 1):
        name = f"{step.name}/again-{again}" if again else step.name
        if told := _run_phases(passes, step, phases, name, verdicts, lost):
            routed, remembering, summary = told
            return [*lost, routed], remembering, summary
    raise StageError(f"stage {passes.stage.name}: {step.name} ends its workers at other documents each time")


def _run_phases(
    passes: Passes,
    step: Step,
    phases: Sequence[Phase | Fold],
    prefix: str,
    verdicts: tuple[Routed, ...],
    lost: list[Routed],
) -> Told | None:
    """The phases, in folders that begin with `prefix`. Adds to `lost` what ended the processes of a map; None where an
    earlier phase has seen that."""
    operator: GlobalOperator = step.operator
    store, files = passes.job.store, passes.upstream["files"]["kept"]
    columns = tuple(dict.fromkeys(["id", *operator.needs]))
    history = remembered(passes.stage, step, passes.job) if operator.recalls else {}
    outputs: dict[str, list[Any]] = {DOCUMENTS: files}
    routed: dict[str, tuple[str, ...]] = {}
    remembering: list[Remembering] = []
    seen = False
    for phase in phases:
        name = f"{prefix}/{phase.name}"
        whole = tuple(tuple(outputs[one]) for one in phase.whole)
        if isinstance(phase, Fold):
            sizes = tuple(entry["rows"] for entry in files)
            fold = FoldTask(store, passes.folder(name), phase.fold, whole, sizes)
            outputs[phase.name] = [key for r in passes.run(name, phase.slices(outputs), fold) for key in r["tables"]]
            continue
        if phase.own and phase.own not in routed:
            back = f"{prefix}/{phase.own}-to-documents"
            routed[phase.own] = passes.route(back, outputs[phase.own], pa.schema([]))
        known = history.get(phase.name, [])
        known_bytes: int = sum(entry["bytes"] for entry in known)
        partitions = max(phase.partitions_in(passes.memory), -(-known_bytes * HISTORY_SHARE // passes.memory))
        mapped: dict[str, list[str]] = {}
        for source, function in phase.maps.items():
            pass_name = f"{name}-from-{source}"
            own = routed[phase.own] if source == DOCUMENTS and phase.own else None
            gone = (*verdicts, *lost)
            task = PhaseMap(store, passes.folder(pass_name), function, partitions, columns, gone, own, whole)
            mapped[source] = passes.exchange(pass_name, outputs[source], task)
            ended = [doc for r in passes.records if r["pass"] == pass_name for doc in r.get("ended", ())]
            if ended:
                lost.append(_quarantined(passes, name, ended))
                if seen:
                    return None
        seen = seen or DOCUMENTS in phase.maps
        reduce = PhaseReduce(store, passes.folder(name), phase.reduce, mapped, tuple(known))
        outputs[phase.name] = passes.exchange(name, list(range(partitions)), reduce, phase.gpu)
        if phase.remember:
            keys = tuple(mapped.get(DOCUMENTS, ()))
            remembering.append(Remembering(step.name, phase, phase.partitions_in(passes.memory), keys))
    told = [concatenate([read_table(store, key) for key in outputs[name]]) for name in operator.summarised]
    try:
        summary = operator.summary(*told)
    except ValueError as error:
        raise StageError(f"stage {passes.stage.name}: {step.name}: {error}") from error
    keys = passes.route(f"{prefix}/route", outputs[phase.name], VERDICT)
    return Routed(step.name, keys, operator.measures), remembering, summary


def _quarantined(passes: Passes, phase: str, ended: Sequence[tuple[int, str]]) -> Routed:
    """Documents that ended the processes of a phase, and the signals, on their way to their files."""
    rows = {"doc": [doc for doc, _ in ended], "drop_detail": [f"{signal} in {phase}" for _, signal in ended]}
    table = pa.table(rows, schema=pa.schema([VERDICT.field(name) for name in rows]))
    table = table.append_column(VERDICT.field("drop_reason"), pa.repeat(CRASHED, len(table)))
    key = row_file(passes.folder(f"{phase}-ended"), 0)
    write_table(passes.job.store, key, table)
    return Routed(phase, passes.route(f"{phase}-ended-to-documents", [key], VERDICT), quarantines=True)


def _remember(passes: Passes, remembering: Sequence[Remembering], verdicts: tuple[Routed, ...]) -> dict[str, Any]:
    """Write what the operators remember of this build; the entries of its files by operator and phase."""
    stage, job, files = passes.stage, passes.job, passes.upstream["files"]["kept"]
    index: dict[str, dict[str, list[Entry]]] = {}
    for step in stage.steps:
        phases = step.operator.phases(passes.upstream["kept"], passes.memory)
        if kept := [phase.name for phase in phases if isinstance(phase, Phase) and phase.remember]:
            index[step.name] = {name: [] for name in kept}
    if remembering:
        first = tuple(sorted(verdicts, key=lambda one: not one.quarantines))  # whom nobody is to be compared with
        task = RememberTask(job.store, passes.folder("index"), tuple(remembering), first)
        passes.run("index", files, task)
        exchanged = {one.name: [row_file(task.folder_of(one), n) for n in range(len(files))] for one in remembering}
        works = [[one.operator, one.phase.name, p] for one in remembering for p in range(one.partitions)]
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
    map: Callable[..., pa.Table]
    partitions: int
    columns: tuple[str, ...]
    verdicts: tuple[Routed, ...]
    own: tuple[str, ...] | None  # routed rows of an earlier phase
    whole: tuple[tuple[str, ...], ...]  # tables of earlier phases

    def __call__(self, number: int, work: Any) -> Record:
        return self._write(number, read_table(self.store, work) if isinstance(work, str) else self.rows(number, work))

    def isolate(self, number: int, work: Any) -> Record:
        """The same without the documents that end the process: the record tells which, and by what signal."""
        if isinstance(work, str):
            raise UnitFailed("it ends its workers, at rows of an earlier phase: not by one document alone")
        docs, crashes = survivors(self, number, work)
        ended = [(int(doc), signal) for doc, signal in crashes]
        return self._write(number, docs) | {"ended": ended}

    def _write(self, number: int, table: pa.Table) -> Record:
        with self.mapped(number, table) as rows:
            partition = partition_of(rows["key"].to_numpy(), self.partitions)
            write_partitions(self.store, row_file(self.folder, number), rows, partition, self.partitions)
            return {"bytes": rows.nbytes, "peak_rss_bytes": peak_rss_bytes()}

    @contextmanager
    def mapped(self, number: int, table: pa.Table) -> Iterator[pa.Table]:
        """What the map makes of rows of the unit. Those of an earlier phase, which it is given, are of the same
        documents."""
        with ExitStack() as stack:
            given = []
            if self.own is not None:
                own = stack.enter_context(open_partition(self.store, self.own, number))
                given.append(own.filter(pc.is_in(own["doc"], value_set=table["doc"].combine_chunks())))
            given += [concatenate([read_table(self.store, key) for key in keys]) for keys in self.whole]
            yield self.map(table, *given)

    def rows(self, number: int, work: Entry) -> pa.Table:
        """The unit's documents that are left."""
        docs = with_doc(read_entry(self.store, work, self.columns), number)
        alive = np.ones(docs.num_rows, bool)
        for one in own_verdicts(self.store, self.verdicts, number):
            alive[one.rows[one.goes]] = False
            if "text" in docs.column_names and one.cuts:
                docs = with_columns(docs, {"text": cuts.cut(docs["text"], one.cuts_of(docs.num_rows))})
            for name in [c for c in one.table.column_names if c in self.columns and c not in (*VERDICT.names, CUTS)]:
                before = docs[name].combine_chunks() if name in docs.column_names else None
                values = one.table[name].combine_chunks()
                docs = with_columns(docs, {name: _scatter(before, values, one.rows, docs.num_rows)})
        return docs.filter(pa.array(alive))


@dataclass(frozen=True)
class Verdicts:
    """What one operator says of the documents of one file: verdict i is on row `rows[i]`, ascending."""

    operator: str
    rows: NDArray[np.int64]
    table: pa.Table
    measures: tuple[str, ...]

    @property
    def goes(self) -> NDArray[np.bool_]:
        """Which of the verdicts drop their document."""
        found: NDArray[np.bool_] = pc.is_valid(self.table["drop_reason"]).to_numpy()
        return found

    @property
    def trims(self) -> NDArray[np.bool_]:
        """Which of them cut something out of a document that stays."""
        if CUTS not in self.table.column_names:
            return np.zeros(len(self.rows), bool)
        some = pc.fill_null(pc.greater(pc.list_value_length(self.table[CUTS]), 0), False)
        return np.asarray(some.to_numpy() & ~self.goes)

    @property
    def cuts(self) -> bool:
        return bool(self.trims.any())

    def cuts_of(self, documents: int) -> pa.ChunkedArray:
        """The cuts of each of the file's documents: null for those that go or are left as they are."""
        place = np.zeros(documents, np.int64)
        place[self.rows] = np.arange(len(self.rows))
        whole = np.ones(documents, bool)
        whole[self.rows[self.trims]] = False
        return self.table[CUTS].cast(cuts.TYPE).take(pa.array(place, mask=whole))


def own_verdicts(store: Store, routed: Sequence[Routed], number: int) -> Iterator[Verdicts]:
    """The verdicts on the documents of file `number`, operator by operator."""
    for one in routed:
        with open_partition(store, one.keys, number) as table:
            verdict = table.sort_by("doc")
            rows = (verdict["doc"].to_numpy() & np.uint64(0xFFFFFFFF)).astype(np.int64)
            yield Verdicts(one.name, rows, verdict.combine_chunks(), one.measures)


@dataclass(frozen=True)
class FoldTask:
    """One part of a fold over the tables of phases, read one at a time; what it yields is written one at a time."""

    store: Store
    folder: str
    fold: Callable[..., Iterator[pa.Table]]
    whole: tuple[tuple[str, ...], ...]
    sizes: tuple[int, ...]

    def __call__(self, number: int, work: list[list[str]]) -> Record:
        written: list[str] = []
        size = 0
        sources = [Tables(self.store, tuple(keys)) for keys in work]
        whole = [concatenate([read_table(self.store, key) for key in keys]) for keys in self.whole]
        for table in self.fold(*sources, *whole, self.sizes):
            written.append(f"{self.folder}/{number:06d}-{len(written):06d}.arrow")
            write_table(self.store, written[-1], table)
            size += table.nbytes
        return {"tables": written, "bytes": size, "fold": True, "peak_rss_bytes": peak_rss_bytes()}


@dataclass(frozen=True)
class Tables:
    """Tables in the store, one in memory at a time, as often as they are gone through."""

    store: Store
    keys: tuple[str, ...]

    def __iter__(self) -> Iterator[pa.Table]:
        return (read_table(self.store, key) for key in self.keys)


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
        alive = np.ones(docs.num_rows, bool)
        size = 0
        for verdicts in own_verdicts(self.store, self.verdicts, number):
            seen = docs.filter(pa.array(alive))
            for one in (one for one in self.remembering if one.operator == verdicts.operator):
                assert one.phase.remember
                rows = read_table(self.store, one.keys[number]) if one.keys else None
                if rows is not None and "doc" in rows.column_names:
                    rows = rows.filter(pc.is_in(rows["doc"], value_set=seen["doc"].combine_chunks()))
                index = one.phase.remember(rows, with_keepers(seen, verdicts.table))
                partition = partition_of(index["key"].to_numpy(), one.partitions)
                write_partitions(self.store, row_file(self.folder_of(one), number), index, partition, one.partitions)
                size += index.nbytes
            alive[verdicts.rows[verdicts.goes]] = False
        return {"bytes": size, "peak_rss_bytes": peak_rss_bytes()}


@dataclass(frozen=True)
class RouteMap:
    """Sends rows to the files of their documents; rows on published documents go nowhere."""

    store: Store
    folder: str
    files: int
    schema: pa.Schema

    def __call__(self, number: int, work: str) -> Record:
        rows = read_table(self.store, work)
        missing = {f.name: pa.nulls(rows.num_rows, f.type) for f in self.schema if f.name not in rows.column_names}
        rows = with_columns(rows, missing)
        rows = rows.filter(pa.array(rows["doc"].to_numpy() < PUBLISHED_NUMBER))
        partition = (rows["doc"].to_numpy() >> np.uint64(32)).astype(np.int64)
        write_partitions(self.store, row_file(self.folder, number), rows, partition, self.files)
        return {"bytes": rows.nbytes, "peak_rss_bytes": peak_rss_bytes()}


@dataclass(frozen=True)
class ApplyTask:
    """Writes the layer over one file: the rows that stay with what the verdicts add, and the rows that do not."""

    store: Store
    folder: str
    verdicts: tuple[Routed, ...]
    dropped_text: bool

    def __call__(self, number: int, work: Entry) -> Record:
        measures = [name for one in self.verdicts for name in one.measures]
        docs = read_entry(self.store, work, list(dict.fromkeys([*PROFILED, *EXPLAINING, *HEARD, *CLUSTER, *measures])))
        chars = docs["chars"].to_numpy()
        alive = np.ones(docs.num_rows, bool)
        quarantined = self._lost(docs, work, number, alive)
        added: dict[str, pa.Array] = {
            "cluster": docs["id"].combine_chunks(),
            "cluster_size": pa.array(np.ones(docs.num_rows, np.int64)),
        }
        added |= {name: docs[name].combine_chunks() for name in CLUSTER if name in docs.column_names}
        docs = docs.drop_columns([name for name in CLUSTER if name in docs.column_names])
        dead: list[pa.Table] = []
        operators = []
        text: pa.ChunkedArray | None = None
        for one in own_verdicts(self.store, [one for one in self.verdicts if not one.quarantines], number):
            left = chars
            if one.cuts:
                text = read_entry(self.store, work, ["text"])["text"] if text is None else text
                added[f"{cuts.PREFIX}{one.operator}"] = ranges = one.cuts_of(docs.num_rows).combine_chunks()
                text = pa.chunked_array([cuts.cut(text, pa.chunked_array([ranges]))])
                left = pc.fill_null(pc.utf8_length(text), 0).to_numpy().astype(np.int64)
            seen = alive.copy()
            operators.append(_count(one, alive, chars, left))
            gone, verdict = one.rows[one.goes], one.table
            alive[gone] = False
            dead.append(self._dead(docs, work, gone, verdict.filter(pa.array(one.goes)), one.operator))
            chars = left
            if one.cuts:
                added["chars"] = pa.array(chars)
                docs = with_columns(docs, {"chars": added["chars"]})
            for column in [c for c in verdict.column_names if c not in (*VERDICT.names, CUTS) or c in added]:
                values = verdict[column].combine_chunks()
                added[column] = _scatter(added.get(column), values, one.rows, docs.num_rows)
            operators[-1]["measured"] = _measured(one.measures, docs, added, seen)
        stays = pa.array(np.flatnonzero(alive))
        layer = pa.table({"row": stays.cast(pa.uint32()), "id": docs["id"].take(stays)})
        layer = with_columns(layer, {name: column.take(stays) for name, column in added.items()})
        if TOPIC in added:
            docs = with_columns(docs, {TOPIC: added[TOPIC]})
        dropped = pa.concat_tables(dead, promote_options="permissive") if dead else docs.slice(0, 0)
        writers = {
            "kept": TableWriter(self.store, f"{self.folder}/kept", number, over=work),
            "dropped": TableWriter(self.store, f"{self.folder}/dropped", number),
            "quarantined": TableWriter(self.store, f"{self.folder}/quarantined", number),
        }
        tables = {"kept": layer, "dropped": dropped, "quarantined": quarantined}
        for fate, writer in writers.items():
            with writer as file:
                file.write(tables[fate])
        kept_profile, dropped_profile = profile.profile(docs.take(stays)), profile.profile(dropped)
        reasons = {reason: n for operator in operators for reason, n in operator["dropped"].items()}
        return {
            "rows_in": docs.num_rows,
            "created": 0,
            "kept": len(stays),
            "dropped": reasons,
            "quarantined": len(quarantined),
            "quarantine_reasons": {CRASHED: len(quarantined)} if len(quarantined) else {},
            "characters": characters(operators, int(chars[alive].sum())),
            "operators": operators,
            "profile": {
                "in": profile.merge([kept_profile, dropped_profile]),
                "kept": kept_profile,
                "dropped": profile.drop_profile(dropped),
            },
            "files": {fate: writer.entries for fate, writer in writers.items()},
            "peak_rss_bytes": peak_rss_bytes(),
        }

    def _lost(self, docs: pa.Table, work: Entry, number: int, alive: NDArray[np.bool_]) -> pa.Table:
        """Rows of quarantine for the documents that ended processes. They live for no operator: one that saw them
        before another one ended has nothing to tell of them."""
        bad = [QUARANTINE.empty_table()]
        for one in own_verdicts(self.store, [one for one in self.verdicts if one.quarantines], number):
            ids = docs["id"].take(pa.array(one.rows)).to_pylist()
            told = zip(ids, one.rows.tolist(), one.table["drop_detail"].to_pylist(), strict=True)
            bad.append(quarantine([(name, work["path"], row, 1, CRASHED, detail) for name, row, detail in told]))
            alive[one.rows] = False
        return pa.concat_tables(bad)

    def _dead(self, docs: pa.Table, work: Entry, rows: NDArray[np.int64], verdict: pa.Table, name: str) -> pa.Table:
        taken = docs.take(pa.array(rows))
        if self.dropped_text and len(rows):
            names = ["text", *(AUDIO if profile.has_audio(docs.schema) else ())]
            contents = taken_from(iterate_entry(self.store, work, names), rows)
            taken = with_columns(taken, dict(zip(contents.column_names, contents.columns, strict=True)))
        reasons = pc.binary_join_element_wise(name, verdict["drop_reason"], "/")
        columns = {c: verdict[c] for c in VERDICT.names if c not in ("doc", "drop_reason")}
        return explained(with_columns(taken, {"drop_reason": reasons, **columns}), self.dropped_text)


def taken_from(parts: Iterable[pa.Table], rows: NDArray[np.int64]) -> pa.Table:
    """Rows of what the parts make up, ascending, a part at a time: all of a file's audio need not be in memory."""
    found, start = [], 0
    for part in parts:
        inside = rows[(rows >= start) & (rows < start + part.num_rows)] - start
        found.append(part.take(pa.array(inside)))
        start += part.num_rows
    return pa.concat_tables(found)


def _count(one: Verdicts, alive: NDArray[np.bool_], chars: NDArray[Any], left: NDArray[Any]) -> Record:
    """One operator's line of the unit's record; `chars` of each document before it, `left` after its cuts."""
    tally = pc.value_counts(one.table["drop_reason"].drop_null())
    trims = pa.array(one.trims & alive[one.rows])
    trimmed = pc.value_counts(pc.fill_null(one.table["drop_detail"].filter(trims), ""))
    gone = one.rows[one.goes]
    stays = alive.copy()
    stays[gone] = False
    return {
        "name": one.operator,
        "rows_in": int(alive.sum()),
        "created": 0,
        "dropped": {f"{one.operator}/{e['values'].as_py()}": e["counts"].as_py() for e in tally},
        "trimmed": {e["values"].as_py(): e["counts"].as_py() for e in trimmed},
        "chars_in": int(chars[alive].sum()),
        "chars_dropped": int(chars[gone].sum()),
        "chars_out": int(left[stays].sum()),
        "seconds": 0.0,  # its passes tell
        "cpu_seconds": 0.0,
    }


def _measured(
    names: Sequence[str], docs: pa.Table, added: Mapping[str, pa.Array], seen: NDArray[np.bool_]
) -> dict[str, dict[str, int]]:
    """Histograms of columns of the documents that an operator saw, those that operators of the stage added first."""
    known = {**{name: docs[name] for name in docs.column_names}, **added}
    return {name: histogram(numbers(known[name])[seen]) for name in names if name in known}


def _scatter(column: pa.Array | None, values: pa.Array, rows: NDArray[np.int64], n: int) -> pa.Array:
    """The column with `values` put at `rows`; rows without one keep what they had. Null values put nothing."""
    where = np.zeros(n, bool)
    valid = pc.is_valid(values).to_numpy(zero_copy_only=False)
    where[rows[valid]] = True
    base = column if column is not None else pa.nulls(n, values.type)
    return pc.replace_with_mask(base, pa.array(where), values.filter(pa.array(valid)).cast(base.type))
