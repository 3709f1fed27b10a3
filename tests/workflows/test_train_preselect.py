"""`corpusmill train preselect`: from losses and benchmarks, and from the family that stands in for real models."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import noise
from tests.workflows.test_cli import corpusmill
from workflows.recipe import RecipeError
from workflows.train_preselect import _sampled, choose, read_benchmarks, read_losses

MODELS = ("small", "middle", "large")
FAST = ("--dimensions", 4, "--epochs", 10, "--held-out", 0.2)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)) + b"\n")
    return path


def pieces(words: int = 120) -> list[str]:
    """Real documents, cut so that there are enough of them."""
    found = []
    for text in noise.documents():
        split = text.split()
        found += [" ".join(split[k : k + words]) for k in range(0, max(1, len(split) - words // 2), words)]
    return found


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of which the losses on the clean ones fall as models grow, those on spam do not."""
    place = tmp_path_factory.mktemp("preselect")
    good, bad = noise.halves(noise.documents(), noise.spam)
    texts = [{"id": f"d{k:04}", "text": text, "url": f"https://h{k % 5}.org/{k}"} for k, text in enumerate(good + bad)]
    write(place / "texts.jsonl", texts)
    draw = np.random.default_rng(1)
    falling = draw.uniform(100, 200, (len(texts), 1)) * np.array([[1.0, 0.9, 0.8]])
    falling[len(good) :] = falling[len(good) :, ::-1]
    columns = {"id": [row["id"] for row in texts]} | dict(zip(MODELS, falling.T, strict=True))
    pq.write_table(pa.table(columns), place / "losses.parquet")
    (place / "bench.csv").write_text("model,mmlu,arc\nsmall,20,30\nlarge,50,60\nmiddle,30,40\n")
    return place


def test_losses_that_rank_models_as_benchmarks_do(measured: Path, tmp_path: Path) -> None:
    files = ("--losses", measured / "losses.parquet", "--benchmarks", measured / "bench.csv")
    files += ("--texts", measured / "texts.jsonl", "--output", tmp_path / "p.bin")
    ran = corpusmill("train", "preselect", *files, *FAST, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["measures"] == ran.json["labels"]["positive"] == "predictive_strength"
    assert ran.json["models"] == {"small": 25, "large": 55, "middle": 35}
    assert ran.json["concordant_in_all_pairs"] == len(noise.documents()) // 2
    assert ran.json["highest_of_negatives"] == 0
    assert ran.json["held_out"]["auc"] > 0.95
    again = corpusmill("train", "preselect", *files, *FAST)
    assert again.code == 0
    assert ran.json["sha256"] in again.out
    fewer = corpusmill("train", "preselect", *files, *FAST, "--per-domain", 100, "--domains", 2, "--json")
    assert fewer.json["documents"] == 200


def test_a_family_of_small_models_measures_likeness_and_says_so(tmp_path: Path) -> None:
    draw = Random(2)
    texts = pieces()
    draw.shuffle(texts)
    half = len(texts) // 2
    write(tmp_path / "ref.jsonl", [{"text": text} for text in texts[:half]])
    shuffled = [{"id": f"s{k}", "text": noise.shuffled(text, draw)} for k, text in enumerate(texts[half::2])]
    clean = [{"id": f"c{k}", "text": text} for k, text in enumerate(texts[half + 1 :: 2])]
    write(tmp_path / "texts.jsonl", shuffled + clean)
    files = ("--reference", tmp_path / "ref.jsonl", "--texts", tmp_path / "texts.jsonl")
    files += ("--output", tmp_path / "p.bin")
    ran = corpusmill("train", "preselect", "--family", "n-gram", *files, *FAST)
    assert (ran.code, ran.err) == (0, "")
    assert "likeness to the reference collection, not a prediction" in ran.out
    card = orjson.loads((tmp_path / "p.json").read_bytes())
    assert card["measures"] == card["labels"]["positive"] == "domain_affinity"
    scores = list(card["models"].values())
    assert scores == sorted(scores)  # the more a model has read, the better
    assert card["held_out"]["auc"] > 0.8


def test_the_choice_of_positives_and_negatives() -> None:
    ids = pl.Series([f"d{k}" for k in range(9)][::-1])
    strength = np.array([1, 1, 1, 0.5, 0.5, 0.5, 0.1, np.nan, 1])
    positive, negative = choose(ids, strength, 1)
    assert set(positive.tolist()) == {0, 1, 2, 8}
    assert negative.tolist() == [6, 5, 4, 3]  # the lowest, ties by id
    few, all_others = choose(ids, np.array([1, 1, 1, 1, 1, 1, 1, 0.9, 0.2]), 1)
    assert all_others.tolist() == [8, 7]
    assert len(few) == 2
    order = np.random.default_rng(2).permutation(9)
    again = choose(ids[order], strength[order], 1)
    assert [sorted(order[rows].tolist()) for rows in again] == [[0, 1, 2, 8], [3, 4, 5, 6]]


def test_domains_are_sampled_by_frequency_and_hash() -> None:
    domains = ["a"] * 5 + ["b"] * 3 + ["c"] * 3 + ["d"]
    docs = pl.DataFrame({"id": [f"d{k}" for k in range(12)], "text": ["t"] * 12, "domain": domains})
    taken = _sampled(docs, 2, 3, 1)
    assert sorted(taken["domain"]) == ["a"] * 3 + ["b"] * 3  # b before c: ties by name
    assert set(_sampled(docs.sample(fraction=1, shuffle=True, seed=3), 2, 3, 1)["id"]) == set(taken["id"])
    assert set(_sampled(docs, 2, 2, 1)["id"]) < set(taken["id"])
    alike = docs.with_columns(domain=pl.lit(""))
    assert _sampled(alike, 1, 1, 1).equals(alike)


@pytest.mark.parametrize(
    ("name", "content", "scores"),
    [
        ("b.json", '{"x": 1, "y": {"mmlu": 2, "arc": 4}}', {"x": 1, "y": 3}),
        ("b.csv", "model,score\nx,1\ny,3\n", {"x": 1, "y": 3}),
        ("b.csv", "model,mmlu,arc\r\nx,0,2\r\ny,2,4\r\n\r\n", {"x": 1, "y": 3}),
        ("b.csv", "model,score\nx,1\ny,1\n", "the same score"),
        ("b.csv", "model,score\nx,1\n", "two models or more"),
        ("b.csv", "model,score\nx,1\ny,nan\n", "finite scores"),
        ("b.csv", "model,score\nx,one\ny,2\n", "not scores of models"),
        ("b.json", "[1, 2]", "not scores of models"),
        ("b.json", '{"x": null, "y": 1}', "not scores of models"),
        ("b.json", "{", "not scores of models"),
    ],
)
def test_benchmarks(tmp_path: Path, name: str, content: str, scores: dict[str, float] | str) -> None:
    path = tmp_path / name
    path.write_text(content)
    if isinstance(scores, str):
        with pytest.raises(RecipeError, match=scores):
            read_benchmarks(path)
        return
    models, found = read_benchmarks(path)
    assert dict(zip(models, found, strict=True)) == scores


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"id": ["a"], "x": [1.0]}, "no column 'y'; it has id, x"),
        ({"x": [1.0], "y": [1.0]}, "no column 'id'"),
        ({"id": ["a", "a"], "x": [1.0, 2.0], "y": [1.0, 2.0]}, "id 'a' stands there more than once"),
        ({"id": ["a"], "x": ["low"], "y": [1.0]}, "low"),
    ],
)
def test_losses_that_do_not_fit(tmp_path: Path, columns: dict[str, list[Any]], told: str) -> None:
    path = tmp_path / "losses.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(RecipeError, match=told):
        read_losses(path, ["x", "y"])


def test_a_loss_that_is_missing_is_nan(tmp_path: Path) -> None:
    path = tmp_path / "losses.parquet"
    pq.write_table(pa.table({"id": [1, 2], "x": [1.0, None], "y": pa.array([3, 4], pa.int32()), "z": ["", ""]}), path)
    rows, losses = read_losses(path, ["y", "x"])
    assert rows.rows() == [("1", 0), ("2", 1)]
    assert losses.tolist()[0] == [3, 1]
    assert np.isnan(losses[1]).tolist() == [False, True]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "give --losses and --benchmarks, or --family n-gram and --reference"),
        (["--losses", "l.parquet"], "give --losses and --benchmarks"),
        (["--family", "n-gram"], "--family n-gram and --reference go together"),
        (["--reference", "r.txt"], "--family n-gram and --reference go together"),
        (["--family", "n-gram", "--reference", "few.txt", "--losses", "l.parquet"], "give one or the other"),
        (["--family", "n-gram", "--reference", "few.txt"], "--reference: 1 different documents; 100 are needed"),
        (["--losses", "no.parquet", "--benchmarks", "bench.csv"], "--losses no.parquet"),
        (["--losses", "bench.csv", "--benchmarks", "bench.csv"], "--losses bench.csv"),
        (["--losses", "losses.parquet", "--benchmarks", "no.csv"], "--benchmarks no.csv"),
        (["--losses", "losses.parquet", "--benchmarks", "bench.csv", "--texts", "few.txt"], "no id of it is among"),
    ],
)
def test_what_does_not_fit_is_told_with_code_2(
    measured: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: list[str], told: str
) -> None:
    monkeypatch.chdir(measured)
    (measured / "few.txt").write_text("few words")
    given = {"--texts": "texts.jsonl", "--output": str(tmp_path / "p.bin")}
    given |= dict(zip(options[::2], options[1::2], strict=True))
    ran = corpusmill("train", "preselect", *(part for pair in given.items() for part in pair))
    assert ran.code == 2
    assert told in ran.err
    assert not list(tmp_path.iterdir())
