"""Shards of every format give back exactly the ids that went in: to our readers and to the trainers' own."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import importlib.util
import json
import struct
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import mds, shards
from cluster.flat_formats import FLAT_FORMATS, ShardError
from cluster.shard_reader import ShardRecord, read_sequences, verify_shard
from cluster.shards import write_shard
from cluster.storage import open_store
from cluster.tables import file_sha256
from operators.tokens.pack import Pack, flat_tokens, unpacked
from operators.tokens.tokenizer import Tokenizer
from tests.cluster.shard_cases import EOS, PAD, VOCAB, buckets_of, by_format, table, tokenizer, windows_of

FORMATS = ["megatron", "datatrove", "olmo", "mds", "tokens_parquet", "parquet"]
NASTY_IDS = ["a,b", 'quo"te', "line\nbreak", "carriage\r\n", "\u2028para", "../../etc", "", "\0nul", "漢字"]


def sequences(folder: Path, record: ShardRecord) -> list[list[int]]:
    tokens, offsets = read_sequences(folder, record)
    return [tokens[a:b].tolist() for a, b in zip(offsets[:-1], offsets[1:], strict=True)]


documents = st.lists(st.lists(st.integers(2, VOCAB - 1), min_size=1, max_size=12), min_size=1, max_size=9)


@pytest.fixture(params=["uint16", "int32"])
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@settings(max_examples=25, deadline=None)
@given(lists=documents, wide=st.booleans(), cut=st.integers(0, 9))
def test_ids_come_back_and_chunks_do_not_show(
    lists: list[list[int]], wide: bool, cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    dtype = "int32" if wide else "uint16"
    docs = table(lists, dtype=dtype)
    chunked = pa.concat_tables([docs.slice(0, cut), docs.slice(cut)])
    first, second = tmp_path_factory.mktemp("a"), tmp_path_factory.mktemp("b")
    records = write_shard(first, "train-00000", docs, FORMATS, tokenizer(dtype))
    assert records == write_shard(second, "train-00000", chunked, FORMATS, tokenizer(dtype))
    for record in records:
        if record.format != "parquet":
            assert sequences(first, record) == docs["input_ids"].to_pylist()
        assert (record.documents, record.sequences) == (len(lists), len(lists))
        assert record.tokens == sum(map(len, lists)) + len(lists)


@settings(max_examples=40, deadline=None)
@given(lists=documents, size=st.integers(2, 9), even=st.booleans(), pad=st.sampled_from([PAD, EOS]))
def test_windows_come_back(
    lists: list[list[int]], size: int, even: bool, pad: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Shuffled ones of one length, and buckets of several."""
    folder = tmp_path_factory.mktemp("windows")
    docs = table(lists)
    windows = windows_of(docs, size, pad) if even else buckets_of(docs, 2, 8, pad)
    records = by_format(write_shard(folder, "train-00000", docs, FORMATS, tokenizer(pad=pad), windows))
    expected = [part.tolist() for part in np.split(windows.tokens, windows.offsets[1:-1])]
    for kind in ("megatron", "tokens_parquet", "mds"):
        assert sequences(folder, records[kind]) == expected
        assert records[kind].tokens + records[kind].padding == windows.tokens.size
    for kind in ("datatrove", "olmo"):
        assert [t for s in sequences(folder, records[kind]) for t in s] == windows.tokens.tolist()
    pieces = pq.read_table(folder / records["megatron"].sidecars[1].path).to_pylist()
    rebuilt: dict[str, dict[int, list[int]]] = {}
    for piece in pieces:
        ids = expected[piece["sequence"]][piece["start"] : piece["end"]]
        rebuilt.setdefault(piece["id"], {})[piece["document_start"]] = ids
        assert piece["context"] == windows.contexts[piece["sequence"]]
    for name, ids in zip(docs["id"].to_pylist(), docs["input_ids"].to_pylist(), strict=True):
        assert [t for _, part in sorted(rebuilt[name].items()) for t in part] == ids
    rows = pq.read_table(folder / records["tokens_parquet"].path).to_pylist()
    for k, (row, sample) in enumerate(zip(rows, mds_samples(folder / records["mds"].path), strict=True)):
        mine = [p for p in pieces if p["sequence"] == k]
        assert (row["documents"], row["starts"]) == ([p["id"] for p in mine], [p["start"] for p in mine])
        assert row["tokens"] == sum(p["end"] - p["start"] for p in mine)
        assert row["context"] == windows.contexts[k]
        assert sample.pop("tokens") == expected[k]
        assert sample == {
            "context": row["context"],
            "documents": row["documents"],
            "id": row["id"],
            "length": row["tokens"],
            "starts": row["starts"],
        }


def test_boundaries_make_masks_as_the_snippet_says(tmp_path: Path) -> None:
    docs = table([[2, 3, 4], [5], [6, 7]])
    records = by_format(write_shard(tmp_path, "train-00000", docs, FORMATS, tokenizer(), windows_of(docs, 4)))
    page = Path(__file__).parents[2].joinpath("docs", "shards.md").read_text("utf-8")
    names: dict[str, Any] = {"shards": lambda corpus, kind: [str(tmp_path / records[kind].path)]}
    exec(page.split("```python snippet=masks\n")[1].split("```")[0], names)
    expected = [[0, 1], [0, 2, 4], [0, 4]]
    assert [part.tolist() for part in names["cu_seqlens"]] == expected
    for sample, bounds in zip(mds_samples(tmp_path / records["mds"].path), expected, strict=True):
        assert [*sample["starts"], sample["length"]] == bounds


def mds_samples(path: Path) -> list[dict[str, Any]]:
    """All samples, by the description of the format."""
    data = path.read_bytes()
    (count,) = struct.unpack_from("<I", data)
    offsets = struct.unpack_from(f"<{count + 1}I", data, 4)
    about = json.loads(data[4 * (count + 2) : offsets[0]])
    samples = []
    for at in offsets[:-1]:
        fixed, sizes = about["column_sizes"], []
        for size in fixed:
            sizes.append(size or struct.unpack_from("<I", data, at)[0])
            at += 0 if size else 4
        sample = {}
        for name, encoding, size in zip(about["column_names"], about["column_encodings"], sizes, strict=True):
            sample[name] = mds_value(encoding, data[at : at + size])
            at += size
        assert at in offsets
        samples.append(sample)
    assert offsets[-1] == len(data)
    return samples


def mds_value(encoding: str, value: bytes) -> Any:
    if encoding == "int":
        return int.from_bytes(value, "little", signed=True)
    if encoding in ("str", "json"):
        return json.loads(value) if encoding == "json" else value.decode()
    assert value[0] >> 2 == 1
    width = 1 << (value[0] & 3)
    found = np.frombuffer(value[1 + width :], encoding.removeprefix("ndarray:"))
    assert len(found) == int.from_bytes(value[1 : 1 + width], "little")
    return found.tolist()


def test_views_share_one_payload(tmp_path: Path, dtype: str) -> None:
    records = by_format(write_shard(tmp_path, "train-00000", table([[5, 6]], dtype=dtype), FORMATS, tokenizer(dtype)))
    views = [tmp_path / records[kind].path for kind in FLAT_FORMATS]
    assert len({path.stem for path in views}) == 1
    assert len({path.stat().st_ino for path in views}) == 1
    for record in records.values():
        folder = "mds/train" if record.format == "mds" else record.format
        assert record.path.startswith(f"{folder}/train-00000-")
        for sidecar in record.sidecars:
            assert Path(sidecar.path).name.startswith(Path(record.path).stem + ".")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(FORMATS)  # nothing temporary stays


@pytest.mark.parametrize("kind", ["megatron", "mds"])
def test_the_name_tells_contents_apart(kind: str, tmp_path: Path) -> None:
    def stem(ids: list[str], lists: list[list[int]]) -> str:
        return write_shard(tmp_path, "train-00000", table(lists, ids), [kind], tokenizer())[1].path

    assert len({stem(["a", "b"], [[2], [3]]), stem(["a", "c"], [[2], [3]]), stem(["a", "b"], [[3], [2]])}) == 3


def test_text_is_always_written_with_all_columns(tmp_path: Path) -> None:
    docs = table([[5], [6, 7]])
    (record,) = write_shard(tmp_path, "train-00000", docs, [], tokenizer())
    found = pq.read_table(tmp_path / record.path)
    assert found.select(["id", "text", "url"]).equals(docs.select(["id", "text", "url"]))
    assert found["tokens"].to_pylist() == [2, 3]


def test_row_groups_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "GROUP_BYTES", 64)
    docs = table([[k + 2] * 7 for k in range(50)])
    records = by_format(write_shard(tmp_path, "train-00000", docs, FORMATS, tokenizer()))
    for kind in ("parquet", "tokens_parquet"):
        assert pq.ParquetFile(tmp_path / records[kind].path).metadata.num_row_groups > 10
    for kind in ("megatron", "tokens_parquet", "mds"):
        assert sequences(tmp_path, records[kind]) == docs["input_ids"].to_pylist()
    windows = windows_of(docs, 8)
    records = by_format(write_shard(tmp_path, "train-00001", docs, FORMATS, tokenizer(), windows))
    for kind in ("tokens_parquet", "mds"):
        assert sequences(tmp_path, records[kind]) == windows.tokens.reshape(-1, 8).tolist()


def test_ids_cannot_break_lines_of_the_csv(tmp_path: Path) -> None:
    docs = table([[k + 2] for k in range(len(NASTY_IDS))], NASTY_IDS)
    records = by_format(write_shard(tmp_path, "train-00000", docs, FORMATS, tokenizer()))
    with gzip.open(tmp_path / records["olmo"].sidecars[0].path, "rt", encoding="utf-8") as file:
        rows = [line.split(",") for line in file.read().splitlines()]
    assert [len(row) for row in rows] == [5] * len(NASTY_IDS)
    assert [row[4] for row in rows] == [str(k + 1) for k in range(len(NASTY_IDS))]
    assert rows[-1][2] == "漢字"
    assert pq.read_table(tmp_path / records["parquet"].path)["id"].to_pylist() == NASTY_IDS


def test_no_documents_no_shard(tmp_path: Path) -> None:
    assert write_shard(tmp_path, "train-00000", table([]), FORMATS, tokenizer()) == []


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([[5, EOS, 6, EOS]], "nowhere else"),
        ([[5, 6]], "must end with token 0"),
        ([[5, EOS], []], "without tokens"),
        ([[], [5, EOS]], "without tokens"),
        ([[VOCAB, EOS]], "for a vocabulary of 60000"),
    ],
)
def test_wrong_tokens_are_refused(lists: list[list[int]], message: str, tmp_path: Path) -> None:
    docs = table([[2]] * len(lists))
    docs = docs.set_column(2, "input_ids", pa.array(lists, docs.schema.field("input_ids").type))
    with pytest.raises(ShardError, match=message):
        write_shard(tmp_path, "train-00000", docs, ["megatron"], tokenizer())
    assert list(tmp_path.iterdir()) == []  # not even the text


def test_windows_that_lost_a_document_are_refused(tmp_path: Path) -> None:
    docs = table([[2, 3], [4, 5]])
    with pytest.raises(ShardError, match="windows of 1 documents"):
        write_shard(tmp_path, "train-00000", docs, ["megatron"], tokenizer(), windows_of(docs.slice(0, 1), 3))


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("document", [0, 0, 1, 0]),  # of another document
        ("document_start", [3, 3, 0, 0]),  # beyond its document
        ("document_start", [2, 0, 0, 0]),  # a part twice, another never
        ("start", [0, 0, 0, 0]),  # two at one place
        ("end", [2, 1, 4, 3]),  # beyond its window
        ("end", [1, 1, 3, 3]),  # short of its end
        ("sequence", [1, 1, 1, 2]),  # a window that holds nothing
    ],
)
def test_pieces_that_are_not_the_documents_are_refused(column: str, values: list[int], tmp_path: Path) -> None:
    docs = table([[2, 3, 4], [5, 6, 7]])
    windows = windows_of(docs, 3)
    right = windows.pieces[column].to_pylist()
    assert right != values
    assert len(right) == len(values)
    pieces = windows.pieces.set_column(windows.pieces.column_names.index(column), column, pa.array(values))
    with pytest.raises(ShardError, match="do not make up|windows of"):
        write_shard(tmp_path, "train-00000", docs, ["mds"], tokenizer(), windows._replace(pieces=pieces))
    short = windows._replace(contexts=windows.contexts[1:])
    with pytest.raises(ShardError, match="do not make up"):
        write_shard(tmp_path, "train-00000", docs, ["mds"], tokenizer(), short)


@pytest.mark.parametrize("length", [255, 256, 65_535, 65_536, 70_000])
def test_mds_says_lengths_in_as_few_bytes_as_its_readers_expect(length: int, dtype: str, tmp_path: Path) -> None:
    docs = table([[7] * (length - 1), [8, 9]], ["漢字", ""], dtype)
    record = by_format(write_shard(tmp_path, "train-00000", docs, ["mds"], tokenizer(dtype)))["mds"]
    assert sequences(tmp_path, record) == docs["input_ids"].to_pylist()
    samples = mds_samples(tmp_path / record.path)
    assert [sample["tokens"] for sample in samples] == docs["input_ids"].to_pylist()
    assert [(sample["id"], sample["length"]) for sample in samples] == [("漢字", length), ("", 3)]


def test_a_shard_of_mds_ends_where_its_offsets_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = table([[5] * 100])
    size = by_format(write_shard(tmp_path / "a", "train-00000", docs, ["mds"], tokenizer()))["mds"].bytes
    monkeypatch.setattr(mds, "MOST_BYTES", size)
    write_shard(tmp_path / "b", "train-00000", docs, ["mds"], tokenizer())
    monkeypatch.setattr(mds, "MOST_BYTES", size - 1)
    with pytest.raises(ShardError, match="lower shards.tokens_per_shard"):
        write_shard(tmp_path / "c", "train-00000", docs, ["mds"], tokenizer())


def test_a_split_of_mds_has_one_index(tmp_path: Path) -> None:
    """From the entries beside the shards, in the order of the manifest; another set of shards takes its place."""
    store = open_store(str(tmp_path))
    records = []
    for name in ("train-00001-00", "train-00000-01", "a-00000-00000-00", "train-00000-00"):
        docs = table([[2 + len(records)], [3]])
        written = write_shard(tmp_path / "builds/b/shards", name, docs, ["mds", "megatron"], tokenizer())
        records += [dataclasses.asdict(record) for record in written]
    for file in [file for record in records for file in (record, *record["sidecars"])]:
        file["path"] = f"builds/b/shards/{file['path']}"
    shards = [record for record in records if record["format"] == "mds"]
    indexes = mds.write_indexes(store, records)
    for split, index in zip(("train", "a-00000"), indexes, strict=True):
        assert index["path"] == f"builds/b/shards/mds/{split}/index-{index['sha256'][:12]}.json"
        data = store.read(index["path"])
        assert (len(data), hashlib.sha256(data).hexdigest()) == (index["bytes"], index["sha256"])
        assert store.read(f"builds/b/shards/mds/{split}/index.json") == data
    told = json.loads(store.read(indexes[0]["path"]))
    mine = [shards[k] for k in (0, 1, 3)]
    assert told["version"] == 2
    for entry, shard in zip(told["shards"], mine, strict=True):
        payload = store.read(shard["path"])
        assert entry["raw_data"] == {
            "basename": Path(shard["path"]).name,
            "bytes": len(payload),
            "hashes": {"sha1": hashlib.sha1(payload).hexdigest()},
        }
        assert entry["samples"] == shard["sequences"] == 2
    again = mds.write_indexes(store, shards[:2])
    assert again != indexes
    assert store.exists(indexes[0]["path"])
    newest = json.loads(store.read("builds/b/shards/mds/train/index.json"))
    assert [entry["samples"] for entry in newest["shards"]] == [2, 2]
    assert mds.write_indexes(store, []) == []


@pytest.mark.parametrize(("name", "formats"), [("../x", []), ("a/b", []), ("", []), ("train-0", ["lance"])])
def test_bad_names_and_formats(name: str, formats: list[str], tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="name of a shard|unknown"):
        write_shard(tmp_path, name, table([[2]]), formats, tokenizer())


@pytest.mark.parametrize("kind", FORMATS)
def test_damage_is_found(kind: str, tmp_path: Path) -> None:
    record = by_format(write_shard(tmp_path, "train-00000", table([[2, 3], [4]]), FORMATS, tokenizer()))[kind]
    verify_shard(tmp_path, record)
    with pytest.raises(ShardError, match="recorded|bytes a token"):
        verify_shard(tmp_path, dataclasses.replace(record, tokens=record.tokens * 3))
    for file in [record.path, *(s.path for s in record.sidecars)]:
        path = tmp_path / file
        whole = path.read_bytes()
        path.unlink()
        with pytest.raises(ShardError, match="missing"):
            verify_shard(tmp_path, record)
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(ShardError, match="sha256"):
            verify_shard(tmp_path, record)
        path.write_bytes(whole[:-1])
        with pytest.raises(ShardError, match="bytes, recorded"):
            verify_shard(tmp_path, record)
        path.write_bytes(whole)


# The trainers' own readers. Without torch they get the two or three names of it that reading needs.


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@pytest.fixture
def torch_names() -> Iterator[None]:
    """Just enough of torch for readers that hand out arrays, and Megatron's package without what it imports."""
    before = dict(sys.modules)
    torch = _module("torch", Tensor=np.ndarray, as_tensor=lambda array, dtype: array, long=np.int64)
    torch.utils = _module("torch.utils")
    torch.utils.data = _module("torch.utils.data", Dataset=object)
    torch.distributed = _module("torch.distributed", is_available=lambda: False, is_initialized=lambda: False)
    spec = importlib.util.find_spec("megatron")
    if spec is not None and spec.submodule_search_locations:
        _package("megatron.core", Path(next(iter(spec.submodule_search_locations)), "core"))
        _package("megatron.core.datasets", Path(next(iter(spec.submodule_search_locations)), "core", "datasets"))
        _module("megatron.core.utils", log_single_rank=lambda *_: None)
    spec = importlib.util.find_spec("streaming")
    if spec is not None and spec.submodule_search_locations:
        for name in ("", ".base", ".base.format", ".base.format.mds"):
            _package(f"streaming{name}", Path(next(iter(spec.submodule_search_locations)), *name.split(".")))
        _module("streaming.base.util", bytes_to_int=int)
        _module("PIL", Image=types.ModuleType("PIL.Image"))
        _module("PIL.JpegImagePlugin", JpegImageFile=object)
        sys.modules["PIL"].Image.Image = object
    yield
    for name in set(sys.modules) - set(before):
        if name.split(".")[0] in ("torch", "megatron", "datatrove", "streaming", "PIL"):
            del sys.modules[name]


def _module(name: str, **names: Any) -> Any:
    module = types.ModuleType(name)
    module.__dict__.update(names)
    module.__spec__ = importlib.util.spec_from_loader(name, loader=None)
    sys.modules[name] = module
    return module


def _package(name: str, folder: Path) -> None:
    _module(name, __path__=[str(folder)])


@pytest.mark.skipif(not _installed("megatron"), reason="megatron-core is not installed (pip install --no-deps)")
@pytest.mark.parametrize("seq_len", [None, 5])
def test_megatron_core_reads_it(tmp_path: Path, dtype: str, seq_len: int | None, torch_names: None) -> None:
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    docs = table([[k + 2] * k for k in range(1, 9)], dtype=dtype)
    windows = None if seq_len is None else windows_of(docs, seq_len)
    records = by_format(write_shard(tmp_path, "train-00000", docs, ["megatron"], tokenizer(dtype), windows))
    dataset = IndexedDataset(str(tmp_path / records["megatron"].path.removesuffix(".bin")), multimodal=False, mmap=True)
    expected = docs["input_ids"].to_pylist() if windows is None else windows.tokens.reshape(-1, 5).tolist()
    assert [dataset[k].tolist() for k in range(len(dataset))] == expected
    assert len(dataset.document_indices) - 1 == len(expected)
    assert dataset.index.dtype == np.dtype(dtype)


@pytest.mark.skipif(not _installed("datatrove"), reason="datatrove is not installed (pip install --no-deps)")
@pytest.mark.parametrize("layout", ["documents", "windows"])
def test_datatrove_reads_it(tmp_path: Path, dtype: str, layout: str, torch_names: None) -> None:
    """Its windows are seq_len + 1 tokens, so windows of N are read with N - 1."""
    from datatrove.utils.dataset import DatatroveFolderDataset

    docs = table([[k + 2] * k for k in range(1, 9)], dtype=dtype)
    windows = windows_of(docs, 5)
    write_shard(
        tmp_path, "train-00000", docs, ["datatrove"], tokenizer(dtype), windows if layout == "windows" else None
    )
    width = np.dtype(dtype).itemsize
    dataset = DatatroveFolderDataset(str(tmp_path / "datatrove"), 4, filename_pattern="*.ds", token_size=width)
    flat = windows.tokens if layout == "windows" else docs["input_ids"].combine_chunks().flatten().to_numpy()
    whole = len(flat) // 5
    assert [dataset[k]["input_ids"].tolist() for k in range(len(dataset))] == flat[: whole * 5].reshape(-1, 5).tolist()


@pytest.mark.skipif(not _installed("streaming"), reason="mosaicml-streaming is not installed (pip install --no-deps)")
@pytest.mark.parametrize("layout", ["documents", "windows"])
def test_mosaicml_streaming_reads_it(tmp_path: Path, dtype: str, layout: str, torch_names: None) -> None:
    """From the index of a split of two shards, with nothing in it that it takes for unsafe."""
    from streaming.base.format.mds.reader import MDSReader
    from streaming.base.hashing import get_hash

    docs = table([[k + 2] * (k % 300) for k in range(1, 400)], NASTY_IDS * 44 + ["a", "b", "c"], dtype)
    windows = windows_of(docs, 5) if layout == "windows" else None
    for number in ("00000", "00001"):
        write_shard(tmp_path, f"train-{number}", docs, ["mds"], tokenizer(dtype), windows)
    folder = tmp_path / "mds" / "train"
    index = json.loads(mds.merge_indexes(path.read_bytes() for path in sorted(folder.glob("*.json"))))
    assert len(index["shards"]) == 2
    for entry in index["shards"]:
        reader = MDSReader.from_json(str(folder), None, entry)
        reader.validate(allow_unsafe_types=False)
        data = (folder / entry["raw_data"]["basename"]).read_bytes()
        assert (get_hash("sha1", data), len(data)) == (entry["raw_data"]["hashes"]["sha1"], reader.get_raw_size())
        samples = [reader[k] for k in range(len(reader))]
        assert {sample["tokens"].dtype for sample in samples} == {np.dtype(dtype)}
        found = [sample["tokens"].tolist() for sample in samples]
        if windows is None:
            assert found == docs["input_ids"].to_pylist()
            assert [sample["id"] for sample in samples] == docs["id"].to_pylist()
            continue
        assert found == windows.tokens.reshape(-1, 5).tolist()
        names = [name for sample in samples for name in sample["documents"]]
        assert names == docs["id"].take(windows.pieces["document"]).to_pylist()
        assert [k for sample in samples for k in sample["starts"].tolist()] == windows.pieces["start"].to_pylist()
        assert [sample["context"] for sample in samples] == windows.contexts.tolist()


@pytest.mark.skipif(not _installed("datasets"), reason="datasets is not installed")
def test_hugging_face_datasets_reads_it(tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    from datasets import load_dataset

    docs = table([[k + 2] * k for k in range(1, 9)], dtype=dtype)
    records = by_format(write_shard(tmp_path, "train-00000", docs, FORMATS, tokenizer(dtype)))
    for kind, column in (("tokens_parquet", "input_ids"), ("parquet", "text")):
        path = str(tmp_path / records[kind].path)
        found = load_dataset("parquet", data_files=path, split="train", cache_dir=str(tmp_path / "cache"))
        assert found["id"][:] == docs["id"].to_pylist()
        assert found[column][:] == docs[column].to_pylist()


SPELLINGS = ["<|endoftext|>", "a<|endoftext|>b<|pad|>", "<|endoftext|>" * 9, "x</s><s>y", "plain", "\n<|endoftext|>\n"]


PACKS = [
    Pack(),
    Pack(layout="windows", seq_len=8),
    Pack(layout="windows", mode="best_fit", seq_len=8),
    Pack(layout="windows", mode="icp_fit", seq_len=8),
    Pack(layout="windows", mode="decompose", seq_len=8, min_len=2),
]


@pytest.mark.parametrize("pack", PACKS, ids=lambda pack: f"{pack.layout}-{pack.mode}")
def test_text_makes_no_boundary(tmp_path: Path, pack: Pack) -> None:
    """From text that spells special tokens to shards, through the product's own tokenizer and packing."""
    texts = pa.chunked_array([pa.array(SPELLINGS, pa.large_string())])
    artefact = tmp_path / "tokenizer.json"
    artefact.write_bytes(Tokenizer(name="train:bpe", vocab=300).fit(texts))
    trained = Tokenizer(name="train:bpe", vocab=300).with_artefact(str(artefact), file_sha256(artefact))
    docs = trained(pa.table({"id": [f"doc-{i}" for i in range(len(SPELLINGS))], "text": texts}))
    docs = docs.drop_columns([name for name in docs.column_names if name.startswith("drop_")])
    about = trained.describe()
    flat, bounds = flat_tokens(docs["input_ids"])
    packed = pack(flat, bounds, about["pad_id"], np.linspace(0.1, 0.9, len(SPELLINGS)))
    windows = packed if pack.layout == "windows" else None
    records = write_shard(tmp_path / "shards", "train-00000", docs, FORMATS, about, windows)
    for record in records:
        if record.format == "parquet":
            continue
        tokens, offsets = read_sequences(tmp_path / "shards", record)
        assert np.count_nonzero(tokens == about["eos_id"]) == len(SPELLINGS) == record.documents
        assert record.tokens + packed.padding == len(tokens)
        if windows is None:
            assert len(offsets) - 1 == len(SPELLINGS)
        found = np.split(unpacked(np.array(tokens), packed, bounds), bounds[1:-1])
        assert [trained.backend().decode(ids[:-1].tolist()) for ids in found] == SPELLINGS
