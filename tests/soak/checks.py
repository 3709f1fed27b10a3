"""What must hold of a corpus, while its build is interrupted and when it is done."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from cluster import commit
from cluster.storage import Store, open_store
from cluster.tables import read_entry
from tests.soak.mortal import DONE
from tests.workflows.corpora import hashes
from workflows.corpus import newest_build
from workflows.verify import verify
from workflows.watch import RUNNING

FATES = ("kept", "dropped", "quarantined")
NAMED_BY_CONTENT = re.compile(r"-([0-9a-f]{12})\.(parquet|json)$")


def check_interrupted(url: str) -> int:
    """What is named by its content has that content, finished stages have all their files, and what is committed, if
    the build came so far, is whole."""
    store = open_store(url)
    if commit.head(store) is not None:
        check_verified(store)
    for key in [stored.key for folder in ("stages", "builds") for stored in store.list(folder)]:
        if found := NAMED_BY_CONTENT.search(key):
            assert hashlib.sha256(store.read(key)).hexdigest().startswith(found[1]), key
        if key.startswith("stages/") and key.endswith("/manifest.json"):
            for entry in (e for fate in FATES for e in orjson.loads(store.read(key))["files"][fate]):
                assert hashlib.sha256(store.read(entry["path"])).hexdigest() == entry["sha256"], entry["path"]
    return DONE


def check_corpus(url: str, expected: Sequence[tuple[str, str]]) -> int:
    """One commit; all that it reaches is there with its hash and adds up; no document twice; nothing beside what the
    manifests name; the (names, sha256) of shards that are expected."""
    store = open_store(url)
    assert [entry.number for entry in commit.entries(store)] == [1]
    check_verified(store)
    manifest = newest_build(store)
    index = manifest["stages"][-1]["files"]["kept"]
    ids = [name for entry in index for name in read_entry(store, entry, ["id"])["id"].to_pylist()]
    assert len(set(ids)) == len(ids) == manifest["documents"]
    assert _listed(store) == _named(manifest)
    assert not list(store.list(RUNNING))  # nobody is said to be at it
    assert hashes(manifest) == [tuple(one) for one in expected]
    return DONE


def check_verified(store: Store) -> None:
    """All that the log reaches is there with its hash, and adds up."""
    wrong = [(what, error) for what, error in verify(store) if error is not None]
    assert not wrong, wrong


def _listed(store: Store) -> set[str]:
    """Tables and shards in the store."""
    folders = [f"{folder}{fate}/" for fate in FATES for folder in _stage_folders(store)]
    shards = {stored.key for stored in store.list("builds") if "/shards/" in stored.key}
    return shards | {stored.key for folder in folders for stored in store.list(folder)}


def _stage_folders(store: Store) -> set[str]:
    return {"/".join(stored.key.split("/")[:2]) + "/" for stored in store.list("stages")}


def _named(manifest: dict[str, Any]) -> set[str]:
    tables = {entry["path"] for stage in manifest["stages"] for fate in FATES for entry in stage["files"][fate]}
    shards = [file for shard in manifest["shards"] for file in (shard, *shard["sidecars"])]
    return tables | {file["path"] for file in (*shards, *manifest["plans"])}


def tell_hashes(url: str, into: Path) -> int:
    """Write the (names, sha256) of the committed shards into a file."""
    into.write_bytes(orjson.dumps(hashes(newest_build(open_store(url)))))
    return DONE
