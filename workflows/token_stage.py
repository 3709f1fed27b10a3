"""The last stage: documents to tokens to shards that trainers read.

Documents are ordered by the hash of their ids and cut into shards by that order, so the shards depend on the
documents alone, never on the files they came from. The text moves once, here, through the exchange.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cluster.artefacts import keep, on_disk
from cluster.exchange import open_partition, read_table, write_partitions, write_table
from cluster.shard_reader import ShardRecord, Sidecar
from cluster.shards import write_shard
from cluster.storage import Store
from cluster.tables import Entry, TableWriter, iterate_entry, read_entry
from cluster.units import Record, peak_rss_bytes, run_units
from operators.apply import Step, apply
from operators.document import SCHEMA, with_columns
from operators.hashes import xxh3_64
from operators.read.span import QUARANTINE, Batch
from operators.tokens.pack import Pack, flat_tokens
from operators.tokens.tokenizer import Fitted, Tokenizer
from workflows.map_stage import Totals, explained
from workflows.stage import (
    ConservationError,
    Job,
    Manifest,
    TokenStage,
    basis_of,
    fingerprint,
    folder_of,
    summarise,
)

TRAIN = "train"
ALWAYS = ("id", "text", "input_ids")
CHARACTERS_PER_TOKEN = 4  # an estimate that only sizes partitions; it may be wrong by any factor
HASHES = 2.0**64


class Cut(NamedTuple):
    """One split's partitions: numbers `first` to `first + partitions - 1` of the exchange."""

    split: str
    share: float
    first: int
    partitions: int


def run_token_stage(stage: TokenStage, job: Job, upstream: Manifest) -> Manifest:
    """Run the stage to its manifest's content; the caller saves it and may then sweep `exchange/`."""
    started = time.perf_counter()
    folder = folder_of(stage, job)
    files: list[Entry] = upstream["files"]["kept"]
    if not files:
        return _manifest(stage, job, upstream, [], [], None, time.perf_counter() - started)
    steps = tuple(_fitted(stage, job, step, upstream) for step in stage.steps)
    cuts = cut_splits(job.recipe.splits, upstream["characters"]["kept"], job.recipe.shards.tokens_per_shard)
    partitions = sum(cut.partitions for cut in cuts)

    job.progress.started(stage.name, " → ".join(step.name for step in steps), len(files))
    spread = SpreadTask(job.store, folder, steps, cuts, job.recipe.dropped_text)
    basis = basis_of(upstream)
    label = f"{stage.name}[tokenizer]"
    spread_folder = f"{folder}/exchange/documents"
    spread_records = run_units(job.store, spread_folder, files, spread, label, job.progress.unit, basis)
    keys = tuple(f"{folder}/exchange/documents/{number:06d}.arrow" for number in range(len(files)))

    loaded = [step.step(job.store).operator for step in steps]
    tokenizer = next((operator for operator in loaded if isinstance(operator, Tokenizer)), None)
    works = [[cut.split, number, cut.first + number] for cut in cuts for number in range(cut.partitions)]
    writer = ShardWriter(
        store=job.store,
        folder=f"builds/{fingerprint(stage, job)}/shards",
        pack=stage.pack.operator if stage.pack else Pack(),
        tokenizer=tokenizer.describe() if tokenizer else None,
        formats=tuple(job.recipe.shards.formats),
        columns=frozenset(name for record in spread_records for name in record["columns"]),
    )
    write = ShardTask(folder, keys, writer, job.recipe.shards.tokens_per_shard)
    job.progress.started(stage.name, "shards", partitions)
    label = f"{stage.name}[shards]"
    shard_records = run_units(job.store, f"{folder}/shards", works, write, label, job.progress.unit, basis)
    return _manifest(stage, job, upstream, spread_records, shard_records, tokenizer, time.perf_counter() - started)


def cut_splits(shares: Mapping[str, float], total_characters: int, tokens_per_shard: int) -> tuple[Cut, ...]:
    """The recipe's splits and, for the rest, `train`, each with partitions of about one shard's tokens."""
    named = [*sorted(shares.items()), (TRAIN, 1 - sum(shares.values()))]
    cuts: list[Cut] = []
    first = 0
    for split, share in named:
        tokens = total_characters * share / CHARACTERS_PER_TOKEN
        partitions = max(1, round(tokens / tokens_per_shard))
        cuts.append(Cut(split, share, first, partitions))
        first += partitions
    return tuple(cuts)


def assign(
    ids: pa.ChunkedArray | pa.Array, clusters: pa.ChunkedArray | pa.Array, cuts: tuple[Cut, ...]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """(order key, partition) of each document: the split by the hash of its cluster, so that no near-duplicate
    crosses splits, the place in the split by the hash of its id."""
    keys = xxh3_64(ids)
    lots = xxh3_64(clusters, seed=1) / HASHES
    bounds = np.cumsum([cut.share for cut in cuts])[:-1]
    split = np.searchsorted(bounds, lots, side="right")
    first = np.array([cut.first for cut in cuts])[split]
    count = np.array([cut.partitions for cut in cuts])[split]
    within = ((keys >> np.uint64(32)) * count.astype(np.uint64)) >> np.uint64(32)
    return keys, first + within.astype(np.int64)


@dataclass(frozen=True)
class SpreadTask:
    """Runs the steps over one file and sends what stays to its shard's partition."""

    store: Store
    folder: str
    steps: tuple[Learned, ...]
    cuts: tuple[Cut, ...]
    dropped_text: bool

    def __call__(self, number: int, work: Entry) -> Record:
        kept: list[pa.Table] = []
        steps = tuple(step.step(self.store) for step in self.steps)
        totals = Totals(steps)
        with TableWriter(self.store, f"{self.folder}/dropped", number) as dropped:
            for docs in iterate_entry(self.store, work):
                result = apply(steps, docs)
                totals.add(Batch(docs, QUARANTINE.empty_table()), result)
                kept.append(result.kept)
                dropped.write(explained(result.dropped, self.dropped_text))
        table = pa.concat_tables(kept, promote_options="permissive").combine_chunks()
        clusters = table["cluster"] if "cluster" in table.column_names else table["id"]
        keys, partition = assign(table["id"], clusters, self.cuts)
        partitions = self.cuts[-1].first + self.cuts[-1].partitions
        table = large(with_columns(table, {"key": pa.array(keys)}))
        key = f"{self.folder}/exchange/documents/{number:06d}.arrow"
        write_partitions(self.store, key, table, partition, partitions)
        return totals.record() | {
            "files": {"kept": [], "dropped": dropped.entries, "quarantined": []},
            "columns": [name for name in table.column_names if table[name].null_count < table.num_rows],
        }


@dataclass(frozen=True)
class ShardTask:
    """Sorts one partition by order key, cuts it into shards, writes them and the index of their documents."""

    folder: str
    keys: tuple[str, ...]
    writer: ShardWriter
    tokens_per_shard: int

    def __call__(self, number: int, work: list[Any]) -> Record:
        split, place, partition = work
        store, tokenized = self.writer.store, self.writer.tokenizer is not None
        shards: list[dict[str, Any]] = []
        padding = 0
        tokens = 0
        with (
            open_partition(store, self.keys, partition) as table,
            TableWriter(store, f"{self.folder}/kept", number) as index,
        ):
            order = pc.sort_indices(table.select(["key", "id"]), [("key", "ascending"), ("id", "ascending")])
            counted = tokenized and table.num_rows  # where all documents were dropped before, none was tokenized
            sizes = table["tokens"] if counted else pc.divide(table["chars"], CHARACTERS_PER_TOKEN)
            bounds = cut_evenly(sizes.take(order).to_numpy(), self.tokens_per_shard)
            for part, (first, last) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
                docs = table.take(order.slice(first, last - first)).drop_columns(["key"])
                written, padded = self.writer.write(docs, split, f"{place:05d}-{part:02d}", index)
                shards += written
                padding += padded
                tokens += int(pc.sum(docs["tokens"]).as_py() or 0) if counted else 0
        return {
            "split": split,
            "shards": shards,
            "padding": padding,
            "tokens": tokens,
            "kept_documents": table.num_rows,
            "index": index.entries,
            "peak_rss_bytes": peak_rss_bytes(),
        }


@dataclass(frozen=True)
class ShardWriter:
    """Writes documents as one shard of a build, in all its formats."""

    store: Store
    folder: str
    pack: Pack
    tokenizer: dict[str, Any] | None
    formats: tuple[str, ...]
    columns: frozenset[str]  # that have a value somewhere: all shards have the same columns

    def write(self, docs: pa.Table, split: str, number: str, index: TableWriter) -> tuple[list[dict[str, Any]], int]:
        """Write one shard and index its documents; (records as manifests have them, padding)."""
        if docs.num_rows == 0:
            return [], 0
        docs = sorted_columns(docs, self.columns)
        windows = None
        offsets = np.zeros(docs.num_rows, np.int64)
        if self.tokenizer:
            flat, bounds = flat_tokens(docs["input_ids"])
            offsets = bounds[:-1]
            if self.pack.layout == "windows":
                windows = self.pack(flat, bounds, self.tokenizer["pad_id"])
        with self.store.scratch() as folder:
            records = write_shard(folder, f"{split}-{number}", docs, self.formats, self.tokenizer, windows)
            for record in records:
                files: list[ShardRecord | Sidecar] = [record, *record.sidecars]
                for file in files:
                    self.store.publish(folder / file.path, f"{self.folder}/{file.path}")
        told = [self._told(asdict(record), split) for record in records]
        main = next((r for r in told if r["format"] == self.formats[0]), told[0])
        columns = {"id": docs["id"], "shard": pa.array([main["path"]] * docs.num_rows, pa.string())}
        columns |= {"row": pa.array(np.arange(docs.num_rows)), "offset": pa.array(offsets)}
        columns |= {"split": pa.array([split] * docs.num_rows, pa.string())}
        if self.tokenizer:
            columns["tokens"] = docs["tokens"]
        index.write(pa.table(columns))
        return told, windows.padding if windows else 0

    def _told(self, record: dict[str, Any], split: str) -> dict[str, Any]:
        """The record as the manifest has it: paths from the root of the store."""
        for file in (record, *record["sidecars"]):
            file["path"] = f"{self.folder}/{file['path']}"
        return record | {"split": split}


def cut_evenly(sizes: NDArray[np.int64], most: int) -> list[int]:
    """Row bounds of parts of at most about `most` tokens each, of even size; at least one part, none empty."""
    total = int(sizes.sum())
    parts = max(1, -(-total // most))
    ends = np.cumsum(sizes)
    inner = np.searchsorted(ends, total * np.arange(1, parts) / parts, side="left") + 1
    return sorted({0, len(sizes), *(int(i) for i in inner if i < len(sizes))})


def large(table: pa.Table) -> pa.Table:
    """The table with 64-bit offsets for strings and bytes: those of a partition may be more than 2 GiB."""
    wide = {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}
    return table.cast(pa.schema([field.with_type(wide.get(field.type, field.type)) for field in table.schema]))


def sorted_columns(docs: pa.Table, present: Collection[str]) -> pa.Table:
    """The schema's columns in its order, then the others by name, of those `present`: order and presence of columns
    must not depend on which file a shard's first document came from."""
    first = [name for name in SCHEMA.names if name in docs.column_names]
    rest = sorted(set(docs.column_names) - set(first))
    return docs.select([name for name in first + rest if name in ALWAYS or name in present])


class Learned(NamedTuple):
    """A step whose operator needs what it learned, an artefact of the store: each machine fetches it for itself."""

    name: str
    operator: Any
    sha256: str | None

    def step(self, store: Store) -> Step:
        if self.sha256 is None:
            return Step(self.name, self.operator)
        return Step(self.name, self.operator.with_artefact(str(on_disk(store, self.sha256)), self.sha256))


def _fitted(stage: TokenStage, job: Job, step: Step, upstream: Manifest) -> Learned:
    """The step, its operator fitted on a sample of the documents if it has to be: those whose ids hash lowest."""
    operator = step.operator
    if step.name in stage.learned:
        return Learned(step.name, operator, stage.learned[step.name])
    if not isinstance(operator, Fitted) or operator.fitted:
        return Learned(step.name, operator, None)
    folder = f"{folder_of(stage, job)}/exchange/fit"
    files: list[Entry] = upstream["files"]["kept"]
    share = min(1.0, operator.fit_sample_bytes / max(1, upstream["characters"]["kept"]))
    job.progress.started(stage.name, f"{step.name} sample", len(files))
    sample = SampleTask(job.store, f"{folder}/sample", share)
    basis = basis_of(upstream)
    run_units(job.store, f"{folder}/sample", files, sample, f"{stage.name}[sample]", basis=basis)
    keys = tuple(f"{folder}/sample/{number:06d}.arrow" for number in range(len(files)))
    job.progress.started(stage.name, f"{step.name} fit", 1)
    fit = FitTask(job.store, operator, keys, share)
    [record] = run_units(job.store, f"{folder}/fit", [None], fit, f"{stage.name}[fit]", basis=basis)
    return Learned(step.name, operator, record["sha256"])


@dataclass(frozen=True)
class SampleTask:
    """The documents of one file whose ids hash into the first `share` of all hashes, and the one that hashes lowest."""

    store: Store
    folder: str
    share: float

    def __call__(self, number: int, work: Entry) -> Record:
        hashes = xxh3_64(read_entry(self.store, work, ["id"])["id"], seed=2)
        chosen = np.union1d(np.flatnonzero(hashes / HASHES < self.share), [np.argmin(hashes)])
        sample = read_entry(self.store, work, ["id", "text"]).take(pa.array(chosen)).select(["id", "text"])
        sample = sample.append_column("place", pa.array(hashes[chosen] / HASHES))
        write_table(self.store, f"{self.folder}/{number:06d}.arrow", sample)
        return {"rows": sample.num_rows, "peak_rss_bytes": peak_rss_bytes()}


@dataclass(frozen=True)
class FitTask:
    """Fits the operator on the sample, sorted by id, and keeps what it learned under its hash. A few huge documents
    may leave no sample: then it is the one that hashes lowest of all."""

    store: Store
    operator: Fitted
    keys: tuple[str, ...]
    share: float

    def __call__(self, _number: int, _work: None) -> Record:
        sample = pa.concat_tables([read_table(self.store, key) for key in self.keys]).sort_by("id")
        bound = max(self.share, pc.min(sample["place"]).as_py())
        sample = sample.filter(pc.less_equal(sample["place"], bound))
        return {"sha256": keep(self.store, self.operator.fit(sample["text"])), "peak_rss_bytes": peak_rss_bytes()}


def _manifest(
    stage: TokenStage,
    job: Job,
    upstream: Manifest,
    spread: list[Record],
    written: list[Record],
    tokenizer: Tokenizer | None,
    seconds: float,
) -> Manifest:
    """The stage's manifest: documents accounted for where they were spread, shards where they were written."""
    manifest = summarise(stage, job, upstream, spread, seconds)
    kept = sum(record["kept_documents"] for record in written)
    if kept != manifest["kept"]:
        raise ConservationError(f"stage {stage.name}: {manifest['kept']} documents were spread, {kept} were written")
    manifest["files"]["kept"] = [entry for record in written for entry in record["index"]]
    manifest["shards"] = [shard for record in written for shard in record["shards"]]
    tokenized = any(isinstance(step.operator, Tokenizer) for step in stage.steps)
    manifest["tokens"] = sum(record["tokens"] for record in written) if tokenized else None
    manifest["padding"] = sum(record["padding"] for record in written)
    manifest["tokenizer"] = tokenizer.describe() if tokenizer else None
    splits: dict[str, dict[str, int]] = {}
    for record in written:
        split = splits.setdefault(record["split"], {"documents": 0, "tokens": 0})
        split["documents"] += record["kept_documents"]
        split["tokens"] += record["tokens"]
    manifest["splits"] = splits
    manifest["cpu_seconds"] = round(manifest["cpu_seconds"] + sum(r["cpu_seconds"] for r in written), 3)
    manifest["peak_rss_bytes"] = max([manifest["peak_rss_bytes"], *(r["peak_rss_bytes"] for r in written)])
    return manifest
