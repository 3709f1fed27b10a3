"""MosaicML's StreamingDataset on our shards, in an environment of its own, as it wants an older numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("streaming", reason="streaming is in the environment of requirements-streaming.txt only")

from streaming import StreamingDataset
from streaming.base.util import clean_stale_shared_memory

from tests.readers.cases import WINDOWS, assert_neighbours, case_of, dtype, made, run_snippet

__all__ = ["dtype", "made"]


@pytest.fixture(autouse=True)
def _no_shared_memory_of_others() -> None:
    clean_stale_shared_memory()


@pytest.mark.parametrize("mode", ["documents", *WINDOWS, "decompose"])
def test_streaming_gives_sequences_in_order(made: Path, mode: str, dtype: str) -> None:
    case = case_of(made, mode, dtype)
    folder = str(Path(case.paths["mds"]).parent)
    dataset = StreamingDataset(local=folder, shuffle=False, batch_size=1, validate_hash="sha1")
    samples = list(dataset)
    found = [sample["tokens"].tolist() for sample in samples]
    assert found == case.sequences
    assert {sample["tokens"].dtype for sample in samples} == {np.dtype(dtype)}
    assert [dataset[k]["tokens"].tolist() for k in (0, len(found) - 1)] == [found[0], found[-1]]
    if mode == "documents":
        return
    for k, sample in enumerate(samples):
        mine = [piece for piece in case.pieces if piece["sequence"] == k]
        assert sample["documents"] == [f"doc-{piece['document']}" for piece in mine]
        assert sample["starts"].tolist() == [piece["start"] for piece in mine]
        assert sample["length"] == sum(piece["end"] - piece["start"] for piece in mine)
    if mode in WINDOWS:
        assert_neighbours(case, found)


def test_shuffled_windows_stay_whole(made: Path, dtype: str) -> None:
    case = case_of(made, "concat_chunk", dtype)
    folder = str(Path(case.paths["mds"]).parent)
    dataset = StreamingDataset(local=folder, shuffle=True, shuffle_seed=3, batch_size=4)
    found = [sample["tokens"].tolist() for sample in dataset]
    assert found != case.sequences
    assert sorted(found) == sorted(case.sequences)
    assert_neighbours(case, found)


def test_a_remote_folder_is_fetched_and_checked(tmp_path: Path, made: Path, dtype: str) -> None:
    case = case_of(made, "concat_chunk", dtype)
    remote = str(Path(case.paths["mds"]).parents[1])
    local = tmp_path / "cache"
    dataset = StreamingDataset(
        remote=remote, local=str(local), split="train", shuffle=False, batch_size=1, validate_hash="sha1"
    )
    assert [sample["tokens"].tolist() for sample in dataset] == case.sequences
    assert (local / "train" / Path(case.paths["mds"]).name).exists()


def test_the_snippet(made: Path, dtype: str) -> None:
    case = case_of(made, "concat_chunk", dtype)
    names = run_snippet("streaming", case.paths["mds"])
    assert names["ids"].tolist() == case.sequences[0]
    assert len(names["dataset"]) == len(case.sequences)
