"""What a build is expected to take on a given cluster: hours and money, from what an earlier build took.

The model is Amdahl's. Of each stage that is not cached, the CPU seconds of its units grow with the input and spread
over the cluster; what a fold does is one process; the driver's work grows with passes and units. Nothing here is a
promise: the assumptions are part of the answer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.storage import Store, open_store
from operators.tokens.tokenizer import Fitted
from workflows.build import Prepared
from workflows.corpus import newest_build
from workflows.map_stage import MOST_UNITS
from workflows.recipe import RecipeError
from workflows.stage import Manifest, Stage

PASS_SECONDS = 0.1  # of Ray and the driver, for each pass over units (docs/scaling.md)
UNIT_SECONDS = 0.01  # of the driver, for each unit of a pass
EFFICIENCY = 0.8  # CPU seconds that a CPU gives in a second of a pass, where no build tells
LEAST_EFFICIENCY = 0.05  # a build that was mostly waiting says little of another
SUPERLINEAR = ("order", "semantic_dedup")  # compare documents with more others when there are more


@dataclass(frozen=True)
class Nodes:
    """The cluster that an estimate is for. `price` is of one node for an hour, in any currency."""

    nodes: int = 1
    cpus: int = 1  # of each
    gpus: float = 0  # of each
    price: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("nodes", 1), ("cpus", 1), ("gpus", 0), ("price", 0)):
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise RecipeError(f"{name}: at least {least}, got {value}")


def of_cluster(
    prepared: Prepared, nodes: int = 1, cpus: int | None = None, gpus: float = 0, price: float | None = None
) -> Nodes:
    """The cluster of a command's options; without `cpus`, nodes that are like this machine. Raises RecipeError."""
    return Nodes(nodes, cpus or prepared.recipe.workers.cpus or os.cpu_count() or 1, gpus, price)


@dataclass(frozen=True)
class Rates:
    """What an earlier build's stages took: their manifests by name, and the bytes of input it read."""

    build: str
    input_bytes: int
    stages: Mapping[str, Manifest]
    efficiency: float | None  # None where the build ran nothing itself


def rates_at(store: Store) -> Rates | None:
    """The rates of the newest build in a store; None where there is none that tells."""
    try:
        return rates_of(newest_build(store))
    except RecipeError:  # no build at all
        return None


def rates_of(build: Manifest) -> Rates | None:
    """The rates in a build's manifest; None where it was made before costs were recorded."""
    stages = {stage["name"]: stage for stage in build["stages"] if "passes" in stage and "read_bytes" in stage}
    if len(stages) < len(build["stages"]):
        return None
    return Rates(build["build_id"], build["inputs"]["bytes"], stages, efficiency_of(build, stages))


def efficiency_of(build: Manifest, stages: Mapping[str, Manifest]) -> float | None:
    """CPU seconds that each CPU gave in a second of the passes that spread over CPUs."""
    ran = [stages[name] for name in build["cost"]["ran"]]
    parts = [_part(stage, 1, 1) for stage in ran]
    spread: float = sum(stage["seconds"] for stage in ran) - sum(part["serial_seconds"] for part in parts)
    cpu_seconds: float = sum(part["cpu_seconds"] for part in parts)
    if spread <= 0 or cpu_seconds <= 0:
        return None
    cpus: int = build["cost"]["cpus"]
    return max(LEAST_EFFICIENCY, min(1.0, cpu_seconds / (spread * cpus)))


def estimate_of(
    prepared: Prepared, planned: Mapping[str, Any], nodes: Nodes, like: str | None = None
) -> dict[str, Any]:
    """The estimate of a prepared recipe on `nodes`, with the rates of its own corpus or of the one at `like`."""
    return estimate(planned, prepared.stage, rates_at(open_store(like) if like else prepared.store), nodes)


def estimate(planned: Mapping[str, Any], stage: Stage, rates: Rates | None, nodes: Nodes) -> dict[str, Any]:
    """What the stages of a plan that are not cached are expected to take on `nodes`, as `plan --json` prints it.

    `planned` is what `build.plan` says of the last stage `stage`. Without rates there is nothing to estimate from, and
    `why` says so; so it does for stages that the rates do not know.
    """
    missing = [one for one in planned["stages"] if not one["cached"]]
    if not missing:
        return {"why": "every stage is cached: there is nothing to do", "stages": []}
    if rates is None:
        told = "no build here has recorded what it took: build a part of the inputs first, or name another corpus"
        return {"why": f"nothing to estimate from: {told}", "stages": []}
    unknown = [one["name"] for one in missing if one["name"] not in rates.stages]
    factor = planned["inputs"]["bytes"] / max(1, rates.input_bytes)
    of_name = {one.name: one for one in stage.chain()}
    lines = []
    for one in missing:
        if (before := rates.stages.get(one["name"])) is not None:
            lines.append(_line(one["name"], before, factor, _fits(of_name[one["name"]], before), nodes, rates))
    seconds = sum(line["seconds"] for line in lines)
    keys = ("cpu_seconds", "gpu_seconds", "shuffled_bytes", "serial_seconds")
    hours = seconds / 3600
    return {
        "why": f"{', '.join(unknown)}: no earlier build had this stage: left out" if unknown else None,
        "from": rates.build,
        "scale": round(factor, 4),
        "nodes": nodes.nodes,
        "cpus_per_node": nodes.cpus,
        "gpus_per_node": nodes.gpus,
        "stages": lines,
        **{key: sum(line[key] for line in lines) for key in keys},
        "seconds": round(seconds, 1),
        "node_hours": round(hours * nodes.nodes, 3),
        "price": None if nodes.price is None else round(hours * nodes.nodes * nodes.price, 2),
        "assumptions": _assumptions(rates, factor, missing, lines, nodes),
    }


def _fits(stage: Stage, before: Manifest) -> float:
    """How much more a fit on a sample can take: a sample grows up to its bound only."""
    bounds: list[int] = [step.operator.fit_sample_bytes for step in stage.steps if isinstance(step.operator, Fitted)]
    characters: int = before["characters"]["in"]
    return max(1.0, max(bounds, default=1) / max(1, characters))


def _line(name: str, before: Manifest, factor: float, fits: float, nodes: Nodes, rates: Rates) -> dict[str, Any]:
    part = _part(before, factor, fits)
    cpus = nodes.nodes * nodes.cpus
    spread = part["cpu_seconds"] / (cpus * (rates.efficiency or EFFICIENCY))
    gpus = nodes.nodes * nodes.gpus
    on_gpus = part["gpu_seconds"] / gpus if gpus else 0.0
    seconds = max(spread, on_gpus) + part["serial_seconds"]
    return {"name": name, **part, "seconds": round(seconds, 1)}


def _part(stage: Manifest, factor: float, fits: float) -> dict[str, Any]:
    """What a stage takes with `factor` times its input: what spreads over processes, and what does not."""
    folds = [one for one in stage["passes"] if one["fold"]]
    others = [one for one in stage["passes"] if not one["fold"]]
    grown = [one["seconds"] / one["units"] * (min(factor, fits) if _is_fit(one) else factor) for one in folds]
    units = {one["name"]: _units(one["units"], factor) for one in others}
    driver = PASS_SECONDS * len(stage["passes"]) + UNIT_SECONDS * sum(units.values())
    return {
        "cpu_seconds": round(sum(one["cpu_seconds"] for one in others) * factor, 1),
        "gpu_seconds": round(stage["gpu_seconds"] * factor, 1),
        "read_bytes": round(stage["read_bytes"] * factor),
        "shuffled_bytes": round(stage["shuffled_bytes"] * factor),
        "serial_seconds": round(sum(grown) + driver, 1),
        "most_units": max(units.values(), default=0),
    }


def _is_fit(one: Mapping[str, Any]) -> bool:
    return str(one["name"]).endswith("/fit")


def _units(then: int, factor: float) -> int:
    """Units grow in number until there are MOST_UNITS, and then in size."""
    return max(1, min(max(MOST_UNITS, then), round(then * factor)))


def _assumptions(rates: Rates, factor: float, missing: Sequence[Any], lines: Sequence[Any], nodes: Nodes) -> list[str]:
    told = [
        f"everything grows with the bytes of input: {factor:.3g} times those of build {rates.build}",
        "the same share of documents is kept by each stage",
        f"a pass costs {PASS_SECONDS:g} s, and each of its units {UNIT_SECONDS * 1000:g} ms of the driver",
    ]
    how = "measured in that build" if rates.efficiency else "assumed: that build ran nothing itself"
    told.append(
        f"a CPU gives {rates.efficiency or EFFICIENCY:.2f} CPU seconds a second ({how}), of the same kind as there"
    )
    steps = {step for one in missing for step in one["operators"]}
    if factor > 1 and (found := sorted(steps.intersection(SUPERLINEAR))):
        told.append(f"{', '.join(found)} may take more than in proportion: see docs/scaling.md")
    if factor > 10:
        told.append("the earlier build is small: what every process does once (kernels, models) weighs too much in it")
    if any(line["gpu_seconds"] for line in lines) and not nodes.gpus:
        told.append("what took GPUs there is left out: the cluster has none")
    if any(line["most_units"] >= MOST_UNITS for line in lines):
        told.append(f"passes of {MOST_UNITS} units: beyond some terabytes build in parts, with `nightly`")
    return told


def told(found: Mapping[str, Any]) -> list[str]:
    """An estimate in lines for people."""
    if not found["stages"]:
        return [found["why"]]
    lines = [] if found["why"] is None else [found["why"]]
    cluster = f"{found['nodes']} x {found['cpus_per_node']} CPUs"
    cluster += f", {found['gpus_per_node']:g} GPUs each" if found["gpus_per_node"] else ""
    total = f"about {_time(found['seconds'])} on {cluster}: {found['node_hours']:.3g} node hours"
    lines.append(total + (f", {found['price']:,.2f} at that price" if found["price"] is not None else ""))
    for one in found["stages"]:
        gpus = f", {_time(one['gpu_seconds'])} of GPUs" if one["gpu_seconds"] else ""
        serial, moved = _time(one["serial_seconds"]), one["shuffled_bytes"] / 1e9
        what = f"{_time(one['cpu_seconds'])} of CPUs{gpus}, {serial} not spread, {moved:,.2f} GB exchanged"
        lines.append(f"  {one['name']:9} {_time(one['seconds']):>10}   {what}")
    return lines + [f"  assumed: {line}" for line in found["assumptions"]]


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"
