"""What `gc` takes and what it leaves: readers, rollbacks and later builds find all that they need, and nothing that is
younger than the grace period goes."""

from __future__ import annotations

import functools
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster import commit
from cluster.local_store import LocalStore
from cluster.s3_store import S3Store
from cluster.storage import StorageError, Store, open_store
from tests.workflows.corpora import recipe
from tests.workflows.test_cli import corpusmill
from workflows.build import build, plan, prepare
from workflows.corpus import committed_build, manifest_key, visible_builds
from workflows.explain import why
from workflows.gc import gc, live, read_log
from workflows.retract import retract
from workflows.stage import FATES, stage_files
from workflows.verify import verify

DAY = 86400.0
OTHER = {"params": {"gopher_quality": {"min_stop_words": 0, "min_words": 30}}}


@dataclass(frozen=True)
class Published:
    """A corpus of three entries: a build, one with another threshold, and the first one again after `--force` with
    other units, which left superseded files in its stages. All its objects are two days old."""

    folder: Path
    out: Path
    plain: Path  # recipes
    other: Path

    def copy(self, to: Path) -> Path:
        return shutil.copytree(self.out, to / "out")


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, sample: Path, ray_session: None) -> Published:
    return publish(tmp_path_factory.getbasetemp() / "published", sample)


@functools.cache
def publish(folder: Path, sample: Path) -> Published:
    """Once for all modules that take the fixture."""
    (folder / "in").mkdir(parents=True)
    documents = pq.read_table(sample / "sample.parquet").slice(0, 60)
    pq.write_table(documents, folder / "in" / "documents.parquet", row_group_size=20)
    text = max(documents["text"].to_pylist(), key=len)
    lines = [orjson.dumps({"id": f"copy-{n}", "text": text}) for n in range(3)]
    lines += [orjson.dumps({"id": "short", "text": "Too short to keep."}), b'{"id": "broken", "te']
    (folder / "in" / "lines.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    made = Published(folder, folder / "out", folder / "plain.yaml", folder / "other.yaml")
    inputs = [str(folder / "in")]
    build(prepare(recipe(made.plain, inputs, made.out, workers={"unit_bytes": 60_000})))
    build(prepare(recipe(made.other, inputs, made.out, workers={"unit_bytes": 60_000}, **OTHER)))
    again = recipe(folder / "again.yaml", inputs, made.out, workers={"unit_bytes": 10_000_000})
    assert build(prepare(again), force="read")["log_number"] == 3
    age(made.out, 2 * DAY)
    return made


def age(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


def keys(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def failures(store: Store, **asked: Any) -> list[tuple[str, str]]:
    return [(what, error) for what, error in verify(store, **asked) if error]


def totals(result: dict[str, Any]) -> tuple[int, int]:
    return tuple(sum(line[key] for line in result["deleted"]) for key in ("objects", "bytes"))  # type: ignore[return-value]


def entry_manifests(store: Store) -> Iterator[tuple[str, str]]:
    for entry in commit.entries(store):
        yield from entry.manifests.items()


def check_whole(store: Store, out: Path) -> None:
    """Readers and every entry of the log find all their files, and what claims to be done is."""
    assert failures(store) == []
    for build_id, digest in entry_manifests(store):
        manifest = committed_build(store, build_id, digest)
        for entry in (e for stage in manifest["stages"] for e in stage_files(stage)):
            assert (out / entry["path"]).stat().st_size == entry["bytes"]
        assert all((out / shard["path"]).is_file() for shard in manifest["shards"])
    check_claims(out)


def check_claims(out: Path) -> None:
    for path in out.glob("stages/*/manifest.json"):
        manifest = orjson.loads(path.read_bytes())
        assert all((out / entry["path"]).is_file() for entry in stage_files(manifest))
        assert all((out / shard["path"]).is_file() for shard in manifest.get("shards", []))


def leave_behind(out: Path, of: str, name: str, seconds: float) -> Path:
    """What a build that was killed in a stage leaves: all of the folder but the manifest."""
    [folder] = out.glob(f"stages/{of}-*") if "-" not in of else [out / "stages" / of]
    left = shutil.copytree(folder, out / "stages" / name)
    (left / "manifest.json").unlink()
    (left / "used").unlink()
    (left / "_starts").mkdir(exist_ok=True)
    (left / "_starts" / "x").touch()
    age(left, seconds)
    return left


def test_superseded_files_go_and_readers_rollbacks_and_the_next_build_find_theirs(
    published: Published, tmp_path: Path
) -> None:
    """The forced build replaced what stages keep; entry 1 still names the files from before, so none goes. Once only
    the newest entry counts, they go, and so does the build that it does not show."""
    out = published.copy(tmp_path)
    store = open_store(str(out))
    before = keys(out)
    gc(store, DAY)
    check_whole(store, out)
    assert not [key for key in before - keys(out) if "/kept/" in key or "/shards/" in key]
    told = gc(store, DAY, keep=1, dry_run=True)
    gone = gc(store, DAY, keep=1)
    assert told["deleted"] == gone["deleted"]
    assert totals(gone)[0] > 20
    assert failures(store) == []
    check_claims(out)
    assert gc(store, DAY)["deleted"] == []  # it knows which entries were given up
    [shown] = visible_builds(store, commit.head(store))
    assert {key.split("/")[0] for key in keys(out / "builds")} == {"NEWEST", shown["build_id"]}
    assert len(list((out / "stages").glob("*/manifest.json"))) == 4
    named = {entry["path"] for stage in shown["stages"] for entry in stage_files(stage)}
    assert {key for key in keys(out / "stages") if key.split("/")[1] in FATES} == {
        n.removeprefix("stages/") for n in named if n.split("/")[2] in FATES
    }
    assert why(store, [shown], "short")["reason"] == "too_few_words"
    assert why(store, [shown], "copy-0")["fate"] in ("kept", "dropped")


def test_after_gc_the_same_recipe_is_cached(published: Published, tmp_path: Path) -> None:
    """Recipes name the corpus by its path, so this looks at the stages of a copy through a recipe for it."""
    out = published.copy(tmp_path)
    gc(open_store(str(out)), DAY, keep=1)
    same = recipe(tmp_path / "r.yaml", [str(published.folder / "in")], out)
    assert [stage["cached"] for stage in plan(prepare(same))["stages"]] == [True] * 4
    other = recipe(tmp_path / "o.yaml", [str(published.folder / "in")], out, **OTHER)
    assert [stage["cached"] for stage in plan(prepare(other))["stages"]] == [True, False, False, False]


def test_what_is_younger_than_the_grace_stays_whole(published: Published, tmp_path: Path) -> None:
    out = published.copy(tmp_path)
    store = open_store(str(out))
    [clean, _] = sorted(path.name for path in out.glob("stages/clean-*"))
    old = leave_behind(out, clean, "clean-" + "e" * 16, 2 * DAY)
    young = leave_behind(out, clean, "clean-" + "f" * 16, 2 * DAY)
    (young / "used").write_text(f"stages/{next(out.glob('stages/read-*')).name}")
    had = keys(young)
    gc(store, DAY)
    assert not keys(old)
    assert keys(young) == had
    check_whole(store, out)


@pytest.mark.parametrize("word", [True, False])
def test_a_long_stage_keeps_the_old_ones_it_is_made_from(published: Published, tmp_path: Path, word: bool) -> None:
    """A stage may run for longer than the grace period; nothing above it has been touched since. Where the build left
    no word what it is made from, that may be any stage."""
    out = published.copy(tmp_path)
    head = commit.head(open_store(str(out)))
    assert head is not None
    [shown] = visible_builds(open_store(str(out)), head)
    alive = {stage["fingerprint"] for stage in shown["stages"]}
    [clean] = [path for path in out.glob("stages/clean-*") if path.name.rsplit("-")[-1] not in alive]
    [dedup] = [path for path in out.glob("stages/dedup-*") if path.name.rsplit("-")[-1] not in alive]
    running = leave_behind(out, dedup.name, "dedup-" + "f" * 16, 2 * DAY)
    if word:
        (running / "used").write_text(f"stages/{clean.name}")
    os.utime(running / "_starts" / "x")
    had = keys(clean)
    gc(open_store(str(out)), DAY, keep=1)
    assert keys(clean) == had
    assert bool(keys(dedup)) is not word
    check_claims(out)


def test_a_build_that_begins_to_use_a_stage_while_gc_runs_keeps_its_files(published: Published, tmp_path: Path) -> None:
    """The mark comes between the look and the deletion."""
    out = published.copy(tmp_path)

    @dataclass(frozen=True)
    class Busy(LocalStore):
        def delete(self, keys: Iterable[str]) -> None:
            gone = list(keys)
            super().delete(gone)
            for folder in {
                Path(key).parts[1] for key in gone if key.startswith("stages/") and key.endswith("/manifest.json")
            }:
                self.write(f"stages/{folder}/used", b"")

    before = keys(out)
    gc(Busy(str(out)), DAY, keep=1)
    lost = [key for key in before - keys(out) if key.split("/")[0] == "stages" and key.split("/")[2] in FATES]
    dead = {path.name for path in out.glob("stages/*") if not (path / "manifest.json").exists()}
    assert dead
    assert not [key for key in lost if key.split("/")[1] in dead]


def test_a_wrong_clock_on_this_machine_deletes_nothing_young(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = published.copy(tmp_path)
    age(out, 0)
    before = keys(out)
    ahead = time.time() + 3650 * DAY
    monkeypatch.setattr(time, "time", lambda: ahead)
    gc(open_store(str(out)), DAY, keep=1, stages=True)
    assert keys(out) - {"_log/OLDEST"} == before


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.randoms(use_true_random=False), keep=st.sampled_from([None, 1, 2]), stages=st.booleans())
def test_whatever_the_ages_nothing_young_goes_and_what_claims_to_be_done_is(
    published: Published, tmp_path_factory: pytest.TempPathFactory, seed: Any, keep: int | None, stages: bool
) -> None:
    """Each object of a random age, the corpus with the leftovers of killed builds: what a dry run says goes, and
    nothing else; a second run finds nothing."""
    out = published.copy(tmp_path_factory.mktemp("ages"))
    store = open_store(str(out))
    folder = seed.choice(sorted(path.name for path in (out / "stages").iterdir()))
    leave_behind(out, folder, folder.rsplit("-", 1)[0] + "-" + "f" * 16, 0)
    ages = {}
    for unit in sorted((out / "stages").iterdir()) + sorted((out / "builds").glob("*/")) + [out / "artefacts"]:
        oldest = seed.choice([0.1, 0.9, 1.1, 50])
        for path in sorted(unit.rglob("*")):
            ages[path] = max(oldest, seed.choice([0.5, 1.5, 50]))
            age_of = time.time() - ages[path] * DAY
            os.utime(path, (age_of, age_of))
    before = {key: (out / key).stat() for key in keys(out)}
    told = gc(store, DAY, keep, stages, dry_run=True)
    assert keys(out) == before.keys()
    gone = gc(store, DAY, keep, stages)
    assert gone["deleted"] == told["deleted"]
    lost = before.keys() - keys(out)
    assert totals(gone) == (len(lost), sum(before[key].st_size for key in lost))
    assert all(ages[out / key] > 1 for key in lost)
    assert failures(store, quick=True) == []
    check_claims(out)
    alive = live(store, read_log(store), 1 if keep is None else 4 - keep)
    assert alive.paths - alive.intermediate <= keys(out)
    assert stages or alive.paths <= keys(out)
    assert totals(gc(store, DAY, keep, stages))[0] == 0


@dataclass
class Dying:
    """A store that fails for good after some deletions."""

    inner: LocalStore
    left: int

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            if self.left == 0 and not key.startswith("_gc/"):
                raise StorageError("the disk is gone")
            self.left -= not key.startswith("_gc/")
            self.inner.delete([key])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@pytest.mark.parametrize("after", [0, 1, 5, 20, 45])
def test_killed_at_any_deletion_it_leaves_a_whole_corpus_and_goes_on(
    published: Published, tmp_path: Path, after: int
) -> None:
    out, whole = published.copy(tmp_path), published.copy(tmp_path / "whole")
    store = LocalStore(str(out))
    with pytest.raises(StorageError, match="the disk is gone"):
        gc(Dying(store, after), DAY, keep=1, stages=True)  # type: ignore[arg-type]
    assert failures(store, quick=True) == []
    check_claims(out)
    gc(store, DAY, keep=1, stages=True)
    gc(open_store(str(whole)), DAY, keep=1, stages=True)
    assert {key for key in keys(out) if not key.endswith("freed.json")} == {
        key for key in keys(whole) if not key.endswith("freed.json")
    }


def test_text_that_was_retracted_goes_with_the_files_from_before(published: Published, tmp_path: Path) -> None:
    out = published.copy(tmp_path)
    store = open_store(str(out))
    [before] = visible_builds(store, commit.head(store))
    old_entry = store.read(manifest_key(before["build_id"], commit.head(store).manifest_sha256))  # type: ignore[union-attr]
    [index] = before["stages"][-1]["files"]["kept"][:1]
    victim = pq.read_table(out / index["path"])["id"][0].as_py()
    assert retract(store, pa.array([victim]))["committed"]
    age(out, 2 * DAY)
    gc(store, DAY, stages=True)
    assert failures(store) == []
    check_claims(out)
    left = [
        path for path in out.rglob("*.parquet") if "shards/parquet" in path.as_posix() or "/kept/" in path.as_posix()
    ]
    assert left
    for path in left:
        table = pq.read_table(path)
        assert before["build_id"] not in path.as_posix() or victim not in table["id"].to_pylist(), path
    assert old_entry not in {path.read_bytes() for path in out.glob("builds/*/*.json")}
    shown = visible_builds(store, commit.head(store))
    answer = why(store, shown, victim)
    assert (answer["fate"], answer["operator"]) == ("dropped", "retract")


def test_freed_stages_answer_and_verify_and_a_rebuild_ends_with_the_same_files(
    published: Published, tmp_path: Path, ray_session: None
) -> None:
    out = published.copy(tmp_path)
    store = open_store(str(out))
    [shown] = visible_builds(store, commit.head(store))
    result = gc(store, DAY, keep=1, stages=True)
    assert "intermediate files" in {line["what"] for line in result["deleted"]}
    for stage in shown["stages"][:-1]:
        assert not any((out / entry["path"]).exists() for entry in stage["files"]["kept"])
        assert all((out / entry["path"]).exists() for entry in stage["files"]["dropped"])
    assert failures(store) == []
    assert failures(store, quick=True) == []
    assert why(store, [shown], "short")["reason"] == "too_few_words"
    assert gc(store, DAY, keep=1, stages=True)["deleted"] == []
    assert retract(store, pa.array(["copy-0", "copy-1", "copy-2"]), dry_run=True)["builds"]
    again = build(prepare(recipe(tmp_path / "r.yaml", [str(published.folder / "in")], out)))
    assert (again["committed"], again["build_id"]) == (False, shown["build_id"])
    check_claims(out)
    kept = out / shown["stages"][1]["files"]["kept"][0]["path"]
    kept.unlink()
    assert failures(store) == [(kept.relative_to(out).as_posix(), "missing")]


def test_on_object_storage(published: Published, s3: str) -> None:
    store = open_store(s3)
    assert isinstance(store, S3Store)
    before = keys(published.out)
    for key in before:
        store.write(key, (published.out / key).read_bytes())
    boto3.client("s3").create_multipart_upload(Bucket=store.bucket, Key=f"{store.prefix}/builds/x/shards/big")
    assert gc(store, 3600)["deleted"] == []
    while gc(store, 1, keep=1, dry_run=True)["deleted"] == []:
        time.sleep(0.5)  # objects are as old as their writing
    time.sleep(1.5)
    told = gc(store, 1, keep=1, stages=True, dry_run=True)
    gone = gc(store, 1, keep=1, stages=True)
    assert gone["deleted"] == told["deleted"]
    assert gone["interrupted_writes"] == 1
    left = {stored.key for stored in store.list("")}
    assert len(before - left) == totals(gone)[0] > 20
    assert failures(store) == []
    assert failures(store, quick=True) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--grace", "soon"), "grace: 'soon' is no duration like 30m, 24h or 7d"),
        (("--keep", "0"), "Invalid value for '--keep'"),
        ((), "there is no corpus here"),
    ],
)
def test_what_is_no_corpus_or_no_argument_ends_with_2(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    ran = corpusmill("gc", tmp_path, *arguments)
    assert ran.code == 2
    assert message in ran.err
    assert keys(tmp_path) == {"notes.txt"}


def test_a_log_with_a_gap_or_a_lost_manifest_ends_it_before_anything_goes(published: Published, tmp_path: Path) -> None:
    """What is alive is not known then."""
    out = published.copy(tmp_path)
    store = open_store(str(out))
    entry = commit.read_entry(store, 2)
    manifest = out / manifest_key(entry.build, entry.manifest_sha256)
    for path, message in ((out / commit.entry_key(2), "entries of the log are missing"), (manifest, manifest.name)):
        held = path.read_bytes()
        path.unlink()
        before = keys(out)
        with pytest.raises(StorageError, match=message):
            gc(store, 0)
        assert keys(out) == before
        path.write_bytes(held)


def test_files_of_others_in_the_folder_are_not_touched(published: Published, tmp_path: Path) -> None:
    out = published.copy(tmp_path)
    for name in ("README", "stages/README", "builds/README", "mine/stages/clean-0/kept/x"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    age(out, 2 * DAY)
    gc(open_store(str(out)), DAY, keep=1, stages=True)
    assert {"README", "stages/README", "builds/README", "mine/stages/clean-0/kept/x"} <= keys(out)


def test_gc_in_words(published: Published, tmp_path: Path) -> None:
    out = published.copy(tmp_path)
    told = corpusmill("gc", out, "--keep", "1", "--dry-run")
    assert told.code == 0
    assert told.out.splitlines()[0].split() == ["would", "go", "objects", "size"]
    done = corpusmill("gc", out, "--keep", "1")
    assert done.out.splitlines()[1:] == told.out.splitlines()[1:]
    assert corpusmill("gc", out, "--keep", "1").out == "nothing to delete\n"
