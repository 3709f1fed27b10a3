"""A stage: named operators between two durable outputs. The only code that knows about identity and resume.

A stage's folder is `stages/<name>-<fingerprint>`; its manifest is written last, so a manifest means done. The
fingerprint is made from the operators themselves, the stage above and, at the top, the listing of the inputs: what
changes the output is in it, and where and how the work ran is not.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from cluster.storage import Store
from cluster.tables import Entry
from cluster.units import Record
from operators.apply import SPLIT, Step
from operators.document import identity
from operators.phases import GlobalOperator, Phase
from operators.read.recording import URL
from workflows import profile
from workflows.answers import CALLS
from workflows.profile import SAMPLES
from workflows.recipe import Recipe, user_modules

MANIFEST_FORMAT = 3
DOCUMENTS_PASS = "documents"  # the pass that documents go through
INDEX = "index"  # of what global operators remember for later builds
USED = "used"
FREED = "freed.json"  # in a stage's folder: its files that `gc --stages` deleted
FATES = ("kept", "dropped", "quarantined")
TIMES = ("seconds", "cpu_seconds", "gpu_seconds")  # of units, passes and operators: added up over processes
MOVED = ("read_bytes", "written_bytes", "shuffled_bytes")
Manifest = dict[str, Any]


class StageError(RuntimeError):
    """A stage could not be finished; no manifest was written."""


class ConservationError(AssertionError):
    """Rows in + created is not kept + dropped + quarantined: a bug, never a property of the data."""


@dataclass(frozen=True)
class Stage:
    """`steps` over the output of `upstream`, or over the recipe's inputs where that is None.

    Steps are operators, or uses of them (`Params.use`); None stands for one that is off. Global operators and
    row-wise ones do not mix in a stage.
    """

    name: str
    upstream: Stage | None
    steps: tuple[Any, ...]
    max_drop_share: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.steps, tuple) or isinstance(self.steps, Step):
            raise TypeError(f"stage {self.name}: steps are a tuple; one of a single step needs a comma: (step,)")
        steps = tuple(s if isinstance(s, Step) else Step(s.name, s) for s in self.steps if s is not None)
        object.__setattr__(self, "steps", steps)
        names = [step.name for step in steps]
        if doubled := [name for name, n in Counter(names).items() if n > 1]:
            raise ValueError(f"stage {self.name}: {doubled[0]} is used twice: give each use a name of its own")
        if len({isinstance(step.operator, GlobalOperator) for step in steps}) > 1:
            raise ValueError(f"stage {self.name}: {', '.join(names)}: global and row-wise operators do not mix")

    @property
    def is_global(self) -> bool:
        return any(isinstance(step.operator, GlobalOperator) for step in self.steps)

    def then(self, name: str, *steps: Any) -> Stage:
        """The stage of `steps` over this one's output; this one where all of them are off."""
        return Stage(name, self, steps) if any(step is not None for step in steps) else self

    def chain(self) -> list[Stage]:
        """The stages from the inputs down to this one."""
        return [*(self.upstream.chain() if self.upstream else []), self]


@dataclass(frozen=True)
class TokenStage(Stage):
    """The last stage: documents through a tokenizer into shards, their sequences laid out by `pack`; with `compose`,
    which is Interleave, utterances become documents on the way."""

    pack: Step | None = None
    compose: Step | None = None
    learned: Mapping[str, str] = field(default_factory=dict)  # sha256 of what a step learned in an earlier build


class Progress:
    """Told what happens during a build; this one keeps silent."""

    def started(self, stage: str, what: str, units: int) -> None:
        """A stage begins a pass of `units` units over `what` (its operators, or a phase of one)."""

    def unit(self, record: Record) -> None:
        """One unit of that pass is done; only passes that move documents have rows in their records."""

    def waits(self, told: str) -> None:
        """Something has to come first; `told` says what."""

    def finished(self, manifest: Manifest, cached: bool) -> None:
        """The stage is done; `cached` when an earlier build had done it."""


@dataclass(frozen=True)
class Job:
    """What all stages of one build share."""

    store: Store
    recipe: Recipe
    inputs: tuple[dict[str, Any], ...]  # the snapshot: url, rel, size, version, source, priority, weight
    progress: Progress = Progress()
    history: tuple[Manifest, ...] = ()  # of the published builds that this one is deduplicated against, oldest first
    listed: Mapping[str, Manifest] = field(
        default_factory=dict
    )  # builds that operators name to be compared with, by id
    fingerprints: dict[str, str] = field(default_factory=dict)  # by stage, as `fingerprint` has found them


def fingerprint(stage: Stage, job: Job) -> str:
    """16 hex digits of everything that may change the stage's output."""
    if stage.name not in job.fingerprints:
        job.fingerprints[stage.name] = _fingerprint(stage, job)
    return job.fingerprints[stage.name]


def _fingerprint(stage: Stage, job: Job) -> str:
    own: dict[str, Any] = {
        "format": MANIFEST_FORMAT,
        "stage": stage.name,
        "steps": [[name, identity(operator), _source_hash(operator)] for name, operator in stage.steps],
        "dropped_text": job.recipe.dropped_text,
    }
    if stage.upstream is not None:
        own["upstream"] = fingerprint(stage.upstream, job)
    else:
        listing = [[i["rel"], i["version"], i["source"], i["priority"], i["weight"]] for i in job.inputs]
        own["inputs"] = sorted(listing, key=repr)
        own["fields"] = job.recipe.fields.model_dump()
        own["on_bad_file"] = job.recipe.on_bad_file
    recalled = {step.name: remembered(stage, step, job) for step in recalling(stage) if recalled_builds(step, job)}
    if recalled:
        own["history"] = {
            name: {phase: sorted(entry["sha256"] for entry in entries) for phase, entries in found.items()}
            for name, found in recalled.items()
        }
    if isinstance(stage, TokenStage):
        heard = () if listens(stage) else ("bytes_per_shard", "audio")  # which say nothing where there is no audio
        own |= {"shards": job.recipe.shards.model_dump(exclude=set(heard)), "splits": job.recipe.splits}
        own |= {"learned": dict(stage.learned)} if stage.learned else {}
        own["pack"] = [identity(stage.pack.operator), _source_hash(stage.pack.operator)] if stage.pack else None
        own |= {"compose": identity(stage.compose.operator)} if stage.compose else {}
    return hashlib.sha256(orjson.dumps(own, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def listens(stage: Stage) -> bool:
    """Whether the inputs are recordings: an operator opens them."""
    return any(URL in step.operator.needs for one in stage.chain() for step in one.steps)


def uses_gpu(stage: Stage) -> bool:
    """Whether an operator of the stage can use a GPU."""
    if not stage.is_global:
        return any(step.operator.gpu for step in stage.steps)
    phases = (phase for step in stage.steps for phase in step.operator.phases(1, 1 << 30))
    return any(phase.gpu for phase in phases if isinstance(phase, Phase))


def recalling(stage: Stage) -> list[Step]:
    """The steps that compare this build with what earlier ones remember."""
    return [step for step in stage.steps if isinstance(step.operator, GlobalOperator) and step.operator.recalls]


def recalled_builds(step: Step, job: Job) -> tuple[Manifest, ...]:
    """The builds that a step compares this one with: those it names, else the published ones."""
    recalls = step.operator.recalls
    return tuple(job.listed[build] for build in dict.fromkeys(recalls)) if isinstance(recalls, tuple) else job.history


def remembered(stage: Stage, step: Step, job: Job) -> dict[str, list[Entry]]:
    """The index files of these builds for a step of the stage, by phase."""
    found: dict[str, list[Entry]] = {}
    builds = recalled_builds(step, job)
    for before in (one for build in builds for one in build["stages"] if one["name"] == stage.name):
        for phase, entries in before["files"].get(INDEX, {}).get(step.name, {}).items():
            found.setdefault(phase, []).extend(entries)
    return found


def _source_hash(operator: Any) -> str | None:
    """Our operators say by their `revision` when they change; a user's file is taken as it is, with its neighbours
    that were imported."""
    module = sys.modules[type(operator).__module__]
    if module.__name__.startswith("operators."):
        return None
    seen = hashlib.sha256()
    for file in sorted({str(m.__file__) for m in user_modules(Path(inspect.getfile(module)).parent)}):
        seen.update(Path(file).read_bytes())
    return seen.hexdigest()


def folder_of(stage: Stage, job: Job) -> str:
    return f"stages/{stage.name}-{fingerprint(stage, job)}"


def basis_of(upstream: Manifest | None) -> str:
    """Identifies the very files that a stage is made from: the same rows may lie in other files after a forced run,
    and verdicts name rows by file and number."""
    return "" if upstream is None else hashlib.sha256(orjson.dumps(upstream["files"]["kept"])).hexdigest()[:16]


def load_manifest(store: Store, folder: str, basis: str) -> Manifest | None:
    """The manifest of a finished stage, None where there is none or it was made from other files."""
    key = f"{folder}/manifest.json"
    manifest: Manifest | None = orjson.loads(store.read(key)) if store.exists(key) else None
    return manifest if manifest is not None and manifest["basis"] == basis else None


def save_manifest(store: Store, folder: str, manifest: Manifest) -> None:
    """Check the conservation law and write the manifest: from here on the stage is done."""
    check_conservation(manifest)
    store.write(f"{folder}/manifest.json", orjson.dumps(manifest, option=orjson.OPT_INDENT_2))


def sweep(store: Store, folder: str) -> None:
    """Delete what only an unfinished stage needs: exchanged rows and marks of starts."""
    passing = (f"{folder}/exchange/", f"{folder}/cut-")
    keys = [stored.key for stored in store.list(folder)]
    store.delete(key for key in keys if key.startswith(passing) or "/_starts/" in key)


def mark_used(store: Store, stage: Stage, job: Job) -> None:
    """Leave word that a build needs this stage now, and the one above it: `gc` spares what was used lately."""
    above = folder_of(stage.upstream, job) if stage.upstream else ""
    store.write(f"{folder_of(stage, job)}/{USED}", above.encode())


def discard(store: Store, folder: str) -> None:
    """Forget that a stage was done, its proofs before what they prove: killed half-way, nothing is left that claims to
    be done. The files that manifests name stay for the builds that are made of them, and the count of calls."""
    keys = [stored.key for stored in store.list(folder)]
    store.delete([f"{folder}/manifest.json"])
    store.delete([key for key in keys if "/_done/" in key])
    stays = tuple(f"{folder}/{kept}" for kept in (*(f"{data}/" for data in (*FATES, INDEX, CALLS)), FREED))
    store.delete([key for key in keys if not key.startswith(stays)])


def check_conservation(manifest: Manifest) -> None:
    """rows_in + created = kept + dropped + quarantined, the same through each operator, and for characters."""
    where = f"stage {manifest['name']}"
    came = manifest["rows_in"] + manifest["created"]
    went = manifest["kept"] + sum(manifest["dropped"].values()) + manifest["quarantined"]
    if came != went:
        raise ConservationError(f"{where}: {came} rows came and {went} went")
    listed = sum(entry["rows"] for entry in manifest["files"]["kept"])
    if listed != manifest["kept"]:
        raise ConservationError(f"{where}: {manifest['kept']} rows kept, {listed} in its files")
    rows = manifest["rows_in"] - manifest["quarantined"]
    for operator in manifest["operators"]:
        if operator["rows_in"] != rows:
            raise ConservationError(f"{where}: {operator['name']} was given {operator['rows_in']} of {rows} rows")
        rows += operator["created"] - sum(operator["dropped"].values())
    if rows != manifest["kept"]:
        raise ConservationError(f"{where}: {rows} rows left the last operator, {manifest['kept']} were kept")
    c = manifest["characters"]
    if c["in"] + c["created"] != c["kept"] + c["dropped"] + c["cut"]:
        raise ConservationError(f"{where}: characters do not add up: {c}")
    _check_spans(manifest)


def _check_spans(manifest: Manifest) -> None:
    """Recordings that were cut are there as spans, kept or dropped; there is more where a mode lets them overlap."""
    profiles = manifest.get("profile", {})
    names = [operator["name"] for operator in manifest["operators"]]
    overlapping = any(step["parameters"].get("mode") == "emilia" for step in manifest.get("steps", ()))
    heard = {reason: found.get(SAMPLES, 0) for reason, found in profiles.get("dropped", {}).items()}
    for number, name in enumerate(names):
        later = tuple(f"{one}/" for one in names[number:])
        whole = heard.get(f"{name}/{SPLIT}", 0)
        spans = sum(n for reason, n in heard.items() if reason.startswith(later)) - whole
        spans += profiles.get("kept", {}).get(SAMPLES, 0)
        if whole > spans or (0 < whole < spans and not overlapping):
            told = f"{whole} samples of recordings were cut into {spans}"
            raise ConservationError(f"stage {manifest['name']}: {told}")


def check_upstream(manifest: Manifest, upstream: Manifest | None) -> None:
    """A stage was given what the one above kept."""
    if upstream is not None and manifest["rows_in"] != upstream["kept"]:
        came, kept = manifest["rows_in"], upstream["kept"]
        raise ConservationError(f"stage {manifest['name']}: {came} rows came, {upstream['name']} kept {kept}")
    if upstream is not None and not manifest["quarantined"]:
        came, kept = (
            part.get("profile", {}).get(side, {}).get(SAMPLES, 0)
            for part, side in ((manifest, "in"), (upstream, "kept"))
        )
        if came != kept:
            told = f"{came} samples of audio came, {upstream['name']} kept {kept}"
            raise ConservationError(f"stage {manifest['name']}: {told}")


def check_drop_share(stage: Stage, manifest: Manifest) -> None:
    """A stage that drops more than it may is broken, not strict."""
    dropped = sum(manifest["dropped"].values())
    rows = manifest["rows_in"] + manifest["created"]
    if rows and dropped / rows > stage.max_drop_share:
        share = dropped / rows
        raise StageError(
            f"stage {stage.name} dropped {share:.1%} of its rows; at most {stage.max_drop_share:.1%} may go"
        )


class Histograms:
    """What the operators of a stage measured, added up as units are done and taken out of their records: the driver
    does not hold the histograms of every unit."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._operators: list[dict[str, Counter[str]]] = []

    def unit(self, record: Record) -> None:
        """As Progress.unit."""
        for number, operator in enumerate(record["operators"]):
            if number == len(self._operators):
                self._operators.append({})
            for name, bins in operator.pop("measured", {}).items():
                self._operators[number].setdefault(name, Counter()).update(bins)
        self._progress.unit(record)

    def of(self, operator: int) -> dict[str, dict[str, int]]:
        """Those of one operator, names and bins ascending."""
        found = self._operators[operator] if operator < len(self._operators) else {}
        return {name: dict(sorted(found[name].items(), key=lambda item: float(item[0]))) for name in sorted(found)}


def summarise(
    stage: Stage,
    job: Job,
    upstream: Manifest | None,
    records: Sequence[Record],
    seconds: float,
    histograms: Histograms | None = None,
    others: Sequence[Record] = (),
) -> Manifest:
    """The manifest of a stage from the done-records of the units that documents went through. `others` are those of its
    other passes, named by `pass` and, where it is one operator's, by `operator`: they cost, too."""
    total: Manifest = {
        "format": MANIFEST_FORMAT,
        "name": stage.name,
        "fingerprint": fingerprint(stage, job),
        "upstream": fingerprint(stage.upstream, job) if stage.upstream else None,
        "basis": basis_of(upstream),
        "steps": parameters_of(stage),
        "units": len(records),
    }
    for key in ("rows_in", "created", "kept", "quarantined"):
        total[key] = sum(record[key] for record in records)
    for key in ("dropped", "quarantine_reasons"):
        total[key] = add_counts(record[key] for record in records)
    nothing = dict.fromkeys(("in", "created", "kept", "dropped", "cut"), 0)
    total["characters"] = add_counts([nothing, *(record["characters"] for record in records)])
    total["operators"] = [
        _add_operators([record for record in records if record["operators"]], i, step)
        | {"measured": histograms.of(i) if histograms else {}}
        for i, step in enumerate(stage.steps)
    ]
    for operator in total["operators"]:
        own = [record for record in others if record["operator"] == operator["name"]]
        operator |= {key: round(operator[key] + sum(record[key] for record in own), 4) for key in TIMES}
    total["profile"] = {
        side: profile.merge(record["profile"][side] for record in records) for side in ("in", "kept", "dropped")
    }
    total["files"] = {fate: [entry for record in records for entry in record["files"][fate]] for fate in FATES}
    every = [*others, *records]
    total["passes"] = passes_of([*others, *(record | {"pass": DOCUMENTS_PASS} for record in records)])
    total |= cost_of(every) | {"seconds": round(seconds, 3)}  # by the clock
    total["peak_rss_bytes"] = max((record.get("peak_rss_bytes", 0) for record in every), default=0)
    total["nodes"] = sorted({record["node"] for record in every})
    return total


def cost_of(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What units, passes or stages took together: seconds (of processes for units and passes, by the clock for stages),
    of CPUs and GPUs, and bytes moved."""
    times = {key: round(sum(part[key] for part in parts), 3) for key in TIMES}
    return times | {key: sum(part[key] for part in parts) for key in MOVED}


def spilled_between(before: int | None, after: int | None) -> int | None:
    """What was spilled meanwhile, None where that is not known; nodes that left took their figures with them."""
    return None if before is None or after is None else max(0, after - before)


def passes_of(records: Sequence[Record]) -> list[dict[str, Any]]:
    """What each pass over units cost, in the order they ran: `longest` is the most seconds that one unit took, and a
    `fold` has a unit for all of its rows, or a few, however many there are."""
    named: dict[str, list[Record]] = {}
    for record in records:
        named.setdefault(record["pass"], []).append(record)
    return [
        {
            "name": name,
            "units": len(found),
            "bytes": sum(record.get("bytes", 0) for record in found),
            **cost_of(found),
            "longest": max(record["seconds"] for record in found),
            "fold": any(record.get("fold") for record in found),
            "peak_rss_bytes": max(record.get("peak_rss_bytes", 0) for record in found),
        }
        for name, found in named.items()
    ]


def parameters_of(stage: Stage) -> list[dict[str, Any]]:
    """The operators of a stage by name, with all their parameters."""
    last = [stage.compose, stage.pack] if isinstance(stage, TokenStage) else []
    steps = [*stage.steps, *(step for step in last if step)]
    return [{"name": name, "parameters": identity(operator)} for name, operator in steps]


def stage_files(stage: Manifest) -> Iterator[Entry]:
    """The files that a stage's manifest names, with those that its layers lie over, without shards."""
    files = stage["files"]
    remembered = [entries for phases in files.get(INDEX, {}).values() for entries in phases.values()]
    for entry in chain(*(files[fate] for fate in FATES), *remembered):
        layer = entry
        while layer is not None:
            yield layer
            layer = layer.get("over")


def add_counts(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """The sum of dictionaries of counts, sorted by key."""
    total: Counter[str] = Counter()
    for count in counts:
        for key, n in count.items():
            total[key] += n
    return dict(sorted(total.items()))


def _add_operators(records: Sequence[Record], i: int, step: Step) -> dict[str, Any]:
    parts = [record["operators"][i] for record in records]
    total: dict[str, Any] = {"name": step.name, "dropped": add_counts(part["dropped"] for part in parts)}
    total["counted"] = add_counts(part.get("counted", {}) for part in parts)
    total["trimmed"] = add_counts(part.get("trimmed", {}) for part in parts)  # documents that stay with less text
    for key in ("rows_in", "created", "chars_in", "chars_dropped", "chars_out", "seconds", "cpu_seconds"):
        total[key] = sum(part[key] for part in parts)
    gpus = [record["gpu_seconds"] / record["seconds"] if record["seconds"] else 0 for record in records]
    total["gpu_seconds"] = sum(part["seconds"] * held for part, held in zip(parts, gpus, strict=True))
    total["cuts"] = {name: list(at) for name, at in getattr(step.operator, "cuts", {}).items()}
    total |= {key: round(total[key], 4) for key in TIMES}
    total["chars_cut"] = total["chars_in"] - total["chars_dropped"] - total["chars_out"]
    return total


def characters(operators: Sequence[dict[str, Any]], kept: int) -> dict[str, int]:
    """Characters in, created (by extraction), kept, dropped with their rows and cut out of rows that stayed."""
    changes = [o["chars_in"] - o["chars_dropped"] - o["chars_out"] for o in operators]
    return {
        "in": operators[0]["chars_in"] if operators else kept,
        "created": -sum(change for change in changes if change < 0),
        "kept": kept,
        "dropped": sum(o["chars_dropped"] for o in operators),
        "cut": sum(change for change in changes if change > 0),
    }
