"""A nightly build: only what no published build has been made of, deduplicated against all of them.

What is new is told by comparing the inputs as they are now with the listings that the visible builds were made of, so
a night that failed, or was rolled back, is caught up by the next. Of two nights at once one commits; the other one
starts again from what is published then: its stages above deduplication are cached.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from cluster.commit import CommitLost
from cluster.storage import Store
from operators.document import identity
from operators.speech.units import Units
from operators.tokens.interleave import Interleave
from operators.tokens.tokenizer import Fitted, Tokenizer
from workflows.build import Prepared, build, prepare
from workflows.corpus import visible_builds
from workflows.global_stage import check_history
from workflows.recipe import RecipeError
from workflows.stage import Manifest, Progress, Stage, StageError, TokenStage, parameters_of

ATTEMPTS = 5  # at committing, while others commit first
SHOWN = 3  # inputs named in a message

Item = dict[str, Any]


@dataclass(frozen=True)
class Changes:
    """The inputs now, against those of the visible builds."""

    new: tuple[Item, ...]
    changed: tuple[Item, ...]  # in place: the same path with another version
    gone: tuple[str, ...]  # paths that were built and are not there any more; their documents stay
    known: int


@dataclass(frozen=True)
class Night:
    """A recipe prepared for what is new; `whole` where changed inputs make it a build of everything."""

    prepared: Prepared
    changes: Changes
    whole: bool

    @property
    def empty(self) -> bool:
        return not self.whole and not self.changes.new


def prepare_night(path: str | Path, progress: Progress | None = None) -> Night:
    """Read and check a recipe and find what is new. Raises RecipeError, StageError; touches nothing."""
    prepared = prepare(path, progress=progress)
    published = visible_builds(prepared.store, prepared.parent)
    changes = compare(prepared.job.inputs, inputs_of(prepared.store, published))
    if changes.changed:
        if prepared.recipe.on_changed_input == "refuse":
            raise StageError(_refusal(changes.changed))
        return Night(prepared, changes, whole=True)
    tokenized = [before for before in published if before["documents"]]  # a night of which nothing stayed has none
    stage = _as_published(prepared.stage, tokenized[-1]) if tokenized else prepared.stage
    job = dataclasses.replace(prepared.job, inputs=changes.new, history=tuple(published), fingerprints={})
    check_history(stage, job)
    return Night(dataclasses.replace(prepared, op="nightly", stage=stage, job=job), changes, whole=False)


def run_night(path: str | Path, night: Night, progress: Progress | None = None) -> dict[str, Any]:
    """Build what is new and commit it beside what is published; the result as `build` gives it, with the inputs told.

    Raises CommitLost when others committed first `ATTEMPTS` times.
    """
    for attempt in range(1, ATTEMPTS + 1):
        told = {"inputs": tell(night)}
        if night.empty:
            parent = night.prepared.parent
            nothing: dict[str, Any] = {"build_id": None, "stages": [], "documents": 0, "tokens": 0, "shards": []}
            return nothing | told | {"committed": False, "log_number": parent.number if parent else None}
        try:
            return build(night.prepared) | told
        except CommitLost:
            if attempt == ATTEMPTS:
                raise
            night = prepare_night(path, progress)
    raise AssertionError("unreachable")


def tell(night: Night) -> dict[str, Any]:
    """What of the inputs is new, for people and programs."""
    changes = night.changes
    return {
        "new": len(changes.new),
        "bytes": sum(item["size"] for item in (night.prepared.job.inputs if night.whole else changes.new)),
        "changed": [item["url"] for item in changes.changed],
        "gone": list(changes.gone),
        "known": changes.known,
        "whole": night.whole,
    }


def inputs_of(store: Store, published: Sequence[Manifest]) -> dict[tuple[str | None, str], str]:
    """{(source, path): version} of the inputs that builds were made of; the newest version counts."""
    found: dict[tuple[str | None, str], str] = {}
    for manifest in published:
        with store.open(manifest["inputs"]["listing"]["path"]) as file:
            listing = pq.read_table(file, columns=["source", "rel", "version"])
        columns = (listing[name].to_pylist() for name in ("source", "rel", "version"))
        found.update(((source, rel), version) for source, rel, version in zip(*columns, strict=True))
    return found


def compare(inputs: Sequence[Item], published: dict[tuple[str | None, str], str]) -> Changes:
    """Sort the inputs into new, changed and known ones, and find those that are gone."""
    now = {(item["source"], item["rel"]): item for item in inputs}
    changed = tuple(item for key, item in now.items() if published.get(key, item["version"]) != item["version"])
    return Changes(
        new=tuple(item for key, item in now.items() if key not in published),
        changed=changed,
        gone=tuple(sorted(rel for source, rel in published if (source, rel) not in now)),
        known=sum(key in published for key in now) - len(changed),
    )


def _refusal(changed: Sequence[Item]) -> str:
    names = ", ".join(item["url"] for item in changed[:SHOWN])
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return (
        f"{len(changed)} inputs changed since they were built: {names}{more}. Put new content under new names, or set "
        "`on_changed_input: rebuild` to build everything again"
    )


def _as_published(stage: Stage, before: Manifest) -> Stage:
    """The stages with what the published build learned: a corpus has one tokenizer."""
    if not isinstance(stage, TokenStage):
        return stage
    learned: dict[str, str] = {}
    steps = {step["name"]: step["parameters"] for one in before["stages"] for step in one["steps"]}
    now = {step["name"]: step["parameters"] for step in parameters_of(stage)}
    for name, operator in stage.steps:
        if not isinstance(operator, Tokenizer):
            continue
        published = before["tokenizer"]
        if isinstance(operator, Fitted) and not operator.fitted:
            if now[name] != steps.get(name):
                raise RecipeError(
                    f"params.{name}: {_difference(now[name], steps.get(name))}: a corpus has one tokenizer"
                )
            learned[name] = published["sha256"]
        elif published is None or operator.describe()["sha256"] != published["sha256"]:
            other = published["name"] if published else "no tokenizer"
            raise RecipeError(f"params.{name}: the published corpus has {other}: a corpus has one tokenizer")
    if stage.compose is not None or Interleave.name in steps:
        now |= {step.name: identity(step.operator) for one in stage.chain() for step in one.steps}
        for name in (Units.name, Interleave.name):  # the same ids have to mean the same
            if now.get(name) != steps.get(name):
                told = _difference(now[name], steps.get(name)) if name in now else "the published corpus has it"
                raise RecipeError(f"params.{name}: {told}: a corpus has one")
    return dataclasses.replace(stage, learned={**stage.learned, **learned})


def _difference(now: dict[str, Any], before: dict[str, Any] | None) -> str:
    if before is None:
        return "the published corpus has none"
    key = next(key for key in sorted(now.keys() | before.keys()) if now.get(key) != before.get(key))
    return f"{key} is {now.get(key)!r}, the published corpus has {before.get(key)!r}"
