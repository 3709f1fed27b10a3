"""Power-of-two pieces of single documents."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.tokens.decompose import buckets, decompose
from operators.tokens.pack import Pack

lengths_of = st.lists(st.integers(0, 40) | st.integers(0, 400), max_size=40)


@given(lengths_of, st.integers(0, 4), st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_pieces_are_the_binary_digits_of_lengths(lengths: list[int], low: int, more: int) -> None:
    least, most = 1 << low, 1 << (low + more)
    filled = decompose(np.array(lengths, np.int64), least, most)
    found: list[list[int]] = [[] for _ in lengths]
    for document, start, size in zip(*(column.tolist() for column in filled.pieces), strict=True):
        assert start == sum(found[document])
        found[document].append(size)
    for length, sizes in zip(lengths, found, strict=True):
        digits = [1 << k for k in range(low + more - 1, low - 1, -1) if length % most & (1 << k)]
        assert sizes == [most] * (length // most) + digits + [length % least] * (length % least > 0)
    used = np.bincount(filled.sequence, filled.pieces.length, len(filled.lengths))
    several = np.bincount(filled.sequence, minlength=len(filled.lengths)) > 1
    assert (used <= filled.lengths).all()
    assert (filled.lengths[several | (used < filled.lengths)] == least).all()  # rests share the shortest
    rests = sum(length % least for length in lengths)
    padding = filled.lengths.sum() - sum(lengths)
    assert padding <= rests + least  # windows of rests are at least half full, but for one


def test_a_bucket_is_one_slice() -> None:
    random = np.random.default_rng(5)
    lengths = random.integers(1, 3000, 500)
    offsets = np.append(0, np.cumsum(lengths))
    tokens = random.integers(1, 9, offsets[-1]).astype(np.uint16)
    packed = Pack(layout="windows", mode="decompose", seq_len=1024, min_len=32)(tokens, offsets, 0)
    found = buckets(packed.offsets)
    assert list(found) == [32, 64, 128, 256, 512, 1024]
    sizes = np.diff(packed.offsets)
    at = 0
    for length, (first, count) in found.items():
        assert first == at
        assert (sizes[first : first + count] == length).all()
        at += count
    assert at == len(sizes)
    assert packed.padding < 0.001 * len(tokens)
    assert buckets(np.zeros(1, np.int64)) == {}
