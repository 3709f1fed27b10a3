"""Write one partition of a build's documents as shards: sorted, cut evenly, laid out, indexed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cluster.audio_formats import AUDIO_FORMATS, has_audio
from cluster.exchange import open_partition
from cluster.shard_reader import ShardRecord, Sidecar
from cluster.shards import TEXT_FORMAT, write_shard
from cluster.storage import Store
from cluster.tables import TableWriter
from cluster.units import Record, peak_rss_bytes
from operators.document import SCHEMA, with_columns
from operators.hashes import xxh3_64
from operators.histogram import numbers
from operators.ordering.order import RANK, SIMILARITY
from operators.tokens.compose import LOSS_MASK, PLACES
from operators.tokens.decompose import buckets
from operators.tokens.pack import Pack, Packed, flat_tokens
from workflows.contexts import sample_contexts
from workflows.interleaving import Composing

TRAIN = "train"
ALWAYS = ("id", "text", "input_ids")
CHARACTERS_PER_TOKEN = 4  # an estimate that only sizes partitions; it may be wrong by any factor
CHARACTERS_WITHOUT_TEXT = 1000  # that a document of embeddings alone counts for
BYTES_PER_SAMPLE = 1.2  # of speech as FLAC, an estimate of the same kind
MP3_BIT_RATE = 64  # kbit/s


@dataclass(frozen=True)
class ShardTask:
    """Sorts one partition by order key, cuts it into shards, writes them and the index of their documents."""

    folder: str
    keys: tuple[str, ...]
    writer: ShardWriter
    tokens_per_shard: int
    bytes_per_shard: int  # of audio
    audio: str  # what audio becomes: `flac`, as it comes, or `mp3`
    compose: Composing | None = None  # what makes documents of the rows of the partition

    def __call__(self, number: int, work: list[Any]) -> Record:
        split, place, partition = work
        store, tokenized = self.writer.store, self.writer.tokenizer is not None
        written = Written()
        tokens = 0
        with (
            open_partition(store, self.keys, partition) as table,
            TableWriter(store, f"{self.folder}/kept", number) as index,
        ):
            rows = table.num_rows
            if self.compose is not None and rows:
                table, composed = self.compose.composer(store)(table)
                written.interleaved.update(composed)
                table = with_columns(table, {"key": pa.array(xxh3_64(table["id"]))})
            order = pc.sort_indices(table.select(["key", "id"]), [("key", "ascending"), ("id", "ascending")])
            counted = tokenized and table.num_rows  # where all documents were dropped before, none was tokenized
            sizes = table["tokens"] if counted else pc.divide(sizes_of(table), CHARACTERS_PER_TOKEN)
            most = self.tokens_per_shard
            if "payload" in table.column_names and table["payload"].null_count < table.num_rows:
                most = self.bytes_per_shard  # a document takes the larger of its two shares of a shard
                payload = pc.fill_null(pc.binary_length(table["payload"]), 0)
                sizes = pc.max_element_wise(pc.divide(pc.multiply(sizes, most), self.tokens_per_shard), payload)
            bounds = cut_evenly(sizes.take(order).to_numpy(), most)
            for part, (first, last) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
                docs = gathered(table, order.slice(first, last - first)).drop_columns(["key"])
                docs = as_mp3(docs) if self.audio == "mp3" and has_audio(docs) else docs
                self.writer.write(docs, split, f"{place:05d}-{part:02d}", index, written)
                tokens += int(pc.sum(docs["tokens"]).as_py() or 0) if counted else 0
        return {
            "split": split,
            "shards": written.shards,
            "packing": dict(written.packing),
            "contexts": written.contexts,
            "sources": {name: dict(own) for name, own in written.sources.items()},
            "tokens": tokens,
            "interleaved": dict(written.interleaved),
            "kept_documents": rows,
            "index": index.entries,
            "peak_rss_bytes": peak_rss_bytes(),
        }


@dataclass
class Written:
    """What shards hold, added up."""

    shards: list[dict[str, Any]] = field(default_factory=list)  # records as manifests have them
    packing: Counter[str] = field(default_factory=Counter)  # what laying documents out in windows cost
    contexts: list[dict[str, Any]] = field(default_factory=list)  # a few of the first shard of `train`, for the report
    sources: dict[str, Counter[str]] = field(default_factory=dict)  # documents, tokens and weights of each
    interleaved: Counter[str] = field(default_factory=Counter)  # what composed documents consist of

    def pack(self, windows: Packed) -> None:
        """Count the windows that documents were laid out in."""
        self.packing.update({"sequences": len(windows.offsets) - 1, "padding": windows.padding, **windows.costs})

    def count(self, docs: pa.Table) -> None:
        """Count documents with their tokens."""
        nothing = pa.nulls(docs.num_rows)
        source, weight = (docs[n] if n in docs.column_names else nothing for n in ("source", "weight"))
        named = pc.fill_null(source.cast(pa.string()), "").to_numpy(zero_copy_only=False)
        names, codes = np.unique(named.astype(str), return_inverse=True)
        # in the order of rows: sums of doubles depend on it
        weights = np.bincount(codes, np.nan_to_num(numbers(weight), nan=1.0), len(names))
        tokens = np.bincount(codes, docs["tokens"].to_numpy(), len(names)).astype(np.int64)
        for name, *own in zip(names.tolist(), np.bincount(codes), tokens, weights, strict=True):
            told = dict(zip(("documents", "tokens", "weight"), own, strict=True))
            self.sources.setdefault(name, Counter()).update({key: n.item() for key, n in told.items()})


@dataclass(frozen=True)
class ShardWriter:
    """Writes documents as one shard of a build, in all its formats."""

    store: Store
    folder: str
    pack: Pack
    tokenizer: dict[str, Any] | None
    formats: tuple[str, ...]
    columns: frozenset[str]  # that have a value somewhere: all shards have the same columns
    linked: bool  # whether a stage put related documents next to each other, and said how related they are
    interleaved: bool = False  # whether documents are composed: with loss masks, and indexed by what they consist of

    def write(self, docs: pa.Table, split: str, number: str, index: TableWriter, written: Written) -> None:
        """Write one shard, index its documents, and add it to what was written."""
        if docs.num_rows == 0:
            return
        docs, whole = sorted_columns(docs, self.columns), docs
        windows = mask = None
        offsets = np.zeros(docs.num_rows, np.int64)
        if self.tokenizer:
            flat, bounds = flat_tokens(docs["input_ids"])
            offsets = bounds[:-1]
            if self.interleaved:
                mask, _ = flat_tokens(whole[LOSS_MASK])
            if self.pack.layout == "windows":
                links = links_of(docs) if self.linked else None
                windows = self.pack(flat, bounds, self.tokenizer["pad_id"], links)
                mask = None if mask is None else self.pack(mask, bounds, 0, links).tokens  # the layout is the same
                offsets = starts_of(windows)
                written.pack(windows)
                if split == TRAIN and not written.contexts:
                    name = f"{split}-{number}"
                    written.contexts = [{"shard": name, **context} for context in sample_contexts(docs, windows, links)]
        with self.store.scratch() as folder:
            records = write_shard(folder, f"{split}-{number}", docs, self.formats, self.tokenizer, windows, mask)
            for record in records:
                files: list[ShardRecord | Sidecar] = [record, *record.sidecars]
                for file in files:
                    self.store.publish(folder / file.path, f"{self.folder}/{file.path}")
        told = [self._told(asdict(record), split) for record in records]
        if windows is not None and self.pack.mode == "decompose":
            of_length = {str(length): n for length, (_, n) in buckets(windows.offsets).items()}
            whole = (TEXT_FORMAT, *AUDIO_FORMATS)  # which have documents, not sequences
            told = [one | ({} if one["format"] in whole else {"buckets": of_length}) for one in told]
        main = next((r for r in told if r["format"] == self.formats[0]), told[0])
        columns = {"id": docs["id"], "shard": pa.array([main["path"]] * docs.num_rows, pa.string())}
        columns |= {"row": pa.array(np.arange(docs.num_rows)), "offset": pa.array(offsets)}
        columns |= {"split": pa.array([split] * docs.num_rows, pa.string())}
        if self.tokenizer:
            columns["tokens"] = docs["tokens"]
            written.count(docs)
        rows = pa.table(columns)
        index.write(members_of(whole, rows, bounds, windows) if self.interleaved else rows)
        written.shards += told

    def _told(self, record: dict[str, Any], split: str) -> dict[str, Any]:
        """The record as the manifest has it: paths from the root of the store."""
        for file in (record, *record["sidecars"]):
            file["path"] = f"{self.folder}/{file['path']}"
        return record | {"split": split}


def gathered(table: pa.Table, rows: pa.Array) -> pa.Table:
    """Those rows, in that order. `Table.take` joins the chunks of whole columns first; of audio that would be a copy of
    the partition."""
    if "payload" not in table.column_names or pa.types.is_null(table.schema.field("payload").type):
        return table.take(rows)
    payload = table["payload"]
    sizes = pc.fill_null(pc.binary_length(payload), 0).take(rows).to_numpy()
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
    data = np.empty(int(ends[-1]), np.uint8)
    for start, end, row in zip(ends[:-1].tolist(), ends[1:].tolist(), rows.to_pylist(), strict=True):
        if end > start:
            data[start:end] = np.frombuffer(payload[row].as_buffer(), np.uint8)
    valid = pa.array(pc.is_valid(payload).take(rows).to_numpy()).buffers()[1]
    found = pa.Array.from_buffers(pa.large_binary(), len(rows), [valid, pa.py_buffer(ends), pa.py_buffer(data)])
    return with_columns(table.drop_columns(["payload"]).take(rows), {"payload": found})


def as_mp3(docs: pa.Table) -> pa.Table:
    """The documents with their FLAC as MP3; what is MP3 already stays as it is."""
    from operators.speech.codec import FLAC, MP3, decode, encode_mp3

    kinds = docs["content_type"].to_pylist()
    payload = (
        encode_mp3(decode(audio.as_buffer().to_pybytes()), MP3_BIT_RATE) if kind == FLAC else audio.as_py()
        for kind, audio in zip(kinds, docs["payload"], strict=True)
    )
    kind = pa.array([MP3 if kind == FLAC else kind for kind in kinds], pa.string())
    return with_columns(docs, {"payload": pa.array(payload, pa.large_binary()), "content_type": kind})


def sizes_of(docs: pa.Table) -> pa.ChunkedArray:
    """Characters of each document; CHARACTERS_WITHOUT_TEXT where there is no text."""
    return pc.if_else(pc.is_null(docs["text"]), CHARACTERS_WITHOUT_TEXT, docs["chars"])


def starts_of(windows: Packed) -> NDArray[np.int64]:
    """Where each document begins in the tokens of the windows."""
    first = windows.pieces.filter(pc.equal(windows.pieces["document_start"], 0)).sort_by("document")
    starts: NDArray[np.int64] = windows.offsets[first["sequence"].to_numpy()] + first["start"].to_numpy()
    return starts


def members_of(docs: pa.Table, rows: pa.Table, bounds: NDArray[np.int64], windows: Packed | None) -> pa.Table:
    """The rows of an index of composed documents, one for each part of a document: where it begins, its tokens."""
    members = docs["members"].combine_chunks()
    document = np.repeat(np.arange(docs.num_rows), pc.list_value_length(members).to_numpy(zero_copy_only=False))
    begins = bounds[document] + docs[PLACES].combine_chunks().flatten().to_numpy()  # in all documents end to end
    offsets = begins
    if windows is not None:
        pieces = {name: windows.pieces[name].to_numpy() for name in windows.pieces.column_names}
        places = bounds[pieces["document"]] + pieces["document_start"]
        order = np.argsort(places, kind="stable")
        piece = order[np.searchsorted(places[order], begins, side="right") - 1]
        offsets = windows.offsets[pieces["sequence"][piece]] + pieces["start"][piece] + begins - places[piece]
    columns = {"id": members.flatten(), "offset": pa.array(offsets)}
    columns["tokens"] = pa.array(np.diff(np.append(begins, bounds[-1])))
    return with_columns(rows.take(pa.array(document)), columns)


def links_of(docs: pa.Table) -> NDArray[np.float64]:
    """How like each document is to the one before it, where that one stands right before it in the order too."""
    links = numbers(docs[SIMILARITY])
    follows = np.diff(docs[RANK].to_numpy(), prepend=-2) == 1
    return np.where(follows, links, np.nan)


def cut_evenly(sizes: NDArray[np.int64], most: int) -> list[int]:
    """Row bounds of parts of at most about `most` tokens each, of even size; at least one part, none empty."""
    total = int(sizes.sum())
    parts = max(1, -(-total // most))
    ends = np.cumsum(sizes)
    inner = np.searchsorted(ends, total * np.arange(1, parts) / parts, side="left") + 1
    return sorted({0, len(sizes), *(int(i) for i in inner if i < len(sizes))})


def sorted_columns(docs: pa.Table, present: Collection[str]) -> pa.Table:
    """The schema's columns in its order, then the others by name, of those `present`: order and presence of columns
    must not depend on which file a shard's first document came from."""
    first = [name for name in SCHEMA.names if name in docs.column_names]
    rest = sorted(set(docs.column_names) - set(first))
    return docs.select([name for name in first + rest if name in ALWAYS or name in present])
