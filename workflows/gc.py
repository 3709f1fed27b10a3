"""Delete what nothing can reach any more and nobody can be writing.

Alive is what the log can lead to: the builds that its entries show, and all that their manifests name. Everything
else goes once it is older than a grace period, as a whole: the folders that carry one fingerprint (a stage, and the
build that it ends) stay while one of their objects is young, and so do the stages they are made from. In a folder that
stays, files that no manifest names go by their own age. Times are the store's, compared with that of an object
written now. Proofs go before what they prove: a run killed half-way leaves nothing that claims to be done and is not.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
from pydantic import ValidationError

from cluster import commit
from cluster.commit import LogEntry
from cluster.mds import index_beside, put_index
from cluster.storage import StorageError, Store, Stored
from cluster.units import READERS
from workflows.answers import FOLDER as ANSWERS
from workflows.corpus import committed_build, in_force, manifest_key, visible_builds
from workflows.recipe import RecipeError
from workflows.stage import FREED, USED, Manifest, stage_files
from workflows.verify import commit_numbers
from workflows.watch import RUNNING

OLDEST = "_log/OLDEST"  # once `keep` gave entries up: the number of the oldest one whose builds are still there
PLAN, MANIFEST = "plan.json", "manifest.json"
PROBES = "_gc"
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SHA256 = re.compile(rb"\b[0-9a-f]{64}\b")
WORKING = ("/_starts/", "/_done/", "/exchange/", "/cut-")


@dataclass
class Live:
    """What the log can lead to."""

    paths: set[str] = field(default_factory=set)
    fingerprints: set[str] = field(default_factory=set)  # of stages and builds
    hashes: set[bytes] = field(default_factory=set)  # all that manifests and entries mention: those of artefacts too
    intermediate: set[str] = field(default_factory=set)  # kept files of all stages but the last ones
    retracted: set[str] = field(default_factory=set)  # builds that documents were taken out of


class Proof(NamedTuple):
    """What a stage's own manifest says: it is what makes a later build take the stage for done."""

    names: set[str]
    upstream: list[str]  # fingerprint of the stage above, where there is one
    hashes: set[bytes]


@dataclass
class Unit:
    """All objects that carry one fingerprint: a stage's folder, a build's, or both."""

    fingerprint: str
    objects: dict[str, Stored] = field(default_factory=dict)
    young: bool = False

    @property
    def folders(self) -> list[str]:
        return sorted({"/".join(key.split("/")[:2]) for key in self.objects})

    @property
    def working(self) -> bool:
        """Whether it holds marks of work."""
        return any(mark in key for key in self.objects for mark in WORKING)

    def of_stage(self, name: str) -> str | None:
        """The key of that object of the stage."""
        keys = (f"{folder}/{name}" for folder in self.folders if folder.startswith("stages/"))
        return next((key for key in keys if key in self.objects), None)


class Garbage(NamedTuple):
    """What is to go of a unit: the proofs first."""

    unit: Unit
    proofs: list[Stored]
    data: list[Stored]


@dataclass(frozen=True)
class Plan:
    """What a run would delete."""

    before: float  # seconds since the epoch by the store's clock: what is younger is not touched
    head: int
    oldest: int
    alive: Live
    garbage: list[Garbage]
    loose: list[Stored]

    def told(self, gone: Iterable[Stored]) -> list[dict[str, Any]]:
        """Objects and bytes by kind, for people and programs."""
        kinds: dict[str, list[int]] = {}
        for stored in gone:
            kinds.setdefault(self._kind(stored.key), []).append(stored.size)
        return [{"what": kind, "objects": len(s), "bytes": sum(s)} for kind, s in sorted(kinds.items())]

    def _kind(self, key: str) -> str:
        top, folder, *_ = key.split("/")
        if key in self.alive.intermediate:
            return "intermediate files"
        if top in ("stages", "builds"):
            if key.endswith(f"/{MANIFEST}") or "/_done/" in key:
                return "marks of what is done"
            alive = folder.rsplit("-", 1)[-1] in self.alive.fingerprints
            return "superseded files" if alive else f"{top} that no entry leads to"
        named = {
            "artefacts": "artefacts",
            RUNNING: "records of builds that failed",
            ANSWERS: "answers of model servers",
        }
        return named.get(top, "probes")


def seconds(text: str, name: str = "grace") -> float:
    """A duration such as `30m`, `24h`, `7d`. Raises RecipeError with the name."""
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if match is None:
        raise RecipeError(f"{name}: {text!r} is no duration like 30m, 24h or 7d")
    return float(match[1]) * SECONDS[match[2]]


def gc(
    store: Store,
    grace: float,
    keep: int | None = None,
    stages: bool = False,
    answers: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Delete what is dead and older than `grace` seconds; the result, as `gc --json` prints it.

    `keep`: rollback needs no more than that many of the newest entries. `stages`: free also what only makes rebuilding
    fast. `answers`: forget also what model servers answered. Raises RecipeError where there is no corpus, StorageError
    where the log does not say what is alive.
    """
    planned = plan(store, grace, keep, stages, answers)
    gone = [stored for garbage in planned.garbage for stored in (*garbage.proofs, *garbage.data)] + planned.loose
    swept = None
    if not dry_run:
        while (head := commit.head(store)) is not None and head.number != planned.head:
            planned = plan(store, grace, keep, stages, answers)  # somebody committed meanwhile
        _restore_indexes(store, head, planned.before)
        gone = execute(store, planned)
        swept = store.sweep(planned.before)
    return {"dry_run": dry_run, "deleted": planned.told(gone), "interrupted_writes": swept}


def plan(store: Store, grace: float, keep: int | None = None, stages: bool = False, answers: bool = False) -> Plan:
    """Look at all objects and decide; deletes nothing."""
    listing = [one for one in store.list("") if answers or not one.key.startswith(f"{ANSWERS}/")]  # many, and small
    if not {"_log", "stages", "builds"} & {stored.key.split("/")[0] for stored in listing}:
        raise RecipeError(f"{store.url}: there is no corpus here")
    before = _now(store) - grace
    log = read_log(store)
    oldest = max(oldest_kept(store), len(log) - keep + 1 if keep else 1)
    alive = live(store, log, oldest)
    units = units_of(listing, before)
    proofs = _proofs(store, units.values())
    settled = _spare_upstream(store, units, proofs)
    mentioned = alive.hashes.union(*(proof.hashes for name, proof in proofs.items() if units[name].young))
    reachable = alive.paths - alive.intermediate if stages else alive.paths
    garbage = []
    for unit in units.values():
        paths = alive.paths if unit.young else reachable
        garbage.append(_dead(store, unit, proofs.get(unit.fingerprint), alive, paths, before))
    passing = (f"{PROBES}/", f"{RUNNING}/", "_writable-", *((f"{ANSWERS}/",) if answers else ()))
    loose = [s for s in listing if s.modified < before and s.key.startswith(passing)]
    if settled:  # else a build that goes on may have learned what no manifest mentions yet
        artefacts = [s for s in listing if s.modified < before and s.key.startswith("artefacts/")]
        loose += [s for s in artefacts if s.key.split("/")[1].encode() not in mentioned]
    garbage = [one for one in garbage if one.proofs or one.data]
    return Plan(before, len(log), oldest, alive, garbage, loose)


def _restore_indexes(store: Store, head: LogEntry | None, before: float) -> None:
    """Where a retraction was killed, an `index.json` names shards that were never committed, and that go now."""
    for manifest in visible_builds(store, head):
        for path in (index["path"] for index in manifest.get("indexes", [])):
            copy = index_beside(path)
            beside = store.list(path.rpartition("/")[0])
            if not any(stored.key == copy and stored.modified >= before for stored in beside):
                put_index(store, path)


def execute(store: Store, planned: Plan) -> list[Stored]:
    """Delete what was planned, but what somebody has touched since; what is gone."""
    if planned.oldest > 1:
        store.write(OLDEST, str(planned.oldest).encode())
    gone = [stored for one in planned.garbage for stored in one.proofs]
    for one in planned.garbage:
        _note_freed(store, planned.alive.intermediate & {stored.key for stored in one.data})
    store.delete(stored.key for stored in gone)  # of all units first: files of one lie over those of another
    for unit, _, data in planned.garbage:
        now = {stored.key: stored for folder in unit.folders for stored in store.list(folder)}
        if unit.young or not _is_young(now, planned.before):  # else a build has come that uses it
            old = [stored for stored in data if stored.key in now and now[stored.key].modified < planned.before]
            store.delete(stored.key for stored in old)
            gone += old
    store.delete(stored.key for stored in planned.loose)
    return gone + planned.loose


def _note_freed(store: Store, paths: set[str]) -> None:
    """Leave word in each stage which of its files are gone on purpose."""
    for folder in sorted({"/".join(path.split("/")[:2]) for path in paths}):
        key = f"{folder}/{FREED}"
        before = set(orjson.loads(store.read(key))) if store.exists(key) else set()
        names = before | {path for path in paths if path.startswith(f"{folder}/")}
        store.write(key, orjson.dumps(sorted(names), option=orjson.OPT_INDENT_2))


def _now(store: Store) -> float:
    """The store's own time."""
    probe = f"{PROBES}/{secrets.token_hex(8)}"
    store.write(probe, b"")
    try:
        return next(stored.modified for stored in store.list(PROBES) if stored.key == probe)
    finally:
        store.delete([probe])


def read_log(store: Store) -> list[LogEntry]:
    """All entries, the oldest first. Raises StorageError where one is missing or none: what is alive is not known."""
    numbers = commit_numbers(store)
    if numbers != list(range(1, len(numbers) + 1)):
        raise StorageError(f"{store.url}: entries of the log are missing; `corpusmill verify` says which")
    with ThreadPoolExecutor(READERS) as pool:
        try:
            return list(pool.map(lambda number: commit.read_entry(store, number), numbers))
        except ValidationError as error:
            raise StorageError(f"{store.url}: the log has an entry that is none: {error}") from error


def oldest_kept(store: Store) -> int:
    """The number of the oldest entry that a rollback can go to."""
    return int(store.read(OLDEST)) if store.exists(OLDEST) else 1


def live(store: Store, log: Sequence[LogEntry], oldest: int = 1) -> Live:
    """What readers, and rollbacks to the entries from `oldest` on, can come to. A manifest from before documents were
    taken out of its build is none of it."""
    alive = Live()
    retracted = in_force(log)
    named: set[tuple[str, str]] = set()
    for entry in log[oldest - 1 :]:
        alive.hashes |= {entry.tombstones.encode()} if entry.tombstones else set()
        for build, digest in entry.manifests.items():
            number, newer = retracted.get(build, (0, ""))
            named.add((build, newer if entry.number < number else digest))
    alive.retracted |= retracted.keys()
    with ThreadPoolExecutor(READERS) as pool:
        manifests = pool.map(lambda one: committed_build(store, *one), sorted(named))
        for (build, digest), manifest in zip(sorted(named), manifests, strict=True):
            alive.paths |= {manifest_key(build, digest), f"builds/{build}/report.html"}
            alive.paths |= {manifest["inputs"]["listing"]["path"], *_shard_files(manifest)}
            alive.paths |= {entry["path"] for stage in manifest["stages"] for entry in stage_files(stage)}
            alive.intermediate |= {entry["path"] for s in manifest["stages"][:-1] for entry in s["files"]["kept"]}
            alive.fingerprints |= {build, *(stage["fingerprint"] for stage in manifest["stages"])}
            alive.hashes |= set(SHA256.findall(orjson.dumps(manifest)))
    return alive


def _shard_files(manifest: Manifest) -> set[str]:
    """Of a build, or of a stage that ends one."""
    files = [file for shard in manifest.get("shards", []) for file in (shard, *shard["sidecars"])]
    indexes = manifest.get("indexes", [])
    copies = {index_beside(index["path"]) for index in indexes}
    return copies | {file["path"] for file in (*files, *indexes, *manifest.get("plans", []))}


def units_of(listing: Iterable[Stored], before: float) -> dict[str, Unit]:
    """The objects of stages and builds by fingerprint. Those of anybody else in the folder are no business of ours."""
    units: dict[str, Unit] = {}
    for stored in listing:
        top, _, below = stored.key.partition("/")
        folder, _, name = below.partition("/")
        if top in ("stages", "builds") and name:
            fingerprint = folder.rsplit("-", 1)[-1]
            units.setdefault(fingerprint, Unit(fingerprint)).objects[stored.key] = stored
    for unit in units.values():
        unit.young = _is_young(unit.objects, before)
    return units


def _is_young(objects: Mapping[str, Stored], before: float) -> bool:
    """Whether somebody but `gc` touched one of them lately."""
    return any(stored.modified >= before for key, stored in objects.items() if not key.endswith(f"/{FREED}"))


def _proofs(store: Store, units: Iterable[Unit]) -> dict[str, Proof]:
    """What the manifests in stages' folders say, by fingerprint."""
    found = {unit.fingerprint: key for unit in units if (key := unit.of_stage(MANIFEST))}
    with ThreadPoolExecutor(READERS) as pool:
        return dict(zip(found, pool.map(lambda key: _proof(store, key), found.values()), strict=True))


def _proof(store: Store, key: str) -> Proof:
    raw = store.read(key)
    try:
        manifest = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise StorageError(f"{store.url}/{key}: is damaged; delete it, and the stage runs again: {error}") from error
    names = {entry["path"] for entry in stage_files(manifest)} | _shard_files(manifest)
    return Proof(names, [manifest["upstream"]] if manifest["upstream"] else [], set(SHA256.findall(raw)))


def _spare_upstream(store: Store, units: Mapping[str, Unit], proofs: Mapping[str, Proof]) -> bool:
    """Take for young what a young unit is made from; whether all of them are finished."""
    settled = True
    todo = [unit for unit in units.values() if unit.young]
    while todo:
        unit = todo.pop()
        above: Iterable[str] = ()
        if unit.fingerprint in proofs:
            above = proofs[unit.fingerprint].upstream
        elif unit.working:
            settled = False
            above = _upstream_of_unfinished(store, unit) or units
        for spared in (units[name] for name in above if name in units):
            if not spared.young:
                spared.young = True
                todo.append(spared)
    return settled


def _upstream_of_unfinished(store: Store, unit: Unit) -> list[str]:
    """The stage above, as the build left word; nothing where it did not, and that may be any."""
    if unit.of_stage(PLAN):
        return [unit.fingerprint]  # it reads inputs
    used = unit.of_stage(USED)
    folder = store.read(used).decode() if used else ""
    return [folder.rsplit("-", 1)[-1]] if folder else []


def _dead(store: Store, unit: Unit, proof: Proof | None, alive: Live, paths: set[str], before: float) -> Garbage:
    """What goes of a unit, where `paths` are what stays of the corpus. A proof stays while all that it names does."""
    spared = unit.young and unit.fingerprint not in alive.retracted
    if spared and unit.working and proof is None:
        return Garbage(unit, [], [])
    stays = {key for key in unit.objects if key in paths}
    if proof is not None:
        manifest = str(unit.of_stage(MANIFEST))
        if spared or unit.objects[manifest].modified >= before or proof.names <= paths:
            stays |= {manifest, *proof.names, *filter(_is_record, unit.objects)}
    if spared or unit.fingerprint in alive.fingerprints:
        stays |= {key for name in (PLAN, USED, FREED) if (key := unit.of_stage(name))}
    home = f"builds/{unit.fingerprint}"
    if spared:
        stays |= {key for key in unit.objects if key.rpartition("/")[0] == home}
    elif (newest := f"{home}/{MANIFEST}") in unit.objects:
        digest = hashlib.sha256(store.read(newest)).hexdigest()
        stays |= {newest} if manifest_key(unit.fingerprint, digest) in stays else set()
    dead = [stored for key, stored in unit.objects.items() if key not in stays and stored.modified < before]
    by_kind: dict[str, list[Stored]] = {"manifest": [], "record": [], "data": []}
    for stored in dead:
        record = "record" if "/_done/" in stored.key else "data"
        by_kind["manifest" if stored.key.endswith(f"/{MANIFEST}") else record].append(stored)
    return Garbage(unit, by_kind["manifest"] + by_kind["record"], by_kind["data"])


def _is_record(key: str) -> bool:
    """Of a unit whose outputs are the stage's; those of an exchange go with it."""
    return "/_done/" in key and "/exchange/" not in key
