"""Whole builds that order documents, on one embedded Ray: from Parquet to contexts in shards, and without text."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from cluster.storage import open_store
from tests.workflows.corpora import hashes
from workflows.build import build, newest_build, prepare
from workflows.recipe import RecipeError
from workflows.retract import retract
from workflows.stage import StageError
from workflows.verify import verify

ROWS = 360
SEQ_LEN = 512
FORMATS = ["megatron", "tokens_parquet", "mds", "parquet"]


def recipe(path: Path, inputs: list[str], output: Path, **changes: Any) -> Path:
    params = {
        "order": {},
        "tokenizer": {"name": "train:bpe", "vocab": 1000},
        "pack": {"seq_len": SEQ_LEN},
    } | changes.pop("params", {})
    body = {
        "workflow": "order",
        "inputs": inputs,
        "output": str(output),
        "params": params,
        "shards": {"formats": FORMATS, "tokens_per_shard": 100_000},
        "splits": {"validation": 0.05},
    } | changes
    with path.open("w") as file:
        YAML().dump(body, file)
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Path:
    folder = tmp_path_factory.mktemp("order")
    (folder / "in").mkdir()
    table = pq.read_table(sample / "sample.parquet").slice(0, ROWS)
    table = table.append_column("size", pc.utf8_length(table["text"]))
    pq.write_table(table.slice(0, 250), folder / "in" / "a.parquet", row_group_size=60)
    pq.write_table(table.slice(250), folder / "in" / "b.parquet")
    return folder


@pytest.fixture(scope="module")
def built(corpus: Path, ray_session: None) -> dict[str, Any]:
    return build(prepare(recipe(corpus / "plain.yaml", [str(corpus / "in")], corpus / "out")))


@pytest.fixture(scope="module")
def more(corpus: Path, built: dict[str, Any]) -> Path:
    """Where builds of the same inputs find the stages that are the same; the newest is the last one made."""
    return Path(shutil.copytree(corpus / "out", corpus / "more"))


def stage(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(s for s in newest_build(open_store(str(folder)))["stages"] if s["name"] == name)
    return found


def texts(folder: Path, result: dict[str, Any], split: str = "") -> pa.Table:
    """The documents of all shards in the order of their ranks."""
    paths = [s["path"] for s in result["shards"] if s["format"] == "parquet" and f"/{split}" in s["path"]]
    return pa.concat_tables([pq.read_table(folder / path) for path in paths]).sort_by("order_rank")


def test_the_order_is_a_permutation_of_the_documents(corpus: Path, built: dict[str, Any]) -> None:
    found = texts(corpus / "out", built)
    assert found["order_rank"].to_pylist() == list(range(ROWS))
    assert found["order_similarity"].null_count == 1
    assert len(set(found["id"].to_pylist())) == ROWS


def test_related_documents_come_together(corpus: Path, built: dict[str, Any]) -> None:
    summary = stage(corpus / "out", "order")["operators"][0]["summary"]
    assert summary["recall"] == 1.0
    assert summary["adjacent"] > 2 * summary["random"]
    assert sum(summary["links"].values()) == ROWS
    measured = stage(corpus / "out", "order")["operators"][0]["measured"]["order_similarity"]
    assert sum(measured.values()) == ROWS - 1


def test_all_that_was_built_can_be_verified(corpus: Path, built: dict[str, Any]) -> None:
    assert [error for _, error in verify(open_store(str(corpus / "out"))) if error] == []
    assert built["committed"]


def test_contexts_hold_whole_documents_that_follow_each_other(corpus: Path, built: dict[str, Any]) -> None:
    tokens = stage(corpus / "out", "tokens")
    assert tokens["packing"]["documents_cut"] == 0
    assert tokens["padding"] == tokens["packing"]["padding"] < 0.05 * tokens["tokens"]
    ranks = {row["id"]: row["order_rank"] for row in texts(corpus / "out", built, "train").to_pylist()}
    follows = total = 0
    for shard in (s for s in built["shards"] if s["format"] == "tokens_parquet" and "train" in s["path"]):
        windows = pq.read_table(corpus / "out" / shard["path"])
        assert set(pc.list_value_length(windows["input_ids"]).to_pylist()) == {SEQ_LEN}
        assert sorted(windows["context"].to_pylist()) == list(range(windows.num_rows))
        assert windows["context"].to_pylist() != list(range(windows.num_rows))  # shuffled
        for documents in windows["documents"].to_pylist():
            steps = np.diff([ranks[name] for name in documents])
            follows, total = follows + int((steps == 1).sum()), total + len(steps)
    assert follows > 0.5 * total > 0
    assert sum(len(context["documents"]) for context in tokens["contexts"]) > 3


@pytest.fixture(scope="module")
def cut_otherwise(corpus: Path) -> Path:
    """The same documents in other row groups."""
    (corpus / "cut").mkdir()
    for n, path in enumerate(sorted((corpus / "in").iterdir())):
        pq.write_table(pq.read_table(path), corpus / "cut" / f"{n}.parquet", row_group_size=13)
    return corpus / "cut"


@pytest.mark.parametrize("mode", ["icp_fit", "decompose"])
def test_the_same_bytes_whatever_the_layout(
    corpus: Path, more: Path, cut_otherwise: Path, tmp_path: Path, mode: str
) -> None:
    pack = {"pack": {"seq_len": SEQ_LEN, "mode": mode}}
    first = build(prepare(recipe(tmp_path / "first.yaml", [str(corpus / "in")], more, params=pack)))
    workers = {"unit_bytes": 60_000, "memory_bytes": 1 << 26}
    out = corpus / "out-cut"
    again = build(prepare(recipe(tmp_path / "again.yaml", [str(cut_otherwise)], out, params=pack, workers=workers)))
    assert hashes(again) == hashes(first)
    assert indexes(out) == indexes(more)


def indexes(folder: Path) -> list[str]:
    return [entry["sha256"] for entry in stage(folder, "tokens")["indexes"]]


@pytest.mark.parametrize("mode", ["concat_chunk", "best_fit", "decompose"])
def test_every_mode_keeps_every_token(
    corpus: Path, built: dict[str, Any], more: Path, tmp_path: Path, mode: str
) -> None:
    params = {"order": {"method": "icp", "seed": 1}, "pack": {"seq_len": SEQ_LEN, "mode": mode}}
    result = build(prepare(recipe(tmp_path / "r.yaml", [str(corpus / "in")], more, params=params)))
    assert (result["documents"], result["tokens"]) == (built["documents"], built["tokens"])
    assert [error for _, error in verify(open_store(str(more))) if error] == []
    for shard in (s for s in result["shards"] if s["format"] == "megatron"):
        pieces = pq.read_table(more / shard["sidecars"][1]["path"])
        ends = pieces.append_column("n", pc.subtract(pieces["end"], pieces["start"])).sort_by(
            [("id", "ascending"), ("document_start", "ascending")]
        )
        known: dict[str, int] = {}
        for row in ends.to_pylist():  # the pieces of a document follow each other without gaps
            assert row["document_start"] == known.get(row["id"], 0)
            known[row["id"]] = row["document_start"] + row["n"]
        assert sum(known.values()) == shard["tokens"]
        assert len(known) == shard["documents"]


def test_embeddings_alone_are_ordered(tmp_path: Path, ray_session: None) -> None:
    n, dims = 300, 16
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(10, dims)).repeat(n // 10, axis=0)
    found = (centre + 0.1 * rng.normal(size=(n, dims))).astype(np.float32)[rng.permutation(n)]
    column = pa.FixedSizeListArray.from_arrays(found.ravel(), dims)
    ids = [f"v{i}" for i in range(n)]
    pq.write_table(pa.table({"name": ids, "vector": column}), tmp_path / "v.parquet")
    body = recipe(
        tmp_path / "r.yaml",
        [str(tmp_path / "v.parquet")],
        tmp_path / "out",
        fields={"text": False, "id": "name"},
        params={"order": {"column": "vector"}, "tokenizer": "off", "pack": "off"},
        shards={"formats": ["parquet"]},
        splits={},
    )
    result = build(prepare(body))
    ordered = texts(tmp_path / "out", result)
    assert sorted(ordered["id"].to_pylist()) == sorted(ids)
    at = [ids.index(name) for name in ordered["id"].to_pylist()]
    jumps = (np.linalg.norm(np.diff(found[at], axis=0), axis=1) > 2).sum()
    assert jumps < 15  # ten clusters, one after the other
    assert [error for _, error in verify(open_store(str(tmp_path / "out"))) if error] == []


@pytest.mark.parametrize(
    ("order", "key"),
    [({"method": "by_field", "field": "size", "descending": True}, "size"), ({"method": "random"}, None)],
)
def test_orders_without_likeness(
    corpus: Path, more: Path, tmp_path: Path, order: dict[str, Any], key: str | None
) -> None:
    params = {"order": order}
    result = build(prepare(recipe(tmp_path / "r.yaml", [str(corpus / "in")], more, params=params)))
    found = texts(more, result)
    assert found["order_rank"].to_pylist() == list(range(ROWS))
    if key:
        values = found[key].to_pylist()
        assert values == sorted(values, reverse=True)
    else:
        assert found["id"].to_pylist() != sorted(found["id"].to_pylist())


def test_documents_can_be_taken_out_of_contexts(corpus: Path, built: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(corpus / "out", tmp_path / "out")
    store = open_store(str(tmp_path / "out"))
    before = stage(tmp_path / "out", "tokens")
    gone = before["contexts"][0]["documents"][0]["id"]
    result = retract(store, pa.array([gone]))
    assert result["committed"]
    after = stage(tmp_path / "out", "tokens")
    assert after["tokens"] == before["tokens"] - result["builds"][0]["tokens"]
    assert after["packing"]["documents"] == before["packing"]["documents"] - 1
    assert sum(s["documents"] for s in after["sources"].values()) == ROWS - 1
    assert gone not in {doc["id"] for context in after["contexts"] for doc in context["documents"]}
    assert [error for _, error in verify(store) if error] == []


def vectors(folder: Path, name: str, count: int, column: bool = True) -> None:
    """Clustered embeddings, or the same documents without any."""
    rng = np.random.default_rng(count)
    found = rng.normal(size=(5, 8)).repeat(count // 5, axis=0) + 0.1 * rng.normal(size=(count, 8))
    table = pa.table({"id": [f"{name}{n}" for n in range(count)], "order_similarity": np.full(count, 0.5)})
    held = pa.FixedSizeListArray.from_arrays(found.astype(np.float32).ravel(), 8)
    pq.write_table(table.append_column("v", held) if column else table, folder / f"{name}.parquet")


def test_files_without_embeddings_come_last_and_shards_are_cut_by_rows(tmp_path: Path, ray_session: None) -> None:
    vectors(tmp_path, "a", 100)
    vectors(tmp_path, "b", 20, column=False)
    body = recipe(
        tmp_path / "r.yaml",
        [str(tmp_path / "*.parquet")],
        tmp_path / "out",
        fields={"text": False},
        params={"order": {"method": "icp", "column": "v"}, "tokenizer": "off", "pack": "off"},
        shards={"formats": ["parquet"], "tokens_per_shard": 10_000},
        splits={},
    )
    with pytest.raises(RecipeError, match="the input has a column 'order_similarity' already"):
        prepare(body)
    for name in "ab":
        table = pq.read_table(tmp_path / f"{name}.parquet").drop_columns(["order_similarity"])
        pq.write_table(table, tmp_path / f"{name}.parquet")
    result = build(prepare(body))
    found = texts(tmp_path / "out", result)
    assert {name[0] for name in found["id"].to_pylist()[100:]} == {"b"}
    assert found["order_similarity"].null_count == 21
    assert len(result["shards"]) > 2


def test_embeddings_that_are_all_unusable_fail_the_build(tmp_path: Path, ray_session: None) -> None:
    pq.write_table(pa.table({"id": ["a", "b"], "v": [[float("nan")] * 4, [0.0] * 4]}), tmp_path / "v.parquet")
    params = {"order": {"column": "v"}, "tokenizer": "off", "pack": "off"}
    changes = {"fields": {"text": False}, "params": params, "shards": {"formats": ["parquet"]}, "splits": {}}
    body = recipe(tmp_path / "r.yaml", [str(tmp_path / "v.parquet")], tmp_path / "out", **changes)
    with pytest.raises(StageError, match="order: column 'v': none of 2 documents has an embedding that can be used"):
        build(prepare(body))


def test_columns_of_the_users_own_are_no_order(corpus: Path, tmp_path: Path, ray_session: None) -> None:
    """As where the output of one build is the input of another one."""
    table = pq.read_table(corpus / "in" / "b.parquet")
    own = {"order_rank": np.arange(table.num_rows)[::-1], "order_similarity": np.full(table.num_rows, 0.9)}
    for name, values in own.items():
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, tmp_path / "own.parquet")
    body = recipe(tmp_path / "r.yaml", [str(tmp_path / "own.parquet")], tmp_path / "o", params={"order": "off"})
    assert build(prepare(body))["documents"] == table.num_rows
    tokens = stage(tmp_path / "o", "tokens")
    assert tokens["packing"]["links"] == 0
    assert {doc["similarity"] for context in tokens["contexts"] for doc in context["documents"]} == {None}


def test_an_order_of_single_documents_keeps_each_a_sequence(corpus: Path, more: Path, tmp_path: Path) -> None:
    pack = {"pack": {"layout": "documents"}}
    result = build(prepare(recipe(tmp_path / "r.yaml", [str(corpus / "in")], more, params=pack)))
    assert all(shard["sequences"] == shard["documents"] for shard in result["shards"])


def test_what_reads_texts_needs_some(corpus: Path, tmp_path: Path) -> None:
    body = recipe(tmp_path / "r.yaml", [str(corpus / "in")], tmp_path / "out", fields={"text": False})
    with pytest.raises(RecipeError, match="params.order: it reads texts, and with fields.text: false there are none"):
        prepare(body)


def test_recall_below_the_floor_fails_the_build(corpus: Path, more: Path, tmp_path: Path) -> None:
    order = {"lists": 40, "probes": 1, "min_recall": 0.99}
    body = recipe(tmp_path / "r.yaml", [str(corpus / "in")], more, params={"order": order})
    with pytest.raises(StageError, match=r"order: recall is 0\.\d+, .* min_recall is 0.99"):
        build(prepare(body))


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ({"method": "by_field"}, "field: None with method by_field"),
        ({"field": "size"}, "field: 'size' with method greedy_edge"),
        ({"method": "random", "probes": 3}, "probes: has no effect with method random"),
        ({"column": "vector", "dimensions": 512}, "dimensions: 512 has no effect with column"),
        ({"seed": 3}, "seed: has no effect with method greedy_edge"),
        ({"method": "by_field", "field": "nothing"}, "no column 'nothing'"),
    ],
)
def test_parameters_that_do_not_fit_are_named(
    corpus: Path, tmp_path: Path, order: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        prepare(recipe(tmp_path / "r.yaml", [str(corpus / "in")], tmp_path / "out", params={"order": order}))
