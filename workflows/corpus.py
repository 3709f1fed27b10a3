"""The builds of a corpus: their manifests, as the log names them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from cluster import commit
from cluster.shard_reader import ShardRecord, Sidecar
from cluster.storage import Missing, StorageError, Store
from cluster.tables import file_sha256
from workflows.recipe import RecipeError
from workflows.stage import Manifest

NEWEST = "builds/NEWEST"  # a hint: the build whose manifest was written last


def manifest_key(build: str, digest: str) -> str:
    """Where the manifest with that sha256 lies; `manifest.json` beside it is the newest one."""
    return f"builds/{build}/manifest-{digest[:12]}.json"


def save_build(store: Store, manifest: Manifest) -> tuple[Manifest, str]:
    """Write the build's manifest, or take the one that an earlier run of the same build wrote, if it names the same
    files: what a commit refers to is never replaced by a mere repetition. (manifest, its sha256)"""
    key = f"builds/{manifest['build_id']}/manifest.json"
    if store.exists(key):
        data = store.read(key)
        before: Manifest = orjson.loads(data)
        if _files(before) == _files(manifest):
            digest = hashlib.sha256(data).hexdigest()
            store.write(manifest_key(manifest["build_id"], digest), data)  # may have been collected, never committed
            return before, digest
    data = orjson.dumps(manifest, option=orjson.OPT_INDENT_2)
    digest = hashlib.sha256(data).hexdigest()
    store.write(manifest_key(manifest["build_id"], digest), data)  # what a commit will name, never written again
    store.write(key, data)
    store.write(NEWEST, manifest["build_id"].encode())
    return manifest, digest


LISTING = pa.schema(
    [(name, pa.string()) for name in ("source", "rel", "url", "version")]
    + [("size", pa.int64()), ("priority", pa.int64()), ("weight", pa.float64())]
)


def save_listing(store: Store, build: str, inputs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write what a build was made of, a row an input (source, rel, url, version, size, priority, weight), for later
    builds to tell what is new; the file as manifests name it."""
    rows = [{name: item[name] for name in LISTING.names} for item in inputs]
    with store.scratch() as folder:
        path = folder / "inputs.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=LISTING), path, compression="zstd", write_page_checksum=True)
        sha256 = file_sha256(path)
        entry = {"path": f"builds/{build}/inputs-{sha256[:12]}.parquet", "rows": len(rows)}
        entry |= {"bytes": path.stat().st_size, "sha256": sha256}
        store.publish(path, str(entry["path"]))
    return entry


def _files(manifest: Manifest) -> list[Any]:
    return [manifest["shards"], *(stage["files"] for stage in manifest["stages"])]


def shard_record(shard: Mapping[str, Any]) -> ShardRecord:
    """A shard as a build's manifest names it, for those who read shards."""
    sidecars = tuple(Sidecar(**sidecar) for sidecar in shard["sidecars"])
    known = ShardRecord.__dataclass_fields__.keys() - {"sidecars"}
    return ShardRecord(**{key: value for key, value in shard.items() if key in known}, sidecars=sidecars)


def committed_build(store: Store, build: str, digest: str) -> Manifest:
    """The manifest that the log names. Raises StorageError where it is not what was committed."""
    key = manifest_key(build, digest)
    data = store.read(key)
    if hashlib.sha256(data).hexdigest() != digest:
        raise StorageError(f"{store.url}/{key}: its sha256 is not the one that was committed")
    manifest: Manifest = orjson.loads(data)
    return manifest


def visible_builds(store: Store, entry: commit.LogEntry | None) -> list[Manifest]:
    """The manifests of the builds that readers of that entry see, oldest first."""
    return [committed_build(store, *named) for named in entry.manifests.items()] if entry else []


def load_build(store: Store, name: str) -> Manifest:
    """A build's manifest: the visible one, else the newest. Raises RecipeError when there is none."""
    entry = commit.head(store)
    if entry is not None and name in entry.manifests:
        return committed_build(store, name, entry.manifests[name])
    try:
        manifest: Manifest = orjson.loads(store.read(f"builds/{name}/manifest.json"))
    except Missing as error:
        raise RecipeError(f"{store.url}: there is no build {name!r}") from error
    return manifest


def newest_build(store: Store) -> Manifest:
    """The manifest of the build committed last, else of the newest one that was refused."""
    entry = commit.head(store)
    if entry is not None:
        return committed_build(store, entry.build, entry.manifest_sha256)
    if not store.exists(NEWEST):
        raise RecipeError(f"{store.url}: there is no build here")
    return load_build(store, store.read(NEWEST).decode())


def in_force(log: Sequence[commit.LogEntry]) -> dict[str, tuple[int, str]]:
    """Of each build that documents were taken out of: the newest entry that did so and its manifest from then on. A
    rollback does so too where documents were retracted while the build was out of sight."""
    found: dict[str, tuple[int, str]] = {}
    known: set[tuple[str, str]] = set()
    for entry in log:
        for named in entry.manifests.items():
            if named not in known and entry.op in ("retract", "rollback"):
                found[named[0]] = (entry.number, named[1])
            known.add(named)
    return found
