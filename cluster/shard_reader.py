"""What a shard is, and reading it back.

The readers here know the formats from their specifications, not from the code that writes them, so that a mistake
in either shows up. `verify_shard` is run on every shard when it has been written, and by whoever doubts one later.
"""

from __future__ import annotations

import gzip
import hashlib
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cluster.flat_formats import ShardError
from cluster.tables import file_sha256


@dataclass(frozen=True)
class Sidecar:
    """A file that belongs to a payload: an index, metadata, boundaries."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class ShardRecord:
    """A shard in one format, as manifests name it; paths are relative to the build's folder of shards."""

    format: str
    path: str
    sha256: str
    bytes: int
    documents: int
    sequences: int
    tokens: int  # of documents, their ends included, padding not
    padding: int
    sidecars: tuple[Sidecar, ...] = ()


class Sequences(NamedTuple):
    """All sequences of a shard: tokens end to end, and offsets[n + 1] into them."""

    tokens: NDArray[Any]
    offsets: NDArray[np.int64]


def verify_shard(folder: Path, record: ShardRecord) -> None:
    """Compare every file's size and hash and the counts that its own index gives with the record, or ShardError."""
    for file in (Sidecar(record.path, record.sha256, record.bytes), *record.sidecars):
        path = folder / file.path
        if not path.is_file():
            raise ShardError(f"{file.path}: is missing")
        if (size := path.stat().st_size) != file.bytes:
            raise ShardError(f"{file.path}: {size} bytes, recorded {file.bytes}")
        if (found := file_sha256(path)) != file.sha256:
            raise ShardError(f"{file.path}: sha256 is {found}, recorded {file.sha256}")
    if record.format == "parquet":
        with pq.ParquetFile(folder / record.path, page_checksum_verification=True) as text:
            has_tokens = "tokens" in text.schema_arrow.names  # without a tokenizer there are none
            tokens = int(np.sum(text.read(["tokens"])["tokens"].to_numpy())) if has_tokens else 0
            counts = [text.metadata.num_rows, tokens]
        expected = [record.documents, record.tokens]
    elif record.format in ("webdataset", "lhotse"):
        told = [about for _, about in read_utterances(folder, record)]
        counts = [len(told), sum(about.get("tokens", 0) for about in told)]
        expected = [record.documents, record.tokens]
    else:
        ids, offsets = read_sequences(folder, record)
        if (np.diff(offsets) <= 0).any() or offsets[0] != 0:
            raise ShardError(f"{record.path}: its index does not ascend from 0")
        counts, expected = [int(offsets[-1]), len(ids)], [record.tokens + record.padding] * 2
        if record.format in ("megatron", "tokens_parquet", "mds"):  # the others' sidecars are about documents
            counts.append(len(offsets) - 1)
            expected.append(record.sequences)
    if counts != expected:
        raise ShardError(f"{record.path}: counts {counts}, recorded {expected}")


def read_sequences(folder: Path, record: ShardRecord) -> Sequences:
    """What a token format says of itself. For datatrove and olmo the offsets are those of documents, which in
    windows are stretches of documents and padding."""
    path = folder / record.path
    if record.format == "tokens_parquet":
        return _read_parquet(path)
    if record.format == "megatron":
        return _read_megatron(path)
    if record.format == "mds":
        return _read_mds(path)
    width = record.bytes // max(1, record.tokens + record.padding)
    if width not in (2, 4):
        raise ShardError(f"{record.path}: {width} bytes a token")
    tokens = np.memmap(path, "<u2" if width == 2 else "<u4", "r")
    if record.format == "datatrove":
        return Sequences(tokens, _read_datatrove_index(path, width, len(tokens)))
    if record.format == "olmo":
        return Sequences(tokens, _read_olmo_index(path, record))
    raise ShardError(f"{record.path}: {record.format} is no format of tokens")


def _read_parquet(path: Path) -> Sequences:
    """All row groups; a copy."""
    table = pq.read_table(path, columns=["input_ids"], page_checksum_verification=True)
    column = table["input_ids"].cast(pa.large_list(table.schema.field("input_ids").type.value_type)).combine_chunks()
    array = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    return Sequences(
        array.flatten().to_numpy(zero_copy_only=False), array.offsets.to_numpy() - array.offsets[0].as_py()
    )


def _read_megatron(path: Path) -> Sequences:
    index = path.with_suffix(".idx").read_bytes()
    if index[:9] != b"MMIDIDX\0\0" or int.from_bytes(index[9:17], "little") != 1:
        raise ShardError(f"{path.name}: its .idx has no Megatron header of version 1")
    kinds = {4: "<i4", 8: "<u2"}
    if index[17] not in kinds:
        raise ShardError(f"{path.name}: type code {index[17]} in its .idx")
    sequences = int.from_bytes(index[18:26], "little")
    documents = int.from_bytes(index[26:34], "little")
    if len(index) != 34 + 12 * sequences + 8 * documents:
        raise ShardError(f"{path.name}: its .idx has {len(index)} bytes for {sequences} sequences")
    lengths = np.frombuffer(index, "<i4", sequences, 34)
    pointers = np.frombuffer(index, "<i8", sequences, 34 + 4 * sequences)
    bounds = np.frombuffer(index, "<i8", documents, 34 + 12 * sequences)
    tokens = np.memmap(path, kinds[index[17]], "r")
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    if not np.array_equal(pointers, offsets[:-1] * tokens.itemsize):
        raise ShardError(f"{path.name}: its .idx points elsewhere than its lengths add up to")
    if not np.array_equal(bounds, np.arange(sequences + 1)):
        raise ShardError(f"{path.name}: its .idx has documents that are not one sequence each")
    return Sequences(tokens, offsets)


def _read_mds(path: Path) -> Sequences:
    """All samples; a copy. Checks the shard's entry for `index.json`, the sha1 in it too."""
    data = np.memmap(path, np.uint8, "r").data
    samples = int.from_bytes(data[:4], "little")
    offsets = np.frombuffer(data, "<u4", samples + 1, 4).tolist()
    config = orjson.loads(data[4 * (samples + 2) : offsets[0]])
    file = {"basename": path.name, "bytes": len(data), "hashes": {"sha1": hashlib.sha1(data).hexdigest()}}
    entry = config | {"raw_data": file, "samples": samples, "zip_data": None}
    if orjson.loads(Path(f"{path}.index.json").read_bytes()) != {"version": 2, "shards": [entry]}:
        raise ShardError(f"{path.name}: its entry for the index is not about it")
    place = config["column_names"].index("tokens")
    kind = np.dtype(config["column_encodings"][place].removeprefix("ndarray:")).newbyteorder("<")
    sizes: list[int | None] = config["column_sizes"]
    head = struct.Struct(f"<{sizes.count(None)}I")
    arrays = []
    for start in offsets[:-1]:
        told = iter(head.unpack_from(data, start))
        before = [next(told) if size is None else size for size in sizes[: place + 1]]
        end = start + head.size + sum(before)
        array = data[end - before[-1] : end]
        axes, width = array[0] >> 2, 1 << (array[0] & 3)
        length = int.from_bytes(array[1 : 1 + width], "little")
        if axes != 1 or len(array) != 1 + width + length * kind.itemsize:
            raise ShardError(f"{path.name}: a sample whose tokens are no array of {kind}")
        arrays.append(array[1 + width :])
    lengths = [len(array) // kind.itemsize for array in arrays]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    return Sequences(np.frombuffer(b"".join(arrays), kind), offsets)


def _read_datatrove_index(path: Path, width: int, tokens: int) -> NDArray[np.int64]:
    ends = np.fromfile(f"{path}.index", "<u8").astype(np.int64)
    head, total, _ = Path(f"{path}.metadata").read_text(encoding="utf-8").split("\n")
    if head.rsplit("|", 1)[1] != str(width) or total != str(tokens):
        raise ShardError(f"{path.name}: its metadata say {head!r} and {total} tokens, it has {tokens} of {width} bytes")
    return np.concatenate([np.zeros(1, np.int64), ends])


def _read_olmo_index(path: Path, record: ShardRecord) -> NDArray[np.int64]:
    with gzip.open(path.with_suffix(".csv.gz"), "rt", encoding="utf-8", newline="\n") as file:
        spans = np.array([line.split(",", 2)[:2] for line in file], np.int64).reshape(-1, 2)
    starts, ends = spans.T
    if (starts[1:] < ends[:-1]).any() or int((ends - starts).sum()) != record.tokens:
        raise ShardError(f"{path.name}: its .csv.gz has documents of other than {record.tokens} tokens")
    return np.union1d(spans, [0, record.tokens + record.padding])  # padding, wherever it is, belongs to no document


def read_utterances(folder: Path, record: ShardRecord) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """(audio, what is told of it) of all documents of a shard of audio: the whole JSON of webdataset, and what Lhotse's
    supervision has in `custom`. Or ShardError, where they are not what a reader of the format expects."""
    path = folder / record.path
    members = _read_tar(path)
    cuts = _read_cuts(folder / record.sidecars[0].path) if record.format == "lhotse" else None
    for name, audio in members:
        key, _, suffix = name.rpartition(".")
        other, data = next(members, ("", b""))
        if not key or "." in key or "/" in key or other != f"{key}.json":
            raise ShardError(f"{path.name}: {name} and {other or 'nothing'} are no pair of a key")
        rate, samples = sound_of(audio)
        if suffix != ("mp3" if samples is None else "flac"):
            raise ShardError(f"{path.name}: {name} is of another kind")
        about = orjson.loads(data)
        if cuts is not None:
            cut = next(cuts, {})
            sound = (about["sampling_rate"], about["num_samples"])
            if not key == about["id"] == cut.get("id") or cut["recording"] != about:
                raise ShardError(f"{path.name}: {name} is not the recording of its cut")
            if rate != sound[0] or samples not in (None, sound[1]):
                raise ShardError(f"{path.name}: {name} has {samples} samples at {rate} a second, recorded {sound}")
            about = cut["supervisions"][0]["custom"]
        yield audio, about
    if cuts is not None and next(cuts, None) is not None:
        raise ShardError(f"{path.name}: fewer recordings than cuts")


def sound_of(audio: bytes | pa.Buffer) -> tuple[int, int | None]:
    """(samples a second, samples) as a FLAC says them at its beginning, or an MP3, which says no number of samples."""
    head = bytes(memoryview(audio)[:26])
    if head[:4] == b"fLaC" and len(head) == 26:
        told = int.from_bytes(head[18:26], "big")  # 20 bits of rate, 3 and 5 of channels and width, 36 of samples
        if samples := told & (1 << 36) - 1:
            return told >> 44, samples
        raise ShardError("a FLAC that does not say how long it is")
    at = 0
    if head[:3] == b"ID3":
        at = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    frame = int.from_bytes(memoryview(audio)[at : at + 4], "big")
    version, layer, rate = frame >> 19 & 3, frame >> 17 & 3, frame >> 10 & 3
    if frame >> 21 != 0x7FF or version == 1 or layer != 1 or rate == 3:
        raise ShardError(f"audio that is neither FLAC nor MP3: {head[:4]!r}")
    return (44_100, 48_000, 32_000)[rate] >> {3: 0, 2: 1, 0: 2}[version], None  # MPEG 1, 2 and 2.5


def _read_tar(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of the plain files of a ustar archive, of which it must consist."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = 0
        while (head := data[at : at + 512]) != bytes(512):
            total = sum(head) - sum(head[148:156]) + 8 * ord(" ")
            if (
                len(head) < 512
                or head[257:263] != b"ustar\0"
                or head[156:157] != b"0"
                or total != _octal(head[148:156])
            ):
                raise ShardError(f"{path.name}: no header of a file at {at}")
            size = _octal(head[124:136])
            at += 512
            yield head[:100].rstrip(b"\0").decode(), data[at : at + size]
            at += size + -size % 512
        if data[at:] != bytes(1024):
            raise ShardError(f"{path.name}: does not end where its last file does")


def _octal(field: bytes) -> int:
    return int(field.rstrip(b" \0"), 8)


def _read_cuts(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rb") as file:
        yield from map(orjson.loads, file)
