"""Formats of audio: documents with their sound, one tar a shard, as those who train on speech read them.

- `webdataset`: `<key>.flac` and `<key>.json` of each document, the JSON with all that is known of it.
- `lhotse`: Lhotse Shar, `recording.*.tar` with `<key>.flac` and its recording's manifest, and `cuts.*.jsonl.gz`.

A key is the document's id in percent-encoding, for readers end it at the first dot and take slashes for folders. Bytes
of audio go into a tar as they are; the Parquet beside it says where they lie. Where no tar is asked for, it holds them.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.flat_formats import ShardError
from cluster.shard_reader import ShardRecord, sound_of
from cluster.tables import file_sha256

SUFFIXES = {"audio/flac": "flac", "audio/mpeg": "mp3"}
PLACES = ("audio_path", "audio_member", "audio_offset", "audio_bytes")  # of a document's audio in a tar
EMBEDDED = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # the `Audio` of the library `datasets`
FEATURES = {"huggingface": orjson.dumps({"info": {"features": {"audio": {"_type": "Audio"}}}})}
LONGEST_KEY = 80  # of the 100 characters that a name in a tar may have
BLOCK = 512
BATCH_BYTES = 64 << 20


class Utterance(NamedTuple):
    """A document as tars have it."""

    key: str
    suffix: str
    payload: pa.Buffer
    rate: int
    samples: int
    told: dict[str, Any]  # all its columns that JSON can hold


class Archive(NamedTuple):
    """A shard as written: its tar, the files beside it, and where in the tar each document's audio is."""

    files: list[Path]
    members: list[tuple[str, int, int]]  # name, offset, size


def key_of(doc_id: str) -> str:
    """The id in percent-encoding, of letters, digits, `_`, `-` and `%`; where that is none or too long, `~` and a hash.
    Different ids have different keys."""
    key = quote(doc_id, safe="").replace(".", "%2E").replace("~", "%7E")
    return key if 0 < len(key) <= LONGEST_KEY else "~" + hashlib.sha256(doc_id.encode()).hexdigest()[:40]


def has_audio(docs: pa.Table) -> bool:
    """Whether all documents have audio of a kind that shards may hold."""
    if not {"payload", "content_type"} <= set(docs.column_names) or docs["payload"].null_count:
        return False
    return set(pc.unique(docs["content_type"]).to_pylist()) <= SUFFIXES.keys()


def write_webdataset(folder: Path, name: str, groups: Iterable[pa.Table]) -> Archive:
    """Write the documents of `groups`, in order, as `<name>-<sha12>.tar`."""
    made, members = folder / "made.tar", []
    with made.open("wb") as file:
        for each in _utterances(groups):
            members.append(_add(file, f"{each.key}.{each.suffix}", each.payload))
            _add(file, f"{each.key}.json", orjson.dumps({"duration": each.samples / each.rate, **each.told}))
        file.write(bytes(2 * BLOCK))
    return Archive([made.rename(folder / f"{name}-{file_sha256(made)[:12]}.tar")], members)


def write_lhotse(folder: Path, name: str, groups: Iterable[pa.Table]) -> Archive:
    """Write the documents of `groups`, in order, as `recording.<name>-<sha12>.tar` and `cuts.<name>-<sha12>.jsonl.gz`:
    a cut is a whole utterance with one supervision, which has in `custom` what Lhotse has no field for."""
    made, lines, members = folder / "made.tar", folder / "made.jsonl.gz", []
    with made.open("wb") as file, lines.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as cuts:
        for each in _utterances(groups):
            cut = _cut(each)
            members.append(_add(file, f"{each.key}.{each.suffix}", each.payload))
            _add(file, f"{each.key}.json", orjson.dumps(cut["recording"]))
            cuts.write(orjson.dumps(cut, option=orjson.OPT_APPEND_NEWLINE))
        file.write(bytes(2 * BLOCK))
    both = hashlib.sha256((file_sha256(made) + file_sha256(lines)).encode()).hexdigest()[:12]
    files = [(made, f"recording.{name}-{both}.tar"), (lines, f"cuts.{name}-{both}.jsonl.gz")]
    return Archive([path.rename(folder / target) for path, target in files], members)


AUDIO_FORMATS: dict[str, Callable[[Path, str, Iterable[pa.Table]], Archive]] = {
    "webdataset": write_webdataset,
    "lhotse": write_lhotse,
}


def referring(docs: pa.Table, path: str, archive: Archive) -> pa.Table:
    """The documents without their audio, which lies in the tar at `path`."""
    names, offsets, sizes = zip(*archive.members, strict=True)
    values = (pa.array([path] * docs.num_rows), pa.array(names), pa.array(offsets), pa.array(sizes))
    docs = docs.drop_columns(["payload"])
    for column, value in zip(PLACES, values, strict=True):
        docs = docs.append_column(column, value)
    return docs


def embedded(group: pa.Table) -> pa.Table:
    """The documents with their audio in a column `audio`, which the library `datasets` knows as such."""
    suffixes = map(SUFFIXES.__getitem__, group["content_type"].to_pylist())
    names = [f"{key_of(one)}.{suffix}" for one, suffix in zip(group["id"].to_pylist(), suffixes, strict=True)]
    payload = group["payload"].cast(pa.binary()).combine_chunks()
    audio = pa.StructArray.from_arrays([payload, pa.array(names, pa.string())], fields=list(EMBEDDED))
    return group.set_column(group.schema.get_field_index("payload"), "audio", audio)


def read_documents(root: Path, shards: str, record: ShardRecord) -> Iterator[pa.Table]:
    """The documents of a shard of Parquet as they were given to `write_shard`, without their tokens, with their audio
    wherever it lies. About BATCH_BYTES of audio at once, and a row group without it. `shards` is the build's folder of
    shards below `root`, where the record's path begins."""
    with pq.ParquetFile(root / record.path) as file:
        for number in range(file.num_row_groups):
            group = file.read_row_group(number)
            if "audio" in group.column_names and group.schema.field("audio").type == EMBEDDED:
                payload = pc.struct_field(group["audio"], "bytes").cast(pa.large_binary())
                yield group.set_column(group.schema.get_field_index("audio"), "payload", payload)
            elif set(PLACES) <= set(group.column_names):
                yield from _fetched(root / shards, group)
            else:
                yield group


def _fetched(folder: Path, group: pa.Table) -> Iterator[pa.Table]:
    """The documents with their audio out of the tar that they name, a batch at a time."""
    rest = group.drop_columns(list(PLACES))
    path, *places = (group[name].to_pylist() for name in ("audio_path", "audio_offset", "audio_bytes"))
    with (folder / path[0]).open("rb") as file:
        first = size = 0
        payloads: list[bytes] = []
        for row, (offset, length) in enumerate(zip(*places, strict=True)):
            file.seek(offset)
            payloads.append(file.read(length))
            size += length
            if size >= BATCH_BYTES or row == group.num_rows - 1:
                batch = rest.slice(first, row + 1 - first)
                yield batch.append_column("payload", pa.array(payloads, pa.large_binary()))
                first, size, payloads = row + 1, 0, []


def _utterances(groups: Iterable[pa.Table]) -> Iterator[Utterance]:
    for group in groups:
        told = [field.name for field in group.schema if not _holds_bytes(field.type)]
        rows = pa.table({name: short(group[name]) for name in told}).to_pylist()
        for row, payload in zip(rows, (value for chunk in group["payload"].chunks for value in chunk), strict=True):
            rate, samples = sound_of(payload.as_buffer())
            samples = row.get("samples") if samples is None else samples
            if samples is None:
                raise ShardError(f"{row['id']}: an MP3 without its length in a column `samples`")
            yield Utterance(key_of(row["id"]), SUFFIXES[row["content_type"]], payload.as_buffer(), rate, samples, row)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_nested(kind):
        return any(_holds_bytes(kind.field(at).type) for at in range(kind.num_fields))
    return any(
        is_bytes(kind) for is_bytes in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    )


def short(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Floats of 32 bits as those of 64 that are written with the same digits: 3.21, not 3.2100000381469727."""
    return column.cast(pa.string()).cast(pa.float64()) if column.type == pa.float32() else column


def _add(file: BinaryIO, name: str, data: bytes | pa.Buffer) -> tuple[str, int, int]:
    """Append a member that says nothing of who wrote it and when."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    file.write(info.tobuf(tarfile.USTAR_FORMAT))
    offset = file.tell()
    file.write(data)
    file.write(bytes(-len(data) % BLOCK))
    return name, offset, len(data)


def _cut(each: Utterance) -> dict[str, Any]:
    """A MonoCut as Lhotse serialises it, of a recording whose audio is in the tar at the same place."""
    told = dict(each.told)
    duration = each.samples / each.rate
    recording = {
        "id": each.key,
        "sources": [{"type": "shar", "channels": [0], "source": ""}],
        "sampling_rate": each.rate,
        "num_samples": each.samples,
        "duration": duration,
        "channel_ids": [0],
    }
    heard = {"id": each.key, "recording_id": each.key, "start": 0.0, "duration": duration, "channel": 0}
    heard |= {name: value for name in ("text", "language", "speaker") if (value := told.pop(name, None)) is not None}
    if words := told.pop("words", None):
        spans = [[one["word"], one["start"], round(one["end"] - one["start"], 3), None] for one in words]
        heard["alignment"] = {"word": spans}
    cut = {"id": each.key, "start": 0.0, "duration": duration, "channel": 0}
    cut |= {"supervisions": [heard | {"custom": told}], "recording": recording, "type": "MonoCut"}
    return cut
