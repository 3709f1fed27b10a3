"""`corpusmill train perplexity`: an n-gram language model of text files, counted and estimated on Ray.

Passes of units of work over files in a working folder, as a build's: `words` to `vocabulary` count and rank words,
`windows` sends the n-gram at each token to the partition of its last two words, `counts` makes of these the counts of
all orders, `totals` sums for each context what follows it, and `model` estimates and writes (language_model.py and
language_model_estimate.py). An interrupted run goes on where it ended; the model's bytes depend on the texts and the
settings only.

A process holds `memory` bytes of an exchange at most, unless n-grams that end in the same two words are more. The
model itself has to fit one process, some 150 bytes an n-gram of the largest order.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pydantic
from rich.console import Console

from cluster.session import session
from cluster.storage import open_store
from cluster.units import Record, Task, run_units
from operators.phases import DOCUMENTS, MEMORY, SHARE
from operators.read.span import Fields
from operators.text.language_model import ROW_BYTES, SPECIAL, LanguageModel
from operators.text.language_model_estimate import discounts
from operators.text.language_model_tokens import FORM
from workflows.global_stage import PhaseReduce, row_file
from workflows.inputs import snapshot
from workflows.language_model_passes import (
    CONTEXTS,
    CountsReduce,
    ModelFold,
    Only,
    Ranked,
    RankedWords,
    Texts,
    VocabularyFold,
    WindowsMap,
    WordsMap,
    sums_of_contexts,
)
from workflows.map_stage import check_inputs, input_columns, plan_reading
from workflows.progress import console_progress
from workflows.recipe import FieldNames, Input, Recipe, RecipeError, Workers
from workflows.stage import Job, Progress, Stage

NAME = "perplexity"
REVISION = 1  # raise it when the passes change, so that what an interrupted run left is not used


def train_perplexity(  # noqa: PLR0913
    files: Sequence[str],
    output: Path,
    model: LanguageModel,
    text: str = "text",
    only: Only | None = None,
    memory: int = MEMORY,
    work: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train on the texts of `files` (paths, folders, globs) and write the model to `output`; what it was made of and
    how large it is.

    Needs a session (cluster/session.py). `work` is a folder or s3:// address for what is exchanged, which all workers
    must reach; by default a folder beside the output, gone when the model is there. Raises RecipeError.
    """
    began = time.perf_counter()
    if not output.name.endswith((".arpa", ".arpa.gz")):
        raise RecipeError(f"output: {output}: the name of a model ends in .arpa or .arpa.gz")
    if not output.parent.is_dir():
        raise RecipeError(f"output: {output.parent} is no folder")
    folder = work or f"{output}.corpusmill-work"
    job = _job(files, folder, text, only, memory, progress or Progress())
    known = {"form": FORM, "revision": REVISION, "model": asdict(model), "only": only, "text": text, "memory": memory}
    known["inputs"] = [[item["rel"], item["version"], item["source"]] for item in job.inputs]
    basis = hashlib.sha256(orjson.dumps(known)).hexdigest()[:16]
    result = _Training(job, basis, model, only, memory).run(output.name)
    with job.store.local(result["key"]) as there:
        made = output.with_name(f".{output.name}.{secrets.token_hex(4)}")
        shutil.copyfile(there / result.pop("key"), made)
        os.replace(made, output)
    if work is None:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        job.store.delete([stored.key for stored in job.store.list(basis)])
    return {"model": str(output), **result, "seconds": round(time.perf_counter() - began, 1)}


def settings(order: int, prune: str, vocabulary: int, tokens: str) -> LanguageModel:
    """The model to train, from arguments of the command. Raises RecipeError."""
    try:
        least = tuple(int(count) for count in prune.split())
        return LanguageModel(order=order, prune=least, vocabulary=vocabulary, tokens=tokens)  # type: ignore[arg-type]
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise RecipeError(f"{first['loc'][0]}: {first['msg']}, got {first['input']!r}") from error
    except ValueError as error:
        raise RecipeError(f"prune: expected counts, as in '0 0 1', got {prune!r}") from error


def run(  # noqa: PLR0913
    files: Sequence[str],
    output: Path,
    model: LanguageModel,
    text: str,
    only: str | None,
    memory: int,
    work: str | None,
    address: str | None,
) -> dict[str, Any]:
    """`train_perplexity` in a session of its own, with its progress on standard error."""
    column, equals, value = (only or "").partition("=")
    if only is not None and not (column and equals):
        raise RecipeError(f"only: expected COLUMN=VALUE, got {only!r}")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with console_progress(console) as progress:
        progress.started("starting Ray", "", 1)
        with session(address):
            rows = (column, value) if only else None
            return train_perplexity(files, output, model, text, rows, memory, work, progress)


def _job(files: Sequence[str], folder: str, text: str, only: Only | None, memory: int, progress: Progress) -> Job:
    """The inputs, checked as a build's are."""
    recipe = Recipe(
        inputs=[Input(path=file) for file in files],
        output=folder,
        fields=FieldNames(text=text),
        workers=Workers(memory_bytes=memory),
    )
    inputs, _ = snapshot(recipe)
    if pages := next((item["url"] for item in inputs if item["format"] in ("warc", "html")), None):
        raise RecipeError(f"files: {pages} holds pages: build a corpus of their text first, and train on that")
    job = Job(open_store(folder), recipe, inputs, progress)
    check_inputs(job)
    if only and only[0] not in (have := input_columns(job)):
        raise RecipeError(f"only: no column {only[0]!r}; there are: {', '.join(sorted(have))}")
    return job


@dataclass
class _Training:
    """The passes over one set of inputs; what they leave lies below the folder `basis`."""

    job: Job
    basis: str
    model: LanguageModel
    only: Only | None
    memory: int
    records: list[Record] = field(default_factory=list)

    def run(self, name: str) -> dict[str, Any]:
        """All passes: the key of a model of that name in the store, and what is known of it."""
        store, model, at = self.job.store, self.model, self._folder
        works = plan_reading(Stage(NAME, None, ()), self.job, at("plan"), self.records)
        texts = Texts(store, Fields(text=str(self.job.recipe.fields.text)), self.only)

        parts = self._partitions(sum(item["size"] for item in self.job.inputs))
        words = self._pass("words", works, WordsMap(texts, at("words"), model, parts))
        keys = [row_file(at("words"), n) for n in range(len(works))]
        self._pass(
            "ranks",
            list(range(parts)),
            PhaseReduce(store, at("ranks"), Ranked(model.vocabulary), {DOCUMENTS: keys}, ()),
        )
        ranks = [row_file(at("ranks"), p) for p in range(parts)]
        [ranked] = self._pass("vocabulary", [ranks], VocabularyFold(store, at("vocabulary"), model))
        if not ranked["words"]:
            raise RecipeError("files: there is not one token to train on")
        listed = RankedWords(store, row_file(at("vocabulary"), 0))

        parts = self._partitions(sum(record["tokens"] for record in words) * ROW_BYTES)
        mapped = self._pass("windows", works, WindowsMap(texts, at("windows"), model, listed, parts))
        rows = tuple(key for record in mapped for key in record["keys"])
        sums = parts * max(1, model.order - 2)  # partitions of contexts, of which each order between has as many
        counts = self._pass("counts", list(range(parts)), CountsReduce(store, at("counts"), model, rows, sums))
        contexts = [row_file(f"{at('counts')}/{CONTEXTS}", p) for p in range(parts)]
        self._pass(
            "totals", list(range(sums)), PhaseReduce(store, at("totals"), sums_of_contexts, {DOCUMENTS: contexts}, ())
        )

        histogram = np.sum([record["histogram"] for record in counts], axis=0)
        sizes = np.sum([record["sizes"] for record in counts], axis=0).tolist()
        sizes[0] = ranked["words"] + len(SPECIAL)
        known = {"histogram": histogram.tolist(), "sizes": sizes, "lines": sum(r["lines"] for r in counts)}
        known["tokens"] = sum(record["tokens"] for record in mapped)
        work = known | {"name": name, "counts": parts, "totals": sums}
        [made] = self._pass("model", [work], ModelFold(store, at("model"), at("counts"), at("totals"), listed, model))
        return {
            "key": made["key"],
            "bytes": made["bytes"],
            "sha256": made["sha256"],
            "documents": sum(record["documents"] for record in mapped),
            "quarantined": sum(record["quarantined"] for record in mapped),
            "lines": known["lines"],
            "tokens": known["tokens"],
            "ngrams": sizes,
            "discounts": [discounts(one) for one in histogram],  # of order 2 and up
            "cpu_seconds": round(sum(record["cpu_seconds"] for record in self.records), 1),
            "peak_rss_bytes": max(record["peak_rss_bytes"] for record in self.records),
        }

    def _folder(self, name: str) -> str:
        return f"{self.basis}/{name}"

    def _partitions(self, size: int) -> int:
        """As many as it takes for one to be a small part of the memory of a process."""
        return max(1, -(-size * SHARE // self.memory))

    def _pass(self, name: str, works: Sequence[Any], task: Task) -> list[Record]:
        self.job.progress.started(NAME, name, len(works))
        done = run_units(self.job.store, self._folder(name), works, task, f"{NAME}[{name}]", self.job.progress.unit)
        self.records += done
        return done
