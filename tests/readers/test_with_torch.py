"""The trainers' own datasets, torch and all, on our shards (`make test-readers`; requirements-readers.txt).

Nothing here is imported from torch in the product. What matters beyond reading: which windows survive each reader's
own cutting and shuffling, so that an order of documents reaches the model.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is in the environment of requirements-readers.txt only")

from cluster.shard_reader import ShardRecord
from cluster.shards import write_shard
from tests.cluster.shard_cases import EOS, PAD, VOCAB, by_format, table, tokenizer, windows_of

SEQ_LEN = 16
DOCS = [[k % 50_000 + 2] * (k % 23 + 1) for k in range(60)]


@pytest.fixture(params=["uint16", "int32"])
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["documents", "windows"])
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def flat(dtype: str, layout: str) -> list[int]:
    """All tokens in order, padding included."""
    docs = table(DOCS, dtype=dtype)
    if layout == "windows":
        return [int(t) for t in windows_of(docs, SEQ_LEN).tokens]
    return [t for ids in docs["input_ids"].to_pylist() for t in ids]


@pytest.fixture
def shards(tmp_path: Path, dtype: str, layout: str) -> dict[str, ShardRecord]:
    docs = table(DOCS, dtype=dtype)
    windows = windows_of(docs, SEQ_LEN) if layout == "windows" else None
    return by_format(
        write_shard(tmp_path, "train-00000", docs, ["megatron", "datatrove", "olmo"], tokenizer(dtype), windows)
    )


def test_megatron_gpt_dataset(tmp_path: Path, layout: str, shards: dict[str, ShardRecord], flat: list[int]) -> None:
    """It shuffles what .idx calls documents: windows come out whole, whatever their order; documents are mixed."""
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from megatron.core.datasets.utils import Split

    config = GPTDatasetConfig(
        random_seed=7,
        sequence_length=SEQ_LEN,
        split="1,0,0",
        path_to_cache=str(tmp_path / "cache"),
        tokenizer=SimpleNamespace(vocab_size=VOCAB, eod=EOS, pad=PAD, unique_identifiers={}),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
    )
    indexed = IndexedDataset(str(tmp_path / shards["megatron"].path.removesuffix(".bin")))
    rows = np.arange(len(indexed), dtype=np.int32)
    dataset = GPTDataset(indexed, "train", rows, None, Split.train, config)
    samples = [tuple(dataset[k]["tokens"].tolist()) for k in range(len(dataset))]
    flat = [0 if t == PAD else t for t in flat]  # what the dataset makes of padding, whose loss it masks
    windows = {tuple(flat[k : k + SEQ_LEN]) for k in range(0, len(flat), SEQ_LEN)}
    intact = sum(sample in windows for sample in samples)
    if layout == "windows":
        assert len(samples) == len(flat) // SEQ_LEN - 1  # the last window lends its first token as a label
        assert intact == len(samples)
    else:
        assert [t for k in rows for t in indexed[int(k)].tolist()] == flat
        assert intact < len(samples) // 2


def test_datatrove_folder_dataset(tmp_path: Path, dtype: str, shards: dict[str, ShardRecord], flat: list[int]) -> None:
    """It reads seq_len + 1 tokens at once, so windows of N are read with N - 1; positions restart with documents."""
    from datatrove.utils.dataset import DatatroveFolderDataset

    width = np.dtype(dtype).itemsize
    dataset = DatatroveFolderDataset(
        str(tmp_path / "datatrove"), SEQ_LEN - 1, filename_pattern="*.ds", token_size=width, return_positions=True
    )
    found = [dataset[k] for k in range(len(dataset))]
    whole = len(flat) // SEQ_LEN
    assert [t for sample in found for t in sample["input_ids"].tolist()] == flat[: whole * SEQ_LEN]
    for sample in found:
        previous = EOS
        for token, position in zip(sample["input_ids"].tolist(), sample["positions"].tolist(), strict=True):
            assert (position == 0) == (previous == EOS) or token == PAD
            previous = token


def test_olmo_core_fixed_length_dataset(
    tmp_path: Path, dtype: str, layout: str, shards: dict[str, ShardRecord], flat: list[int]
) -> None:
    from olmo_core.data.numpy_dataset import NumpyFSLDataset
    from olmo_core.data.utils import iter_document_indices

    path = tmp_path / shards["olmo"].path
    dataset = NumpyFSLDataset(
        path,
        sequence_length=SEQ_LEN,
        pad_token_id=PAD,
        eos_token_id=EOS,
        vocab_size=VOCAB,
        dtype=np.uint16 if dtype == "uint16" else np.uint32,
        include_instance_metadata=False,
    )
    dataset.prepare()
    found = [t for k in range(len(dataset)) for t in dataset[k]["input_ids"].tolist()]
    assert found == flat[: len(flat) // SEQ_LEN * SEQ_LEN]
    spans = list(iter_document_indices(path, use_array_if_local=False))
    if layout == "documents":
        assert [flat[a:b] for a, b in spans] == table(DOCS)["input_ids"].to_pylist()
    else:
        assert [t for a, b in spans for t in flat[a:b]] == [t for t in flat if t != PAD]
