"""`corpusmill train quality`: a fastText classifier from files of good and of bad texts, for the scorer `quality`.

Beside the model lies a card, a JSON file that says what it was made of and how it judges texts it has not seen. A model
that tells the two kinds apart no better than asked for is not written.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from cluster.inputs import list_inputs, open_input
from operators.models.classifier_training import OTHER, Settings, Trained, TrainingError, train
from operators.models.lines import HARMLESS
from operators.read.reader import read
from operators.read.span import Fields, ReadError, Span, format_of, is_audio
from workflows.gates import GateRefused
from workflows.recipe import RecipeError

PAGES = ("warc", "html")  # need a parser that runs apart: extract first


def train_quality(
    positive: Sequence[str], negative: Sequence[str], output: Path, settings: Settings, min_auc: float, text: str
) -> dict[str, Any]:
    """Trains on the files that paths, folders and globs name, writes model and card, and returns the card.

    Raises RecipeError for bad arguments or files, GateRefused for a model below `min_auc`.
    """
    check_arguments(output, settings, min_auc)
    unread: Counter[str] = Counter()
    good = texts_of(documents(positive, Fields(text=text), "--positive", unread))
    bad = texts_of(documents(negative, Fields(text=text), "--negative", unread))
    return fit_and_write("quality", (good, bad), output, settings, min_auc, {"unread": unread})


def fit_and_write(
    kind: str,
    texts: tuple[Iterator[pa.Array], Iterator[pa.Array]],
    output: Path,
    settings: Settings,
    min_auc: float,
    about: dict[str, Any],
) -> dict[str, Any]:
    """Trains on (positive, negative) texts, refuses or writes; `about` goes into the card."""
    try:
        trained = train(*texts, settings)
    except TrainingError as error:
        raise RecipeError(str(error)) from error
    card = {"kind": kind, **about, **_card(trained, output)}
    if trained.held_out.auc < min_auc:
        raise GateRefused(
            f"held-out AUC {trained.held_out.auc:.4f} is below --min-auc {min_auc:g}: the model tells "
            f"{settings.label} from {OTHER} too badly to be of use, and was not written"
        )
    _write(output, trained.model)
    _write(card_of(output), orjson.dumps(card, option=orjson.OPT_INDENT_2) + b"\n")
    return card


def card_of(model: Path) -> Path:
    """Where the card of a model is."""
    return model.with_suffix(".json")


def check_arguments(output: Path, settings: Settings, min_auc: float) -> None:
    """Raises RecipeError, naming the option and its value."""
    rate, label = settings.learning_rate, settings.label
    to = f"--output {output}"
    good = {
        f"{to}: the name of a model ends in .ftz or .bin": output.suffix in (".ftz", ".bin"),
        f"{to}: no such folder: {output.parent}": output.parent.is_dir(),
        f"{to}: a folder, or its card would be": not (output.is_dir() or card_of(output).is_dir()),
        f"--label {label}: of letters, digits and _": bool(re.fullmatch(r"[A-Za-z0-9_]+", label)),
        f"--label {label}: that is what the negatives get": label != OTHER,
        f"--held-out {settings.held_out:g}: a share between 0 and 1": 0 < settings.held_out < 1,
        f"--min-auc {min_auc:g}: from 0 to 1": 0 <= min_auc <= 1,
        f"--learning-rate {rate}: above 0, at most 10": rate is None or 0 < rate <= 10,
    }
    for told, holds in good.items():
        if not holds:
            raise RecipeError(told)


def documents(patterns: Sequence[str], fields: Fields, option: str, unread: Counter[str]) -> Iterator[pa.Table]:
    """The documents of files as recipes read them, in batches; what cannot be read is counted in `unread`, by reason.
    Raises RecipeError."""
    seen = 0
    for pattern in patterns:
        try:
            files = list_inputs(pattern)
        except OSError as error:
            raise RecipeError(f"{option} {pattern}: {error}") from error
        for file in files:
            kind = format_of(file.rel)
            if kind in PAGES:
                raise RecipeError(f"{option} {file.url}: pages; take their text, as `corpusmill export` writes it")
            if kind is None or is_audio(kind):
                if len(files) > 1:
                    continue
                raise RecipeError(f"{option} {file.url}: of no kind that can be read")
            span = Span(file.url, file.rel, kind, 0, -1, file.size, None, 0, 1.0)
            try:
                for batch in read(span, open_input, fields):
                    seen += batch.docs.num_rows
                    unread.update(batch.quarantined["reason"].to_pylist())
                    yield batch.docs
            except (ReadError, OSError) as error:
                raise RecipeError(f"{option} {file.url}: {error}") from error
    if not seen:
        raise RecipeError(f"{option} {' '.join(patterns)}: no document in there")


def texts_of(tables: Iterator[pa.Table]) -> Iterator[pa.Array]:
    """The texts of documents, a batch at a time."""
    for table in tables:
        yield table["text"].combine_chunks()


def _card(trained: Trained, output: Path) -> dict[str, Any]:
    chosen = asdict(trained.settings)
    label, max_chars = chosen.pop("label"), chosen.pop("max_chars")
    return {
        "model": output.name,
        "sha256": hashlib.sha256(trained.model).hexdigest(),
        "bytes": len(trained.model),
        "labels": {"positive": label, "negative": OTHER},
        "counts": trained.counts,
        "parameters": chosen,
        "held_out": asdict(trained.held_out),
        "normalisation": {"max_chars": max_chars, "lower_case": False, "replaced": dict(HARMLESS)},
    }


def _write(path: Path, data: bytes) -> None:
    """All of it under its name, or nothing."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RecipeError(f"--output {path}: {error.strerror or error}") from error
