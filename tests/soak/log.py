"""Builds that commit at the same time, killed while they do, and what must hold of the log whatever happened.

A build here is what the log knows of one: objects named by their content, a manifest that names them, an entry.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from cluster import commit
from cluster.commit import CommitLost, LogEntry
from cluster.storage import Store, open_store
from tests.soak.mortal import DONE, LOST, draw_death, run_together
from tests.soak.places import Place

OBJECTS = 2
REBASES = 60
WRITERS = 5
DEADLY_ROUNDS = 3
POINTS = {"local": 30, "s3": 40, "faulty s3": 50}  # about as many as a build passes, with some rebases
SECONDS = {"local": 0.03, "s3": 0.5, "faulty s3": 2.0}


class Build(NamedTuple):
    """A build to publish. `nightly` is put beside what is published and tries again after another one; `build`
    replaces it, and is lost when another one came first."""

    seed: int
    name: str
    op: commit.Op


def publish(url: str, build: Build, told: Path) -> int:
    """Write the build's objects and its manifest, and commit it unless an earlier run did. Each commit that was
    acknowledged gets a line in the file `told`."""
    store = open_store(url)
    parent = commit.head(store)
    digest = _write_objects(store, build)
    for _ in range(REBASES):
        if any(entry.build == build.name for entry in commit.entries(store)):
            return DONE
        before = dict(parent.manifests) if parent and build.op == "nightly" else {}
        try:
            entry = commit.append(store, parent, build.op, before | {build.name: digest})
        except CommitLost:
            if build.op == "build":
                return LOST
            parent = commit.head(store)
            continue
        with told.open("ab") as file:
            file.write(orjson.dumps([entry.build, entry.number, entry.nonce]) + b"\n")
        return DONE
    raise AssertionError(f"{build.name} lost {REBASES} times in a row")


def _write_objects(store: Store, build: Build) -> str:
    """The sha256 of the manifest."""
    files = []
    chance = random.Random(f"{build.seed} {build.name}")
    with store.scratch() as folder:
        for number in range(OBJECTS):
            data = chance.randbytes(chance.randrange(1, 60_000))
            sha256 = hashlib.sha256(data).hexdigest()
            path = folder / str(number)
            path.write_bytes(data)
            key = f"builds/{build.name}/shards/{number:05d}-{sha256[:12]}.bin"
            store.publish(path, key)
            files.append({"path": key, "sha256": sha256})
    manifest = orjson.dumps({"build_id": build.name, "files": files})
    digest = hashlib.sha256(manifest).hexdigest()
    store.write(_manifest_key(build.name, digest), manifest)
    return digest


def _manifest_key(build: str, digest: str) -> str:
    return f"builds/{build}/manifest-{digest[:12]}.json"


def acknowledged(told: Path) -> list[list[Any]]:
    """(build, number, nonce) of the commits that their process knew to be done."""
    return [orjson.loads(line) for line in told.read_bytes().splitlines()] if told.exists() else []


def check_log(store: Store, told: Path) -> list[LogEntry]:
    """The entries, oldest first, after checking that

    - numbers follow each other from 1, without a gap, each entry on the one before, no nonce twice;
    - the hint names none that is not there;
    - each acknowledged commit is the entry that was acknowledged, and no build was committed twice;
    - nightly entries lose nothing of what was visible;
    - all that is reachable from any entry is there, whole, with the hash it was committed with.
    """
    entries = list(commit.entries(store))[::-1]
    numbers = [entry.number for entry in entries]
    assert numbers == list(range(1, len(entries) + 1))
    keys = {stored.key for stored in store.list("_log")} - {commit.LATEST}
    assert keys == {commit.entry_key(number) for number in numbers}, "entries that readers do not come to"
    assert not store.exists(commit.LATEST) or int(store.read(commit.LATEST)) in numbers
    assert [entry.parent for entry in entries] == [number - 1 for number in numbers]
    assert len({entry.nonce for entry in entries}) == len(entries)
    assert all(n == 1 for n in Counter(entry.build for entry in entries).values()), "a build was committed twice"
    found = [[entry.build, entry.number, entry.nonce] for entry in entries]
    assert [line for line in acknowledged(told) if line not in found] == [], "an acknowledged commit is lost"
    for before, entry in zip([None, *entries], entries, strict=False):
        kept = before.visible if before is not None and entry.op == "nightly" else []
        assert entry.visible == [*kept, entry.build]
    for build, digest in {named for entry in entries for named in entry.manifests.items()}:
        manifest = store.read(_manifest_key(build, digest))
        assert hashlib.sha256(manifest).hexdigest() == digest
        for file in orjson.loads(manifest)["files"]:
            assert hashlib.sha256(store.read(file["path"])).hexdigest() == file["sha256"], file["path"]
    return entries


def run_series(place: Place, seed: int) -> Counter[int]:
    """Publish builds at the same time and kill some of their processes, again and again; check after each round. How
    often processes ended with which exit code."""
    chance = random.Random(seed)
    told = place.folder / "told"
    left = [Build(seed, f"build-{n}", chance.choice(("nightly", "nightly", "build"))) for n in range(WRITERS)]
    codes: Counter[int] = Counter()
    for number in range(DEADLY_ROUNDS + WRITERS):
        deadly = number < DEADLY_ROUNDS
        deaths = [draw_death(chance, POINTS[place.kind], SECONDS[place.kind]) if deadly else None for _ in left]
        ends = run_together(place, publish, [(build, told) for build in left], deaths)
        codes.update(ends)
        check_log(place.store, told)
        left = [build for build, code in zip(left, ends, strict=True) if code != DONE]
        if not left:
            break
    assert len(check_log(place.store, told)) == WRITERS
    return codes
