"""The passes of `corpusmill train perplexity` over its units: what each reads from the store and writes to it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cluster.exchange import open_partition, read_table, write_partitions, write_table
from cluster.storage import Store
from cluster.units import Record, peak_rss_bytes
from operators.document import loaded
from operators.hashes import spread
from operators.phases import DOCUMENTS, Rows, partition_of
from operators.read.span import Fields
from operators.text.language_model import (
    BITS,
    LanguageModel,
    Vocabulary,
    adjusted,
    summed,
    top_words,
    totals,
    vocabulary,
    windows,
)
from operators.text.language_model_estimate import Counts, save
from operators.text.language_model_tokens import counted, hashes
from workflows.global_stage import row_file
from workflows.map_stage import MapTask

HELD_ROWS = 1 << 21  # windows of a unit in memory before they go to a file
HELD_WORDS = 1 << 20  # different words of a batch or more, likewise before they are merged
EVERY = 1 << 62
CONTEXTS = "contexts"
CHUNK = 1 << 24
Only = tuple[str, str]  # a column, and the value that rows must have in it


@dataclass(frozen=True)
class Texts:
    """Reads the texts of a unit of input."""

    store: Store
    fields: Fields
    only: Only | None

    def __call__(self, work: Any, record: Record) -> Iterator[pa.ChunkedArray]:
        """Batches of texts; adds to the record what there was."""
        record |= {"documents": 0, "quarantined": 0}
        for batch in MapTask(self.store, "", (), False, self.fields, True).batches(work):
            docs = batch.docs
            if self.only and self.only[0] in docs.column_names:
                docs = docs.filter(pc.equal(docs[self.only[0]].cast(pa.large_string()), self.only[1]))
            elif self.only:
                docs = docs.slice(0, 0)
            record["documents"] += docs.num_rows
            record["quarantined"] += batch.quarantined.num_rows
            yield docs["text"]


@dataclass(frozen=True)
class WordsMap:
    """The words of a unit and how often they occur, to the partitions of their hashes."""

    texts: Texts
    folder: str
    model: LanguageModel
    partitions: int

    def __call__(self, number: int, work: Any) -> Record:
        record: Record = {}
        held: list[pa.Table] = []
        for texts in self.texts(work, record):
            held.append(counted(texts, self.model.tokens))
            if sum(table.num_rows for table in held) > HELD_WORDS + 2 * held[0].num_rows:
                held = [top_words(held, EVERY)]
        table = top_words(held or [counted(pa.array([], pa.large_string()))], EVERY)
        partition = partition_of(table["key"].to_numpy(), self.partitions)
        write_partitions(self.texts.store, row_file(self.folder, number), table, partition, self.partitions)
        tokens = (pc.sum(table["count"]).as_py() or 0) + record["documents"]
        return record | {"tokens": tokens, "peak_rss_bytes": peak_rss_bytes()}


@dataclass(frozen=True)
class Ranked:
    """A reduce: the most frequent words of a partition; more than the vocabulary takes are not needed of any."""

    most: int

    def __call__(self, parts: Rows) -> pa.Table:
        return top_words([parts[DOCUMENTS]], self.most)


@dataclass(frozen=True)
class VocabularyFold:
    """The most frequent words of all partitions, one partition in memory at a time."""

    store: Store
    folder: str
    model: LanguageModel

    def __call__(self, number: int, work: list[str]) -> Record:
        top = read_table(self.store, work[0])
        for key in work[1:]:
            top = top_words([top, read_table(self.store, key)], self.model.vocabulary)
        write_table(self.store, row_file(self.folder, number), top)
        return {"words": top.num_rows, "peak_rss_bytes": peak_rss_bytes()}


@dataclass(frozen=True)
class RankedWords:
    """The vocabulary in the store."""

    store: Store
    key: str

    def load(self) -> Vocabulary:
        return vocabulary(read_table(self.store, self.key))


@dataclass(frozen=True)
class WindowsMap:
    """The n-grams of the highest order of a unit, to the partitions of their last two words."""

    texts: Texts
    folder: str
    model: LanguageModel
    vocabulary: RankedWords
    partitions: int

    def __call__(self, number: int, work: Any) -> Record:
        words: Vocabulary = loaded(self.vocabulary)
        record: Record = {"tokens": 0, "keys": []}
        held: list[pl.DataFrame] = []
        for texts in self.texts(work, record):
            rows = windows(hashes(texts, self.model.tokens), words, self.model.order)
            record["tokens"] += len(rows)
            held.append(rows)
            if sum(map(len, held)) > HELD_ROWS:
                record["keys"].append(self._write(number, len(record["keys"]), held))
                held = []
        if held:
            record["keys"].append(self._write(number, len(record["keys"]), held))
        return record | {"peak_rss_bytes": peak_rss_bytes()}

    def _write(self, number: int, part: int, held: list[pl.DataFrame]) -> str:
        key = f"{self.folder}/{number:06d}-{part}.arrow"
        rows = summed(held)
        pair = rows["a"].to_numpy() >> np.uint64(BITS)
        write_partitions(self.texts.store, key, rows.to_arrow(), _partition(pair, self.partitions), self.partitions)
        return key


def _partition(numbers: NDArray[np.uint64], partitions: int) -> NDArray[np.int64]:
    return partition_of(spread(numbers), partitions)


@dataclass(frozen=True)
class CountsReduce:
    """The counts of a partition: a file for each order, and the sums of contexts to the partitions of these."""

    store: Store
    folder: str
    model: LanguageModel
    keys: tuple[str, ...]
    partitions: int

    def __call__(self, number: int, work: int) -> Record:
        with open_partition(self.store, self.keys, work) as table:
            rows = summed([pl.DataFrame(table)])
        found = adjusted(rows, self.model)
        for order, kept in enumerate(found.kept, 1):
            write_table(self.store, row_file(f"{self.folder}/{order}", number), kept.to_arrow())
        contexts = found.contexts
        names = contexts["a"].to_numpy() ^ spread(contexts["b"].to_numpy() + contexts["order"].to_numpy())
        partition = _partition(names, self.partitions)
        key = row_file(f"{self.folder}/{CONTEXTS}", number)
        write_partitions(self.store, key, contexts.to_arrow(), partition, self.partitions)
        return {
            "sizes": [len(kept) for kept in found.kept],
            "histogram": found.histogram.tolist(),
            "lines": found.lines,
            "peak_rss_bytes": peak_rss_bytes(),
        }


def sums_of_contexts(parts: Rows) -> pa.Table:
    """A reduce: the contexts of a partition that are needed, each with its sum."""
    found: pa.Table = totals([pl.DataFrame(parts[DOCUMENTS])]).to_arrow()
    return found


@dataclass(frozen=True)
class ModelFold:
    """Estimates the model from all partitions, an order at a time, and writes it."""

    store: Store
    folder: str
    counts: str
    totals: str
    vocabulary: RankedWords
    model: LanguageModel

    def __call__(self, _number: int, work: dict[str, Any]) -> Record:
        def kept(order: int) -> pl.DataFrame:
            return self._together(f"{self.counts}/{order}", work["counts"])

        def contexts(order: int) -> pl.DataFrame:
            return self._together(self.totals, work["totals"], order)

        histogram = np.array(work["histogram"], np.int64)
        counts = Counts(kept, contexts, histogram, tuple(work["sizes"]), work["lines"], work["tokens"])
        key = f"{self.folder}/{work['name']}"
        seen = hashlib.sha256()
        with self.store.scratch() as scratch:
            path = save(scratch / work["name"], counts, loaded(self.vocabulary), self.model)
            size = path.stat().st_size
            with open(path, "rb") as file:
                while piece := file.read(CHUNK):
                    seen.update(piece)
            self.store.publish(path, key)
        return {"key": key, "bytes": size, "sha256": seen.hexdigest(), "peak_rss_bytes": peak_rss_bytes()}

    def _together(self, folder: str, files: int, order: int | None = None) -> pl.DataFrame:
        """The rows of all files, or of these those of an order."""
        tables = (pl.DataFrame(read_table(self.store, row_file(folder, number))) for number in range(files))
        return pl.concat([table if order is None else table.filter(pl.col("order") == order) for table in tables])
