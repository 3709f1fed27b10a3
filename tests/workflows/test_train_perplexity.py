from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cluster.units import Record
from operators.text.language_model import LanguageModel
from operators.text.language_model_estimate import train
from workflows import train_perplexity as training
from workflows.cli import app
from workflows.recipe import RecipeError
from workflows.stage import Progress
from workflows.train_perplexity import train_perplexity

pytestmark = pytest.mark.usefixtures("ray_session")
LEAST_MEMORY = 1 << 26
MODEL = LanguageModel(order=4)


@pytest.fixture(scope="module")
def texts(sample: Path) -> pa.ChunkedArray:
    return pq.read_table(sample / "sample.parquet", columns=["text"])["text"]


@pytest.fixture(scope="module")
def expected(texts: pa.ChunkedArray, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The model of the sample, made in this process alone."""
    return train(texts, tmp_path_factory.mktemp("alone") / "model.arpa", MODEL).read_bytes()


def lay_out(folder: Path, texts: pa.ChunkedArray) -> None:
    """The same texts in files of several kinds, in another order."""
    folder.mkdir()
    rows = [orjson.dumps({"text": text}) for text in texts.slice(0, 300).to_pylist()]
    (folder / "z.jsonl.gz").write_bytes(gzip.compress(b"\n".join(rows), mtime=0))
    pq.write_table(pa.table({"text": texts.slice(300, 900), "x": [1] * 900}), folder / "b.parquet", row_group_size=100)
    pq.write_table(pa.table({"text": texts.slice(1200)}), folder / "a.parquet")


def test_the_same_bytes_whatever_the_files_and_the_memory(
    texts: pa.ChunkedArray, expected: bytes, sample: Path, s3: str, tmp_path: Path
) -> None:
    one = train_perplexity([str(sample / "sample.parquet")], tmp_path / "one.arpa", MODEL)
    assert (tmp_path / "one.arpa").read_bytes() == expected
    lay_out(tmp_path / "texts", texts)
    many = train_perplexity([str(tmp_path / "texts")], tmp_path / "many.arpa", MODEL, memory=LEAST_MEMORY, work=s3)
    assert (tmp_path / "many.arpa").read_bytes() == expected
    assert one["sha256"] == many["sha256"] == hashlib.sha256(expected).hexdigest()
    assert one["documents"] == many["documents"] == len(texts)
    heads = dict(line.split(b"=") for line in expected.split(b"\n")[2:10] if line.startswith(b"ngram"))
    assert [int(size) for size in heads.values()] == one["ngrams"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many.arpa", "one.arpa", "texts"]


class Recorded(Progress):
    """The records of each pass."""

    def __init__(self) -> None:
        self.passes: dict[str, list[Record]] = {}

    def started(self, stage: str, what: str, units: int) -> None:
        self.passes[what] = self._last = []

    def unit(self, record: Record) -> None:
        self._last.append(record)


def test_an_interrupted_run_goes_on(
    expected: bytes, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, output = [str(sample / "sample.parquet")], tmp_path / "model.arpa"
    first, second = Recorded(), Recorded()
    passed = training._Training._pass

    def interrupted(self: Any, name: str, works: Any, task: Any) -> Any:
        if name == "counts":
            raise KeyboardInterrupt
        return passed(self, name, works, task)

    with monkeypatch.context() as patch:
        patch.setattr(training._Training, "_pass", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_perplexity(files, output, MODEL, progress=first)
    assert not output.exists()
    train_perplexity(files, output, MODEL, progress=second)
    assert {name: second.passes[name] for name in first.passes} == first.passes  # their seconds too
    assert output.read_bytes() == expected


def test_rows_that_are_asked_for_and_rows_that_cannot_be_read(texts: pa.ChunkedArray, tmp_path: Path) -> None:
    chosen = texts.slice(0, 20)
    rows = [orjson.dumps({"body": text, "lang": "en"}) for text in chosen.to_pylist()]
    rows += [
        b'{"body": "kein Englisch", "lang": "de"}',
        b'{"body": "no language"}',
        b'{"body": "broken',
        b'{"body": "a\\u0000"}',
    ]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(rows))
    files, output = [str(tmp_path / "rows.jsonl")], tmp_path / "model.arpa.gz"
    card = train_perplexity(files, output, MODEL, text="body", only=("lang", "en"))
    assert (card["documents"], card["quarantined"]) == (20, 2)
    assert output.read_bytes() == train(chosen, tmp_path / "alone.arpa.gz", MODEL).read_bytes()
    with pytest.raises(RecipeError, match="no column 'language'; there are: .*lang"):
        train_perplexity(files, output, MODEL, text="body", only=("language", "en"))


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["train", "perplexity", *arguments])
    error = "" if result.exception is None else f"{type(result.exception).__name__}: {result.exception}"
    return result.exit_code, result.stdout, error + result.stderr


def test_the_command(sample: Path, tmp_path: Path) -> None:
    output = tmp_path / "model.arpa"
    code, told, _ = run(
        str(sample / "sample.parquet"), "--output", str(output), "--order", "2", "--prune", "0 1",
        "--vocabulary", "50", "--tokens", "characters", "--only", "lang=fr", "--json",
    )  # fmt: skip
    assert code == 0
    card = orjson.loads(told)
    assert card["ngrams"][0] == 53
    assert (
        output.read_text("utf-8")
        .split("\n")[0]
        .startswith('# {"corpusmill":"perplexity","form":1,"order":2,"prune":[0,1]')
    )
    code, told, _ = run(str(sample / "sample.parquet"), "--output", str(output), "--only", "lang=xx", "--order", "2")
    assert code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "model.bin"], "model.bin: the name of a model ends in .arpa or .arpa.gz"),
        (["--output", "nowhere/model.arpa"], "nowhere is no folder"),
        (["--prune", "0 2 1"], "prune: 0 2 1"),
        (["--prune", "few"], "prune: expected counts, as in '0 0 1', got 'few'"),
        (["--vocabulary", "9999999"], "vocabulary: .* got 9999999"),
        (["--only", "lang"], "only: expected COLUMN=VALUE, got 'lang'"),
        (["--only", "lang=xx"], "not one token"),
        (["--text", "body"], "body"),
    ],
)
def test_bad_arguments(
    arguments: list[str], message: str, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output = [] if "--output" in arguments else ["--output", "model.arpa"]
    _, _, error = run(str(sample / "sample.parquet"), *arguments, *output)
    assert error.startswith("RecipeError")
    assert re.search(message, error)
    assert not (tmp_path / "model.arpa").exists()


def test_pages_are_refused(sample: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="holds pages"):
        train_perplexity([str(sample / "sample.warc.gz")], tmp_path / "model.arpa", MODEL)
    with pytest.raises(RecipeError, match="no such file"):
        train_perplexity([str(tmp_path / "nothing.txt")], tmp_path / "model.arpa", MODEL)
