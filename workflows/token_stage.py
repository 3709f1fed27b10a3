"""The last stage: documents to tokens to shards that trainers read.

Documents are ordered by the hash of their ids and cut into shards by that order, so the shards depend on the
documents alone, never on the files they came from. Where a stage gave them an order, runs of BLOCK documents stay
together and are dealt out to the shards: a shard, like a trainer's batch, should hold something of everything. The
text moves once, here, through the exchange.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cluster.artefacts import keep
from cluster.exchange import read_table, write_partitions, write_table
from cluster.mds import write_indexes
from cluster.storage import Store
from cluster.tables import Entry, TableWriter, iterate_entry, read_entry
from cluster.units import Record, peak_rss_bytes, run_units
from operators.apply import Applied, Step, apply
from operators.document import with_columns
from operators.hashes import xxh3_64
from operators.ordering.order import RANK, SIMILARITY
from operators.read.recording import RECORDING
from operators.read.span import QUARANTINE, Batch
from operators.tokens.compose import ADDED, INHERITED
from operators.tokens.pack import Pack
from operators.tokens.tokenizer import Fitted, Tokenizer
from workflows.interleaving import composing
from workflows.isolate import isolated
from workflows.learned import Learned
from workflows.map_stage import Totals, explained
from workflows.profile import SAMPLES
from workflows.shard_task import (
    BYTES_PER_SAMPLE,
    CHARACTERS_PER_TOKEN,
    CHARACTERS_WITHOUT_TEXT,
    TRAIN,
    ShardTask,
    ShardWriter,
)
from workflows.stage import (
    ConservationError,
    Job,
    Manifest,
    TokenStage,
    add_counts,
    basis_of,
    fingerprint,
    folder_of,
    listens,
    summarise,
)
from workflows.training_plan import write_plan

HASHES = 2.0**64
BLOCK = 1024  # documents at most that follow each other in the order and stay together: their seams are few
BLOCKS, LEAST_BLOCK = 8, 32  # of each partition, where there are few documents, and the least documents of one


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
    others: list[Record] = []  # of passes that only cost
    steps = tuple(_fitted(stage, job, step, upstream, others) for step in stage.steps)
    characters = upstream["characters"]["kept"] or upstream["kept"] * CHARACTERS_WITHOUT_TEXT
    heard = int(upstream["profile"]["kept"].get(SAMPLES, 0) * BYTES_PER_SAMPLE) if stage.compose is None else 0
    shards = job.recipe.shards
    cuts = cut_splits(job.recipe.splits, characters, shards.tokens_per_shard, heard, shards.bytes_per_shard)
    partitions = sum(cut.partitions for cut in cuts)

    job.progress.started(stage.name, " → ".join(step.name for step in steps), len(files))
    added = {column for above in stage.chain() for step in above.steps for column in step.operator.adds}
    block = max(LEAST_BLOCK, min(BLOCK, upstream["kept"] // (BLOCKS * cuts[-1].partitions))) if RANK in added else None
    together = RECORDING if listens(stage) else None
    spread = SpreadTask(
        job.store, folder, steps, cuts, job.recipe.dropped_text, block, together, stage.compose is not None
    )
    basis, ask = basis_of(upstream), job.recipe.workers.ask()
    label = f"{stage.name}[tokenizer]"
    spread_folder = f"{folder}/exchange/documents"
    spread_records = run_units(job.store, spread_folder, files, spread, label, job.progress.unit, basis, ask)
    keys = tuple(f"{folder}/exchange/documents/{number:06d}.arrow" for number in range(len(files)))

    loaded = [step.step(job.store).operator for step in steps]
    tokenizer = next((operator for operator in loaded if isinstance(operator, Tokenizer)), None)
    compose = composing(stage, steps)
    describes = compose.composer(job.store) if compose else tokenizer
    told = describes.describe() if describes else None
    works = [[cut.split, number, cut.first + number] for cut in cuts for number in range(cut.partitions)]
    columns = frozenset(name for record in spread_records for name in record["columns"])
    columns = columns & frozenset(INHERITED) | frozenset(ADDED) if compose else columns
    writer = ShardWriter(
        store=job.store,
        folder=f"builds/{fingerprint(stage, job)}/shards",
        pack=stage.pack.operator if stage.pack else Pack(),
        tokenizer=told,
        formats=tuple(job.recipe.shards.formats),
        columns=columns,
        linked=SIMILARITY in added,
        interleaved=compose is not None,
    )
    write = ShardTask(folder, keys, writer, shards.tokens_per_shard, shards.bytes_per_shard, shards.audio, compose)
    job.progress.started(stage.name, "shards", partitions)
    label = f"{stage.name}[shards]"
    shard_records = run_units(job.store, f"{folder}/shards", works, write, label, job.progress.unit, basis, ask)
    others += [record | {"pass": "shards", "operator": "pack"} for record in shard_records]
    seconds = time.perf_counter() - started
    manifest = _manifest(stage, job, upstream, spread_records, shard_records, told, seconds, others)
    manifest["indexes"] = write_indexes(job.store, manifest["shards"])
    manifest["plans"] = write_plan(job.store, writer.folder, manifest["shards"], manifest["sources"], writer.pack)
    return manifest


def cut_splits(
    shares: Mapping[str, float],
    total_characters: int,
    tokens_per_shard: int,
    total_bytes: int = 0,
    bytes_per_shard: int = 1,
) -> tuple[Cut, ...]:
    """The recipe's splits and, for the rest, `train`, each with partitions of about one shard's tokens or bytes of
    audio, whichever are more."""
    named = [*sorted(shares.items()), (TRAIN, 1 - sum(shares.values()))]
    cuts: list[Cut] = []
    first = 0
    for split, share in named:
        tokens = total_characters * share / CHARACTERS_PER_TOKEN
        partitions = max(1, round(tokens / tokens_per_shard), round(total_bytes * share / bytes_per_shard))
        cuts.append(Cut(split, share, first, partitions))
        first += partitions
    return tuple(cuts)


def assign(
    ids: pa.ChunkedArray | pa.Array,
    clusters: pa.ChunkedArray | pa.Array,
    cuts: tuple[Cut, ...],
    ranks: pa.ChunkedArray | None = None,
    block: int = 1,
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """(order key, partition) of each document: the split by the hash of its cluster, so that no near-duplicate
    crosses splits, the place in the split by the hash of its id, or of the block of ranks that its own is in."""
    keys = places = xxh3_64(ids)
    if ranks is not None:
        keys = ranks.to_numpy().astype(np.uint64)
        blocks, of_row = np.unique(keys // np.uint64(block), return_inverse=True)
        places = xxh3_64(pa.array(blocks).cast(pa.string()), seed=3)[of_row]
    lots = xxh3_64(clusters, seed=1) / HASHES
    bounds = np.cumsum([cut.share for cut in cuts])[:-1]
    split = np.searchsorted(bounds, lots, side="right")
    first = np.array([cut.first for cut in cuts])[split]
    count = np.array([cut.partitions for cut in cuts])[split]
    within = ((places >> np.uint64(32)) * count.astype(np.uint64)) >> np.uint64(32)
    return keys, first + within.astype(np.int64)


@dataclass(frozen=True)
class SpreadTask:
    """Runs the steps over one file and sends what stays to its shard's partition."""

    store: Store
    folder: str
    learned: tuple[Learned, ...]
    cuts: tuple[Cut, ...]
    dropped_text: bool
    block: int | None  # ranks that stay together; none where documents have no ranks
    together: str | None = None  # the column of what no split may divide; none: near-duplicates
    whole: bool = False  # whether that is to lie in one partition, too

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(step.step(self.store) for step in self.learned)

    def batches(self, work: Entry) -> Iterator[Batch]:
        """The unit's documents, in batches that memory holds."""
        return (Batch(docs, QUARANTINE.empty_table()) for docs in iterate_entry(self.store, work))

    def __call__(self, number: int, work: Entry) -> Record:
        steps = self.steps
        return self._write(number, ((batch, apply(steps, batch.docs)) for batch in self.batches(work)))

    def isolate(self, number: int, work: Entry) -> Record:
        """The same without the rows that end the process, which become rows of quarantine."""
        return self._write(number, isolated(self, work))

    def _write(self, number: int, results: Iterable[tuple[Batch, Applied]]) -> Record:
        kept: list[pa.Table] = []
        totals = Totals(self.steps)
        dropped = TableWriter(self.store, f"{self.folder}/dropped", number)
        quarantined = TableWriter(self.store, f"{self.folder}/quarantined", number)
        with dropped, quarantined:
            for batch, result in results:
                totals.add(batch, result)
                kept.append(result.kept)
                dropped.write(explained(result.dropped, self.dropped_text))
                quarantined.write(batch.quarantined)
        table = pa.concat_tables(kept, promote_options="permissive")
        kept.clear()
        table = without_copies(table)
        clusters = table["cluster"] if "cluster" in table.column_names else table["id"]
        clusters = table[self.together] if self.together else clusters
        ranks = table[RANK] if self.block else None
        ids = clusters if self.whole else table["id"]
        if self.whole and "payload" in table.column_names:  # composed documents have no audio
            table = table.drop_columns(["payload"])
        keys, partition = assign(ids, clusters, self.cuts, ranks, self.block or 1)
        partitions = self.cuts[-1].first + self.cuts[-1].partitions
        table = large(with_columns(table, {"key": pa.array(keys)}))
        key = f"{self.folder}/exchange/documents/{number:06d}.arrow"
        write_partitions(self.store, key, table, partition, partitions)
        return totals.record() | {
            "files": {"kept": [], "dropped": dropped.entries, "quarantined": quarantined.entries},
            "columns": [name for name in table.column_names if table[name].null_count < table.num_rows],
        }


def without_copies(table: pa.Table) -> pa.Table:
    """The table with one chunk a column, but of audio, which is large and is only sent on."""
    one = {name: table[name].combine_chunks() for name in table.column_names if name != "payload"}
    return with_columns(table, one)


def large(table: pa.Table) -> pa.Table:
    """The table with 64-bit offsets for strings and bytes: those of a partition may be more than 2 GiB."""
    wide = {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}
    return table.cast(pa.schema([field.with_type(wide.get(field.type, field.type)) for field in table.schema]))


def _fitted(stage: TokenStage, job: Job, step: Step, upstream: Manifest, others: list[Record]) -> Learned:
    """The step, its operator fitted on a sample of the documents if it has to be: those whose ids hash lowest. Adds
    the records of what that took to `others`."""
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
    placed: dict[str, Any] = {"basis": basis_of(upstream), "ask": job.recipe.workers.ask()}
    sampled = run_units(job.store, f"{folder}/sample", files, sample, f"{stage.name}[sample]", **placed)
    keys = tuple(f"{folder}/sample/{number:06d}.arrow" for number in range(len(files)))
    job.progress.started(stage.name, f"{step.name} fit", 1)
    fit = FitTask(job.store, operator, keys, share)
    [record] = run_units(job.store, f"{folder}/fit", [None], fit, f"{stage.name}[fit]", **placed)
    others += [one | {"pass": f"{step.name}/sample", "operator": step.name} for one in sampled]
    others.append(record | {"pass": f"{step.name}/fit", "operator": step.name})
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
        sha256 = keep(self.store, self.operator.fit(sample["text"]))
        return {"sha256": sha256, "fold": True, "peak_rss_bytes": peak_rss_bytes()}


def _manifest(
    stage: TokenStage,
    job: Job,
    upstream: Manifest,
    spread: list[Record],
    written: list[Record],
    tokenizer: dict[str, Any] | None,
    seconds: float,
    others: Sequence[Record] = (),
) -> Manifest:
    """The stage's manifest: documents accounted for where they were spread, shards where they were written."""
    manifest = summarise(stage, job, upstream, spread, seconds, None, others)
    kept = sum(record["kept_documents"] for record in written)
    if kept != manifest["kept"]:
        raise ConservationError(f"stage {stage.name}: {manifest['kept']} documents were spread, {kept} were written")
    manifest["files"]["kept"] = [entry for record in written for entry in record["index"]]
    manifest["shards"] = [shard for record in written for shard in record["shards"]]
    tokenized = any(isinstance(step.operator, Tokenizer) for step in stage.steps)
    manifest["tokens"] = sum(record["tokens"] for record in written) if tokenized else None
    manifest["packing"] = add_counts(record["packing"] for record in written)
    manifest["padding"] = manifest["packing"].get("padding", 0)
    manifest["contexts"] = next((record["contexts"] for record in written if record["contexts"]), [])
    names = sorted({name for record in written for name in record["sources"]})
    manifest["sources"] = {n: add_counts(r["sources"].get(n, {}) for r in written) for n in names}
    manifest["tokenizer"] = tokenizer
    if stage.compose is not None:
        counts = add_counts(record["interleaved"] for record in written)
        share = counts.get("spoken_words", 0) / max(1, counts.get("words", 0))
        manifest["interleaved"] = counts | {"speech_share": round(share, 4)}
    splits: dict[str, dict[str, int]] = {}
    for record in written:
        split = splits.setdefault(record["split"], {"documents": 0, "tokens": 0})
        split["documents"] += record["kept_documents"]
        split["tokens"] += record["tokens"]
    manifest["splits"] = splits
    manifest["indexes"] = manifest["plans"] = []
    return manifest
