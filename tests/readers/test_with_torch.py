"""Megatron's, datatrove's and OLMo-core's own datasets, torch and all, on our shards (`make test-readers`).

What matters beyond reading: which windows survive each reader's own cutting and shuffling, so that an order of
documents reaches the model.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is in the environment of requirements-readers.txt only")

from tests.readers.cases import SEQ_LEN, WINDOWS, assert_neighbours, case_of, dtype, made, run_snippet

__all__ = ["dtype", "made"]


def gpt_samples(case: SimpleNamespace, rows: np.ndarray, seq_len: int, cache: Path) -> list[list[int]]:
    """What Megatron's GPTDataset makes of some of the sequences of an .idx."""
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from megatron.core.datasets.utils import Split

    config = GPTDatasetConfig(
        random_seed=7,
        sequence_length=seq_len,
        split="1,0,0",
        path_to_cache=str(cache),
        tokenizer=SimpleNamespace(vocab_size=case.vocab_size, eod=case.eos, pad=case.pad, unique_identifiers={}),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
    )
    indexed = IndexedDataset(case.paths["megatron"].removesuffix(".bin"))
    assert [indexed[int(k)].tolist() for k in rows] == [case.sequences[k] for k in rows]
    dataset = GPTDataset(indexed, "train", rows.astype(np.int32), None, Split.train, config)
    return [dataset[k]["tokens"].tolist() for k in range(len(dataset))]


def shown(case: SimpleNamespace, window: list[int]) -> tuple[int, ...]:
    """A window as GPTDataset gives it: padding, whose loss it masks, becomes 0."""
    return tuple(0 if token == case.pad else token for token in window)


@pytest.mark.parametrize("mode", WINDOWS)
def test_megatron_gives_whole_windows(tmp_path: Path, made: Path, mode: str, dtype: str) -> None:
    """In an order of its own: it shuffles what .idx calls documents, and those are the windows."""
    case = case_of(made, mode, dtype)
    samples = gpt_samples(case, np.arange(len(case.sequences)), SEQ_LEN, tmp_path)
    windows = {shown(case, window): k for k, window in enumerate(case.sequences)}
    found = [windows[tuple(sample)] for sample in samples]  # a KeyError: not a window
    assert len(set(found)) == len(found) == len(windows) - 1  # the last one lends its first token as a label
    assert found != sorted(found)
    assert_neighbours(case, samples)


def test_megatron_mixes_documents_that_are_not_in_windows(tmp_path: Path, made: Path, dtype: str) -> None:
    """Why windows are needed."""
    case = case_of(made, "documents", dtype)
    samples = gpt_samples(case, np.arange(len(case.sequences)), SEQ_LEN, tmp_path)
    whole = {tuple(case.flat[k : k + SEQ_LEN]) for k in range(0, len(case.flat), SEQ_LEN)}
    assert sum(tuple(sample) in whole for sample in samples) < len(samples) / 10


def test_megatron_gives_whole_sequences_of_a_bucket(tmp_path: Path, made: Path, dtype: str) -> None:
    """Sequences of one length are one slice of the shard, with a dataset of that length."""
    case = case_of(made, "decompose", dtype)
    lengths = np.array([len(sequence) for sequence in case.sequences])
    assert len(set(lengths)) > 2
    rows_of = run_snippet("buckets", case.paths["megatron"])["rows"]
    assert set(rows_of) == set(lengths.tolist())
    for length in sorted(set(lengths)):
        rows = np.flatnonzero(lengths == length)
        assert np.array_equal(rows, np.arange(rows[0], rows[-1] + 1))
        assert np.array_equal(rows, rows_of[int(length)])
        samples = gpt_samples(case, rows, int(length), tmp_path)
        assert len(samples) == len(rows) - 1
        assert Counter(map(tuple, samples)) < Counter(shown(case, case.sequences[k]) for k in rows)


@pytest.mark.parametrize("mode", ["documents", *WINDOWS])
def test_datatrove_gives_windows_in_order(made: Path, mode: str, dtype: str) -> None:
    """It reads seq_len + 1 tokens at once, so windows of N are read with N - 1; positions restart with documents."""
    from datatrove.utils.dataset import DatatroveFolderDataset

    case = case_of(made, mode, dtype)
    width = np.dtype(dtype).itemsize
    folder = str(Path(case.paths["datatrove"]).parent)
    dataset = DatatroveFolderDataset(
        folder, SEQ_LEN - 1, filename_pattern="*.ds", token_size=width, return_positions=True
    )
    samples = [dataset[k] for k in range(len(dataset))]
    found = [sample["input_ids"].tolist() for sample in samples]
    whole = len(case.flat) // SEQ_LEN
    assert [t for sample in found for t in sample] == case.flat[: whole * SEQ_LEN]
    if mode != "documents":
        assert found == case.sequences
        assert_neighbours(case, found)
    for sample in samples:
        before = case.eos
        for token, position in zip(sample["input_ids"].tolist(), sample["positions"].tolist(), strict=True):
            assert (position == 0) == (before == case.eos) or token == case.pad or mode != "documents"
            before = token


@pytest.mark.parametrize("mode", ["documents", *WINDOWS])
def test_olmo_core_gives_windows_in_order(made: Path, mode: str, dtype: str) -> None:
    from olmo_core.data.numpy_dataset import NumpyFSLDataset
    from olmo_core.data.utils import iter_document_indices

    case = case_of(made, mode, dtype)
    dataset = NumpyFSLDataset(
        case.paths["olmo"],
        sequence_length=SEQ_LEN,
        pad_token_id=case.pad,
        eos_token_id=case.eos,
        vocab_size=case.vocab_size,
        dtype=np.uint16 if dtype == "uint16" else np.uint32,
        include_instance_metadata=False,
    )
    dataset.prepare()
    found = [dataset[k]["input_ids"].tolist() for k in range(len(dataset))]
    whole = len(case.flat) // SEQ_LEN
    assert [t for sample in found for t in sample] == case.flat[: whole * SEQ_LEN]
    spans = list(iter_document_indices(case.paths["olmo"], use_array_if_local=False))
    if mode == "documents":
        assert [case.flat[a:b] for a, b in spans] == case.documents
    else:
        assert found == case.sequences
        assert_neighbours(case, found)
        bounds = np.cumsum([0, *(len(sequence) for sequence in case.sequences)])
        at = [(bounds[piece["sequence"]] + piece["start"], piece["end"] - piece["start"]) for piece in case.pieces]
        assert spans == [(start, start + size) for start, size in at]
