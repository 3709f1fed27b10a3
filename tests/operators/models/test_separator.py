from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.models.separator import at_rate, chunks


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 30), max_size=12),
    st.integers(1, 20),
    st.integers(0, 20),
)
def test_chunks_make_up_the_stream(lengths: list[int], size: int, margin: int) -> None:
    margin = min(margin, size)
    stream = np.arange(1, sum(lengths) + 1, dtype=np.float32)
    bounds = np.cumsum([0, *lengths])
    found = list(chunks((stream[a:b] for a, b in zip(bounds, bounds[1:], strict=False)), size, margin))
    inner = [chunk.samples[chunk.before : len(chunk.samples) - chunk.after] for chunk in found]
    assert all(len(one) == size for one in inner)
    assert len(found) == -(-len(stream) // size)
    whole = np.concatenate([*inner, np.zeros(0, np.float32)])
    assert (whole[: len(stream)] == stream).all()
    assert not whole[len(stream) :].any()
    padded = np.pad(stream, (0, size * len(found) - len(stream)))
    for k, chunk in enumerate(found):  # the published layout: a margin on both sides, but for the ends
        start = k * size - (margin if k else 0)
        assert (chunk.samples == padded[start : (k + 1) * size + margin]).all()


def test_a_stream_through_another_rate_stays_in_step() -> None:
    pytest.importorskip("soxr", reason="needs the extra corpusmill[speech]")
    noise = np.random.default_rng(0).normal(size=30_011).astype(np.float32)
    smooth = np.convolve(noise, np.hanning(24) / 12, "same").astype(np.float32)  # nothing near the edge of the band
    for inner in (16_000, 44_100, 48_000):
        whole = np.concatenate(list(at_rate([smooth], 24_000, inner, lambda stream: stream)))
        assert len(whole) == len(smooth)
        assert np.abs(whole - smooth)[200:-200].max() < 1e-3
        pieces = np.array_split(smooth, 17)
        assert (np.concatenate(list(at_rate(pieces, 24_000, inner, lambda stream: stream))) == whole).all()
    for n in (0, 1, 2, 3, 100):
        assert sum(map(len, at_rate([smooth[:n]], 24_000, 44_100, lambda stream: stream))) == n
