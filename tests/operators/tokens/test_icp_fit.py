"""Next fit along a path, with gaps filled."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from operators.tokens.icp_fit import icp_fit, weakest
from operators.tokens.pack import Pack

Integers = NDArray[np.int64]


def web_lengths(count: int, seed: int = 0) -> Integers:
    random = np.random.default_rng(seed)
    return np.clip(np.exp(random.normal(np.log(560), 1.3, count)), 8, 400_000).astype(np.int64)


def windows(lengths: list[int], seq_len: int, links: list[float] | None = None, share: float = 0.1) -> list[list[int]]:
    """The documents in each sequence."""
    given = np.full(len(lengths), np.nan) if links is None else np.array(links)
    filled = icp_fit(np.array(lengths, np.int64), given, seq_len, share)
    document = filled.pieces.document
    return [document[filled.sequence == k].tolist() for k in range(len(filled.lengths))]


def test_next_fit_along_the_path() -> None:
    assert windows([3, 3, 3, 5, 7, 8, 4], 8, share=0.5) == [[0, 1], [2, 3], [4], [5], [6]]
    assert windows([], 8) == []
    assert windows([0, 0], 8) == []


def test_documents_go_back_to_gaps_where_these_are_more_than_may_be_filled() -> None:
    assert windows([3, 3, 3, 5, 7, 8, 2], 8, share=0.0) == [[0, 1, 6], [2, 3], [4], [5]]
    assert windows([7, 3, 5, 8, 3, 5, 8, 8, 1], 8, share=0.0) == [[0, 8], [1, 2], [3], [4, 5], [6], [7]]
    assert windows([6, 7, 2, 1], 8, share=0.0) == [[0, 2], [1, 3]]
    assert windows([5, 6, 7, 1, 2, 3], 8, share=0.0) == [[0, 5], [1, 4], [2, 3]]  # the fullest that takes it


def test_long_documents_fill_the_gap_before_them() -> None:
    filled = icp_fit(np.array([5, 20, 2]), np.full(3, np.nan), 8, 0.0)
    assert filled.pieces.document.tolist() == [0, 1, 1, 1, 1, 2]
    assert filled.pieces.length.tolist() == [5, 3, 8, 8, 1, 2]
    assert filled.sequence.tolist() == [0, 0, 1, 2, 3, 3]


def test_large_gaps_are_filled_from_the_next_long_document() -> None:
    """7 does not fit after 6, so that 2 tokens of the 30 are taken, and 1 after 7 is too small a gap to."""
    filled = icp_fit(np.array([6, 7, 4, 30]), np.full(4, np.nan), 8, 0.0)
    assert filled.pieces.document.tolist() == [0, 3, 1, 2, 3, 3, 3, 3]
    assert filled.pieces.start.tolist() == [0, 0, 0, 0, 2, 6, 14, 22]
    assert filled.sequence.tolist() == [0, 0, 1, 2, 2, 3, 4, 5]


def test_no_document_becomes_short_of_a_sequence_by_that() -> None:
    assert windows([6, 7, 4, 10, 1], 8, share=0.0) == [[0], [1], [2, 3], [3, 4]]  # 10 in two pieces, not three


def test_the_weakest_are_those_whose_better_link_is_the_worst() -> None:
    links = np.array([np.nan, 0.9, 0.1, 0.1, 0.9, 0.2, 0.2])
    lengths = np.full(7, 2)
    assert weakest(lengths, links, 2, 3).tolist() == [2]
    assert weakest(lengths, links, 2, 9).tolist() == [2, 5, 6]  # the longest class takes two thirds
    assert weakest(lengths, links, 1, 9).tolist() == []
    assert weakest(np.array([0, 1]), np.full(2, np.nan), 4, 9).tolist() == [1]


def test_fillers_are_of_all_lengths() -> None:
    lengths = np.repeat([16, 8, 4, 2, 1], 1000)
    found = lengths[weakest(lengths, np.full(5000, np.nan), 16, 8100)]
    counts = {size: int((found == size).sum()) for size in (16, 8, 4, 2, 1)}
    assert counts == {16: 337, 8: 225, 4: 151, 2: 101, 1: 102}


def test_weakly_linked_documents_fill_gaps_and_come_last() -> None:
    links = [np.nan, 0.2, 0.1, 0.9, 0.9]
    assert windows([6, 1, 8, 7, 9], 10, links, share=0.0) == [[0, 1], [2], [3], [4]]
    assert windows([6, 1, 8, 7, 9], 10, links, share=0.1) == [[0], [2], [3], [4, 1]]
    assert windows([10, 10, 1, 10, 10, 9], 10, [np.nan] * 6, share=0.3) == [[0], [1], [3], [4], [5, 2]]


@pytest.mark.parametrize(("seq_len", "kept"), [(2048, 0.5), (8192, 0.7)])
def test_little_padding_and_no_needless_cut(seq_len: int, kept: float) -> None:
    """On lengths as on the web, where half of the links are three times as strong as the others."""
    lengths = web_lengths(30_000)
    links = np.random.default_rng(1).choice([0.2, 0.6], len(lengths))
    tokens = np.zeros(lengths.sum(), np.uint16)
    offsets = np.append(0, np.cumsum(lengths))
    packed = Pack(layout="windows", mode="icp_fit", seq_len=seq_len)(tokens, offsets, 0, links)
    assert packed.padding < 0.003 * len(tokens)
    assert packed.costs["documents_cut"] == 0
    assert packed.costs["similarity_kept"] > kept * packed.costs["similarity"]
    other = Pack(layout="windows", mode="best_fit", seq_len=seq_len)(tokens, offsets, 0, links)
    assert other.costs["similarity_kept"] < 0.1 * packed.costs["similarity_kept"]
    counts = np.bincount(packed.pieces["document"].to_numpy())
    assert (counts <= -(-lengths // seq_len) * 5 + 1).all()  # pieces of long documents: a quarter at least, but for two


def test_unrelated_documents_are_packed_well_too() -> None:
    lengths = web_lengths(20_000, seed=2)
    filled = icp_fit(lengths, np.full(len(lengths), np.nan), 4096, 0.1)
    assert filled.lengths.sum() - lengths.sum() < 0.003 * lengths.sum()
