"""Selection end to end: a scored build, its variants, and a build of one of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.storage import open_store
from operators.models.fasttext import LID_176
from operators.retracted import Ids
from tests.workflows.corpora import recipe
from tests.workflows.test_cli import corpusmill
from workflows.build import build, prepare
from workflows.corpus import newest_build
from workflows.gates import GateRefused
from workflows.recipe import RecipeError
from workflows.variants import _file_name, load_variants, make_variants
from workflows.verify import verify

NOBODY = Ids(pa.array([], pa.large_string()))
RULES = ("language", "gopher_repetition", "gopher_quality", "c4", "fineweb")
OFF = dict.fromkeys(RULES, "off") | {"minhash_dedup": "off", "tokenizer": "off"}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    """A corpus of 200 documents with scores of the user's own, kept whole."""
    folder = tmp_path_factory.mktemp("scored")
    rows = {
        "id": [f"d{n:03d}" for n in range(200)],
        "text": [f"Document {n} says something of its own. " * (1 + n % 7) for n in range(200)],
        "my_score": [None if n % 50 == 49 else (n * 37 % 200) / 200 for n in range(200)],
        "source": [("books", "web", "news")[n % 3] for n in range(200)],
        "date": [None if n % 10 == 0 else f"20{10 + n % 10}-03-01T00:00:00Z" for n in range(200)],
    }
    for part in range(2):
        table = pa.table(rows).slice(part * 100, 100)
        pq.write_table(table, folder / f"part{part}.parquet")
    build(prepare(made(folder, "all")))
    return folder


def made(folder: Path, name: str, **more: Any) -> Path:
    params = OFF | more.pop("params", {})
    inputs = [{"path": str(folder / f"part{part}.parquet"), "source": f"part{part}"} for part in range(2)]
    shards = {"formats": ["parquet"]}
    return recipe(folder / f"{name}.yaml", inputs, folder / f"out-{name}", params=params, shards=shards, **more)


def ids_of(folder: Path, name: str) -> list[str]:
    store = open_store(str(folder / f"out-{name}"))
    shards = [shard for shard in newest_build(store)["shards"] if shard["format"] == "parquet"]
    return sorted(
        i for shard in shards for i in pq.read_table(folder / f"out-{name}" / shard["path"])["id"].to_pylist()
    )


def test_a_budget_is_kept_and_explained_whatever_the_units(scored: Path) -> None:
    params = {"select": {"by": "my_score", "keep": 0.1}}
    for name, workers in (("ten", {}), ("ten-small", {"unit_bytes": 2048})):
        result = build(prepare(made(scored, name, params=params, workers=workers)))
        [select] = [stage for stage in result["stages"] if stage["name"] == "select"]
        assert select["dropped"].keys() == {"select/no_score", "select/not_selected"}
        assert not [error for _, error in verify(open_store(str(scored / f"out-{name}"))) if error]
    assert ids_of(scored, "ten") == ids_of(scored, "ten-small")
    manifest = newest_build(open_store(str(scored / "out-ten")))
    stage = next(stage for stage in manifest["stages"] if stage["name"] == "select")
    [operator] = stage["operators"]
    assert sum(operator["measured"]["my_score"].values()) == 196
    kept = stage["characters"]["kept"]
    scorable = 196 / 200 * stage["characters"]["in"]
    assert abs(kept - 0.1 * scorable) < 400


def test_a_rule_beyond_its_bound_fails_the_build_with_examples_and_goes_on_with_another(scored: Path) -> None:
    params = {"select": {"by": "my_score", "keep": 0.1}}
    strict = made(scored, "guarded", params=params, gates={"max_drop": {"select/not_selected": 0.5}})
    with pytest.raises(GateRefused, match=r"select/not_selected dropped \d+ of 200 documents \(\d+\.\d%\).*\n  d\d+"):
        build(prepare(strict))
    loose = made(scored, "guarded", params=params, gates={"max_drop": {"select": 1.0}})
    result = build(prepare(loose))
    assert [stage["cached"] for stage in result["stages"]] == [True, True, True, True, False]
    with pytest.raises(
        RecipeError, match=r"gates.max_drop.selekt: no operator of that name is on; there are: .*select"
    ):
        prepare(made(scored, "guarded", params=params, gates={"max_drop": {"selekt": 1.0}}))


VARIANTS = """
variants:
  mild: {select: {by: my_score, keep: 0.9}}
  strict: {select: {by: my_score, keep: 0.3}}
  not-strict: {inverse_of: strict}
  books: {only: {source: [part0]}, since: "2012-01-01", before: "2018-01-01"}
leave_one_out: source
"""


def test_variants_nest_complement_and_can_be_built(scored: Path, tmp_path: Path) -> None:
    asked = tmp_path / "variants.yaml"
    asked.write_text(VARIANTS, "utf-8")
    done = corpusmill("variants", str(scored / "out-all"), str(asked), "--json")
    told = done.json
    ids = {one["name"]: _ids(scored / "out-all", one) for one in told["variants"]}
    every = set(ids_of(scored, "all"))
    assert ids["strict"] < ids["mild"] < every
    assert ids["not-strict"] == every - ids["strict"]
    assert ids["books"] == {f"d{n:03d}" for n in range(100) if 2 <= n % 10 < 8}
    assert ids["without-part0"] | ids["without-part1"] == every
    assert not ids["without-part0"] & ids["without-part1"]
    strict = next(one for one in told["variants"] if one["name"] == "strict")
    assert strict["documents"] == len(ids["strict"]) == sum(strict["source"].values())
    files = [str(scored / "out-all" / file["path"]) for file in strict["files"]]
    build(prepare(made(scored, "strict", params={"only_ids": {"files": files}})))
    assert set(ids_of(scored, "strict")) == ids["strict"]
    again = make_variants(
        open_store(str(scored / "out-all")),
        newest_build(open_store(str(scored / "out-all"))),
        load_variants(asked),
        NOBODY,
    )
    assert again["manifest"] == told["manifest"]


def _ids(out: Path, variant: dict[str, Any]) -> set[str]:
    return {i for file in variant["files"] for i in pq.read_table(out / file["path"])["id"].to_pylist()}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("variants: {a: {select: {by: nothing}}}", "has no column 'nothing'; there are: .*my_score"),
        (
            "variants: {a: {select: {by: my_score, keep: 2}}}",
            "variants.a.select.keep: .*less than or equal to 1, got 2",
        ),
        ("variants: {a: {inverse_of: b}}", "inverse_of: 'b' is no variant"),
        ("variants: {a: {since: 2020}}", "variants.a.since: .*got 2020"),
        ("variants: {a: {onyl: {}}}", "variants.a.onyl: .*only"),
        ("{}", "names no variants"),
    ],
)
def test_wrong_variants_are_refused_by_name(scored: Path, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "variants.yaml").write_text(text, "utf-8")
    store = open_store(str(scored / "out-all"))
    with pytest.raises(RecipeError, match=told):
        make_variants(store, newest_build(store), load_variants(tmp_path / "variants.yaml"), NOBODY)


def test_an_operator_does_not_write_over_a_column_of_the_input(scored: Path, tmp_path: Path) -> None:
    table = pq.read_table(scored / "part0.parquet").rename_columns({"my_score": "toxicity_score"})
    pq.write_table(table, tmp_path / "part0.parquet")
    pq.write_table(table, tmp_path / "part1.parquet")
    with pytest.raises(RecipeError, match="params.toxicity: the input has a column 'toxicity_score'"):
        prepare(made(tmp_path, "twice", params={"toxicity": "on"}))


def test_operators_do_not_write_over_each_others_columns(scored: Path) -> None:
    model = {"model": LID_176.path, "label": "en", "column": "toxicity_score"}
    with pytest.raises(RecipeError, match="params.toxicity: quality adds a column 'toxicity_score' already"):
        prepare(made(scored, "thrice", params={"quality": model, "toxicity": "on"}))


def test_parts_of_a_document_share_its_url(scored: Path) -> None:
    with pytest.raises(RecipeError, match="params.exact_dedup_url: documents that segment cuts share a URL"):
        prepare(made(scored, "urls", params={"segment": "on", "exact_dedup_url": "on"}))


def test_nights_select_from_what_is_new(scored: Path, tmp_path: Path) -> None:
    params = OFF | {"select": {"by": "my_score", "keep": 0.5, "unit": "documents"}}
    body = {"params": params, "shards": {"formats": ["parquet"]}}
    nights = recipe(tmp_path / "nights.yaml", [str(tmp_path / "in" / "*.parquet")], tmp_path / "out", **body)
    (tmp_path / "in").mkdir()
    kept = []
    for part in range(2):
        (tmp_path / "in" / f"part{part}.parquet").write_bytes((scored / f"part{part}.parquet").read_bytes())
        night = corpusmill("nightly", nights, "--json")
        assert night.code == 0, night.err
        kept.append(night.json["documents"])
    assert kept == [49, 49]  # two of each hundred have no score
    store = open_store(str(tmp_path / "out"))
    assert not [error for _, error in verify(store) if error]
    gone = next(f"d{n:03d}" for n in range(100) if (n * 37 % 200) / 200 < 0.1 and n % 50 != 49)
    told = corpusmill("why", tmp_path / "out", gone, "--json").json
    assert (told["stage"], told["operator"], told["reason"]) == ("select", "select", "not_selected")
    assert told["value"] < told["threshold"]


def test_a_selector_can_use_what_an_operator_of_its_stage_adds(scored: Path) -> None:
    params = {"topic": {"clusters": 2}, "select": {"by": "topic_score", "keep": 0.5, "unit": "documents"}}
    result = build(prepare(made(scored, "topics", params=params)))
    assert result["documents"] == 100
    stage = newest_build(open_store(str(scored / "out-topics")))["stages"][-2]
    topic, select = stage["operators"]
    assert topic["measured"] == select["measured"]
    assert sum(select["measured"]["topic_score"].values()) == 200


def test_scores_that_are_no_numbers_or_not_there_are_no_scores(tmp_path: Path, ray_session: None) -> None:
    lines = [{"id": f"n{n}", "text": f"Some words of document {n}.", "my_score": str(n)} for n in range(8)]
    lines += [{"id": "bad", "text": "Words whose score is no number.", "my_score": "n/a"}]
    (tmp_path / "part0.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    (tmp_path / "part1.jsonl").write_text('{"id": "none", "text": "A file in which no row has one."}\n', "utf-8")
    body = {"params": OFF | {"select": {"by": "my_score", "min": 4}}, "shards": {"formats": ["parquet"]}}
    body |= {"workers": {"unit_bytes": 1024}, "output": tmp_path / "out"}
    out = body.pop("output")
    files = [str(tmp_path / f"part{part}.jsonl") for part in range(2)]
    result = build(prepare(recipe(tmp_path / "r.yaml", files, out, **body)))
    [select] = [stage for stage in result["stages"] if stage["name"] == "select"]
    assert (select["kept"], select["dropped"]) == (4, {"select/below_min": 4, "select/no_score": 2})


def test_a_bound_on_a_later_stage_does_not_stand_in_the_way_of_an_earlier_one(scored: Path) -> None:
    gated = made(scored, "until", gates={"max_drop": {"exact_dedup": 0.9}})
    assert prepare(gated, until="clean").stage.name == "clean"


def test_variants_of_a_retracted_build_do_not_list_what_was_retracted(scored: Path, tmp_path: Path) -> None:
    store = open_store(str(scored / "out-all"))
    (tmp_path / "variants.yaml").write_text("{variants: {all: {}}, leave_one_out: language}", "utf-8")
    asked = load_variants(tmp_path / "variants.yaml")
    with pytest.raises(RecipeError, match="no column 'language'"):
        make_variants(store, newest_build(store), asked, NOBODY)
    (tmp_path / "variants.yaml").write_text("variants: {all: {}}", "utf-8")
    made = make_variants(store, newest_build(store), load_variants(tmp_path / "variants.yaml"), Ids(pa.array(["d000"])))
    assert (made["documents"], made["variants"][0]["documents"]) == (199, 199)


def test_generated_names_do_not_hide_others(scored: Path, tmp_path: Path) -> None:
    store = open_store(str(scored / "out-all"))
    (tmp_path / "variants.yaml").write_text("{variants: {without-part0: {}}, leave_one_out: source}", "utf-8")
    with pytest.raises(RecipeError, match="without-part0 would leave out 'part0', and there is a variant of that name"):
        make_variants(store, newest_build(store), load_variants(tmp_path / "variants.yaml"), NOBODY)


def test_values_of_any_script_have_a_variant_each(scored: Path, tmp_path: Path) -> None:
    assert len({_file_name(value) for value in ("a b", "a-b", "或", "如", "", "-", "a")}) == 7
    assert _file_name("books") == "books"
    (tmp_path / "variants.yaml").write_text("leave_one_out: id", "utf-8")
    store = open_store(str(scored / "out-all"))
    asked = load_variants(tmp_path / "variants.yaml")
    assert len(make_variants(store, newest_build(store), asked, NOBODY)["variants"]) == 200
    (tmp_path / "variants.yaml").write_text("leave_one_out: text", "utf-8")


def test_an_empty_file_is_no_trouble(tmp_path: Path, ray_session: None) -> None:
    (tmp_path / "empty.jsonl").write_bytes(b"")
    (tmp_path / "some.jsonl").write_text('{"id": "a", "text": "Some words are here."}\n', "utf-8")
    files = [str(tmp_path / name) for name in ("empty.jsonl", "some.jsonl")]
    result = build(
        prepare(recipe(tmp_path / "r.yaml", files, tmp_path / "out", params=OFF, shards={"formats": ["parquet"]}))
    )
    assert result["documents"] == 1
