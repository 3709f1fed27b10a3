"""Shards of every format give back exactly the ids that went in: to our readers and to the trainers' own."""

from __future__ import annotations

import dataclasses
import gzip
import importlib.util
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

from cluster import shards
from cluster.flat_formats import FLAT_FORMATS, ShardError
from cluster.shard_reader import ShardRecord, read_sequences, verify_shard
from cluster.shards import write_shard
from cluster.tables import file_sha256
from operators.tokens.pack import Pack, flat_tokens
from operators.tokens.tokenizer import Tokenizer
from tests.cluster.shard_cases import EOS, PAD, VOCAB, by_format, table, tokenizer, windows_of

FORMATS = ["megatron", "datatrove", "olmo", "tokens_parquet", "parquet"]
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


@settings(max_examples=25, deadline=None)
@given(lists=documents, seq_len=st.integers(2, 9), pad=st.sampled_from([PAD, EOS]))
def test_windows_come_back(
    lists: list[list[int]], seq_len: int, pad: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("windows")
    docs = table(lists)
    windows = windows_of(docs, seq_len, pad)
    records = by_format(write_shard(folder, "train-00000", docs, FORMATS, tokenizer(pad=pad), windows))
    expected = windows.tokens.reshape(-1, seq_len).tolist()
    for kind in ("megatron", "tokens_parquet"):
        assert sequences(folder, records[kind]) == expected
        assert records[kind].tokens + records[kind].padding == windows.tokens.size
    for kind in ("datatrove", "olmo"):
        assert [t for s in sequences(folder, records[kind]) for t in s] == windows.tokens.tolist()
    boundaries = pq.read_table(folder / records["megatron"].sidecars[1].path)
    rebuilt: dict[str, list[int]] = {}
    for row in boundaries.to_pylist():
        ids = expected[row["sequence"]][row["start"] : row["end"]]
        rebuilt.setdefault(row["id"], []).extend(ids)
    assert list(rebuilt.values()) == docs["input_ids"].to_pylist()
    rows = pq.read_table(folder / records["tokens_parquet"].path).to_pylist()
    in_rows = [(row["documents"], row["starts"], row["tokens"]) for row in rows]
    pieces = boundaries.to_pylist()
    for k, (ids, starts, used) in enumerate(in_rows):
        mine = [p for p in pieces if p["sequence"] == k]
        assert (ids, starts) == ([p["id"] for p in mine], [p["start"] for p in mine])
        assert used == sum(p["end"] - p["start"] for p in mine)


def test_views_share_one_payload(tmp_path: Path, dtype: str) -> None:
    records = by_format(write_shard(tmp_path, "train-00000", table([[5, 6]], dtype=dtype), FORMATS, tokenizer(dtype)))
    views = [tmp_path / records[kind].path for kind in FLAT_FORMATS]
    assert len({path.stem for path in views}) == 1
    assert len({path.stat().st_ino for path in views}) == 1
    for record in records.values():
        assert record.path.startswith(f"{record.format}/train-00000-")
        for sidecar in record.sidecars:
            assert Path(sidecar.path).name.startswith(Path(record.path).stem + ".")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(FORMATS)  # nothing temporary stays


def test_the_name_tells_contents_apart(tmp_path: Path) -> None:
    def stem(ids: list[str], lists: list[list[int]]) -> str:
        return write_shard(tmp_path, "train-00000", table(lists, ids), ["megatron"], tokenizer())[1].path

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
    for kind in ("megatron", "tokens_parquet"):
        assert sequences(tmp_path, records[kind]) == docs["input_ids"].to_pylist()
    windows = windows_of(docs, 8)
    records = by_format(write_shard(tmp_path, "train-00001", docs, FORMATS, tokenizer(), windows))
    assert sequences(tmp_path, records["tokens_parquet"]) == windows.tokens.reshape(-1, 8).tolist()


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


@pytest.mark.parametrize(("name", "formats"), [("../x", []), ("a/b", []), ("", []), ("train-0", ["mds"])])
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
    yield
    for name in set(sys.modules) - set(before):
        if name.split(".")[0] in ("torch", "megatron", "datatrove"):
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


@pytest.mark.parametrize("layout", ["documents", "windows"])
def test_text_makes_no_boundary(tmp_path: Path, layout: str) -> None:
    """From text that spells special tokens to shards, through the product's own tokenizer and packing."""
    texts = pa.chunked_array([pa.array(SPELLINGS, pa.large_string())])
    artefact = tmp_path / "tokenizer.json"
    artefact.write_bytes(Tokenizer(name="train:bpe", vocab=300).fit(texts))
    trained = Tokenizer(name="train:bpe", vocab=300).with_artefact(str(artefact), file_sha256(artefact))
    docs = trained(pa.table({"id": [f"doc-{i}" for i in range(len(SPELLINGS))], "text": texts}))
    docs = docs.drop_columns([name for name in docs.column_names if name.startswith("drop_")])
    about = trained.describe()
    packed = Pack(layout=layout, seq_len=8)(*flat_tokens(docs["input_ids"]), about["pad_id"])
    windows = packed if layout == "windows" else None
    records = write_shard(tmp_path / "shards", "train-00000", docs, FORMATS, about, windows)
    for record in records:
        if record.format == "parquet":
            continue
        tokens, offsets = read_sequences(tmp_path / "shards", record)
        assert np.count_nonzero(tokens == about["eos_id"]) == len(SPELLINGS) == record.documents
        assert record.tokens + packed.padding == len(tokens)
        if layout == "documents":
            assert len(offsets) - 1 == len(SPELLINGS)
        documents = np.split(tokens[: record.tokens], np.flatnonzero(tokens == about["eos_id"]) + 1)[:-1]
        assert [trained.backend().decode(ids[:-1].tolist()) for ids in documents] == SPELLINGS
