"""Shards: the documents of a build in the formats that trainers read.

Every shard has the cleaned documents as Parquet, and the formats of tokens and audio asked for. Those that are views
of one flat payload (cluster/flat_formats.py) share its bytes: written once, linked for the others. Files are made in a
hidden folder, named by the hash of what they hold, moved into place and read back. They contain no clocks: the same
documents give the same bytes. Beside the documents, memory holds one row group.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cluster.audio_formats import AUDIO_FORMATS, FEATURES, embedded, has_audio, referring
from cluster.flat_formats import FLAT_FORMATS, Layout, ShardError, Windows
from cluster.mds import write_mds
from cluster.shard_reader import ShardRecord, Sidecar, verify_shard
from cluster.tables import file_sha256

TEXT_FORMAT = "parquet"
TOKENS_FORMAT = "tokens_parquet"
MDS_FORMAT = "mds"
GROUP_BYTES = 64 << 20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
NUMBER = re.compile(r"-\d{5,}(-\d{2,})?$")  # of a shard in its split


def write_shard(
    folder: Path,
    name: str,
    docs: pa.Table,
    formats: Sequence[str],
    tokenizer: Mapping[str, Any] | None,
    windows: Windows | None = None,
    loss_mask: NDArray[np.uint8] | None = None,
) -> list[ShardRecord]:
    """Write `docs`, in their order, below `folder` as `<format>/<name>-<sha12>.<ext>`; one record a format. A reader of
    mds opens a folder, so there a split has its own.

    `docs` has the columns id, text, input_ids and whatever else goes into the Parquet; `tokenizer` is what
    Tokenizer.describe says; `name` is `<split>-<number>`. With `windows` the token formats hold its sequences in
    place of one a document. `parquet` is written even when not asked for, and no tokens without a tokenizer. Audio is
    in the columns `payload` and `content_type`. `loss_mask`, of all sequences end to end, is 0 where nothing is to be
    learned; formats without a place for it are refused, unless padding is all of that. No documents, no shard.
    Raises ShardError where the tokens are not what the tokenizer makes, or audio is asked for and not there.
    """
    if not NAME.fullmatch(name):
        raise ShardError(f"not a name of a shard: {name!r}")
    if unknown := set(formats) - {TEXT_FORMAT, TOKENS_FORMAT, MDS_FORMAT, *FLAT_FORMATS, *AUDIO_FORMATS}:
        raise ShardError(f"formats: unknown {sorted(unknown)}")
    if docs.num_rows == 0:
        return []
    if tokenizer is None:
        return _write_text_shard(folder, name, docs, formats)
    lengths = np.concatenate(
        [c.value_lengths().fill_null(0).to_numpy() for c in docs["input_ids"].chunks], dtype=np.int64
    )
    total = int(lengths.sum())
    if windows is None:
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    else:
        offsets = windows.offsets.astype(np.int64)
    layout = Layout(name, str(tokenizer["dtype"]), offsets, docs["id"], windows, tokenizer)
    _check_documents(docs, lengths, layout)
    if windows is not None:
        _check_windows(layout, windows, lengths)
    if loss_mask is not None:
        _check_mask(layout, loss_mask, total, formats)
    count = {"documents": docs.num_rows, "tokens": total, "padding": int(offsets[-1]) - total}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".shard-") as made:
        work = Path(made)
        records = _write_documents(folder, work, name, _text(docs, lengths), formats, count | {"padding": 0})
        count["sequences"] = len(offsets) - 1
        if TOKENS_FORMAT in formats:
            tokens = _write_parquet(work / TOKENS_FORMAT, _token_groups(docs, layout, loss_mask))
            records.append(_publish(folder, TOKENS_FORMAT, name, [tokens], count))
        if MDS_FORMAT in formats:
            (work / MDS_FORMAT).mkdir()
            groups = _samples(_token_groups(docs, layout, loss_mask))
            samples = write_mds(work / MDS_FORMAT, name, len(offsets) - 1, groups)
            records.append(_publish(folder, MDS_FORMAT, None, samples, count, NUMBER.sub("", name)))
        flat = [f for f in FLAT_FORMATS if f in formats]
        if flat:
            payload = work / "payload"
            stem = f"{name}-{_write_payload(payload, docs, lengths, layout)[:12]}"
            for each in flat:
                view = work / f"{stem}.{FLAT_FORMATS[each].suffix}"
                _link(payload, view)
                sidecars = FLAT_FORMATS[each].write_sidecars(layout, str(work / stem))
                records.append(_publish(folder, each, None, [view, *sidecars], count))
    for record in records:
        verify_shard(folder, record)
    return records


def shard_name(path: str) -> str:
    """What the formats of a shard have in common: `train-00000-00`, the file's name without the hash of its content,
    and in Lhotse's without the field that it begins with."""
    return Path(path).name.rsplit("-", 1)[0].rpartition(".")[2]


def write_with_audio(path: Path, groups: Iterator[pa.Table]) -> None:
    """Write documents with audio as a Parquet file that holds it, which the library `datasets` reads as such."""
    _write_parquet(path, map(embedded, groups), FEATURES)


def _write_text_shard(folder: Path, name: str, docs: pa.Table, formats: Sequence[str]) -> list[ShardRecord]:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".shard-") as made:
        count = {"documents": docs.num_rows, "tokens": 0, "padding": 0}
        records = _write_documents(folder, Path(made), name, docs, formats, count)
    for record in records:
        verify_shard(folder, record)
    return records


def _write_documents(
    folder: Path, work: Path, name: str, docs: pa.Table, formats: Sequence[str], count: dict[str, int]
) -> list[ShardRecord]:
    """The documents as Parquet and in the formats of audio; with those, the Parquet says where the first has it."""
    count |= {"sequences": docs.num_rows}
    size = _sizes(docs)
    records: list[ShardRecord] = []
    for kind in (each for each in AUDIO_FORMATS if each in formats):
        if not has_audio(docs):
            raise ShardError(f"{name}: documents without audio, or of another kind than FLAC and MP3, for {kind}")
        (work / kind).mkdir()
        archive = AUDIO_FORMATS[kind](work / kind, name, _groups(docs, size))
        below = NUMBER.sub("", name) if kind == "lhotse" else ""  # its readers open a folder, too
        records.append(_publish(folder, kind, None, archive.files, count, below))
        if len(records) == 1:
            rest = referring(docs, records[0].path, archive)
    if records:
        text = _write_parquet(work / TEXT_FORMAT, _groups(rest, _sizes(rest)))
    elif has_audio(docs):
        text = _write_parquet(work / TEXT_FORMAT, map(embedded, _groups(docs, size)), FEATURES)
    else:
        text = _write_parquet(work / TEXT_FORMAT, _groups(docs, size))
    return [_publish(folder, TEXT_FORMAT, name, [text], count), *records]


def _sizes(docs: pa.Table) -> NDArray[np.int64]:
    """Bytes of text and audio of each document."""
    sizes = np.zeros(docs.num_rows, np.int64)
    for name in ("text", "payload"):
        if name in docs.column_names:
            sizes += pc.fill_null(pc.binary_length(docs[name]), 0).to_numpy()
    return sizes


def _write_payload(path: Path, docs: pa.Table, lengths: NDArray[np.int64], layout: Layout) -> str:
    """Write the ids; the hash of all that views of them consist of: ids, sequences, documents' names."""
    seen = hashlib.sha256()
    parts = (ids for ids, _ in _ids(docs, lengths)) if layout.windows is None else iter([layout.windows.tokens])
    with path.open("wb") as file:
        for ids in parts:
            data = np.ascontiguousarray(ids, np.dtype(layout.dtype).newbyteorder("<")).view(np.uint8).data
            file.write(data)
            seen.update(data)
    contexts = () if layout.windows is None else (layout.windows.contexts,)
    for part in (layout.offsets, *layout.stretches, *contexts):
        seen.update(part.astype("<i8").tobytes())
    seen.update("\0".join(layout.ids.to_pylist()).encode())
    return seen.hexdigest()


def _ids(docs: pa.Table, lengths: NDArray[np.int64]) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
    """(ids, tokens a document) of all documents in order, about GROUP_BYTES at once."""
    at = 0
    for group in _groups(docs.select(["input_ids"]), lengths * 4):
        ids = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in group["input_ids"].chunks]
        yield np.concatenate(ids) if len(ids) > 1 else ids[0], lengths[at : at + group.num_rows]
        at += group.num_rows


def _check_documents(docs: pa.Table, lengths: NDArray[np.int64], layout: Layout) -> None:
    """Every document has ids of the tokenizer, ends with its end and has it nowhere else, or ShardError."""
    eos = int(layout.tokenizer["eos_id"])
    if not lengths.all():
        raise ShardError(f"{layout.name}: a document without tokens, in row {int(np.argmin(lengths))}")
    for ids, sizes in _ids(docs, lengths):
        _check_range(ids, layout)
        last = np.cumsum(sizes) - 1
        if (ids[last] != eos).any() or np.count_nonzero(ids == eos) != len(last):
            raise ShardError(f"{layout.name}: a document must end with token {eos} and have it nowhere else")


def _check_windows(layout: Layout, windows: Windows, lengths: NDArray[np.int64]) -> None:
    """Every token of a document lies in one window, every window has some, with padding at its end alone, and documents
    end where the pieces say; or ShardError."""
    tokens, eos, pad = windows.tokens, int(layout.tokenizer["eos_id"]), int(layout.tokenizer["pad_id"])
    pieces, sizes = windows.pieces, np.diff(layout.offsets)
    starts, stops, documents = layout.stretches
    first, size = pieces["document_start"].to_numpy(), stops - starts
    padding = len(tokens) - int(size.sum())
    ends = int(np.count_nonzero(tokens == eos)) - (padding if pad == eos else 0)
    if ends != len(lengths) or len(tokens) != layout.offsets[-1]:
        raise ShardError(f"{layout.name}: windows of {ends} documents and {len(tokens)} tokens, not {len(lengths)}")
    last = first + size
    places = np.cumsum(lengths)[documents] - lengths[documents] + first  # in all documents end to end
    order = np.argsort(places)
    sequence, before = pieces["sequence"].to_numpy(), np.cumsum(size) - size
    used = np.bincount(sequence, size, minlength=len(sizes))
    if not (
        len(windows.contexts) == len(sizes) == len(used)
        and (np.diff(sequence) >= 0).all()
        and np.array_equal(pieces["start"].to_numpy(), before - before[np.searchsorted(sequence, sequence)])
        and (used > 0).all()
        and (used <= sizes).all()
        and (last <= lengths[documents]).all()
        and np.array_equal(places[order], np.cumsum(size[order]) - size[order])
        and int(size.sum()) == int(lengths.sum())
        and np.array_equal(tokens[stops - 1] == eos, last == lengths[documents])
    ):
        raise ShardError(f"{layout.name}: the windows' pieces do not make up its documents")
    _check_range(tokens, layout)


def _check_mask(layout: Layout, mask: NDArray[np.uint8], tokens: int, formats: Sequence[str]) -> None:
    if len(mask) != layout.offsets[-1] or mask.max(initial=0) > 1:
        raise ShardError(f"{layout.name}: no loss mask of 0 and 1 for its {layout.offsets[-1]} tokens")
    if int(np.count_nonzero(mask)) != tokens and (flat := [each for each in FLAT_FORMATS if each in formats]):
        raise ShardError(f"{layout.name}: {flat[0]} has no place for a loss mask: use tokens_parquet or mds")


def _check_range(ids: NDArray[Any], layout: Layout) -> None:
    size = int(layout.tokenizer["vocab_size"])
    if not 0 <= int(ids.min()) <= int(ids.max()) < size:
        raise ShardError(f"{layout.name}: ids {ids.min()} to {ids.max()} for a vocabulary of {size}")


def _text(docs: pa.Table, lengths: NDArray[np.int64]) -> pa.Table:
    """The documents without their tokens, but with how many those are."""
    kept = docs.drop_columns([c for c in ("input_ids", "tokens") if c in docs.column_names])
    return kept.append_column("tokens", pa.array(lengths))


def _token_groups(docs: pa.Table, layout: Layout, mask: NDArray[np.uint8] | None = None) -> Iterator[pa.Table]:
    """A row a document, or a row a window with the documents in it and where each starts; each with its mask."""
    values = pa.from_numpy_dtype(np.dtype(layout.dtype))
    masks = {} if mask is None else {"loss_mask": pa.LargeListArray.from_arrays(layout.offsets, pa.array(mask))}
    if layout.windows is None:
        lengths = np.diff(layout.offsets)
        table = pa.table({"id": docs["id"], "input_ids": docs["input_ids"], "tokens": pa.array(lengths)} | masks)
        for group in _groups(table, lengths * 4):
            at = group.schema.get_field_index("input_ids")
            yield group.set_column(at, "input_ids", group["input_ids"].cast(pa.list_(values)))
        return
    pieces = layout.windows.pieces
    sequence = pieces["sequence"].to_numpy()
    count = len(layout.offsets) - 1
    size = np.diff(layout.offsets)
    used = np.bincount(sequence, pieces["end"].to_numpy() - pieces["start"].to_numpy(), minlength=count)
    rows = pa.array(np.searchsorted(sequence, np.arange(count + 1)), pa.int64())
    table = pa.table(
        {
            "id": pa.array([f"{layout.name}/{k}" for k in range(count)]),
            "input_ids": pa.LargeListArray.from_arrays(pa.array(layout.offsets), pa.array(layout.windows.tokens)),
            "tokens": pa.array(used.astype(np.int64)),  # the rest is padding
            "documents": pa.LargeListArray.from_arrays(rows, layout.ids.take(pieces["document"]).combine_chunks()),
            "starts": pa.LargeListArray.from_arrays(rows, pieces["start"].combine_chunks()),
            "context": pa.array(layout.windows.contexts),
        }
        | masks
    )
    for group in _groups(table, size * 4):
        yield group.set_column(1, "input_ids", group["input_ids"].cast(pa.list_(values)))


def _samples(groups: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same with the ids named `tokens`, as those who train from mds expect, and their number `length`."""
    names = {"input_ids": "tokens", "tokens": "length"}
    for group in groups:
        yield group.rename_columns([names.get(name, name) for name in group.column_names])


def _groups(table: pa.Table, sizes: NDArray[np.int64]) -> Iterator[pa.Table]:
    """The table in slices of about GROUP_BYTES, one chunk a column: how rows came must not show in the file."""
    cuts = np.flatnonzero(np.diff(np.cumsum(sizes, dtype=np.int64) // GROUP_BYTES)) + 1
    for start, end in zip([0, *cuts], [*cuts, table.num_rows], strict=True):
        yield table.slice(int(start), int(end - start)).combine_chunks()


def _write_parquet(path: Path, groups: Iterator[pa.Table], metadata: Mapping[str, bytes] | None = None) -> Path:
    writer: pq.ParquetWriter | None = None
    try:
        for group in groups:
            group = group.replace_schema_metadata(metadata)
            if writer is None:
                writer = pq.ParquetWriter(
                    path, group.schema, compression="zstd", compression_level=3, write_page_checksum=True
                )
            writer.write_table(group, row_group_size=max(1, group.num_rows))
    finally:
        if writer is not None:
            writer.close()
    return path


def _publish(
    folder: Path, kind: str, name: str | None, files: list[Path], count: dict[str, int], below: str = ""
) -> ShardRecord:
    """Move a payload and its sidecars to `folder/kind/below`, sidecars first. With `name`, named by the payload's
    hash."""
    place = Path(kind, below)
    (folder / place).mkdir(parents=True, exist_ok=True)
    described: list[Sidecar] = []
    for file in reversed(files):
        sha256 = file_sha256(file)
        target = place / (file.name if name is None else f"{name}-{sha256[:12]}.parquet")
        described.append(Sidecar(target.as_posix(), sha256, file.stat().st_size))
        os.replace(file, folder / target)
    payload = described.pop()
    return ShardRecord(kind, payload.path, payload.sha256, payload.bytes, **count, sidecars=tuple(described[::-1]))


def _link(source: Path, target: Path) -> None:
    """The same bytes under another name; a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
