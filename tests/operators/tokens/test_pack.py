"""Packing: no token lost, every stretch known."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.tokens.pack import PIECES, Pack, flat_tokens

PAD = 0
documents = st.lists(st.lists(st.integers(1, 60_000), max_size=20), max_size=10)


@pytest.mark.parametrize(
    ("docs", "seq_len", "windows", "pieces"),
    [
        ([[1, 2, 3], [4, 5]], 4, [[1, 2, 3, 4], [5, 0, 0, 0]], [(0, 0, 3, 0, 0), (0, 3, 4, 1, 0), (1, 0, 1, 1, 1)]),
        ([[1, 2], [3, 4]], 2, [[1, 2], [3, 4]], [(0, 0, 2, 0, 0), (1, 0, 2, 1, 0)]),
        ([[], [1], []], 3, [[1, 0, 0]], [(0, 0, 1, 1, 0)]),
        ([[1, 2, 3, 4, 5]], 2, [[1, 2], [3, 4], [5, 0]], [(0, 0, 2, 0, 0), (1, 0, 2, 0, 2), (2, 0, 1, 0, 4)]),
        ([], 2, [], []),
    ],
)
def test_concat_chunk(
    docs: list[list[int]], seq_len: int, windows: list[list[int]], pieces: list[tuple[int, ...]]
) -> None:
    packed = Pack(layout="windows", seq_len=seq_len)(*flat_tokens(pa.array(docs, pa.large_list(pa.uint16()))), PAD)
    assert packed.tokens.reshape(-1, seq_len).tolist() == windows
    assert packed.offsets.tolist() == [k * seq_len for k in range(len(windows) + 1)]
    assert [tuple(row.values()) for row in packed.pieces.to_pylist()] == pieces


@given(docs=documents, seq_len=st.integers(2, 9), head=st.integers(0, 10))
def test_pieces_rebuild_the_documents(docs: list[list[int]], seq_len: int, head: int) -> None:
    column = pa.array(docs, pa.large_list(pa.int32())).slice(head)
    tokens, offsets = flat_tokens(column)
    for layout in ("documents", "windows"):
        packed = Pack(layout=layout, seq_len=seq_len)(tokens, offsets, PAD)
        rebuilt: list[list[int]] = [[] for _ in docs[head:]]
        covered = 0
        for row in packed.pieces.to_pylist():
            assert len(rebuilt[row["document"]]) == row["document_start"]
            first = packed.offsets[row["sequence"]]
            rebuilt[row["document"]] += packed.tokens[first + row["start"] : first + row["end"]].tolist()
            covered += row["end"] - row["start"]
        assert rebuilt == docs[head:]
        assert len(packed.tokens) - packed.padding == covered == sum(map(len, docs[head:]))
        assert packed.offsets[-1] == len(packed.tokens)
        assert packed.pieces.schema == PIECES


def test_offsets_of_a_part_of_the_tokens_are_honoured() -> None:
    tokens = np.arange(10, 20, dtype=np.uint16)
    packed = Pack(layout="windows", seq_len=2)(tokens, np.array([3, 5, 8]), PAD)
    assert packed.tokens.tolist() == [13, 14, 15, 16, 17, 0]
    assert packed.tokens.dtype == np.uint16


def test_flat_tokens_of_chunks_and_nulls() -> None:
    chunks = pa.chunked_array([[[1, 2], None], [], [[3]]], pa.large_list(pa.uint16()))
    tokens, offsets = flat_tokens(chunks)
    assert (tokens.tolist(), offsets.tolist()) == ([1, 2, 3], [0, 2, 2, 3])
    tokens, offsets = flat_tokens(pa.chunked_array([], pa.large_list(pa.uint16())))
    assert (len(tokens), offsets.tolist(), tokens.dtype) == (0, [0], np.dtype(np.uint16))


@pytest.mark.parametrize("fields", [{"mode": "best_fit"}, {"seq_len": 1}, {"layout": "rows"}, {"length": 4}])
def test_bad_parameters(fields: dict[str, object]) -> None:
    with pytest.raises(pydantic.ValidationError, match=next(iter(fields))):
        Pack(**fields)
