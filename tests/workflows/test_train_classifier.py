"""`corpusmill train quality` as a user gives it: files of every kind in, model and card out, or a refusal."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from typer.main import get_command

from cluster.storage import open_store
from operators.text.quality import Quality
from tests import noise
from tests.workflows.test_cli import Ran, corpusmill
from workflows.train import app as train


def lines(texts: list[str], field: str = "text") -> bytes:
    return b"\n".join(orjson.dumps({"id": f"d{k}", field: text}) for k, text in enumerate(texts)) + b"\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good texts and spam, each in the same three files of other formats."""
    place = tmp_path_factory.mktemp("training")
    for name, texts in zip(("good", "bad"), noise.halves(noise.documents(), noise.spam), strict=True):
        (place / name).mkdir()
        third = len(texts) // 3
        pq.write_table(pa.table({"text": texts[:third]}), place / name / "a.parquet")
        (place / name / "b.jsonl.gz").write_bytes(gzip.compress(lines(texts[third : 2 * third])))
        (place / name / "c.jsonl.zst").write_bytes(zstandard.compress(lines(texts[2 * third : -1])))
        (place / name / "d.txt").write_text(texts[-1], "utf-8")
        with (place / name / "e.jsonl").open("wb") as file:
            file.write(b'{"text": "no end\n{"text": 1}\n')
        (place / name / "notes.docx").write_bytes(b"of no kind that is read")
    return place


def quality(folder: Path, output: Path, *options: object) -> Ran:
    files = ("--positive", folder / "good", "--negative", f"{folder}/bad/*")
    return corpusmill("train", "quality", *files, "--output", output, "--dimensions", 4, "--epochs", 5, *options)


def test_model_and_card(folder: Path, tmp_path: Path) -> None:
    ran = quality(folder, tmp_path / "quality.bin")
    assert (ran.code, ran.err) == (0, "")
    assert "held out: AUC" in ran.out
    assert "not read, bad_json: 2\nnot read, no_text: 2\n" in ran.out
    assert "5 epochs at 0.5, word n-grams up to 2, 4 dimensions" in ran.out
    model, card = (tmp_path / "quality.bin").read_bytes(), orjson.loads((tmp_path / "quality.json").read_bytes())
    assert card["sha256"] == hashlib.sha256(model).hexdigest()
    assert card["held_out"]["auc"] > 0.95
    assert card["labels"] == {"positive": "hq", "negative": "other"}
    assert card["counts"]["positive_lines"] == len(noise.documents()) // 2 - card["counts"]["in_both"]
    assert card["parameters"]["epochs"] == 5
    assert card["unread"] == {"bad_json": 2, "no_text": 2}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["quality.bin", "quality.json"]
    docs = pa.table({"text": pa.array(["Order now, limited offer, free shipping worldwide"], pa.large_string())})
    (score,) = Quality(model=str(tmp_path / "quality.bin"))(docs)["quality_score"].to_pylist()  # type: ignore[arg-type]
    assert score < 0.5


def test_the_same_files_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        quality(folder, tmp_path / name / "q.ftz")
    for file in ("q.ftz", "q.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_model_that_learned_nothing_is_refused_and_not_written(folder: Path, tmp_path: Path) -> None:
    good = tmp_path / "same.jsonl"
    texts = noise.documents()
    good.write_bytes(lines(texts[::2]))
    (tmp_path / "other.jsonl").write_bytes(lines(texts[1::2]))
    out = tmp_path / "out"
    out.mkdir()
    files = ("--positive", good, "--negative", tmp_path / "other.jsonl", "--output", out / "q.bin")
    ran = corpusmill("train", "quality", *files, "--dimensions", 4, "--held-out", 0.3, "--min-auc", 0.9)
    assert ran.code == 3
    assert "below --min-auc 0.9" in ran.err
    assert "was not written" in ran.err
    assert not list(out.iterdir())


def test_the_card_as_json(folder: Path, tmp_path: Path) -> None:
    ran = quality(folder, tmp_path / "t.bin", "--label", "toxic", "--json")
    assert ran.json == orjson.loads((tmp_path / "t.json").read_bytes())
    assert ran.json["labels"]["positive"] == "toxic"


def test_another_field(tmp_path: Path) -> None:
    for name, texts in zip(("good", "bad"), noise.halves(noise.documents(), noise.spam), strict=True):
        (tmp_path / f"{name}.jsonl").write_bytes(lines(texts, "content"))
    files = (
        "--positive",
        tmp_path / "good.jsonl",
        "--negative",
        tmp_path / "bad.jsonl",
        "--output",
        tmp_path / "q.bin",
    )
    assert corpusmill("train", "quality", *files, "--text", "content", "--dimensions", 4, "--epochs", 3).code == 0
    ran = corpusmill("train", "quality", *files)
    assert ran.code == 2
    assert "--positive" in ran.err
    assert "no document in there" in ran.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--output", "q.model"], "--output q.model: the name of a model ends in .ftz or .bin"),
        (["--output", "no/folder/q.bin"], "no such folder"),
        (["--held-out", "1"], "--held-out 1: a share between 0 and 1"),
        (["--min-auc", "1.5"], "--min-auc 1.5: from 0 to 1"),
        (["--learning-rate", "0"], "--learning-rate 0.0: above 0"),
        (["--label", "__label__hq x"], "--label __label__hq x: of letters, digits and _"),
        (["--label", "other"], "that is what the negatives get"),
        (["--positive", "nowhere.jsonl"], "--positive nowhere.jsonl: no such file or folder"),
        (["--negative", "page.html"], "--negative"),
        (["--negative", "letter.docx"], "of no kind that can be read"),
        (["--positive", "few.txt", "--held-out", "0.5"], "1 different positive texts"),
    ],
)
def test_what_does_not_fit_is_told_with_code_2(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.html").write_text("<p>text</p>")
    (tmp_path / "letter.docx").write_bytes(b"")
    (tmp_path / "few.txt").write_text("few")
    given = {"--positive": str(folder / "good"), "--negative": str(folder / "bad"), "--output": "q.bin"}
    given |= dict(zip(options[::2], options[1::2], strict=True))
    ran = corpusmill("train", "quality", *(part for pair in given.items() for part in pair))
    assert ran.code == 2
    assert told in ran.err
    assert not (tmp_path / "q.bin").exists()


def test_files_in_object_storage(folder: Path, tmp_path: Path, s3: str) -> None:
    store = open_store(s3)
    for kind in ("good", "bad"):
        for file in (folder / kind).iterdir():
            store.write(f"{kind}/{file.name}", file.read_bytes())
    files = ("--positive", f"{s3}/good", "--negative", f"{s3}/bad/*", "--output", tmp_path / "quality.bin")
    ran = corpusmill("train", "quality", *files, "--dimensions", 4, "--epochs", 5, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["sha256"] == quality(folder, tmp_path / "local.bin", "--json").json["sha256"]


@pytest.mark.parametrize("command", ["quality", "preselect"])
def test_the_page_names_every_option_with_its_default(command: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text("utf-8")
    for option in get_command(train).commands[command].params:  # type: ignore[attr-defined]
        assert f"`{option.opts[0]}`" in page
        if command == "quality" and isinstance(option.default, (int, float)) and not isinstance(option.default, bool):
            assert re.search(rf"`{option.opts[0]}`[^|]*\| {option.default:g} \|", page)
