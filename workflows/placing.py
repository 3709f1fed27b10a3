"""What the stages of a build ask of the cluster, and whether it has that: known before any work."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import ClassVar

from pydantic import ValidationError

from cluster.placement import Ask, Unsatisfiable, on_each_node, preflight
from operators.apply import Step
from operators.models.weights import NotInstalled
from workflows.recipe import RecipeError, Workers
from workflows.stage import Job, Stage, basis_of, folder_of, load_manifest, uses_gpu


class Unfit(RuntimeError):
    """A node that lacks what an operator needs."""

    remedy: ClassVar[str] = "install it on every node (docs/cluster.md), and the same command goes on"


def check_placement(stage: Stage, job: Job, force: str | None = None) -> None:
    """Raises RecipeError where no node can ever run a process of a stage that is not done yet, or one that is there
    lacks what its operators need; tells what an autoscaler has to start first. Needs a Ray session."""
    workers, stages = job.recipe.workers, _not_done(stage, job, force)
    wanted = {}
    for gpu in (False, True):
        if names := [one.name for one in stages if gpu in _sides(one, job)]:
            who = f"stage{'s' * (len(names) > 1)} {', '.join(names)}"
            wanted[": ".join([who, *_fields(workers, gpu)])] = workers.ask(gpu)
    try:
        for line in preflight(wanted):
            job.progress.waits(line)
    except Unsatisfiable as error:
        raise RecipeError(str(error)) from error
    for gpu in (False, True):
        steps = tuple(step for one in stages if gpu in _sides(one, job) for step in one.steps)
        told = on_each_node(workers.ask(gpu), lacking, steps) if steps else {}
        if unfit := sorted(address for address, lacks in told.items() if lacks):
            more = f" and {len(unfit) - 1} more" if len(unfit) > 1 else ""
            raise RecipeError(f"{told[unfit[0]]}, on node {unfit[0]}{more}; {Unfit.remedy}")


def lacking(steps: Sequence[Step]) -> str | None:
    """What the first of these operators that cannot work on this machine needs: the recipe was checked on another."""
    for step in steps:
        try:
            dataclasses.replace(step.operator)  # which checks its fields again
        except ValidationError as error:
            causes = [told.get("ctx", {}).get("error") for told in error.errors()]
            for cause in causes:
                if isinstance(cause, NotInstalled) or isinstance(getattr(cause, "__context__", None), NotInstalled):
                    return f"params.{step.name}: {cause}"
    return None


def _not_done(stage: Stage, job: Job, force: str | None) -> list[Stage]:
    """Those that `run_stages` will run."""
    stages, above = stage.chain(), None
    for number, one in enumerate(stages):
        above = load_manifest(job.store, folder_of(one, job), basis_of(above))
        if above is None or one.name == force:
            return stages[number:]
    return []


def _sides(stage: Stage, job: Job) -> Iterator[bool]:
    """Whether passes of the stage run on CPUs only (False) and with a GPU (True)."""
    gpu = bool(job.recipe.workers.gpus) and uses_gpu(stage)
    if not gpu or stage.is_global or stage.upstream is None:
        yield False
    if gpu:
        yield True


def _fields(workers: Workers, gpu: bool) -> list[str]:
    """What the recipe says about such processes, if it does."""
    ask: Ask = workers.ask(gpu)
    labels = "gpu_labels" if ask.gpus else "labels"
    told = [f"workers.gpus {ask.gpus:g}"] if ask.gpus else []
    told += [f"workers.reserve_bytes {ask.memory}"] if ask.memory else []
    if ask.labels:
        told.append(f"workers.{labels} {{{', '.join(f'{key}: {value}' for key, value in ask.labels.items())}}}")
    return [", ".join(told)] if told else []
