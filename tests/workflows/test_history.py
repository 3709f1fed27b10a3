"""Deduplication against published builds, through files: indexes, identity, what cannot be compared, and the stage."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cluster.index
import workflows.global_stage
from cluster.index import look_up, write_index
from cluster.storage import StorageError, open_store
from cluster.tables import TableWriter, file_sha256, read_entry
from operators.dedup.exact import ExactDedup
from operators.dedup.minhash import MinHashDedup
from operators.dedup.unique_id import UniqueId
from operators.phases import MEMORY
from operators.text.normalize import Normalize
from workflows.global_stage import check_history, run_global_stage
from workflows.recipe import Recipe, RecipeError
from workflows.stage import Job, Manifest, Stage, fingerprint, folder_of, parameters_of, save_manifest, sweep

KEYS = st.one_of(st.integers(0, 20), st.integers(2**64 - 20, 2**64 - 1), st.integers(0, 2**64 - 1))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.tuples(KEYS, st.integers(0, 3)), max_size=60), max_size=3), st.sets(KEYS, max_size=20))
def test_a_look_up_finds_the_rows_of_its_keys_and_no_others(builds: list[list[Any]], wanted: set[int]) -> None:
    """In files of a few rows, of several builds; equal rows of one build count once."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster.index, "FILE_BYTES", 100)
        store, entries = open_store(folder), []
        for number, rows in enumerate(builds):
            columns = zip(*rows, strict=True) if rows else ([], [])
            key, doc = (pa.array(column, pa.uint64()) for column in columns)
            table = pa.table({"doc": doc, "key": key})
            written = write_index(store, f"index/{number}", table)
            assert (
                write_index(store, f"index/{number}", table.take(pa.array(range(len(rows) - 1, -1, -1), pa.int64())))
                == written
            )
            entries += written
        assert all(entry["rows"] <= 6 and entry["low"] <= entry["high"] for entry in entries)
        assert sum(entry["rows"] for entry in entries) == sum(len(set(rows)) for rows in builds)
        for entry in entries:
            path = Path(folder, entry["path"])
            assert (path.stat().st_size, file_sha256(path)) == (entry["bytes"], entry["sha256"])
        found = look_up(store, entries, np.array(sorted(wanted), np.uint64))
        got = [(row["key"], row["doc"]) for table in found for row in table.to_pylist()]
        assert sorted(got) == sorted(row for rows in builds for row in set(rows) if row[0] in wanted)


def rows(*texts: str, first: str, **columns: Any) -> list[dict[str, Any]]:
    return [{"id": f"{first}{k}", "text": text, **columns} for k, text in enumerate(texts)]


def stages(*steps: Any) -> Stage:
    return Stage("dedup", Stage("read", None, (Normalize(),)), steps or (UniqueId(), ExactDedup(), MinHashDedup()))


def job(folder: Path, version: str = "1", history: Sequence[Manifest] = ()) -> Job:
    item = {"rel": "a.txt", "version": version, "source": None, "priority": 0, "weight": 1.0}
    return Job(open_store(str(folder)), Recipe(inputs=["a.txt"], output="o"), (item,), history=tuple(history))


def published(build: str, stage: Stage, **index: Any) -> Manifest:
    """The manifest of a build with index files, as far as later builds look at it."""
    entries = {name: {phase: [{"sha256": sha256}]} for name, (phase, sha256) in index.items()}
    told = {"name": stage.name, "steps": parameters_of(stage), "files": {"kept": [], "index": entries}}
    return orjson.loads(orjson.dumps({"build_id": build, "stages": [told]}))


INDEX = {"unique_id": ("ids", "a"), "exact_dedup": ("hashes", "b"), "minhash_dedup": ("bands", "c")}


def test_what_is_remembered_is_in_the_identity_of_the_stage_that_recalls_it(tmp_path: Path) -> None:
    """And in no other; the order of the builds is not."""
    stage = stages()
    one, other = (published(name, stage, **(INDEX | {"unique_id": ("ids", name)})) for name in "xy")
    found = [job(tmp_path, history=h) for h in ([], [one], [other], [one, other], [other, one])]
    none, with_one, with_other, both, reversed_both = (fingerprint(stage, j) for j in found)
    assert len({none, with_one, with_other, both}) == 4
    assert both == reversed_both
    assert stage.upstream is not None
    assert len({fingerprint(stage.upstream, j) for j in found}) == 1


def test_an_operator_of_scope_build_does_not_see_the_history(tmp_path: Path) -> None:
    alone = stages(MinHashDedup(scope="build"))
    history = [published("x", alone, minhash_dedup=("bands", "c"))]
    assert fingerprint(alone, job(tmp_path)) == fingerprint(alone, job(tmp_path, history=history))
    check_history(stages(MinHashDedup(scope="build", seed=7)), job(tmp_path, history=history))


def test_builds_that_remember_the_same_way_can_be_compared(tmp_path: Path) -> None:
    before = stages(UniqueId(), ExactDedup(scope="build"), MinHashDedup(scope="build"))
    check_history(stages(), job(tmp_path, history=[published("x", before, **INDEX)]))
    check_history(stages(), job(tmp_path))


@pytest.mark.parametrize(
    ("now", "then", "message"),
    [
        (
            MinHashDedup(bands=20),
            MinHashDedup(),
            r"params.minhash_dedup: bands is 20 here and 14 in .* build x,.*scope",
        ),
        (MinHashDedup(), MinHashDedup(seed=3), r"seed is 1 here and 3 in"),
        (ExactDedup(field="url"), ExactDedup(), r"params.exact_dedup: field is 'url' here and 'text' in"),
        (
            ExactDedup(),
            MinHashDedup(),
            r"params.exact_dedup: there is no index for it in the published build x.*`build`",
        ),
    ],
)
def test_what_cannot_be_compared_is_named_with_the_way_out(tmp_path: Path, now: Any, then: Any, message: str) -> None:
    before = stages(UniqueId(), then)
    index = {name: INDEX[name] for name in ("unique_id", then.name)}
    with pytest.raises(RecipeError, match=message):
        check_history(stages(UniqueId(), now), job(tmp_path, history=[published("x", before, **index)]))


def test_a_build_without_indexes_cannot_be_compared_with(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="unique_id: there is no index for it in the published build x") as error:
        check_history(stages(), job(tmp_path, history=[published("x", stages())]))
    assert "scope" not in str(error.value)  # ids have none


def run(folder: Path, units: Sequence[list[dict[str, Any]]], version: str, history: Sequence[Manifest]) -> Manifest:
    """The stage over files of those documents, to the manifest of its build."""
    stage, now = stages(), job(folder, version, history)
    entries = []
    for number, unit in enumerate(units):
        table = pa.Table.from_pylist([{"priority": 0, "chars": len(row["text"]), **row} for row in unit])
        with TableWriter(now.store, f"above-{version}-{len(units)}", number) as out:
            out.write(table)
        entries += out.entries
    count = sum(map(len, units))
    manifest = run_global_stage(stage, now, {"name": "read", "kept": count, "files": {"kept": entries}})
    save_manifest(now.store, folder_of(stage, now), manifest)
    sweep(now.store, folder_of(stage, now))
    return {"build_id": version, "stages": [orjson.loads(orjson.dumps(manifest))]}


def dropped(folder: Path, build: Manifest) -> dict[str, tuple[str, str, str]]:
    store = open_store(str(folder))
    found = [row for e in build["stages"][0]["files"]["dropped"] for row in read_entry(store, e).to_pylist()]
    return {row["id"]: (row["drop_reason"], row["drop_detail"], row["duplicate_of"]) for row in found}


@pytest.mark.usefixtures("ray_session")
def test_three_nights_through_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later nights in more partitions than the first, as a large index has it."""
    monkeypatch.setattr(workflows.global_stage, "HISTORY_SHARE", MEMORY // 800)
    words = [f"w{chr(97 + k // 26)}{chr(97 + k % 26)}" for k in range(400)]
    story, other, third, fourth = (" ".join(words[a : a + 90]) for a in (0, 100, 200, 300))
    near = f"{story} {words[99]}"
    first = [*rows(story, near, other, first="a"), *rows(other.upper(), first="b")]
    one = run(tmp_path, [first[:2], [], first[2:]], "1", [])
    assert dropped(tmp_path, one) == {
        "a0": ("minhash_dedup/duplicate", None, "a1"),
        "b0": ("exact_dedup/duplicate", None, "a2"),
    }
    index = one["stages"][0]["files"]["index"]
    assert {(name, phase): sum(e["rows"] for e in index[name][phase]) for name in index for phase in index[name]} == {
        ("unique_id", "ids"): 4,
        ("exact_dedup", "hashes"): 3,
        ("minhash_dedup", "bands"): 14 + 14 + apart(near, story),
        ("minhash_dedup", "published"): 2,
    }
    assert all((tmp_path / entry["path"]).is_file() for p in index.values() for e in p.values() for entry in e)

    second = [
        {"id": "a0", "text": fourth},
        *rows(story, other, f"{story} {words[98]}", third, third, first="c", priority=5),
    ]
    two = run(tmp_path, [second], "2", [one])
    assert dropped(tmp_path, two) == {
        "a0": ("unique_id/duplicate_id", "published", "a0"),
        "c0": ("exact_dedup/duplicate", "published", "a0"),  # itself a duplicate of a1: `why` follows
        "c1": ("exact_dedup/duplicate", "published", "a2"),
        "c2": ("minhash_dedup/duplicate", "published", "a1"),
        "c4": ("exact_dedup/duplicate", None, "c3"),
    }
    late = rows(f"{story} {words[98]}", f"{third} {words[97]}", first="d")
    three = run(tmp_path, [late[:1], late[1:]], "3", [two, one])
    assert dropped(tmp_path, three) == {
        "d0": ("exact_dedup/duplicate", "published", "c2"),
        "d1": ("minhash_dedup/duplicate", "published", "c3"),
    }
    back = run(tmp_path, [late[:1], late[1:]], "3", [one])  # the second build rolled back
    assert dropped(tmp_path, back) == {"d0": ("minhash_dedup/duplicate", "published", "a1")}


def apart(one: str, other: str) -> int:
    """How many bands two texts do not share."""
    docs = pa.table({"doc": pa.array([0, 1], pa.uint64()), "text": pa.array([one, other], pa.large_string())})
    keys = MinHashDedup().phases(2)[0].maps["documents"](docs)["key"].to_pylist()
    return len(set(keys)) - 14


def test_a_damaged_index_is_an_error_and_no_duplicate_is_missed(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    keys = pa.array(range(1, 2001), pa.uint64())
    [entry] = write_index(store, "index/0", pa.table({"key": keys, "doc": keys}))
    path, wanted = Path(tmp_path, entry["path"]), np.arange(1, 50, dtype=np.uint64)
    assert sum(t.num_rows for t in look_up(store, [entry], wanted)) == 49
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StorageError, match=f"{entry['path']}: damaged"):
        look_up(store, [entry], wanted)
    [other] = write_index(store, "index/1", pa.table({"key": keys[:500], "doc": keys[:500]}))
    with pytest.raises(StorageError, match="not the index that was written"):
        look_up(store, [entry | {"path": other["path"]}], wanted)
