"""Train a fastText classifier of two labels (Joulin et al. 2016, arXiv:1607.01759) and measure it on held-out lines.

Equal lines count once, and a line with both labels not at all, so that no line is on both sides of the split. The side
of a line, its place in training and its repetitions follow from a hash of it: the same lines in any order give the
same bytes. fastText trains one example at a time, so the labels alternate at random, and the rarer one is repeated, at
most ten times, while the other is cut to what balances that.

PreSelect's parameters (three epochs at a rate of 0.1) come from 400,000 examples; a few thousand teach nothing at that
rate (every probability stays near 0.5), so small sets get 25 epochs at 0.5.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import fasttext
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from operators.hashes import spread, xxh3_64
from operators.models.fasttext import PREFIX, Classifier
from operators.models.lines import MAX_CHARS, lines_of

MANY = 100_000  # examples from which the parameters of the paper do
MOST_REPEATS = 10
LEAST_HELD_OUT = 10  # lines of each label, below which a measurement says nothing
MIN_BUCKETS, MAX_BUCKETS = 1 << 14, 2_000_000
# Words and n-grams that quantising keeps, those of the longest vectors (Joulin et al. 2016, arXiv:1612.03651, 3.3).
# Most buckets are never trained, and centroids that have to serve these too cost far more (AUC 0.83 in place of 0.99).
MOST_KEPT = 100_000
QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
OTHER = "other"


class TrainingError(ValueError):
    """Examples that nothing can be learned from."""


@dataclass(frozen=True)
class Settings:
    """Parameters of training; None is for what the number of examples decides."""

    label: str = "hq"  # of the positives; the negatives get `other`
    epochs: int | None = None
    learning_rate: float | None = None
    word_ngrams: int = 2
    dimensions: int = 16
    buckets: int | None = None  # rows for word n-grams
    held_out: float = 0.1
    seed: int = 1
    quantize: bool = False
    max_chars: int = MAX_CHARS

    def decided(self, examples: int, words: int) -> Settings:
        """With every parameter set, for as many examples and words of them."""
        many = examples > MANY
        room = 1 << max(0, 2 * words - 1).bit_length()
        return replace(
            self,
            epochs=self.epochs or (3 if many else 25),
            learning_rate=self.learning_rate or (0.1 if many else 0.5),
            buckets=0 if self.word_ngrams == 1 else min(MAX_BUCKETS, max(MIN_BUCKETS, room)),
        )


class Examples(NamedTuple):
    """Lines of one label, each once, in an order of their own."""

    lines: pa.Array
    hash: NDArray[np.uint64]


@dataclass(frozen=True)
class HeldOut:
    """How a model judges lines that it has not seen."""

    auc: float  # of a positive and a negative, the chance that the positive's score is the higher
    precision: float | None  # of what scores at least 0.5; None where nothing does
    recall: float
    positives: int
    negatives: int
    positive_quantiles: dict[str, float]
    negative_quantiles: dict[str, float]


@dataclass(frozen=True)
class Trained:
    """A model as the bytes of its file, and what went into it."""

    model: bytes
    settings: Settings
    counts: dict[str, int]
    held_out: HeldOut


def train(positives: Iterable[pa.Array], negatives: Iterable[pa.Array], settings: Settings) -> Trained:
    """The model for texts of two kinds. Raises TrainingError where there are too few, or fastText gives up."""
    good, good_texts = _examples(positives, settings)
    bad, bad_texts = _examples(negatives, settings)
    counts = {"positive_texts": good_texts, "negative_texts": bad_texts}
    good, bad, counts["in_both"] = _apart(good, bad)
    counts |= {"positive_lines": len(good.hash), "negative_lines": len(bad.hash)}
    (good, good_held), (bad, bad_held) = _split(good, settings.held_out), _split(bad, settings.held_out)
    for name, held, rest in (("positive", good_held, good), ("negative", bad_held, bad)):
        if len(held.hash) < LEAST_HELD_OUT or not len(rest.hash):
            raise TrainingError(
                f"{counts[f'{name}_lines']} different {name} texts, of which {len(held.hash)} are held out; "
                f"at least {LEAST_HELD_OUT} must be, so give more texts or hold out a larger share"
            )
    lines = pa.concat_arrays([good.lines, bad.lines])
    order, label = _schedule(good, bad)
    counts["trained_lines"] = len(order)
    settings = settings.decided(len(good.hash) + len(bad.hash), _words(lines))
    names = np.array([f"{PREFIX}{settings.label} ", f"{PREFIX}{OTHER} "])
    with tempfile.TemporaryDirectory(prefix="corpusmill-train-") as folder:
        path = Path(folder, "lines")
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for at in range(0, len(order), 10_000):
                part = lines.take(pa.array(order[at : at + 10_000])).to_pylist()
                file.writelines(f"{names[k]}{line}\n" for k, line in zip(label[at : at + 10_000], part, strict=True))
        model = Path(folder, "model")
        _fit(path, model, settings)
        data = model.read_bytes()
        return Trained(data, settings, counts, _measure(Classifier(data), settings.label, good_held, bad_held))


def auc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """The area under the ROC curve; equal scores count half."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
    return float(below.sum() / (2.0 * len(positive) * len(negative)))


def _examples(texts: Iterable[pa.Array], settings: Settings) -> tuple[Examples, int]:
    """The different lines among texts in the order of their hashes, and how many texts there were."""
    parts, given = [], 0
    for part in texts:
        given += len(part)
        lines = lines_of(part, settings.max_chars)
        lines = lines.combine_chunks() if isinstance(lines, pa.ChunkedArray) else lines
        parts.append(lines.filter(pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(lines)), 0)))
    lines = pa.concat_arrays(parts).cast(pa.large_string()) if parts else pa.array([], pa.large_string())
    hashes, first = np.unique(xxh3_64(lines, settings.seed), return_index=True)
    return Examples(lines.take(pa.array(first)), hashes), given


def _apart(good: Examples, bad: Examples) -> tuple[Examples, Examples, int]:
    both = np.intersect1d(good.hash, bad.hash, assume_unique=True)
    return _only(good, ~np.isin(good.hash, both)), _only(bad, ~np.isin(bad.hash, both)), len(both)


def _split(examples: Examples, held_out: float) -> tuple[Examples, Examples]:
    """(to train on, held out), by the hash."""
    held = spread(examples.hash) < np.uint64(int(held_out * 2**64))
    return _only(examples, ~held), _only(examples, held)


def _only(examples: Examples, which: NDArray[np.bool_]) -> Examples:
    return Examples(examples.lines.filter(pa.array(which)), examples.hash[which])


def _schedule(good: Examples, bad: Examples) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The lines to train on, as places in the good ones followed by the bad ones, and the label of each (0 is good)."""
    sizes = len(good.hash), len(bad.hash)
    most = min(max(sizes), MOST_REPEATS * min(sizes))
    rows = [np.resize(np.arange(size), most) for size in sizes]  # from the start again where there are fewer
    rounds = [np.arange(most) // size for size in sizes]
    hashes = [example.hash[row] for example, row in zip((good, bad), rows, strict=True)]
    key = spread(np.concatenate(hashes) + np.concatenate(rounds).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    order = np.argsort(key, kind="stable")
    return np.concatenate([rows[0], rows[1] + sizes[0]])[order], np.repeat([0, 1], most)[order]


def _words(lines: pa.Array) -> int:
    return int(pc.sum(pc.add(pc.count_substring(lines, " "), 1)).as_py() or 0)


def _fit(path: Path, model: Path, settings: Settings) -> None:
    options: dict[str, Any] = {
        "epoch": settings.epochs,
        "lr": settings.learning_rate,
        "wordNgrams": settings.word_ngrams,
        "dim": settings.dimensions,
        "bucket": settings.buckets,
        "seed": settings.seed,
    }
    try:
        trained = fasttext.train_supervised(str(path), thread=1, verbose=0, **options)  # more threads race
        if settings.quantize:
            rows = len(trained.words) + (settings.buckets or 0)
            kept = min(MOST_KEPT, rows // 4) if settings.buckets else MOST_KEPT
            trained.quantize(input=str(path), qnorm=True, cutoff=kept, thread=1, verbose=0)
        trained.save_model(str(model))
    except (RuntimeError, ValueError) as error:
        hint = "; a smaller learning rate helps" if "NaN" in str(error) else ""
        raise TrainingError(f"fastText gave up: {error}{hint}") from error


def _measure(model: Classifier, label: str, good: Examples, bad: Examples) -> HeldOut:
    high, low = (np.round(model.probability(part.lines, label), 4) for part in (good, bad))
    chosen, hits = int((high >= 0.5).sum() + (low >= 0.5).sum()), int((high >= 0.5).sum())
    return HeldOut(
        auc=round(auc(high, low), 4),
        precision=round(hits / chosen, 4) if chosen else None,
        recall=round(hits / len(high), 4),
        positives=len(high),
        negatives=len(low),
        positive_quantiles=_quantiles(high),
        negative_quantiles=_quantiles(low),
    )


def _quantiles(scores: NDArray[np.float64]) -> dict[str, float]:
    found = np.quantile(scores, QUANTILES, method="inverted_cdf")
    return {f"{share:g}": round(float(value), 4) for share, value in zip(QUANTILES, found, strict=True)}
