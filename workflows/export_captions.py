"""Copy the captions of a build out in tables such as AudioSetCaps publishes: `captions.csv` (id, caption, and which
part of which recording that is) and `questions.csv` (id, question_1, answer_1, ...). Audio stays where it is."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from cluster.audio_formats import short
from cluster.shards import TEXT_FORMAT
from cluster.storage import Store
from workflows.recipe import RecipeError
from workflows.stage import Manifest

CAPTION = ("id", "text", "recording", "start", "end")
QUESTIONS = "qa"


def export_captions(store: Store, manifest: Manifest, destination: Path) -> list[Path]:
    """Write the tables, in the order of the shards. The destination must not exist or be empty."""
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise RecipeError(f"{destination} is not empty")
    destination.mkdir(parents=True, exist_ok=True)
    captions, questions = destination / "captions.csv", destination / "questions.csv"
    most = max((len(row[QUESTIONS]) for row in _rows(store, manifest)), default=0)
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("w", encoding="utf-8", newline="")) for path in (captions, questions)]
        first, second = (csv.writer(file, lineterminator="\n") for file in files)
        first.writerow(["id", "caption", *CAPTION[2:]])
        second.writerow(["id", *(f"{what}_{n + 1}" for n in range(most) for what in ("question", "answer"))])
        for row in _rows(store, manifest):
            first.writerow([row[name] for name in CAPTION])
            pairs = [text for pair in row[QUESTIONS] for text in (pair["question"], pair["answer"])]
            second.writerow([row["id"], *pairs, *[""] * (2 * most - len(pairs))])
    return [captions, questions]


def _rows(store: Store, manifest: Manifest) -> Iterator[dict[str, Any]]:
    """The clips of all shards, without their audio."""
    shards = [shard for shard in manifest["shards"] if shard["format"] == TEXT_FORMAT]
    if not shards:
        raise RecipeError(f"build {manifest['build_id']} has no shards of format {TEXT_FORMAT}")
    for shard in shards:
        with store.open(shard["path"]) as source, pq.ParquetFile(source) as file:
            names = file.schema_arrow.names
            if missing := [name for name in ("recording", "caption_score") if name not in names]:
                raise RecipeError(f"build {manifest['build_id']} has no captions: its documents lack {missing[0]}")
            wanted = [*CAPTION, *([QUESTIONS] if QUESTIONS in names else [])]
            for number in range(file.num_row_groups):
                group = file.read_row_group(number, columns=wanted)
                columns = {name: short(group[name]) for name in wanted}
                for values in zip(*(column.to_pylist() for column in columns.values()), strict=True):
                    yield {QUESTIONS: []} | {
                        name: value for name, value in zip(wanted, values, strict=True) if value is not None
                    }
