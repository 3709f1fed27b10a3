"""The plan beside the shards: mixture of sources, curriculum and slices of decomposed documents. Without Ray."""

from __future__ import annotations

from typing import Any

import orjson

from cluster.storage import open_store
from operators.tokens.curriculum import steps
from operators.tokens.pack import Pack
from workflows.training_plan import training_plan, write_plan

DECOMPOSED = Pack(layout="windows", mode="decompose", seq_len=256, min_len=64, batch_tokens=1024)
SOURCES = {
    "books": {"documents": 2, "tokens": 600, "weight": 3.0},
    "": {"documents": 1, "tokens": 200, "weight": 1.0},
    "gone": {"documents": 0, "tokens": 0, "weight": 0.0},
}


def shard(path: str, split: str, buckets: dict[str, int], kind: str = "megatron") -> dict[str, Any]:
    return {"path": path, "split": split, "format": kind} | ({"buckets": buckets} if buckets else {})


def test_sources_are_weighed_by_their_documents() -> None:
    plan = training_plan([], SOURCES, Pack())
    assert plan.keys() == {"mixture"}
    books, rest = plan["mixture"]["books"], plan["mixture"][""]
    assert plan["mixture"].keys() == {"books", ""}
    assert (books["share"], rest["share"]) == (0.75, 0.25)
    assert books["probability"] == 900 / 1100
    assert abs(books["probability"] + rest["probability"] - 1) < 1e-12
    assert abs(books["epochs"] / rest["epochs"] - 1.5) < 1e-12


def test_every_sequence_of_training_is_in_one_slice_and_one_step() -> None:
    shards = [
        shard("a", "train", {"64": 5, "256": 3}),
        shard("b", "train", {"64": 2, "128": 7}),
        shard("v", "validation", {"64": 9}),
        shard("t", "train", {}, "parquet"),
        shard("c", "train", {"64": 5, "256": 3}, "mds"),
        shard("d", "train", {"64": 2, "128": 7}, "mds"),
    ]
    plan = training_plan(shards, SOURCES, DECOMPOSED)
    assert [(s["path"], s["length"], s["first_sequence"], s["first_token"]) for s in plan["slices"][:4]] == [
        ("a", 64, 0, 0),
        ("a", 256, 5, 320),
        ("b", 64, 0, 0),
        ("b", 128, 2, 128),
    ]
    used: dict[int, int] = {}
    for step in steps(plan["curriculum"]):
        assert step.first == used.get(step.length, 0)
        assert step.sequences * step.length <= 1024
        used[step.length] = step.first + step.sequences
    assert used == {64: 7, 128: 7, 256: 3}


def test_its_file_is_named_by_its_content(tmp_path: Any) -> None:
    store = open_store(str(tmp_path / "out"))
    assert write_plan(store, "shards", [], {}, Pack()) == []  # nothing was tokenized
    [entry] = write_plan(store, "shards", [], SOURCES, Pack())
    assert entry["path"] == f"shards/plan-{entry['sha256'][:12]}.json"
    assert orjson.loads(store.read(entry["path"])) == training_plan([], SOURCES, Pack())
