"""Show readers an earlier set of builds again. What was retracted since then stays out of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cluster import commit
from cluster.commit import LogEntry
from cluster.storage import Missing, Store
from workflows.corpus import committed_build, in_force
from workflows.recipe import RecipeError
from workflows.retract import held, tell, tombstones, without
from workflows.stage import Manifest, StageError


def rollback(store: Store, to: int | None = None) -> dict[str, Any]:
    """Commit an entry whose visible builds are those of entry `to`, without what was retracted since. Without `to`
    it is the last entry that shows other builds than the head.

    The result, as `rollback --json` prints it. Raises RecipeError where there is no such entry, StageError where files
    of its builds have been deleted, CommitLost where somebody else committed first.
    """
    log = list(commit.entries(store))
    if not log:
        raise RecipeError(f"{store.url}: there is no build here")
    head = log[0]
    if to is not None and not 1 <= to <= head.number:
        raise RecipeError(f"--to {to}: there is no such entry; the log has 1 to {head.number}")
    past = log[1:] if to is None else [entry for entry in log if entry.number == to]
    for entry in past:
        named = _in_force(log, entry)
        if to is not None or named != head.manifests:
            return _show(store, head, entry.number, named)
    raise RecipeError(f"{store.url}: no earlier entry of the log shows other builds")


def _in_force(log: Sequence[LogEntry], entry: LogEntry) -> dict[str, str]:
    """The builds of an entry, each with the manifest that the newest retraction since left of it."""
    retracted = in_force(log[::-1])
    found = {}
    for build, digest in entry.manifests.items():
        number, newer = retracted.get(build, (0, ""))
        found[build] = newer if entry.number < number else digest
    return found


def _show(store: Store, head: LogEntry, target: int, named: dict[str, str]) -> dict[str, Any]:
    """Commit these builds, once all that was retracted is out of them."""
    ids = tombstones(store, head)
    told: dict[str, Any] = {"to": target, "builds": list(named), "retracted": []}
    manifests: dict[str, str] = {}
    for build, digest in named.items():
        try:
            manifest = committed_build(store, build, digest)
        except Missing as error:
            raise StageError(f"entry {target}: the manifest of its build {build} has been deleted") from error
        if gone := next(_deleted(store, manifest), None):
            raise StageError(f"entry {target}: files of its build {build} have been deleted, {gone} for one")
        if found := held(store, manifest, ids):
            told["retracted"].append(tell(build, found))
        manifests[build] = without(store, build, digest, found, str(head.tombstones))
    if manifests == head.manifests:
        return told | {"committed": False, "log_number": head.number}
    return told | {"committed": True, "log_number": commit.append(store, head, "rollback", manifests).number}


def _deleted(store: Store, manifest: Manifest) -> Iterator[str]:
    """Files that readers of the build need and that are not there any more."""
    there = {stored.key for stored in store.list(f"builds/{manifest['build_id']}")}
    needed = [file["path"] for shard in manifest["shards"] for file in (shard, *shard["sidecars"])]
    needed += [file["path"] for key in ("indexes", "plans") for file in manifest.get(key, [])]
    yield from (path for path in needed if path not in there)
    index = (entry["path"] for entry in manifest["stages"][-1]["files"]["kept"])
    yield from (path for path in index if not store.exists(path))
