"""A map and a reduce over the exchange by several workers that are killed, and what must hold of what they leave.

Documents with keys that many share are written as tables and sent to partitions by key; of each key the first id
stays. All workers do all units, so a unit is done twice at once now and then, as it is when a lost worker's unit is
started again. What is done is told by the done-records of `cluster.units`, without Ray.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from cluster import commit
from cluster.commit import CommitLost
from cluster.exchange import open_partition, write_partitions
from cluster.storage import Store, open_store
from cluster.tables import TableWriter, read_entry
from cluster.units import Record, Task, _Runner, done_key
from tests.soak.log import check_log
from tests.soak.mortal import DONE, draw_death, run_together
from tests.soak.places import Place

UNITS, DOCUMENTS, PARTITIONS, KEYS = 4, 300, 3, 400
BUILD = "words"
FOLDERS = MAPPED, REDUCED = "stages/mapped", "stages/reduced"
WORKERS = 3
DEADLY_ROUNDS = 3
POINTS = {"local": 50, "s3": 50, "faulty s3": 50}  # fewer than all units take, for the workers share them
SECONDS = {"local": 0.3, "s3": 1.5, "faulty s3": 5.0}


@dataclass(frozen=True)
class Map:
    """Makes the documents of one unit, writes them, and sends (key, id) to the partition of the key."""

    store: Store

    def __call__(self, number: int, work: int) -> Record:
        chance = np.random.default_rng([work, number])
        key = chance.integers(0, KEYS, DOCUMENTS)
        ids = [f"{number}-{row:04d}" for row in range(DOCUMENTS)]
        table = pa.table({"id": ids, "key": key, "text": [chance.bytes(40).hex() for _ in ids]})
        with TableWriter(self.store, f"{MAPPED}/kept", number) as kept:
            kept.write(table)
        write_partitions(self.store, exchanged(number), table.select(["key", "id"]), key % PARTITIONS, PARTITIONS)
        return {"files": kept.entries}


@dataclass(frozen=True)
class Reduce:
    """Keeps the first id of each key of one partition."""

    store: Store

    def __call__(self, number: int, work: list[str]) -> Record:
        with (
            open_partition(self.store, work, number) as rows,
            TableWriter(self.store, f"{REDUCED}/kept", number) as kept,
        ):
            first = rows.group_by("key").aggregate([("id", "min")]).sort_by("key")
            kept.write(first.rename_columns(["key", "id"]))
        return {"files": kept.entries}


def exchanged(number: int) -> str:
    return f"{MAPPED}/exchange/{number:06d}.arrow"


def work_through(url: str, worker: int, told: Path) -> int:
    """Do all units that are not done, in this worker's own order, write the manifest, and commit."""
    store = open_store(url)
    chance = random.Random(worker)
    maps = _run(store, MAPPED, [7] * UNITS, Map(store), chance)
    keys = [exchanged(number) for number in range(UNITS)]
    reduces = _run(store, REDUCED, [keys] * PARTITIONS, Reduce(store), chance)
    files = [entry for record in maps + reduces for entry in record["files"]]
    manifest = orjson.dumps({"build_id": BUILD, "files": files})
    digest = hashlib.sha256(manifest).hexdigest()
    store.write(f"builds/{BUILD}/manifest-{digest[:12]}.json", manifest)
    parent = commit.head(store)
    if parent is None:
        try:
            parent = commit.append(store, None, "build", {BUILD: digest})
            with told.open("ab") as file:
                file.write(orjson.dumps([parent.build, parent.number, parent.nonce]) + b"\n")
        except CommitLost:
            parent = commit.head(store)
    assert parent is not None
    assert parent.manifests == {BUILD: digest}
    return DONE


def _run(store: Store, folder: str, works: list[Any], task: Task, chance: random.Random) -> list[Record]:
    runner = _Runner(store, folder, f"{chance.getrandbits(32):08x}", task, "")
    for number in chance.sample(range(len(works)), len(works)):
        if not store.exists(done_key(folder, number)):
            [ended] = runner(pa.table({"number": [number], "work": [orjson.dumps(works[number])]})).to_pylist()
            assert not ended["failure"], ended["failure"].decode()
    return [orjson.loads(store.read(done_key(folder, number))) for number in range(len(works))]


def check_whole(store: Store) -> None:
    """Whatever has a name in the store is whole: tables have the hash in their name, exchanged files all partitions,
    done-records name files that are there with the hash they say."""
    for folder in FOLDERS:
        for key in (stored.key for stored in store.list(folder)):
            data = store.read(key)
            if key.endswith(".parquet"):
                assert hashlib.sha256(data).hexdigest().startswith(key[-len("0123456789ab.parquet") : -len(".parquet")])
            elif key.endswith(".arrow"):
                assert pa.ipc.open_file(data).num_record_batches == PARTITIONS
            elif "/_done/" in key:
                for entry in orjson.loads(data)["files"]:
                    assert hashlib.sha256(store.read(entry["path"])).hexdigest() == entry["sha256"], entry["path"]


def committed_files(store: Store) -> list[dict[str, Any]]:
    """The files of the committed manifest."""
    head = commit.head(store)
    assert head is not None
    data = store.read(f"builds/{BUILD}/manifest-{head.manifest_sha256[:12]}.json")
    files: list[dict[str, Any]] = orjson.loads(data)["files"]
    return files


def _rows(store: Store, files: list[dict[str, Any]], folder: str) -> Iterator[dict[str, Any]]:
    for entry in files:
        if entry["path"].startswith(folder):
            yield from read_entry(store, entry).to_pylist()


def run_series(place: Place, seed: int) -> Counter[int]:
    """Let workers do the job and kill them, again and again; check after each round and at the end. How often processes
    ended with which exit code."""
    chance = random.Random(seed)
    told = place.folder / "told"
    codes: Counter[int] = Counter()
    for number in range(DEADLY_ROUNDS + 1):
        deadly = number < DEADLY_ROUNDS
        deaths = [
            draw_death(chance, POINTS[place.kind], SECONDS[place.kind]) if deadly else None for _ in range(WORKERS)
        ]
        ends = run_together(place, work_through, [(chance.randrange(1 << 30), told) for _ in deaths], deaths)
        codes.update(ends)
        check_whole(place.store)
        check_log(place.store, told)
    assert ends == [DONE] * WORKERS
    check_result(place.store)
    return codes


def check_result(store: Store) -> None:
    """One commit, of all documents and of each key once, and no table beside those that its manifest names."""
    files = committed_files(store)
    assert len(list(commit.entries(store))) == 1
    assert {entry["path"] for entry in files} == {
        stored.key for folder in FOLDERS for stored in store.list(f"{folder}/kept")
    }
    first: dict[int, str] = {}
    documents = list(_rows(store, files, MAPPED))
    assert len({row["id"] for row in documents}) == len(documents) == UNITS * DOCUMENTS
    for row in documents:
        first[row["key"]] = min(row["id"], first.get(row["key"], row["id"]))
    assert sorted((row["key"], row["id"]) for row in _rows(store, files, REDUCED)) == sorted(first.items())
