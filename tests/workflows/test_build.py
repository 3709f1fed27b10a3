"""Whole builds on real pages and documents with planted faults, on one embedded Ray."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.storage import open_store
from cluster.units import Record, Task, run_units
from tests.soak.kills import Mortal
from tests.workflows.corpora import hashes, lay_out, recipe
from workflows import global_stage, map_stage, token_stage
from workflows.build import build, newest_build, plan, prepare
from workflows.explain import why
from workflows.gates import GateRefused
from workflows.recipe import RecipeError
from workflows.stage import Progress
from workflows.verify import verify

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    lay_out(folder / "in", sample)
    return folder


@pytest.fixture(scope="module")
def built(corpus: Path, ray_session: None) -> dict[str, Any]:
    """The plain build that others are compared with."""
    return build(prepare(recipe(corpus / "plain.yaml", [str(corpus / "in")], corpus / "out")))


class Spy(Progress):
    """Notes which stages ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def finished(self, manifest: dict[str, Any], cached: bool) -> None:
        if not cached:
            self.ran.append(manifest["name"])


def test_every_row_is_accounted_for(built: dict[str, Any]) -> None:
    above = None
    for stage in built["stages"]:
        went = stage["kept"] + sum(stage["dropped"].values()) + stage["quarantined"]
        assert stage["rows_in"] + stage["created"] == went
        assert above in (None, stage["rows_in"])
        above = stage["kept"]
    assert built["stages"][0]["rows_in"] == 500 + 125 + 15 + 1
    assert built["committed"]
    assert built["documents"] == above


def test_verify_finds_nothing_wrong_and_notices_a_flipped_byte(
    corpus: Path, built: dict[str, Any], tmp_path: Path
) -> None:
    assert [what for what, error in verify(open_store(str(corpus / "out"))) if error] == []
    shutil.copytree(corpus / "out", tmp_path / "copy")
    shard = tmp_path / "copy" / built["shards"][0]["path"]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(bytes(data))
    wrong = [what for what, error in verify(open_store(str(tmp_path / "copy"))) if error]
    assert wrong == [built["shards"][0]["path"]]


@pytest.mark.parametrize(
    ("doc_id", "expected"),
    [
        ("short", {"fate": "dropped", "stage": "clean", "value": 4.0, "threshold": 20.0, "reason": "too_few_words"}),
        ("z-exact-0", {"fate": "dropped", "operator": "exact_dedup", "reason": "duplicate"}),
        ("z-near-0", {"fate": "dropped", "operator": "minhash_dedup", "reason": "duplicate"}),
        ("broken", {"fate": "unknown"}),
        ("eos", {"fate": "kept", "stage": "tokens"}),
        ("nobody", {"fate": "unknown", "stage": None}),
    ],
)
def test_why_says_where_a_document_went(
    corpus: Path, built: dict[str, Any], doc_id: str, expected: dict[str, Any]
) -> None:
    store = open_store(str(corpus / "out"))
    answer = why(store, [newest_build(store)], doc_id)
    assert answer | expected == answer
    if answer["duplicate_of"]:
        assert why(store, [newest_build(store)], answer["duplicate_of"])["fate"] == "kept"
    if answer["fate"] == "kept":
        assert (Path(store.url) / answer["shard"]).is_file()


def test_broken_input_is_quarantined_by_file_and_offset(corpus: Path, built: dict[str, Any]) -> None:
    store = open_store(str(corpus / "out"))
    manifest = newest_build(store)
    rows: list[dict[str, Any]] = []
    for entry in manifest["stages"][0]["files"]["quarantined"]:
        rows += pq.read_table(Path(store.url, entry["path"])).to_pylist()
    found = Counter((row["file"], row["reason"]) for row in rows)
    assert found == {
        ("pages.warc.gz", "truncated_record"): 1,
        ("planted.jsonl", "bad_json"): 1,
        ("planted.jsonl", "invalid_utf8"): 1,
        ("planted.jsonl", "nul"): 1,
    }
    line = next(row for row in rows if row["reason"] == "bad_json")
    raw = (corpus / "in" / "planted.jsonl").read_bytes()
    assert raw[line["offset"] :].startswith(b'{"id": "broken"')
    answer = why(store, [manifest], line["id"])
    assert (answer["fate"], answer["reason"], answer["offset"]) == ("quarantined", "bad_json", line["offset"])


def test_the_same_recipe_again_is_nothing_new(corpus: Path, built: dict[str, Any]) -> None:
    spy = Spy()
    again = build(prepare(corpus / "plain.yaml", progress=spy))
    assert spy.ran == []
    assert (again["committed"], again["log_number"], again["build_id"]) == (False, 1, built["build_id"])


def test_other_files_units_and_orders_give_the_same_shards(corpus: Path, built: dict[str, Any], tmp_path: Path) -> None:
    """Row groups and lines keep their files, so ids stay; everything else about the layout changes."""
    (tmp_path / "in").mkdir()
    for file in (corpus / "in").iterdir():
        shutil.copy(file, tmp_path / "in")
    documents = pq.read_table(tmp_path / "in" / "documents.parquet")
    pq.write_table(documents, tmp_path / "in" / "documents.parquet", row_group_size=37)
    inputs = [str(file) for file in (tmp_path / "in").iterdir()]
    random.Random(5).shuffle(inputs)
    changed = recipe(tmp_path / "r.yaml", inputs, tmp_path / "out", workers={"unit_bytes": 70_000})
    other = build(prepare(changed))
    assert hashes(other) == hashes(built)
    assert other["stages"][0]["fingerprint"] != built["stages"][0]["fingerprint"]


class Interrupts(Progress):
    """Ctrl-C after some units of a stage."""

    def __init__(self, stage: str, units: int) -> None:
        self.stage, self.left, self.running = stage, units, ""

    def started(self, stage: str, what: str, units: int) -> None:
        self.running = stage

    def unit(self, record: dict[str, Any]) -> None:
        if self.running == self.stage:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt


def test_interrupted_and_with_workers_killed_a_build_ends_with_the_same_shards(
    corpus: Path, built: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make soak` kills the command itself too, at many other points, in object storage that fails."""
    died = tmp_path / "died"
    died.mkdir()

    def run(store: Any, folder: str, works: Any, task: Task, label: str, *rest: Any, **placed: Any) -> list[Record]:
        return run_units(store, folder, works, Mortal(task, died / label.split("[")[0]), label, *rest, **placed)

    for module in (map_stage, global_stage, token_stage):
        monkeypatch.setattr(module, "run_units", run)
    small = recipe(tmp_path / "r.yaml", [str(corpus / "in")], tmp_path / "out", workers={"unit_bytes": 150_000})
    for stage, units in (("clean", 2), ("dedup", 5), ("tokens", 1)):
        with pytest.raises(KeyboardInterrupt):
            build(prepare(small, progress=Interrupts(stage, units)))
    assert hashes(build(prepare(small))) == hashes(built)
    assert {mark.name for mark in died.iterdir()} == {"read", "clean", "dedup", "tokens"}


def test_changing_a_threshold_reruns_that_stage_and_those_below(corpus: Path, built: dict[str, Any]) -> None:
    changed = recipe(
        corpus / "changed.yaml",
        [str(corpus / "in")],
        corpus / "out",
        params={"gopher_quality": {"min_stop_words": 0, "min_words": 25}},
    )
    planned = plan(prepare(changed))
    assert [(s["name"], s["cached"]) for s in planned["stages"]] == [
        ("read", True),
        ("clean", False),
        ("dedup", False),
        ("tokens", False),
    ]
    assert planned["stages"][1]["changed"] == ["gopher_quality.min_words: 20 -> 25"]
    assert planned["stages"][2]["changed"] == ["clean changed"]
    spy = Spy()
    result = build(prepare(changed, progress=spy))
    assert spy.ran == ["clean", "dedup", "tokens"]
    assert (result["committed"], result["log_number"]) == (True, 2)
    back = build(prepare(corpus / "plain.yaml"))
    assert (back["committed"], back["log_number"], back["build_id"]) == (True, 3, built["build_id"])


def test_limit_takes_the_same_sample_and_commits_nothing(corpus: Path, built: dict[str, Any]) -> None:
    before = newest_build(open_store(str(corpus / "out")))["build_id"]
    first = build(prepare(corpus / "plain.yaml", limit=60), publish=False)
    assert first["stages"][1]["kept"] == 60
    assert first["committed"] is False
    assert newest_build(open_store(str(corpus / "out")))["build_id"] == before


def test_until_stops_after_a_stage_and_names_a_wrong_one(corpus: Path, built: dict[str, Any]) -> None:
    result = build(prepare(corpus / "plain.yaml", until="clean"))
    assert [stage["name"] for stage in result["stages"]] == ["read", "clean"]
    assert result["committed"] is False
    with pytest.raises(RecipeError, match="unknown stage 'claen'; allowed: read, clean, dedup, tokens"):
        prepare(corpus / "plain.yaml", until="claen")


def test_force_runs_a_stage_and_those_below_again_to_the_same_bytes(corpus: Path, built: dict[str, Any]) -> None:
    spy = Spy()
    again = build(prepare(corpus / "plain.yaml", progress=spy), force="dedup")
    assert spy.ran == ["dedup", "tokens"]
    assert hashes(again) == hashes(built)


def test_a_gate_refuses_a_build_and_leaves_the_log_alone(corpus: Path, tmp_path: Path, built: dict[str, Any]) -> None:
    strict = recipe(
        tmp_path / "strict.yaml", [str(corpus / "in" / "planted.jsonl")], tmp_path / "out", gates={"min_kept": 10_000}
    )
    with pytest.raises(GateRefused, match="min_kept: .* at least 10000"):
        build(prepare(strict))
    assert not (tmp_path / "out" / "_log").exists()
    assert newest_build(open_store(str(tmp_path / "out")))["documents"] < 10_000


def test_no_near_duplicate_crosses_splits_and_each_token_is_written_once(corpus: Path, built: dict[str, Any]) -> None:
    by_format: dict[str, Counter[str]] = {}
    for shard in built["shards"]:
        by_format.setdefault(shard["format"], Counter()).update(
            documents=shard["documents"], tokens=shard["tokens"], **{shard["split"]: 1}
        )
    for counts in by_format.values():
        assert (counts["documents"], counts["tokens"]) == (built["documents"], built["tokens"])
        assert counts["train"] > 1
        assert counts["validation"] >= 1


def test_user_columns_pass_through_to_the_cleaned_text(corpus: Path, built: dict[str, Any]) -> None:
    files = [s["path"] for s in built["shards"] if s["format"] == "parquet"]
    tables = [pq.read_table(corpus / "out" / path) for path in files]
    table = pa.concat_tables(tables, promote_options="permissive")
    assert {"id", "text", "url", "language", "licence", "cluster", "tokens"} <= set(table.column_names)
    assert "payload" not in table.column_names


def test_windows_have_one_length_and_say_what_was_padded(corpus: Path, built: dict[str, Any]) -> None:
    windows = recipe(
        corpus / "windows.yaml",
        [str(corpus / "in")],
        corpus / "out",
        params={"pack": {"layout": "windows", "seq_len": 128}},
    )
    result = build(prepare(windows))
    megatron = [s for s in result["shards"] if s["format"] == "megatron"]
    assert sum(s["tokens"] for s in megatron) == result["tokens"]
    assert all(s["sequences"] * 128 == s["tokens"] + s["padding"] for s in megatron)
    assert sum(s["padding"] for s in megatron) < 128 * len(megatron)


class Stop(Progress):
    """Ends the build as soon as a stage has been written, as a kill there would."""

    def __init__(self, after: str) -> None:
        self.after = after

    def finished(self, manifest: dict[str, Any], cached: bool) -> None:
        if manifest["name"] == self.after:
            raise KeyboardInterrupt


def test_verdicts_are_never_applied_to_other_files_than_they_were_made_for(
    corpus: Path, built: dict[str, Any], tmp_path: Path
) -> None:
    """A forced run over other units ends after its first stage; what is below was made from files that are gone."""
    inputs, output = [str(corpus / "in")], shutil.copytree(corpus / "out", tmp_path / "out")
    other = recipe(tmp_path / "r.yaml", inputs, output, workers={"unit_bytes": 60_000})
    with pytest.raises(KeyboardInterrupt):
        build(prepare(other, progress=Stop("read")), force="read")
    changed = recipe(tmp_path / "r.yaml", inputs, output, splits={"validation": 0.2})
    result = build(prepare(changed))
    fresh = build(prepare(recipe(tmp_path / "f.yaml", inputs, corpus / "out", splits={"validation": 0.2})))
    assert hashes(result) == hashes(fresh)
    assert [what for what, error in verify(open_store(str(output))) if error] == []


def test_the_manifest_that_a_commit_names_is_never_overwritten(
    corpus: Path, built: dict[str, Any], tmp_path: Path
) -> None:
    inputs, output = [str(corpus / "in")], shutil.copytree(corpus / "out", tmp_path / "out")
    assert build(prepare(recipe(tmp_path / "r.yaml", inputs, output)))["build_id"] == built["build_id"]
    store = open_store(str(output))
    committed = newest_build(store)
    refused = recipe(tmp_path / "r.yaml", inputs, output, workers={"unit_bytes": 60_000}, gates={"min_kept": 10_000})
    with pytest.raises(GateRefused):
        build(prepare(refused), force="read")
    assert newest_build(store) == committed
    assert [error for what, error in verify(store) if error and what.startswith("builds/")] == []
