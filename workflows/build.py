"""A build: one run of a workflow over one snapshot of its inputs, committed as one numbered log entry."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson
import xxhash

from cluster import commit
from cluster.commit import LogEntry
from cluster.session import cpus
from cluster.storage import Missing, StorageError, Store, check_writable, open_store
from cluster.traffic import spilled_bytes
from operators.limit import Limit
from workflows.audio_report import audio_of
from workflows.corpus import committed_build, newest_build, save_build, save_listing
from workflows.explain import dropped_samples, quarantine_samples
from workflows.gates import check_gates, check_names, check_rules
from workflows.global_stage import check_history, estimate, memory_of, run_global_stage
from workflows.inputs import check_columns, snapshot
from workflows.interleaving import check_interleaving
from workflows.map_stage import check_inputs, run_map_stage
from workflows.placing import check_placement
from workflows.recipe import ParameterError, Params, Recipe, RecipeError, load_recipe, load_workflow
from workflows.report import render
from workflows.retract import with_tombstones
from workflows.stage import (
    Job,
    Manifest,
    Progress,
    Stage,
    TokenStage,
    basis_of,
    check_drop_share,
    check_upstream,
    cost_of,
    discard,
    fingerprint,
    folder_of,
    listens,
    load_manifest,
    mark_used,
    parameters_of,
    recalling,
    save_manifest,
    spilled_between,
    sweep,
)
from workflows.token_stage import run_token_stage
from workflows.watch import watched

SCHEMA_VERSION = 1
BYTES_PER_DOCUMENT = 2000  # of input, while no stage has counted them: what `plan` says then is rough
BYTES_PER_UTTERANCE = 200_000  # the same of recordings
PACKAGES = (
    "corpusmill",
    "ray",
    "pyarrow",
    "polars",
    "numpy",
    "numba",
    "resiliparse",
    "fasttext-community",
    "tokenizers",
    "fastokens",
)


@dataclass(frozen=True)
class Prepared:
    """A recipe checked as far as that goes without work: its stages and its inputs."""

    recipe: Recipe
    stage: Stage
    job: Job
    ignored: tuple[str, ...]  # files in folders and globs that no reader knows
    parent: LogEntry | None  # the head of the log: what the build expects to succeed
    op: Literal["build", "nightly"] = "build"  # replaces what is published, or adds to it

    @property
    def store(self) -> Store:
        return self.job.store


def prepare(
    path: str | Path,
    limit: int | None = None,
    until: str | None = None,
    force: str | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Read and check a recipe, list its inputs, and lay out its stages. Raises RecipeError; touches nothing."""
    recipe, located = load_recipe(path)
    params = Params(recipe.params)
    workflow = load_workflow(recipe.workflow)
    try:
        stage: Stage = workflow(params)
        params.check_all_used()
        check_interleaving(stage, recipe.shards.formats)
    except ParameterError as error:
        raise located(("params", *error.path), str(error)) from error
    except (TypeError, AttributeError, ValueError) as error:
        raise RecipeError(f"workflow {recipe.workflow}: {type(error).__name__}: {error}") from error
    try:
        store = open_store(recipe.output)
    except StorageError as error:
        raise located(("output",), str(error)) from error
    if listens(stage) and (named := recipe.fields.model_dump(exclude_none=True)):
        raise located(("fields",), f"recordings have no columns, got {named}")
    inputs, ignored = snapshot(recipe, listens(stage))
    if limit is not None and listens(stage):  # listening is what takes time
        inputs = tuple(sorted(inputs, key=lambda item: xxhash.xxh3_64_digest(item["rel"]))[:limit])
        limit = None
    if isinstance(stage, TokenStage):
        audio = listens(stage) and stage.compose is None
        if wrong := recipe.shards.unfit(tokens=bool(stage.steps), audio=audio):
            raise located(("shards", wrong[0]), wrong[1])
    try:
        parent = commit.head(store)
    except StorageError as error:
        raise located(("output",), str(error)) from error
    stage = with_tombstones(stage, parent)
    if limit is not None:
        stage = _sampled(stage, limit)
    names = [one.name for one in stage.chain()]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise RecipeError(f"workflow {recipe.workflow}: two stages are named {doubled[0]!r}")
    check_names(recipe, stage)
    if until is not None:
        stage = _stage_named(stage, until)
    if force is not None:
        _stage_named(stage, force)
    job = Job(store, recipe, inputs, progress or Progress(), listed=listed_builds(stage, store))
    check_inputs(job)
    check_columns(stage, job)
    check_history(stage, job)
    return Prepared(recipe, stage, job, ignored, parent)


def listed_builds(stage: Stage, store: Store) -> dict[str, Manifest]:
    """The manifests of the builds that operators name to be compared with. Raises RecipeError for one that was never
    committed, or that `gc` collected."""
    found: dict[str, Manifest] = {}
    for step in (step for one in stage.chain() for step in recalling(one)):
        for build in step.operator.recalls if isinstance(step.operator.recalls, tuple) else ():
            digests = (entry.manifests[build] for entry in commit.entries(store) if build in entry.manifests)
            if build not in found and (digest := next(digests, None)) is None:
                told = "`corpusmill log` names those that were"
                raise RecipeError(f"params.{step.name}: scope: {build!r} was never committed to {store.url}; {told}")
            if build not in found:
                try:
                    found[build] = committed_build(store, build, str(digest))
                except Missing as error:
                    told = "leave it out of `scope`"
                    raise RecipeError(f"params.{step.name}: scope: {build!r} was collected by gc: {told}") from error
    return found


def _stage_named(stage: Stage, name: str) -> Stage:
    for one in stage.chain():
        if one.name == name:
            return one
    raise RecipeError(f"unknown stage {name!r}; allowed: {', '.join(s.name for s in stage.chain())}")


def _sampled(stage: Stage, limit: int) -> Stage:
    """The same stages with a sample of `limit` documents taken after the first."""
    below: Stage | None = None
    for number, one in enumerate(stage.chain()):
        below = dataclasses.replace(one, upstream=below)
        if number == 0:
            below = Stage("sample", below, (Limit(documents=limit),))
    assert below is not None
    return below


def plan(prepared: Prepared) -> dict[str, Any]:
    """What a build would do: per stage whether it is cached, what changed since the committed build if not, and what
    its exchanges are expected to move and hold in memory."""
    job = prepared.job
    before = {s["name"]: s for s in _committed_stages(job.store)}
    above: Manifest | None = None
    reached = True
    stages = []
    each = BYTES_PER_UTTERANCE if listens(prepared.stage) else BYTES_PER_DOCUMENT
    rows: int = sum(item["size"] for item in job.inputs) // each
    for stage in prepared.stage.chain():
        rows = above["kept"] if above is not None else rows
        above = load_manifest(job.store, folder_of(stage, job), basis_of(above)) if reached else None
        reached = cached = above is not None
        line = {"name": stage.name, "fingerprint": fingerprint(stage, job), "cached": cached}
        line["operators"] = [step.name for step in stage.steps]
        line["changed"] = [] if cached else _changes(stage, job, before.get(stage.name))
        line["exchanges"] = [] if cached else estimate(stage, job, rows)
        stages.append(line)
    return {
        "build_id": build_id(prepared),
        "inputs": {"files": len(job.inputs), "bytes": sum(item["size"] for item in job.inputs)},
        "ignored": list(prepared.ignored),
        "memory_bytes": memory_of(job),
        "stages": stages,
    }


def _committed_stages(store: Store) -> list[Manifest]:
    entry = commit.head(store)
    return newest_build(store)["stages"] if entry else []


def _changes(stage: Stage, job: Job, before: Manifest | None) -> list[str]:
    if before is None:
        return []
    now = {step["name"]: step["parameters"] for step in parameters_of(stage)}
    then = {step["name"]: step["parameters"] for step in before["steps"]}
    changes = [f"{name} added" for name in now if name not in then]
    changes += [f"{name} removed" for name in then if name not in now]
    for name in now.keys() & then.keys():
        for key in sorted(now[name].keys() | then[name].keys()):
            old, new = then[name].get(key), now[name].get(key)
            if orjson.dumps(old) != orjson.dumps(new):
                changes.append(f"{name}.{key}: {old} -> {new}")
    if not changes:
        same_above = stage.upstream and before["upstream"] == fingerprint(stage.upstream, job)
        changes = ["inputs or settings"] if same_above or not stage.upstream else [f"{stage.upstream.name} changed"]
    return sorted(changes)


def build_id(prepared: Prepared) -> str:
    """The same recipe over the same inputs is the same build."""
    return fingerprint(prepared.stage, prepared.job)


def build(prepared: Prepared, force: str | None = None, publish: bool = True) -> dict[str, Any]:
    """Run what is not done yet, write the build's manifest and report, check the gates, commit.

    Needs a Ray session. Returns the result as `build --json` prints it. Raises RecipeError where the cluster can never
    run a stage, GateRefused, CommitLost, StageError.
    """
    with watched(prepared) as prepared:
        return _build(prepared, force, publish)


def _build(prepared: Prepared, force: str | None, publish: bool) -> dict[str, Any]:
    job, store = prepared.job, prepared.store
    started = time.perf_counter()
    check_placement(prepared.stage, job, force)
    manifests = run_stages(prepared.stage, job, force)
    manifest = _build_manifest(prepared, manifests, time.perf_counter() - started)
    result = summary(manifest)
    if not isinstance(prepared.stage, TokenStage):
        return result | {"committed": False, "log_number": None}
    manifest, digest = save_build(store, manifest)
    try:
        if not publish:
            return result | {"committed": False, "log_number": None}
        check_gates(prepared.recipe, manifest)
        return result | _commit(prepared, {manifest["build_id"]: digest})
    finally:
        write_report(store, manifest)  # once its place in the log is known; a refused build has one too


def _commit(prepared: Prepared, named: dict[str, str]) -> dict[str, Any]:
    """Commit the build (id: sha256 of its manifest), unless it is what readers see already."""
    parent = prepared.parent
    manifests = named if prepared.op == "build" or parent is None else parent.manifests | named
    if parent is None or parent.manifests != manifests:
        try:
            entry = commit.append(prepared.store, parent, prepared.op, manifests)
            return {"committed": True, "log_number": entry.number}
        except commit.CommitLost:
            parent = commit.head(prepared.store)  # the same build, made twice at once, is one
            if parent is None or parent.manifests != manifests:
                raise
    return {"committed": False, "log_number": parent.number}


def check_output(store: Store) -> None:
    """Raises RecipeError where nothing can be written."""
    try:
        check_writable(store)
    except OSError as error:
        raise RecipeError(f"output: {store.url} cannot be written: {error.strerror or error}") from error


def run_stages(stage: Stage, job: Job, force: str | None = None) -> list[Manifest]:
    """Run each stage that has no manifest, from the top; with `force` that stage and those below again."""
    manifests: list[Manifest] = []
    if force is not None:
        names = [one.name for one in stage.chain()]
        for one in reversed(stage.chain()[names.index(force) :]):  # from below: never a stage without the one it needs
            discard(job.store, folder_of(one, job))
    upstream: Manifest | None = None
    for one in stage.chain():
        folder = folder_of(one, job)
        mark_used(job.store, one, job)
        manifest = load_manifest(job.store, folder, basis_of(upstream))
        cached = manifest is not None
        if manifest is None:
            spilled = spilled_bytes()
            manifest = _run(one, job, upstream)
            manifest["spilled_bytes"] = spilled_between(spilled, spilled_bytes())
            check_upstream(manifest, upstream)
            save_manifest(job.store, folder, manifest)
        check_drop_share(one, manifest)
        check_rules(job.recipe, job.store, manifest)
        sweep(job.store, folder)
        job.progress.finished(manifest, cached)
        manifests.append(manifest | {"cached": cached})
        upstream = manifest
    return manifests


def _run(stage: Stage, job: Job, upstream: Manifest | None) -> Manifest:
    if isinstance(stage, TokenStage):
        assert upstream is not None, "tokens need documents: a workflow cannot begin with its token stage"
        return run_token_stage(stage, job, upstream)
    if stage.is_global:
        assert upstream is not None, "global operators need documents: a workflow cannot begin with them"
        return run_global_stage(stage, job, upstream)
    return run_map_stage(stage, job, upstream)


def _build_manifest(prepared: Prepared, manifests: Sequence[Manifest], seconds: float) -> Manifest:
    job = prepared.job
    last = manifests[-1]
    return {
        "schema_version": SCHEMA_VERSION,
        "build_id": build_id(prepared),
        "workflow": prepared.recipe.workflow,
        "recipe": prepared.recipe.model_dump(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **_versions()},
        "inputs": {
            "files": len(job.inputs),
            "bytes": sum(item["size"] for item in job.inputs),
            "listing": save_listing(job.store, build_id(prepared), job.inputs),
            "ignored": list(prepared.ignored),
        },
        "history": list(dict.fromkeys([*(before["build_id"] for before in job.history), *job.listed])),
        "seconds": round(seconds, 3),
        "cost": _cost(manifests, seconds),
        "stages": list(manifests),
        "documents": last["kept"],
        **{key: last.get(key) for key in ("tokens", "padding", "tokenizer", "splits")},
        **{key: last.get(key, []) for key in ("shards", "indexes", "plans")},
    }


def _cost(manifests: Sequence[Manifest], seconds: float) -> dict[str, Any]:
    """What the stages of a build cost when they ran, cached ones included; `wall_seconds` and `cpus` are of this run,
    which took `ran` of them, and needs no cluster for none."""
    ran = [manifest["name"] for manifest in manifests if not manifest["cached"]]
    spilled = [manifest["spilled_bytes"] for manifest in manifests]
    return cost_of(manifests) | {
        "spilled_bytes": None if None in spilled else sum(spilled),
        "nodes": sorted({node for manifest in manifests for node in manifest["nodes"]}),
        "ran": ran,
        "wall_seconds": round(seconds, 3),
        "cpus": cpus() if ran else 0,
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def summary(manifest: Manifest) -> dict[str, Any]:
    """The part of a build's manifest that `build --json` prints."""
    stage_keys = ("name", "fingerprint", "cached", "rows_in", "created", "kept", "dropped", "quarantined", "seconds")
    stages = [
        {key: stage[key] for key in stage_keys}
        | {"operators": [{key: o[key] for key in ("name", "rows_in", "dropped")} for o in stage["operators"]]}
        for stage in manifest["stages"]
    ]
    return {
        "build_id": manifest["build_id"],
        "stages": stages,
        **{key: manifest[key] for key in ("documents", "tokens", "shards")},
    }


def write_report(store: Store, manifest: Manifest) -> str:
    """Write the build's report, with its place in the log as it is now; the report's key."""
    key = f"builds/{manifest['build_id']}/report.html"
    entry = commit.head(store)
    visible = entry is not None and manifest["build_id"] in entry.visible
    told = manifest | {"committed": visible, "log_number": entry.number if entry and visible else None}
    samples = dropped_samples(store, manifest), quarantine_samples(store, manifest)
    page = render(told, *samples, audio_of(store, manifest))
    store.write(key, page.encode("utf-8"))
    return key
