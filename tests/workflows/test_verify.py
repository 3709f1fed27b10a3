"""`verify` finds what is missing, cut short, changed or exchanged, of every kind of file behind the log's head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest

from cluster import commit
from cluster.artefacts import artefact_key
from cluster.storage import Store, open_store
from tests.workflows.test_cli import corpusmill
from tests.workflows.test_gc import Published, failures, published
from workflows.corpus import manifest_key, save_build, visible_builds
from workflows.retract import retract
from workflows.stage import Manifest
from workflows.verify import verify

__all__ = ["published"]  # a fixture


def head_of(store: Store) -> commit.LogEntry:
    entry = commit.head(store)
    assert entry is not None
    return entry


@pytest.fixture
def out(published: Published, tmp_path: Path) -> Path:
    """A copy in which a document was retracted, so that there are tombstones."""
    copy = published.copy(tmp_path)
    store = open_store(str(copy))
    [shown] = visible_builds(store, head_of(store))
    index = shown["stages"][-1]["files"]["kept"][0]
    assert retract(store, pq.read_table(copy / index["path"])["id"][:1])["committed"]
    return copy


def victims(out: Path) -> dict[str, str]:
    """One file of every kind that has data, by the name that its check has."""
    store = open_store(str(out))
    head = head_of(store)
    [shown] = visible_builds(store, head)
    stages: dict[str, Manifest] = {stage["name"]: stage for stage in shown["stages"]}
    files = [shown["inputs"]["listing"]["path"]]
    files += [stages[name]["files"]["kept"][0]["path"] for name in ("read", "clean", "dedup")]
    files += [stages["read"]["files"]["quarantined"][0]["path"]]
    files += [stages[name]["files"]["dropped"][0]["path"] for name in ("clean", "dedup", "tokens")]
    files += [
        entries[0]["path"] for phases in stages["dedup"]["files"]["index"].values() for entries in phases.values()
    ]
    found = {path: path for path in files}
    found[stages["tokens"]["files"]["kept"][0]["path"]] = stages["tokens"]["files"]["kept"][0]["path"]
    shards = {shard["format"]: shard for shard in shown["shards"] if "/train-" in shard["path"]}
    found |= {shard["path"]: shard["path"] for shard in shards.values()}
    other = next(s for s in shown["shards"] if s["format"] == "megatron" and s is not shards["megatron"])
    found[other["sidecars"][0]["path"]] = other["path"]  # a shard is one check
    found |= {artefact_key(sha256): artefact_key(sha256) for sha256 in (shown["tokenizer"]["sha256"], head.tombstones)}
    return found


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def swap(path: Path) -> None:
    """Another file of the same size."""
    path.write_bytes(bytes(reversed(path.read_bytes())))


DAMAGES: list[Callable[[Path], None]] = [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1]), flip, swap]
NAMES = ["missing", "truncated", "flipped", "swapped"]


@pytest.mark.parametrize("damage", DAMAGES, ids=NAMES)
def test_each_kind_of_damaged_file_is_named_and_no_other(out: Path, damage: Callable[[Path], None]) -> None:
    store = open_store(str(out))
    assert failures(store) == []
    hit = victims(out)
    assert len(hit) >= 17
    for path in hit:
        damage(out / path)
    assert sorted(what for what, _ in failures(store)) == sorted(hit.values())


@pytest.mark.parametrize("damage", DAMAGES[:2], ids=NAMES[:2])
def test_quick_finds_what_is_missing_or_of_another_size_without_reading(
    out: Path, damage: Callable[[Path], None]
) -> None:
    store = open_store(str(out))
    assert failures(store, quick=True) == []
    hit = {path for path in victims(out) if damage is Path.unlink or not path.startswith("artefacts/")}
    for path in hit:
        damage(out / path)
    assert {what for what, _ in failures(store, quick=True)} == hit


@pytest.mark.parametrize("damage", DAMAGES, ids=NAMES)
def test_a_damaged_manifest_is_named_and_not_believed(out: Path, damage: Callable[[Path], None]) -> None:
    store = open_store(str(out))
    head = head_of(store)
    key = manifest_key(head.build, head.manifest_sha256)
    damage(out / key)
    [(what, error)] = failures(store)
    assert what.startswith(key)
    assert error in ("missing", "its sha256 is not the one that was committed")


def rewrite(out: Path, at: int, **changes: object) -> None:
    path = out / commit.entry_key(at)
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | changes))


@pytest.mark.parametrize(
    ("break_it", "where", "message"),
    [
        (lambda out: (out / commit.entry_key(2)).unlink(), commit.entry_key(2), "missing"),
        (lambda out: (out / commit.entry_key(1)).write_bytes(b"{"), commit.entry_key(1), "is no entry of a log"),
        (lambda out: (out / commit.entry_key(4)).write_bytes(b""), commit.entry_key(4), "is no entry of a log"),
        (lambda out: rewrite(out, 2, number=3), commit.entry_key(2), "says that it is entry 3 after 1"),
        (lambda out: rewrite(out, 3, parent=1), commit.entry_key(3), "says that it is entry 3 after 1"),
        (lambda out: rewrite(out, 2, manifest_sha256="0" * 64), commit.entry_key(2), "do not agree"),
        (lambda out: rewrite(out, 2, visible=[]), commit.entry_key(2), "do not agree"),
        (lambda out: (out / commit.LATEST).write_bytes(b"9"), commit.LATEST, "names entry 9, the newest is 4"),
        (lambda out: (out / commit.LATEST).write_bytes(b"x"), commit.LATEST, "is not a number"),
    ],
)
def test_a_broken_log_is_told_entry_by_entry(
    out: Path, break_it: Callable[[Path], None], where: str, message: str
) -> None:
    break_it(out)
    [(what, error)] = failures(open_store(str(out)))
    assert what == where
    assert message in error


def test_a_lost_hint_is_no_damage(out: Path) -> None:
    (out / commit.LATEST).unlink()
    assert failures(open_store(str(out))) == []


def test_a_document_in_two_builds_or_back_from_retraction_is_told(published: Published, out: Path) -> None:
    """Both builds of the corpus are of the same documents: shown side by side, their ids are there twice, and the
    retracted one is back where the other build still has it."""
    store = open_store(str(out))
    head = head_of(store)
    before = commit.read_entry(store, 2)
    assert before.build != head.build
    commit.append(store, head, "nightly", dict(before.manifests) | dict(head.manifests))
    found = dict(failures(store))
    [count] = [what for what in found if what.endswith("each id in one")]
    assert "ids are in several builds" in found[count]
    assert len(found) == 2
    assert any("that were retracted are there" in error for error in found.values())


def test_one_build_is_checked_alone_visible_or_not(out: Path) -> None:
    store = open_store(str(out))
    hidden, shown = commit.read_entry(store, 2), head_of(store)
    assert failures(store, build=hidden.build) == []
    [stage] = [
        s
        for s in orjson.loads(store.read(manifest_key(hidden.build, hidden.manifest_sha256)))["stages"]
        if s["name"] == "dedup"
    ]
    flip(out / stage["files"]["dropped"][0]["path"])
    assert [what for what, _ in failures(store, build=hidden.build)] == [stage["files"]["dropped"][0]["path"]]
    assert failures(store, build=shown.build) == []
    assert failures(store) == []
    assert corpusmill("verify", out, "--build", "nobody").code == 2


def test_totals_that_a_manifest_gets_wrong_are_told(out: Path) -> None:
    """A manifest whose hash is right may still not add up: then a bug wrote it."""
    store = open_store(str(out))
    head = head_of(store)
    [shown] = visible_builds(store, head)
    shown["stages"][1]["dropped"] = {"clean/none": 1}
    shown["documents"] += 1
    shown["shards"] = shown["shards"][1:]
    _, digest = save_build(store, shown)
    commit.append(store, head, "build", {head.build: digest})
    found = [what for what, _ in failures(store, quick=True)]
    assert any(what.startswith("stage clean: rows in") for what in found)
    assert sum(what.startswith("shards of format") for what in found) == 3


def test_a_file_that_builds_share_is_checked_once(published: Published, tmp_path: Path) -> None:
    out = published.copy(tmp_path)
    store = open_store(str(out))
    head = head_of(store)
    commit.append(store, head, "nightly", dict(commit.read_entry(store, 2).manifests) | dict(head.manifests))
    paths = [what for what, _ in verify(store) if "/" in what and "against" not in what]
    assert len(paths) == len(set(paths))


def test_the_command_reads_nothing_with_quick(out: Path) -> None:
    for path in victims(out):
        swap(out / path)
    quick = corpusmill("verify", out, "--quick", "--json")
    assert (quick.code, quick.json["failures"]) == (0, [])
    assert quick.json["checks"] > 20
    assert corpusmill("verify", out).code == 1
