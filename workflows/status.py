"""What a corpus shows, what came before, and what is unfinished. Reads the log, manifests and a listing of `stages/`,
never the shards."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import orjson

from cluster.commit import LogEntry
from cluster.storage import Missing, Store
from cluster.units import READERS
from workflows.corpus import committed_build, visible_builds
from workflows.gc import MANIFEST, PLAN, Unit, live, oldest_kept, read_log, units_of
from workflows.recipe import RecipeError
from workflows.retract import STEP
from workflows.running import running
from workflows.stage import Manifest

Named = tuple[str, str]  # a build and the sha256 of its manifest


def history(store: Store) -> list[dict[str, Any]]:
    """The entries of the log, the newest first, as `log --json` prints them. What a manifest would say is None where
    `gc` deleted it. Raises RecipeError where there is no log."""
    log = read_log(store)
    if not log:
        raise RecipeError(f"{store.url}: there is no build here")
    named = sorted({one for entry in log for one in entry.manifests.items()})
    with ThreadPoolExecutor(READERS) as pool:
        counts = dict(zip(named, pool.map(partial(_counts, store), named), strict=True))
    return [_line(entry, [counts[one] for one in entry.manifests.items()]) for entry in reversed(log)]


def _counts(store: Store, named: Named) -> dict[str, int | None]:
    try:
        manifest = committed_build(store, *named)
    except Missing:
        return dict.fromkeys(("documents", "tokens", "retracted"))
    return {"documents": manifest["documents"], "tokens": manifest["tokens"], "retracted": _retracted(manifest)}


def _retracted(manifest: Manifest) -> int:
    """The documents that were taken out of a build after it was made."""
    operators = manifest["stages"][-1]["operators"]
    return sum(sum(o["dropped"].values()) for o in operators if o["name"] == STEP)


def _line(entry: LogEntry, counts: Sequence[dict[str, int | None]]) -> dict[str, Any]:
    line = {"number": entry.number, "op": entry.op, "created": entry.created, "build": entry.build}
    return (
        line | {"visible": entry.visible} | {key: _total(counts, key) for key in ("documents", "tokens", "retracted")}
    )


def _total(counts: Sequence[dict[str, int | None]], key: str) -> int | None:
    """The sum, or None where one is not known."""
    found = [count[key] for count in counts]
    return None if None in found else sum(n for n in found if n is not None)


def status(store: Store) -> dict[str, Any]:
    """What readers see, what runs, what is unfinished and what waits for `gc`, as `status --json` prints it. Raises
    RecipeError where there is no corpus."""
    log = read_log(store)
    units = units_of(store.list("stages"), before=0)
    if not log and not units:
        raise RecipeError(f"{store.url}: there is no corpus here")
    head = log[-1] if log else None
    builds = [_build(manifest) for manifest in visible_builds(store, head)]
    alive = live(store, log, oldest_kept(store)).fingerprints
    unfinished = {name: unit for name, unit in units.items() if unit.working and not unit.of_stage(MANIFEST)}
    waiting = [unit for name, unit in units.items() if name not in alive and name not in unfinished]
    objects = [stored for unit in waiting for stored in unit.objects.values()]
    return {
        "head": {"number": head.number, "op": head.op, "created": head.created, "build": head.build} if head else None,
        "builds": builds,
        "totals": {key: _total(builds, key) for key in ("documents", "tokens", "shards", "bytes")},
        "running": running(store, head.created if head else None),
        "unfinished": [_unfinished(store, unit) for unit in unfinished.values()],
        "waiting": {"stages": len(waiting), "objects": len(objects), "bytes": sum(stored.size for stored in objects)},
    }


def _build(manifest: Manifest) -> dict[str, Any]:
    shards = manifest["shards"]
    files = [file for shard in shards for file in (shard, *shard["sidecars"])]
    files += [file for key in ("indexes", "plans") for file in manifest.get(key, [])]
    return {
        "build_id": manifest["build_id"],
        **{key: manifest[key] for key in ("created", "documents", "tokens")},
        "shards": len(shards),
        "bytes": sum(file["bytes"] for file in files),
        "inputs": {key: manifest["inputs"][key] for key in ("files", "bytes")},
    }


def _unfinished(store: Store, unit: Unit) -> dict[str, Any]:
    """A stage that is being made, or was when its build ended. The units of a reading stage are planned; of others,
    the passes follow one another, and how many units they have is not written down."""
    [folder] = unit.folders
    done = [key for key in unit.objects if "/_done/" in key and "/cut-" not in key]
    plan = unit.of_stage(PLAN)
    last = max(stored.modified for stored in unit.objects.values())
    return {
        "stage": folder.removeprefix("stages/"),
        "units_done": len(done),
        "units": len(orjson.loads(store.read(plan))) if plan else None,
        "idle_seconds": max(0, round(time.time() - last)),
    }
