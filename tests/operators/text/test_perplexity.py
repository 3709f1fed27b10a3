from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
import pytest

from operators.models.arpa import Evaluator as Loaded
from operators.text.language_model import LanguageModel
from operators.text.language_model_estimate import train
from operators.text.perplexity import Perplexity

ENGLISH = ["the cat sat on the mat\nthe dog ran", "a dog sat on the cat\nthe cat ran"]
GERMAN = ["die Katze sitzt auf der Matte", "der Hund läuft um die Katze"]
LEAST_AUC = 0.97


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    settings = LanguageModel(order=3, prune=(0,))
    english = train(pa.array(ENGLISH), folder / "en.arpa", settings)
    german = train(pa.array(GERMAN), folder / "de.arpa.gz", settings)
    return {"en": str(english), "de": str(german)}


def table(rows: list[tuple[str | None, str | None]]) -> pa.Table:
    texts, languages = ([row[k] for row in rows] for k in (0, 1))
    return pa.table({"text": pa.array(texts, pa.large_string()), "language": pa.array(languages, pa.string())})


def scores(operator: Perplexity, rows: list[tuple[str | None, str | None]]) -> list[float | None]:
    done = operator(table(rows))
    assert "drop_reason" not in done.column_names
    assert done["perplexity"].type == pa.float32()
    found: list[float | None] = done["perplexity"].to_pylist()
    return found


def test_each_language_has_its_model(models: dict[str, str]) -> None:
    operator = Perplexity(models=models)  # type: ignore[arg-type]
    english, german, other = "the cat ran on the mat", "der Hund sitzt auf der Katze", "un chat"
    found = scores(
        operator,
        [(english, "en"), (english, "de"), (german, "de"), (other, "fr"), (english, None), ("", "en"), (None, "de")],
    )
    assert found[0] < found[1] > found[2]  # type: ignore[operator]
    assert found[3:] == [None, None, None, None]
    alone = Loaded(Path(models["en"]).read_bytes()).perplexity(pa.array([english], pa.large_string()))
    assert found[0] == alone[0].as_py()
    assert operator.needs == ("text", "language")
    assert operator.adds == operator.measures == ("perplexity",)


def test_a_model_for_all_other_languages(models: dict[str, str]) -> None:
    rows = [("the cat", "en"), ("the cat", "fr"), ("the cat", None), ("der Hund", "de")]
    both = scores(Perplexity(models={"*": models["en"], "de": models["de"]}), rows)  # type: ignore[dict-item]
    assert both[0] == both[1] == both[2] is not None
    assert both[3] == scores(Perplexity(models=models), rows)[3]  # type: ignore[arg-type]
    alone = Perplexity(models={"*": models["en"]})  # type: ignore[dict-item]
    assert alone.needs == ("text",)
    assert alone(table(rows).drop_columns(["language"]))["perplexity"].to_pylist()[:3] == both[:3]


def test_a_row_counts_for_itself(models: dict[str, str], sample: Path) -> None:
    operator = Perplexity(models={"*": models["en"]})  # type: ignore[dict-item]
    docs = pq.read_table(sample / "sample.parquet", columns=["text"]).slice(0, 200)
    cut = pa.concat_tables([operator(docs.slice(at, 7)) for at in range(0, 200, 7)])
    assert cut["perplexity"].to_pylist() == operator(docs)["perplexity"].to_pylist()
    assert operator(docs.slice(0, 0))["perplexity"].type == pa.float32()


def test_parameters(models: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(pydantic.ValidationError, match="models"):
        Perplexity(models={})
    with pytest.raises(pydantic.ValidationError, match="no such file: nowhere.arpa"):
        Perplexity(models={"en": "nowhere.arpa"})  # type: ignore[dict-item]
    broken = tmp_path / "broken.arpa"
    broken.write_bytes(Path(models["en"]).read_bytes()[:-30])
    with pytest.raises(pydantic.ValidationError, match=r"models\.en: .*broken\.arpa: it is cut off"):
        Perplexity(models={"en": str(broken)})  # type: ignore[dict-item]


def auc(low: list[float], high: list[float]) -> float:
    """The share of pairs that are in order, ties half."""
    return float(np.mean([[0.5 * (a == b) + (a < b) for b in high] for a in low]))


def test_prose_is_told_from_the_same_words_shuffled(sample: Path, tmp_path: Path) -> None:
    words = pl.col("text").str.count_matches(r"\S+")
    prose = words > 8 * (1 + pl.col("text").str.count_matches("\n+"))  # the others are lists and tables
    english = (pl.col("lang") == "en") & ~pl.col("source").str.starts_with("dict:")
    docs = pl.read_parquet(sample / "sample.parquet").filter(english, pl.col("text").str.len_chars() > 400, prose)
    docs = docs.unique("text").sort(pl.col("id").str.reverse())["text"].to_list()
    held, trained = docs[:100], docs[100:]
    path = train(pa.array(trained, pa.large_string()), tmp_path / "sample.arpa.gz")
    operator = Perplexity(models={"*": str(path)})  # type: ignore[dict-item]
    random = np.random.default_rng(1)
    shuffled = [" ".join(random.permutation(text.split())) for text in held]
    held = [" ".join(text.split()) for text in held]
    found = scores(operator, [(text, None) for text in held + shuffled])
    assert auc(found[:100], found[100:]) >= LEAST_AUC  # type: ignore[arg-type]
