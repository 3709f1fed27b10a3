"""A stage of row-wise operators: each unit is read, run through all operators and written by one task."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from cluster.inputs import describe_input, open_input
from cluster.session import cpus
from cluster.storage import AlreadyExists, Store
from cluster.tables import FILE_BYTES, TableWriter, iterate_entry
from cluster.units import Record, peak_rss_bytes, run_units, this_node
from operators.apply import Applied, Step, apply, characters
from operators.document import DROP, with_columns
from operators.models.weights import NotInstalled
from operators.read.reader import cut, joined, read
from operators.read.recording import open_with
from operators.read.span import QUARANTINE, Batch, Fields, ReadError, Span, Unreadable, group
from workflows import profile
from workflows.answers import keep_answers
from workflows.isolate import isolated
from workflows.placing import Unfit, lacking
from workflows.recipe import RecipeError
from workflows.stage import Histograms, Job, Manifest, Stage, StageError, basis_of, folder_of, summarise, uses_gpu
from workflows.stage import characters as count_characters

EXPLAINING = ("id", "url", "date", "source", "language", "chars")
HEARD = ("recording", "start", "end", "samples", "speaker", "timeline", "snr", "dnsmos")  # of recordings and utterances
AUDIO = ("payload", "content_type", "facts", "labels")  # of these, like text, only if asked
FILES_PER_CUT = 256
SKIPPING = "`on_bad_file: skip` would quarantine what cannot be read"
UNITS_PER_CPU = 4
MIN_UNIT_BYTES, MAX_UNIT_BYTES = 1 << 20, 32 << 20  # while that makes no more than MOST_UNITS
MOST_UNITS = 10_000  # of a pass: each costs the driver 10 ms and 11 kB, and Ray's scheduler stalls at ten times that
MOST_FILE_BYTES = 512 << 20  # of tables in memory: later stages hold a file whole, and copies of parts of it
UNPACKED = 4  # bytes in memory a byte of input, compressed as it may be

open_with(open_input)  # wherever a task of this module runs


def run_map_stage(stage: Stage, job: Job, upstream: Manifest | None) -> Manifest:
    """Run the stage to its manifest's content; the caller saves it."""
    started = time.perf_counter()
    folder = folder_of(stage, job)
    planned: list[Record] = []
    if upstream is None:
        works = plan_reading(stage, job, folder, planned)
    else:
        works = upstream["files"]["kept"]
    size = file_bytes(sum(item["size"] for item in job.inputs))
    task = MapTask(job.store, folder, stage.steps, job.recipe.dropped_text, _fields(job), upstream is None, size)
    label = f"{stage.name}[{'+'.join(step.name for step in stage.steps)}]"
    job.progress.started(stage.name, "", len(works))
    histograms = Histograms(job.progress)
    ask = job.recipe.workers.ask(uses_gpu(stage))
    records = run_units(job.store, folder, works, task, label, histograms.unit, basis_of(upstream), ask)
    others = [record | {"pass": "plan", "operator": ""} for record in planned]
    return summarise(stage, job, upstream, records, time.perf_counter() - started, histograms, others)


def _fields(job: Job) -> Fields:
    named = job.recipe.fields.model_dump(exclude_none=True)
    return Fields(**named | ({"text": None} if named.get("text") is False else {}))


def plan_reading(stage: Stage, job: Job, folder: str, spent: list[Record]) -> list[Any]:
    """The frozen plan of a reading stage: its units, each a list of spans. Made once; later runs read it back. Adds to
    `spent` the records of what making it took.

    Raises RecipeError for files that cannot be read, before any work, unless the recipe skips them.
    """
    key = f"{folder}/plan.json"
    if not job.store.exists(key):
        target = unit_bytes(job)
        chunks = [list(job.inputs[i : i + FILES_PER_CUT]) for i in range(0, len(job.inputs), FILES_PER_CUT)]
        task = CutTask(_fields(job), target, job.recipe.on_bad_file)
        ask = job.recipe.workers.ask()
        records = run_units(job.store, f"{folder}/cut-{target}", chunks, task, f"{stage.name}[plan]", ask=ask)
        spent += records
        if errors := [error for record in records for error in record["errors"]]:
            cuts = [stored.key for stored in job.store.list(f"{folder}/cut-{target}")]
            job.store.delete(cuts)  # the next run looks again
            more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            raise RecipeError(f"inputs: {errors[0]}{more}")
        spans = [Span(**span) for record in records for span in record["spans"]]
        units = [[asdict(span) | {"url": None} for span in unit] for unit in group(spans, target)]
        with contextlib.suppress(AlreadyExists):  # of two builders the first one's plan counts
            job.store.write(key, orjson.dumps(units), if_absent=True)
    found = {whole_file(item).rel: item for item in job.inputs}  # files may have moved since, with their folder
    return [
        {
            "spans": [span | {"url": found[span["rel"]]["url"]} for span in unit],
            "versions": {found[span["rel"]]["url"]: found[span["rel"]]["version"] for span in unit},
        }
        for unit in orjson.loads(job.store.read(key))
    ]


def unit_bytes(job: Job) -> int:
    """Bytes of input a unit: the recipe's, else so that each CPU gets a few units, between 1 and 32 MB, or what makes
    MOST_UNITS of a large input. Reading holds a batch of a unit, not a unit."""
    if job.recipe.workers.unit_bytes is not None:
        return job.recipe.workers.unit_bytes
    total: int = sum(item["size"] for item in job.inputs)
    return max(MIN_UNIT_BYTES, min(MAX_UNIT_BYTES, total // (UNITS_PER_CPU * cpus())), -(-total // MOST_UNITS))


def file_bytes(total: int) -> int:
    """Bytes of tables in memory that go into one file of a stage when the build reads `total` bytes: 64 MB, and more
    for a large input, so that later stages, for which a file is a unit, have no more than about MOST_UNITS of them."""
    return max(FILE_BYTES, min(MOST_FILE_BYTES, UNPACKED * total // MOST_UNITS))


def _first_of_each_kind(job: Job) -> list[dict[str, Any]]:
    kinds = sorted({item["format"] for item in job.inputs})
    return [next(item for item in job.inputs if item["format"] == kind) for kind in kinds]


def check_inputs(job: Job) -> None:
    """Open the first file of each kind: most mistakes show there already. Raises RecipeError."""
    for first in _first_of_each_kind(job):
        try:
            cut(whole_file(first), open_input, first["size"], _fields(job))
        except (Unreadable, OSError) as error:
            if job.recipe.on_bad_file == "fail":
                raise RecipeError(f"inputs: {first['url']}: {error}; {SKIPPING}") from error
        except ReadError as error:
            raise RecipeError(f"inputs: {first['url']}: {error}") from error


def input_columns(job: Job) -> dict[str, pa.DataType]:
    """Columns of the tabular inputs and their types, by the first batch of the first file of each kind."""
    found: dict[str, pa.DataType] = {}
    for first in _first_of_each_kind(job):
        for batch in read(whole_file(first), open_input, _fields(job)):
            found |= {field.name: field.type for field in batch.docs.schema}
            break
    return found


@dataclass(frozen=True)
class CutTask:
    """Cuts a chunk of input files into independently readable spans."""

    fields: Fields
    target: int
    on_bad_file: str

    def __call__(self, _number: int, work: list[dict[str, Any]]) -> Record:
        spans: list[dict[str, Any]] = []
        errors: list[str] = []
        for item in work:
            whole = whole_file(item)
            try:
                spans += [asdict(span) for span in cut(whole, open_input, self.target, self.fields)]
            except (Unreadable, OSError) as error:
                if self.on_bad_file == "skip":
                    spans.append(asdict(whole))  # reading it yields its quarantine row
                else:
                    errors.append(f"{item['url']}: {error}; {SKIPPING}")
            except ReadError as error:  # a missing column is a mistake in the recipe, not a bad file
                errors.append(f"{item['url']}: {error}")
        return {"spans": spans, "errors": errors, "peak_rss_bytes": peak_rss_bytes()}


def whole_file(item: dict[str, Any]) -> Span:
    """The span of a whole input file."""
    rel = f"{item['source']}:{item['rel']}" if item["source"] else item["rel"]
    return Span(
        url=item["url"],
        rel=rel,
        format=item["format"],
        start=0,
        end=-1,
        size=item["size"],
        source=item["source"],
        priority=item["priority"],
        weight=item["weight"],
    )


@dataclass(frozen=True)
class MapTask:
    """Reads one unit in bounded batches, applies the steps to each, and writes kept, dropped and quarantined."""

    store: Store
    folder: str
    steps: tuple[Step, ...]
    dropped_text: bool
    fields: Fields
    reads_inputs: bool
    file_bytes: int = FILE_BYTES

    def __call__(self, number: int, work: Any) -> Record:
        try:
            return self._write(number, ((batch, apply(self.steps, batch.docs)) for batch in self.batches(work)))
        except (ModuleNotFoundError, NotInstalled) as error:  # on a node that came when the build had begun
            if told := lacking(self.steps):
                raise Unfit(f"{told}, on node {this_node()}") from error
            raise

    def isolate(self, number: int, work: Any) -> Record:
        """The same without the rows that end the process, which become rows of quarantine."""
        return self._write(number, isolated(self, work))

    def _write(self, number: int, results: Iterable[tuple[Batch, Applied]]) -> Record:
        keep_answers(self.store, self.folder)
        writers = {
            fate: TableWriter(self.store, f"{self.folder}/{fate}", number, file_bytes=self.file_bytes)
            for fate in ("kept", "dropped", "quarantined")
        }
        totals = Totals(self.steps)
        with writers["kept"] as kept, writers["dropped"] as dropped, writers["quarantined"] as quarantined:
            for batch, result in results:
                totals.add(batch, result)
                kept.write(_finished(result.kept))
                dropped.write(explained(result.dropped, self.dropped_text))
                quarantined.write(batch.quarantined)
        return totals.record() | {"files": {fate: writer.entries for fate, writer in writers.items()}}

    def batches(self, work: Any) -> Iterator[Batch]:
        """The unit's documents and what could not be read of it."""
        yield from joined(self._read(work) if self.reads_inputs else self._upstream(work))

    def _upstream(self, work: Any) -> Iterator[Batch]:
        """What the stage above kept: where each recording is a clip, each of its row groups has one row."""
        for table in iterate_entry(self.store, work):
            yield Batch(table, QUARANTINE.empty_table())

    def _read(self, work: Any) -> Iterator[Batch]:
        for span in (Span(**span) for span in work["spans"]):
            yield from read(span, open_input, self.fields)
            if describe_input(span.url).version != work["versions"][span.url]:
                raise StageError(f"{span.url} changed after the build was planned; build again to take the new content")


def _finished(docs: pa.Table) -> pa.Table:
    """What is kept: without a payload that has become text, with the length in characters."""
    if "payload" in docs.column_names and docs["payload"].null_count == docs.num_rows:
        docs = docs.drop_columns(["payload"])
    chars = pc.fill_null(pc.utf8_length(docs["text"]), 0).cast(pa.int64())
    return with_columns(docs, {"chars": chars})


def explained(dropped: pa.Table, text: bool) -> pa.Table:
    """What is kept of a dropped row: enough to say which, why and by how much; its text only if asked."""
    if "text" in dropped.column_names and "chars" not in dropped.column_names:
        chars = pc.fill_null(pc.utf8_length(dropped["text"]), 0).cast(pa.int64())
        dropped = dropped.append_column("chars", chars)
    heard = profile.has_audio(dropped.schema)
    contents = (*(("text",) if text else ()), *(AUDIO if text and heard else ()))
    wanted = [*EXPLAINING, *(HEARD if heard else ()), *contents, *DROP.names, "cluster", "cluster_size"]
    return dropped.select([name for name in wanted if name in dropped.column_names])


class Totals:
    """What steps did to a unit, summed over its batches: the accounting part of its record."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.counts: list[dict[str, Any]] = [
            {"name": step.name, "rows_in": 0, "created": 0, "dropped": Counter[str]()}
            | dict.fromkeys(("chars_in", "chars_dropped", "chars_out"), 0)
            | {"seconds": 0.0, "cpu_seconds": 0.0, "measured": defaultdict(Counter), "counted": Counter[str]()}
            for step in steps
        ]
        self.rows: Counter[str] = Counter()
        self.quarantine: Counter[str] = Counter()
        self.profiles: dict[str, list[dict[str, Any]]] = {"kept": [], "in": [], "dropped": []}

    def add(self, batch: Batch, result: Applied) -> None:
        for total, count in zip(self.counts, result.counts, strict=True):
            for key, value in asdict(count).items():
                if key in ("dropped", "counted"):
                    total[key].update(value)
                elif key == "measured":
                    for name, bins in value.items():
                        total[key][name].update(bins)
                elif key != "name":
                    total[key] += value
        self.rows["rows_in"] += batch.docs.num_rows + batch.quarantined.num_rows
        self.rows["kept"] += result.kept.num_rows
        self.rows["chars_kept"] += characters(result.kept)
        self.rows["created"] += sum(count.created for count in result.counts)
        self.quarantine.update(batch.quarantined["reason"].to_pylist())
        kept, dropped = profile.profile(result.kept), profile.profile(result.dropped)
        self.profiles["kept"].append(kept)
        self.profiles["in"] += [kept, dropped]
        self.profiles["dropped"].append(profile.drop_profile(result.dropped))

    def record(self) -> Record:
        dropped: Counter[str] = Counter()
        for count in self.counts:
            dropped.update(count["dropped"])
        return {
            "rows_in": self.rows["rows_in"],
            "created": self.rows["created"],
            "kept": self.rows["kept"],
            "dropped": dict(dropped),
            "quarantined": sum(self.quarantine.values()),
            "quarantine_reasons": dict(self.quarantine),
            "characters": count_characters(self.counts, self.rows["chars_kept"]),
            "operators": self.counts,
            "profile": {
                "in": profile.merge(self.profiles["in"]),
                "kept": profile.merge(self.profiles["kept"]),
                "dropped": profile.merge(self.profiles["dropped"]),
            },
            "peak_rss_bytes": peak_rss_bytes(),
        }
