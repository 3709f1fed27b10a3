"""`corpusmill train preselect`: a fastText classifier of documents whose loss predicts what models can do (PreSelect,
Shum et al. 2025, arXiv:2503.00808).

Given the losses of several language models on each document and a benchmark score of each model, a document for which
every better model has the lower loss is a positive, and as many documents with the lowest share of such pairs are the
negatives. Before that at most 300 documents of each of the 3,000 most frequent domains are taken, as in the paper.

Without losses of real models, `--family n-gram` makes some with small language models of ever larger parts of a
reference collection. Such a model says how near a text is to that collection, and is labelled so.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from operators.hashes import xxh3_64
from operators.models.classifier_training import Settings
from operators.models.concordance import concordance
from operators.models.ngram_family import SHARES, family, losses, tokens_of
from operators.read.span import Fields
from operators.text.url_filter import host_of
from workflows.recipe import RecipeError
from workflows.train_classifier import check_arguments, documents, fit_and_write

PREDICTIVE, AFFINITY = "predictive_strength", "domain_affinity"
TEST_SHARE = 0.1  # of the reference collection: ranks the family, and no member has read it
LEAST_REFERENCE = 100  # documents


@dataclass(frozen=True)
class Sources:
    """Where losses come from: tables of them, or a family of models on a reference collection."""

    losses: Path | None
    benchmarks: Path | None
    reference: tuple[str, ...]


def sources_of(
    losses: Path | None, benchmarks: Path | None, family: str | None, reference: Sequence[str] | None
) -> Sources:
    """What the options name. Raises RecipeError unless that is one of the two."""
    real, stand_in = losses is not None or benchmarks is not None, family is not None or bool(reference)
    if real and stand_in:
        raise RecipeError("--family and --reference stand in for --losses and --benchmarks: give one or the other")
    if stand_in and not (family and reference):
        raise RecipeError("--family n-gram and --reference go together")
    if not stand_in and not (losses and benchmarks):
        raise RecipeError("give --losses and --benchmarks, or --family n-gram and --reference")
    return Sources(losses, benchmarks, tuple(reference or ()))


def train_preselect(
    texts: Sequence[str],
    output: Path,
    sources: Sources,
    sample: tuple[int, int],
    settings: Settings,
    min_auc: float,
    text: str,
) -> dict[str, Any]:
    """Trains, writes model and card, and returns the card. `sample` is how many domains, and documents of each.

    Raises RecipeError for bad arguments or files, GateRefused for a model below `min_auc`.
    """
    settings = replace(settings, label=AFFINITY if sources.reference else PREDICTIVE)
    check_arguments(output, settings, min_auc)
    unread: Counter[str] = Counter()
    if sources.reference:
        docs = _sampled(_read(texts, "--texts", Fields(text=text), unread), *sample, settings.seed)
        models, table, scores = _of_family(
            docs, _read(sources.reference, "--reference", Fields(text=text), unread), settings.seed
        )
    else:
        assert sources.losses is not None
        assert sources.benchmarks is not None
        models, scores = read_benchmarks(sources.benchmarks)
        ids, table = read_losses(sources.losses, models)
        docs = _read(texts, "--texts", Fields(text=text), unread).join(ids, "id", "inner", maintain_order="left")
        if docs.is_empty():
            raise RecipeError(f"--losses {sources.losses}: no id of it is among the texts")
        docs = _sampled(docs, *sample, settings.seed)
        table = table[docs["row"].to_numpy()]
    strength = concordance(table, scores)
    positive, negative = choose(docs["id"], strength, settings.seed)
    about = {
        "unread": unread,
        "models": {name: round(float(score), 6) for name, score in zip(models, scores, strict=True)},
        "documents": len(docs),
        "without_a_loss": int(np.isnan(strength).sum()),
        "concordant_in_all_pairs": int((strength == 1).sum()),
        "highest_of_negatives": round(float(strength[negative].max(initial=0.0)), 4),
    }
    chosen = _texts(docs["text"], positive), _texts(docs["text"], negative)
    return fit_and_write("preselect", chosen, output, settings, min_auc, {"measures": settings.label, **about})


def choose(ids: pl.Series, strength: NDArray[np.float64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of positives (all pairs concordant) and of as many negatives (the lowest shares, ties by id). Where there
    are fewer negatives, the positives are a sample."""
    hashes = xxh3_64(ids.to_arrow(), seed)
    best = np.flatnonzero(strength == 1)
    rest = np.flatnonzero(strength < 1)
    by_id = np.argsort(ids.to_numpy()[rest], kind="stable")
    rest = rest[by_id][np.argsort(strength[rest][by_id], kind="stable")]
    size = min(len(best), len(rest))
    return best[np.argsort(hashes[best], kind="stable")][:size], rest[:size]


def read_benchmarks(path: Path) -> tuple[list[str], NDArray[np.float64]]:
    """The models and the mean score of each: JSON {model: score or {benchmark: score}}, or CSV with a head whose first
    column is the model. Raises RecipeError, for models that the scores do not rank too."""
    try:
        data = path.read_text("utf-8-sig")
        if path.suffix == ".json":
            found = {name: _mean(value) for name, value in orjson.loads(data).items()}
        else:
            found = {row[0]: _mean(row[1:]) for row in list(csv.reader(data.splitlines()))[1:] if row}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RecipeError(f"--benchmarks {path}: not scores of models: {error}") from error
    scores = np.array(list(found.values()))
    if len(found) < 2 or not np.isfinite(scores).all():
        raise RecipeError(f"--benchmarks {path}: finite scores of two models or more are needed")
    if len(np.unique(scores)) < len(scores):
        raise RecipeError(f"--benchmarks {path}: models with the same score cannot be told apart; leave one out")
    return list(found), scores


def _mean(value: Any) -> float:
    values = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return float(np.mean([float(v) for v in values])) if values else float("nan")


def read_losses(path: Path, models: Sequence[str]) -> tuple[pl.DataFrame, NDArray[np.float64]]:
    """(id and row, losses row by row): Parquet with a column `id` and one of numbers for each model. RecipeError."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise RecipeError(f"--losses {path}: {error}") from error
    if missing := [name for name in ("id", *models) if name not in table.column_names]:
        raise RecipeError(f"--losses {path}: no column {missing[0]!r}; it has {', '.join(table.column_names)}")
    try:
        columns = [table[name].cast(pa.float64()).to_numpy() for name in models]
        ids = pl.Series("id", table["id"].cast(pa.string()))
    except pa.ArrowException as error:
        raise RecipeError(f"--losses {path}: {error}") from error
    if ids.is_duplicated().any():
        raise RecipeError(f"--losses {path}: id {ids.filter(ids.is_duplicated())[0]!r} stands there more than once")
    rows = pl.DataFrame({"id": ids, "row": np.arange(len(ids))})
    return rows.drop_nulls(), np.column_stack(columns) if len(ids) else np.zeros((0, len(models)))


def _of_family(
    docs: pl.DataFrame, reference: pl.DataFrame, seed: int
) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """(models, their losses on the documents, their scores) of n-gram models: a score is minus the bits a character of
    reference texts that none of them has read."""
    known = reference.unique("text", keep="first", maintain_order=True)
    if len(known) < LEAST_REFERENCE:
        raise RecipeError(f"--reference: {len(known)} different documents; {LEAST_REFERENCE} are needed")
    order = np.argsort(xxh3_64(known["text"].to_arrow(), seed), kind="stable")
    test, rest = np.split(order, [int(TEST_SHARE * len(order))])
    read = tokens_of(known["text"].to_arrow())
    members = family(read, rest)
    unread, texts = (tokens_of(column.to_arrow()) for column in (known["text"][test], docs["text"]))
    characters = int(known["text"][test].str.len_chars().sum())
    scores = np.array([-np.nansum(losses(member, unread)) / characters for member in members]).round(6)
    if len(np.unique(scores)) < len(scores):
        raise RecipeError("--reference: too little for models of different strength")
    names = [f"trigrams-{share:g}" for share in SHARES]
    return names, np.column_stack([losses(member, texts) for member in members]), scores


def _read(paths: Sequence[str], option: str, fields: Fields, unread: Counter[str]) -> pl.DataFrame:
    """id, text and domain (host of the URL, else the source) of documents, each id once."""
    parts = []
    for table in documents(paths, fields, option, unread):
        host = pl.Series(host_of(table["url"])).replace("", None)
        part = pl.DataFrame({"id": pl.Series(table["id"]), "text": pl.Series(table["text"])})
        parts.append(part.with_columns(domain=pl.coalesce(host, pl.Series(table["source"]), pl.lit(""))))
    docs = pl.concat(parts).drop_nulls("text")
    return docs.filter(pl.col("text") != "").unique("id", keep="first", maintain_order=True)


def _sampled(docs: pl.DataFrame, domains: int, per_domain: int, seed: int) -> pl.DataFrame:
    """Of the most frequent domains (ties by name) as many documents each, by a hash of the id; all where no document
    has a domain."""
    if docs["domain"].n_unique() == 1:
        return docs
    frequent = docs.group_by("domain").len().sort(["len", "domain"], descending=[True, False]).head(domains)
    docs = docs.with_columns(hash=pl.Series(xxh3_64(docs["id"].to_arrow(), seed)))
    docs = docs.join(frequent, "domain", "semi").sort("hash", "id")
    return docs.filter(pl.int_range(pl.len()).over("domain") < per_domain)


def _texts(texts: pl.Series, rows: NDArray[np.int64]) -> Iterator[pa.Array]:
    yield texts[rows].to_arrow()
