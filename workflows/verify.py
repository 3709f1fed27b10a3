"""Does a corpus still add up? Every file, count and law behind the head of its log."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError

from cluster import commit
from cluster.artefacts import artefact_key, on_disk
from cluster.flat_formats import ShardError
from cluster.mds import index_beside, indexes_of
from cluster.shard_reader import ShardRecord, Sidecar, verify_shard
from cluster.storage import Missing, Store
from cluster.tables import file_sha256, read_entry
from operators.document import Pinned
from operators.hashes import xxh3_64
from operators.retracted import IdFile, Ids
from operators.tokens.tokenizer import TRAINED
from workflows.corpus import manifest_key, shard_record
from workflows.recipe import RecipeError
from workflows.stage import (
    FATES,
    FREED,
    ConservationError,
    Manifest,
    Progress,
    check_conservation,
    check_upstream,
    stage_files,
)

ENTRY_KEY = re.compile(r"_log/(\d{8})\.json")
MISSING = "missing"
READERS = 4  # threads that fetch and hash; in object storage each holds a shard on the local disk

Check = tuple[str, str | None]


def verify(
    store: Store, build: str | None = None, quick: bool = False, progress: Progress | None = None
) -> Iterator[Check]:
    """(what was checked, what is wrong with it or None) for every file, count and law behind the log's head, or of the
    build named. Files that builds or layers share are checked once. With `quick` only manifests are read: a listing
    says which files there are and how large. Raises RecipeError where there is no such build."""
    log = yield from _verify_log(store)
    if not log:
        return
    head = log[-1]
    named = head.manifests if build is None else {build: _digest(store, log, build)}
    manifests: list[Manifest] = []
    for name, digest in named.items():
        manifest, error = _read_manifest(store, name, digest)
        yield f"{_key(name, digest)} against the log" if digest else _key(name, None), error
        if manifest is not None:
            manifests.append(manifest)
            yield from _verify_laws(manifest)
    shown = [manifest for manifest in manifests if manifest["build_id"] in head.visible]
    sha256 = head.tombstones if shown else None
    wrong: set[str] = set()
    for path, error in _verify_files(store, manifests, sha256, quick, progress or Progress()):
        wrong |= {path} if error else set()
        yield path, error
    index = {entry["path"] for manifest in shown for entry in manifest["stages"][-1]["files"]["kept"]}
    if shown and not quick and not wrong & (index | {artefact_key(sha256 or "")}):
        yield from _verify_ids(store, shown, sha256)


def _verify_log(store: Store) -> Generator[Check, None, list[commit.LogEntry]]:
    """Checks every entry; all of them, oldest first, or none where one cannot be read. A listing finds the last one:
    readers, who try one number after the other, would stop at a gap."""
    numbers = commit_numbers(store)
    if not numbers:
        yield "log", "no build is committed here"
        return []
    log: list[commit.LogEntry] = []
    for number in range(1, numbers[-1] + 1):
        try:
            log.append(commit.read_entry(store, number))
        except Missing:
            yield commit.entry_key(number), "missing"
        except ValidationError as error:
            yield commit.entry_key(number), f"is no entry of a log: {error.errors()[0]['msg']}"
        else:
            yield commit.entry_key(number), _entry_error(log[-1], number, log[-2] if len(log) > 1 else None)
    try:
        hint = int(store.read(commit.LATEST)) if store.exists(commit.LATEST) else 1
        known = 1 <= hint <= numbers[-1]
        yield commit.LATEST, None if known else f"names entry {hint}, the newest is {numbers[-1]}"
    except ValueError:
        yield commit.LATEST, "is not a number"
    return log if len(log) == numbers[-1] else []


def commit_numbers(store: Store) -> list[int]:
    """The numbers of the log's entries that a listing finds, ascending."""
    found = [ENTRY_KEY.fullmatch(stored.key) for stored in store.list("_log")]
    return sorted(int(match[1]) for match in found if match)


def _entry_error(entry: commit.LogEntry, number: int, before: commit.LogEntry | None) -> str | None:
    if (entry.number, entry.parent) != (number, number - 1):
        return f"says that it is entry {entry.number} after {entry.parent}"
    if entry.visible != list(entry.manifests) or entry.manifests.get(entry.build) != entry.manifest_sha256:
        return "its build, its visible builds and their manifests do not agree"
    if before is not None and before.tombstones is not None and entry.tombstones is None:
        return "it forgets the documents that were retracted"
    return None


def _digest(store: Store, log: Sequence[commit.LogEntry], build: str) -> str | None:
    """Of the manifest in the newest entry that names the build; None for a build that was never committed."""
    digest = next((entry.manifests[build] for entry in reversed(log) if build in entry.manifests), None)
    if digest is None and not store.exists(_key(build, None)):
        raise RecipeError(f"{store.url}: there is no build {build!r}")
    return digest


def _key(build: str, digest: str | None) -> str:
    return manifest_key(build, digest) if digest else f"builds/{build}/manifest.json"


def _read_manifest(store: Store, build: str, digest: str | None) -> tuple[Manifest | None, str | None]:
    """The manifest, or None and what is wrong: what a damaged one says is not looked at."""
    try:
        raw = store.read(_key(build, digest))
    except Missing:
        return None, "missing"
    if digest is not None and hashlib.sha256(raw).hexdigest() != digest:
        return None, "its sha256 is not the one that was committed"
    return orjson.loads(raw), None


def _verify_laws(manifest: Manifest) -> Iterator[Check]:
    above: Manifest | None = None
    for stage in manifest["stages"]:
        try:
            check_conservation(stage)
            check_upstream(stage, above)
            error = None
        except ConservationError as broken:
            error = str(broken)
        above = stage
        yield f"stage {stage['name']}: rows in = kept + dropped + quarantined", error
        for fate in FATES:
            rows = sum(entry["rows"] for entry in stage["files"][fate])
            told = sum(stage["dropped"].values()) if fate == "dropped" else stage[fate]
            wrong = None if rows == told else f"{rows} rows in files, {told} in the manifest"
            yield f"stage {stage['name']}: {fate} rows in files", wrong
    composed = manifest["stages"][-1].get("interleaved")  # then shards hold other documents than the index
    totals = manifest | ({"documents": composed.get("documents", 0)} if composed else {})
    for kind in sorted({shard["format"] for shard in manifest["shards"]}):
        shards = [shard for shard in manifest["shards"] if shard["format"] == kind]
        wrong_totals = [
            f"{total} {key}, {totals[key]} in the manifest"
            for key in ("documents", "tokens")
            if totals[key] is not None and (total := sum(s[key] for s in shards)) != totals[key]
        ]
        yield f"shards of format {kind}: totals", wrong_totals[0] if wrong_totals else None
    samples = {shard["path"].rpartition("/")[0] for shard in manifest["shards"] if shard["format"] == "mds"}
    indexed = {index["path"].rpartition("/")[0] for index in manifest.get("indexes", [])}
    if samples | indexed:
        yield "shards of format mds: an index each split", None if samples == indexed else f"only {sorted(indexed)}"


def _verify_files(
    store: Store, manifests: Sequence[Manifest], retracted: str | None, quick: bool, progress: Progress
) -> Iterator[Check]:
    """Each file once. What `gc --stages` deleted is not missing."""
    entries = [e for m in manifests for e in chain(*map(stage_files, m["stages"]), [m["inputs"]["listing"]])]
    entries += [plan for m in manifests for plan in m.get("plans", [])]
    files = list(dict.fromkeys(Sidecar(e["path"], e["sha256"], e["bytes"]) for e in entries))
    shards = list(dict.fromkeys(shard_record(shard) for m in manifests for shard in m["shards"]))
    parts = [part for shard in shards for part in (Sidecar(shard.path, shard.sha256, shard.bytes), *shard.sidecars)]
    indexes = [(Sidecar(**index), m["shards"]) for m in manifests for index in m.get("indexes", [])]  # of mds
    named = Counter(part.path for part in {*files, *parts})
    yield from ((path, f"is named with {n} different sizes or hashes") for path, n in named.items() if n > 1)
    artefacts = {m["tokenizer"]["sha256"] for m in manifests if (m["tokenizer"] or {}).get("name") == TRAINED}
    learned = sorted(artefacts | ({retracted} if retracted else set()))
    checks: list[tuple[str, Callable[[], str | None]]]
    if quick:
        parts += files + [index for index, _ in indexes]
        folders = {"artefacts", *("/".join(part.path.split("/")[:2]) for part in parts)}
        sizes = {stored.key: stored.size for folder in sorted(folders) for stored in store.list(folder)}
        checks = [(part.path, partial(_size_error, sizes, part.path, part.bytes)) for part in parts]
        checks += [(key, partial(_size_error, sizes, key)) for key in (index_beside(i.path) for i, _ in indexes)]
        checks += [(key, partial(_size_error, sizes, key)) for key in map(artefact_key, learned)]
    else:
        checks = [(file.path, partial(_file_error, store, file)) for file in files]
        checks += [(shard.path, partial(_shard_error, store, shard)) for shard in shards]
        checks += [(index.path, partial(_index_error, store, index, own)) for index, own in indexes]
        checks += [(key, partial(_copy_error, store, key)) for key in (index_beside(i.path) for i, _ in indexes)]
        checks += [(artefact_key(sha256), partial(_artefact_error, store, sha256)) for sha256 in learned]
    excused = {path for m in manifests for stage in m["stages"] for path in freed(store, stage_folder(stage))}
    progress.started("verify", "", len(checks))
    for path, error in _in_order(checks):
        progress.unit({})
        if error != MISSING or path not in excused:
            yield path, error


def stage_folder(stage: Manifest) -> str:
    return f"stages/{stage['name']}-{stage['fingerprint']}"


def freed(store: Store, folder: str) -> set[str]:
    """The files of a stage that `gc --stages` deleted, without those that the stage has made again since."""
    if not store.exists(f"{folder}/{FREED}"):
        return set()
    gone = set(orjson.loads(store.read(f"{folder}/{FREED}")))
    if store.exists(key := f"{folder}/manifest.json"):
        gone -= {entry["path"] for entry in stage_files(orjson.loads(store.read(key)))}
    return gone


def _in_order(checks: Sequence[tuple[str, Callable[[], str | None]]]) -> Iterator[Check]:
    """The checks' results as they were given, several made at once."""
    with ThreadPoolExecutor(READERS) as pool:
        futures = [pool.submit(check) for _, check in checks]
        try:
            for (what, _), future in zip(checks, futures, strict=True):
                yield what, future.result()
        finally:
            for future in futures:
                future.cancel()


def _size_error(sizes: Mapping[str, int], key: str, size: int | None = None) -> str | None:
    if key not in sizes:
        return MISSING
    return f"{sizes[key]} bytes, recorded {size}" if size not in (None, sizes[key]) else None


def _file_error(store: Store, file: Sidecar) -> str | None:
    try:
        with store.local(file.path) as root:
            if (size := (root / file.path).stat().st_size) != file.bytes:
                return f"{size} bytes, recorded {file.bytes}"
            same = file_sha256(root / file.path) == file.sha256
    except Missing:
        return MISSING
    return None if same else "its sha256 is not the one in the manifest"


def _artefact_error(store: Store, sha256: str) -> str | None:
    try:
        same = hashlib.sha256(store.read(artefact_key(sha256))).hexdigest() == sha256
    except Missing:
        return MISSING
    return None if same else "its sha256 is not its name"


def _shard_error(store: Store, shard: ShardRecord) -> str | None:
    """Hashes, sizes and the counts that the shard's own index gives, against the manifest."""
    try:
        with store.local(shard.path, *(sidecar.path for sidecar in shard.sidecars)) as root:
            verify_shard(root, shard)
    except (Missing, ShardError) as error:
        return str(error)
    return None


def _index_error(store: Store, index: Sidecar, shards: Sequence[Mapping[str, Any]]) -> str | None:
    """Its hash and size, and whether it names the shards beside it as their entries do."""
    error = _file_error(store, index)
    folder = index.path.rpartition("/")[0]
    try:
        told = dict(indexes_of(store, [shard for shard in shards if shard["path"].rpartition("/")[0] == folder]))
    except Missing:
        return error or "the entry of a shard is missing"
    return error or (None if told == {folder: store.read(index.path)} else "does not name the shards beside it")


def _copy_error(store: Store, key: str) -> str | None:
    """Of an `index.json`: whether it is one of the indexes beside it. The newest may be of a retraction that was
    killed."""
    try:
        data = store.read(key)
        digest = hashlib.sha256(data).hexdigest()
        same = store.read(f"{key.removesuffix('.json')}-{digest[:12]}.json") == data
    except Missing:
        return "missing, or a copy of no index beside it"
    return None if same else "is a copy of no index beside it"


def _verify_ids(store: Store, manifests: Sequence[Manifest], tombstones: str | None) -> Iterator[Check]:
    """A document is in one build, and in none once it was retracted. Eight bytes a document are held in memory."""
    retracted = Ids(pa.array([], pa.large_string()))
    if tombstones is not None:
        retracted = IdFile(Pinned(str(on_disk(store, tombstones)), tombstones)).load()
    found, back = [], []
    for manifest in manifests:
        hashes = [np.empty(0, np.uint64)]
        for file in manifest["stages"][-1]["files"]["kept"]:
            ids = read_entry(store, file, ["id"])["id"]
            hashes.append(xxh3_64(ids))
            back += ids.filter(pa.array(retracted.has(ids))).to_pylist()
        found.append(np.unique(np.concatenate(hashes)))
    if tombstones is not None:
        wrong = f"{len(back)} documents that were retracted are there, {min(back)} for one" if back else None
        yield f"documents against the {len(retracted)} retracted ids", wrong
    seen, times = np.unique(np.concatenate(found), return_counts=True)
    twice = _in_several(store, manifests, seen[times > 1])
    documents = sum(manifest["documents"] for manifest in manifests)
    wrong = f"{len(twice)} ids are in several builds, {min(twice)} for one" if twice else None
    yield f"{documents} documents in {len(manifests)} builds: each id in one", wrong


def _in_several(store: Store, manifests: Sequence[Manifest], hashes: NDArray[np.uint64]) -> list[str]:
    """The ids among those with these hashes that more than one of the builds has."""
    builds = Counter[str]()
    for manifest in manifests if len(hashes) else ():
        ids: set[str] = set()
        for file in manifest["stages"][-1]["files"]["kept"]:
            column = read_entry(store, file, ["id"])["id"]
            ids.update(column.filter(pa.array(np.isin(xxh3_64(column), hashes))).to_pylist())
        builds.update(ids)
    return [doc_id for doc_id, n in builds.items() if n > 1]
