"""Small supervised models, trained by fastText itself on the sample, and fastText's own predictions beside ours."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import fasttext
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from operators.models.fasttext import PREFIX, Classifier

SAMPLE = Path(__file__).parents[3] / "workflows" / "sample" / "sample.parquet"
SHORT = 300  # characters


class Recipe(NamedTuple):
    train: dict[str, Any]
    quantise: dict[str, Any] | None = None
    labels: int = 40


SMALL = {"dim": 16, "epoch": 5, "thread": 1, "minCount": 2, "bucket": 2000, "verbose": 0, "lr": 0.5}
RECIPES = {
    "words": Recipe({"loss": "softmax"}),
    "bigrams": Recipe({"loss": "softmax", "wordNgrams": 2, "dim": 10}),
    "tree": Recipe({"loss": "hs", "minn": 2, "maxn": 4}),
    "tree of words, trigrams": Recipe({"loss": "hs", "wordNgrams": 3}),
    "a sigmoid each": Recipe({"loss": "ova", "wordNgrams": 2}),
    "negative sampling": Recipe({"loss": "ns", "minn": 1, "maxn": 3, "wordNgrams": 2}),
    "one length": Recipe({"loss": "softmax", "minn": 3, "maxn": 3, "minCount": 1}),
    "quantised": Recipe({"loss": "softmax", "minn": 2, "maxn": 4}, {"qnorm": False}),
    "quantised, norms apart": Recipe({"loss": "hs", "minn": 2, "maxn": 4}, {"qnorm": True, "dsub": 3}),
    "pruned": Recipe({"loss": "softmax", "minn": 2, "maxn": 4, "wordNgrams": 2}, {"cutoff": 1200, "retrain": True}),
    "pruned, of words": Recipe({"loss": "softmax"}, {"cutoff": 400, "qnorm": True}),
    "all of it": Recipe(
        {"loss": "hs", "minn": 2, "maxn": 3, "wordNgrams": 2},
        {"cutoff": 1000, "qnorm": True, "qout": True, "dsub": 5},
        labels=300,
    ),
}


@functools.cache
def sample() -> list[str]:
    return pq.read_table(SAMPLE, columns=["text"])["text"].to_pylist()  # type: ignore[no-any-return]


@functools.cache
def trained(name: str) -> bytes:
    """The file of a model."""
    recipe = RECIPES[name]
    languages = pq.read_table(SAMPLE, columns=["lang"])["lang"].to_pylist()
    with tempfile.TemporaryDirectory() as folder:
        lines, path = Path(folder, "lines"), Path(folder, "model")
        with lines.open("w", encoding="utf-8") as out:
            for k, (text, language) in enumerate(zip(sample(), languages, strict=True)):
                label = k % recipe.labels if recipe.labels > 40 else language
                out.write(f"{PREFIX}{label} {' '.join(text[:SHORT].split())}\n")
        model = fasttext.train_supervised(str(lines), **SMALL | recipe.train)
        if recipe.quantise is not None:
            model.quantize(str(lines), verbose=0, thread=1, **recipe.quantise)
        model.save_model(str(path))
        return path.read_bytes()


@functools.cache
def ours(name: str) -> Classifier:
    return Classifier(trained(name))


@functools.cache
def stock(name: str) -> Any:
    return stock_model(trained(name))


def stock_model(data: bytes) -> Any:
    """fastText's own reading of a file."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return fasttext.load_model(file.name)


def stock_best(model: Any, texts: list[str]) -> tuple[list[str | None], NDArray[np.float64]]:
    found = [model.f.predict(text.replace("\n", " ") + "\n", 1, 0.0, "strict") for text in texts]
    labels = [f[0][1].removeprefix(PREFIX) if f else None for f in found]
    return labels, np.array([min(f[0][0], 1.0) if f else 0.0 for f in found])


def stock_probability(model: Any, texts: list[str], label: str) -> NDArray[np.float64]:
    found = [dict(map(reversed, model.f.predict(t.replace("\n", " ") + "\n", -1, 0.0, "strict"))) for t in texts]
    return np.array([min(f.get(PREFIX + label, 0.0), 1.0) for f in found])
