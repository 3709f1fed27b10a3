"""Answers about a finished build: where a document went, and whether everything still adds up."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from cluster import commit
from cluster.artefacts import artefact_key
from cluster.flat_formats import ShardError
from cluster.shard_reader import ShardRecord, Sidecar, verify_shard
from cluster.storage import Missing, Store
from cluster.tables import Entry, columns_of, file_sha256, read_entry
from operators.document import DROP
from workflows.corpus import manifest_key
from workflows.stage import ConservationError, Manifest, check_conservation

SAMPLES = 20
SAMPLE_CHARACTERS = 600


def why(store: Store, manifests: Sequence[Manifest], doc_id: str) -> dict[str, Any]:
    """Where a document went: kept (shard and offset), dropped or quarantined (why), or unknown. Of several builds that
    know the id, the one counts that kept it, else the first."""
    answers = [_fate(store, manifest, doc_id) for manifest in manifests]
    known = [answer for answer in answers if answer["fate"] != "unknown"]
    return next((answer for answer in known if answer["fate"] == "kept"), (known or answers)[0])


def _fate(store: Store, manifest: Manifest, doc_id: str) -> dict[str, Any]:
    answer: dict[str, Any] = {"id": doc_id, "build": manifest["build_id"], "fate": "unknown", "stage": None}
    answer |= {"operator": None, "reason": None}
    answer |= {"value": None, "threshold": None, "detail": None, "duplicate_of": None, "shard": None, "offset": None}
    stages = manifest["stages"]
    for row in _rows(store, stages[-1]["files"]["kept"], doc_id):
        where = {"shard": row.get("shard"), "offset": row.get("offset"), "split": row.get("split")}
        return answer | {"fate": "kept", "stage": stages[-1]["name"]} | where
    for stage in stages:
        for row in _rows(store, stage["files"]["quarantined"], doc_id):
            told = {"reason": row["reason"], "detail": row["detail"], "file": row["file"], "offset": row["offset"]}
            return answer | {"fate": "quarantined", "stage": stage["name"]} | told
        rows = list(_rows(store, stage["files"]["dropped"], doc_id))
        # Of rows with the same id, the copies went first: the last verdict is the one on the row that stood for them.
        for row in [r for r in rows if r["duplicate_of"] != doc_id][-1:] or rows[:1]:
            operator, _, reason = row["drop_reason"].partition("/")
            told = {"operator": operator, "reason": reason, "value": row["drop_value"]}
            told |= {"threshold": row["drop_threshold"], "detail": row["drop_detail"]}
            told["duplicate_of"] = row["duplicate_of"]
            return answer | {"fate": "dropped", "stage": stage["name"]} | told
    return answer


def _rows(store: Store, entries: list[Entry], doc_id: str) -> Iterator[dict[str, Any]]:
    """Rows of the files with that id, cheapest column first."""
    for entry in entries:
        ids = read_entry(store, entry, ["id"])["id"]
        at = pc.index(ids, pa.scalar(doc_id, ids.type)).as_py()
        if at >= 0:
            columns = [c for c in columns_of(store, entry) if c != "text"]
            yield read_entry(store, entry, columns).slice(at, 1).to_pylist()[0]


def dropped_samples(store: Store, manifest: Manifest) -> dict[str, list[dict[str, Any]]]:
    """Up to 20 dropped rows a reason, those with the smallest hash of their id: a fixed, fair sample."""
    samples: dict[str, list[dict[str, Any]]] = {}
    for stage in manifest["stages"]:
        for entry in stage["files"]["dropped"]:
            table = read_entry(store, entry)
            for reason in pc.unique(table["drop_reason"]).to_pylist():
                rows = table.filter(pc.equal(table["drop_reason"], reason))
                lots = [_lot(doc_id) for doc_id in rows["id"].to_pylist()]
                chosen = sorted(range(len(lots)), key=lots.__getitem__)[:SAMPLES]
                found = samples.setdefault(reason, [])
                found += [_sample(row) for row in rows.take(chosen).to_pylist()]
    for reason, found in samples.items():
        samples[reason] = sorted(found, key=lambda row: _lot(row["id"]))[:SAMPLES]
    return dict(sorted(samples.items()))


def _lot(doc_id: str) -> bytes:
    return hashlib.sha256(doc_id.encode()).digest()


def quarantine_samples(store: Store, manifest: Manifest) -> dict[str, list[dict[str, Any]]]:
    """Up to 20 quarantined spans a reason, in the order of the files."""
    samples: dict[str, list[dict[str, Any]]] = {}
    for stage in manifest["stages"]:
        for entry in stage["files"]["quarantined"]:
            for row in read_entry(store, entry).to_pylist():
                if len(found := samples.setdefault(row["reason"], [])) < SAMPLES:
                    found.append(row)
    return dict(sorted(samples.items()))


def _sample(row: dict[str, Any]) -> dict[str, Any]:
    text = row.get("text")
    told = {name.removeprefix("drop_"): row.get(name) for name in DROP.names if name != "drop_reason"}
    return {"id": row["id"], "url": row.get("url"), "text": text[:SAMPLE_CHARACTERS] if text else None, **told}


def verify(store: Store) -> Iterator[tuple[str, str | None]]:
    """(what was checked, what is wrong with it or None) for every file, count and law behind the log's head."""
    entry = commit.head(store)
    if entry is None:
        yield "log", "no build is committed here"
        return
    for build, digest in entry.manifests.items():
        key = manifest_key(build, digest)
        if not store.exists(key):
            yield key, "missing"
            continue
        raw = store.read(key)
        same = hashlib.sha256(raw).hexdigest() == digest
        yield f"{key} against the log", None if same else "its sha256 is not the one that was committed"
        yield from _verify_build(store, orjson.loads(raw))


def _verify_build(store: Store, manifest: Manifest) -> Iterator[tuple[str, str | None]]:
    came: int | None = None
    for stage in manifest["stages"]:
        try:
            check_conservation(stage)
            error = None
        except ConservationError as broken:
            error = str(broken)
        if error is None and came is not None and stage["rows_in"] != came:
            error = f"the stage above kept {came} rows, {stage['rows_in']} came in"
        came = stage["kept"]
        yield f"stage {stage['name']}: rows in = kept + dropped + quarantined", error
        for fate in ("kept", "dropped", "quarantined"):
            for entry in stage["files"][fate]:
                yield entry["path"], _verify_file(store, entry)
            rows = sum(entry["rows"] for entry in stage["files"][fate])
            told = sum(stage["dropped"].values()) if fate == "dropped" else stage[fate]
            wrong = None if rows == told else f"{rows} rows in files, {told} in the manifest"
            yield f"stage {stage['name']}: {fate} rows in files", wrong
    for shard in manifest["shards"]:
        yield shard["path"], _verify_shard(store, shard)
    if manifest["tokenizer"] and store.exists(key := artefact_key(manifest["tokenizer"]["sha256"])):
        same = hashlib.sha256(store.read(key)).hexdigest() == manifest["tokenizer"]["sha256"]
        yield key, None if same else "its sha256 is not its name"
    for kind in sorted({shard["format"] for shard in manifest["shards"]}):
        shards = [shard for shard in manifest["shards"] if shard["format"] == kind]
        wrong_totals = [
            f"{total} {key}, {manifest[key]} in the manifest"
            for key in ("documents", "tokens")
            if manifest[key] is not None and (total := sum(s[key] for s in shards)) != manifest[key]
        ]
        yield f"shards of format {kind}: totals", wrong_totals[0] if wrong_totals else None


def _verify_file(store: Store, entry: Entry) -> str | None:
    try:
        with store.local(entry["path"]) as root:
            same = file_sha256(root / entry["path"]) == entry["sha256"]
    except Missing:
        return "missing"
    return None if same else "its sha256 is not the one in the manifest"


def _verify_shard(store: Store, shard: dict[str, Any]) -> str | None:
    """Hashes, sizes and the counts that the shard's own index gives, against the manifest."""
    sidecars = tuple(Sidecar(**sidecar) for sidecar in shard["sidecars"])
    record = ShardRecord(**{k: v for k, v in shard.items() if k not in ("split", "sidecars")}, sidecars=sidecars)
    try:
        with store.local(record.path, *(sidecar.path for sidecar in sidecars)) as root:
            verify_shard(root, record)
    except (Missing, ShardError) as error:
        return str(error)
    return None
