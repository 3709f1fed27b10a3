"""Answers about a finished build: where its documents went, and samples of what it dropped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cluster.storage import Store
from cluster.tables import Entry, columns_of, read_entry
from operators.document import DROP
from operators.read.span import fallback_id
from workflows import profile
from workflows.stage import Manifest

SAMPLES = 20
SAMPLE_CHARACTERS = 600


def why(store: Store, manifests: Sequence[Manifest], doc_id: str) -> dict[str, Any]:
    """Where a document went: kept (shard and offset), dropped or quarantined (why), or unknown. Of several builds that
    know the id, the one counts that kept it, else the first."""
    answers = [_fate(store, manifest, doc_id) for manifest in manifests]
    if all(answer["fate"] == "unknown" for answer in answers):  # it may be the name of a recording's file
        heard = [manifest for manifest in manifests if profile.hears(manifest["stages"])]
        answers += [_fate(store, manifest, fallback_id(doc_id, 0)) for manifest in heard]
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
    for stage in reversed(stages):  # of copies that went early and the one that went late, the late one tells
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
            columns = [c for c in columns_of(store, entry) if c not in ("text", "payload")]
            yield read_entry(store, entry, columns).slice(at, 1).to_pylist()[0]


def dropped_samples(store: Store, manifest: Manifest) -> dict[str, list[dict[str, Any]]]:
    """Up to 20 dropped rows a reason, those with the smallest hash of their id: a fixed, fair sample."""
    samples: dict[str, list[dict[str, Any]]] = {}
    for stage in manifest["stages"]:
        for entry in stage["files"]["dropped"]:
            table = read_entry(store, entry, ["id", "url", "text", *DROP.names])
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
