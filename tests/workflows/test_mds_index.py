"""The index of a split's shards of mds follows what a build makes, verifies, retracts and collects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest

from cluster import commit
from cluster.mds import index_beside
from cluster.shard_reader import read_sequences
from cluster.storage import Store, open_store
from tests.workflows.corpora import recipe
from workflows.build import build, prepare
from workflows.corpus import shard_record, visible_builds
from workflows.gc import gc
from workflows.retract import retract
from workflows.rollback import rollback
from workflows.stage import Manifest
from workflows.verify import verify

OFF = dict.fromkeys(("language", "gopher_repetition", "gopher_quality", "c4", "fineweb"), "off")


@pytest.fixture
def store(tmp_path: Path, sample: Path, ray_session: None) -> Store:
    """A build of two splits with several shards of shuffled windows."""
    pq.write_table(pq.read_table(sample / "sample.parquet").slice(0, 160), tmp_path / "documents.parquet")
    params = OFF | {"tokenizer": {"name": "train:bpe", "vocab": 400}, "pack": {"layout": "windows", "seq_len": 128}}
    shards = {"formats": ["mds", "parquet"], "tokens_per_shard": 30_000}
    inputs = [str(tmp_path / "documents.parquet")]
    path = recipe(tmp_path / "recipe.yaml", inputs, tmp_path / "out", params=params, shards=shards)
    assert build(prepare(path))["committed"]
    return open_store(str(tmp_path / "out"))


def shown(store: Store) -> Manifest:
    [manifest] = visible_builds(store, commit.head(store))
    return manifest


def wrong(store: Store, quick: bool = False) -> dict[str, str]:
    return {what: error for what, error in verify(store, quick=quick) if error}


def indexed(store: Store) -> Iterator[tuple[str, int]]:
    """(path, samples) of the shards that the indexes in the store name."""
    for split in ("train", "validation"):
        folder = f"builds/{shown(store)['build_id']}/shards/mds/{split}"
        for entry in orjson.loads(store.read(f"{folder}/index.json"))["shards"]:
            yield f"{folder}/{entry['raw_data']['basename']}", entry["samples"]


def named(manifest: Manifest) -> list[tuple[str, int]]:
    return sorted((shard["path"], shard["sequences"]) for shard in manifest["shards"] if shard["format"] == "mds")


def test_an_index_names_the_shards_that_are_there(store: Store, tmp_path: Path) -> None:
    manifest = shown(store)
    assert len(named(manifest)) > 3
    assert sorted(indexed(store)) == named(manifest)
    assert len(manifest["indexes"]) == 2
    assert wrong(store) == wrong(store, quick=True) == {}

    path, copy = manifest["indexes"][0]["path"], index_beside(manifest["indexes"][0]["path"])
    whole = store.read(path)
    for key in (copy, path):
        store.write(key, whole.replace(b'"samples":', b'"sampled":'))
        assert key in wrong(store)
        store.delete([key])
        assert key in wrong(store)
        assert wrong(store, quick=True) == {key: "missing"}
        store.write(key, whole)
    assert wrong(store) == {}

    before = commit.head(store)
    assert before is not None
    ids = pq.read_table(tmp_path / "documents.parquet")["id"]
    assert retract(store, ids[:3])["committed"]
    after = shown(store)
    assert named(after) != named(manifest)
    assert sorted(indexed(store)) == named(after)
    assert wrong(store) == {}
    store.write(f"{copy.removesuffix('.json')}-{'0' * 12}.json", whole)
    store.write(copy, whole)  # as by a retraction that was killed
    gc(store, grace=0)
    assert sorted(indexed(store)) == named(after)
    assert wrong(store) == {}
    keys = {stored.key for stored in store.list("builds")}
    assert {path for path, _ in named(manifest)} - {path for path, _ in named(after)} - keys
    rollback(store, before.number)
    assert wrong(store) == {}
    assert sorted(indexed(store)) == named(shown(store))
    for shard in shown(store)["shards"]:
        if shard["format"] == "mds":
            with store.local(shard["path"], *(sidecar["path"] for sidecar in shard["sidecars"])) as root:
                assert len(read_sequences(root, shard_record(shard)).offsets) == shard["sequences"] + 1
