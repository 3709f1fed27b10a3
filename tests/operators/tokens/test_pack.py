"""Packing: no token lost, every stretch known, whatever the mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.tokens.pack import PIECES, Pack, Packed, flat_tokens, unpacked

PAD = 0
SHORT = 8
documents = st.lists(st.integers(0, 5) | st.integers(0, 3 * SHORT) | st.integers(60, 80), max_size=30).map(
    lambda lengths: [list(range(1000 * i + 1, 1000 * i + 1 + n)) for i, n in enumerate(lengths)]
)
packs = st.builds(
    lambda fields, order: Pack(layout="windows", seq_len=SHORT, **fields, **order),
    st.sampled_from(
        [{"mode": mode} for mode in ("concat_chunk", "best_fit", "icp_fit")]
        + [{"mode": "icp_fit", "fillers": 1.0}, {"mode": "icp_fit", "fillers": 0.0}]
        + [{"mode": "decompose", "min_len": n} for n in (1, 2, 8)]
    ),
    st.sampled_from([{}, {"seed": 7}, {"shuffle": False}]),
)


def flat(docs: list[list[int]], dtype: Any = np.int32) -> tuple[Any, Any]:
    return flat_tokens(pa.array(docs, pa.large_list(pa.from_numpy_dtype(dtype))))


def check(packed: Packed, docs: list[list[int]]) -> None:
    """What holds for every mode."""
    pieces = packed.pieces.to_pylist()
    assert packed.pieces.schema == PIECES
    rebuilt: list[dict[int, int]] = [{} for _ in docs]
    filled = [0] * (len(packed.offsets) - 1)
    for piece in pieces:  # in the order of tokens, end to end, padding last
        assert piece["start"] == filled[piece["sequence"]]
        assert piece["start"] < piece["end"]
        filled[piece["sequence"]] = piece["end"]
        first = packed.offsets[piece["sequence"]]
        stretch = packed.tokens[first + piece["start"] : first + piece["end"]].tolist()
        at = range(piece["document_start"], piece["document_start"] + len(stretch))
        assert not rebuilt[piece["document"]].keys() & set(at)
        rebuilt[piece["document"]] |= dict(zip(at, stretch, strict=True))
    assert [piece["sequence"] for piece in pieces] == sorted(piece["sequence"] for piece in pieces)
    assert [[found[i] for i in sorted(found)] for found in rebuilt] == docs
    padding = 0
    for k, (start, end) in enumerate(zip(packed.offsets[:-1], packed.offsets[1:], strict=True)):
        assert 0 < filled[k] <= end - start or (filled[k] == end - start == 0)
        assert packed.tokens[start + filled[k] : end].tolist() == [PAD] * (end - start - filled[k])
        padding += end - start - filled[k]
    assert packed.padding == padding == len(packed.tokens) - sum(map(len, docs))
    assert packed.offsets[-1] == len(packed.tokens)
    assert sorted(packed.contexts.tolist()) == list(range(len(filled)))


@given(documents, packs, st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_every_mode(docs: list[list[int]], pack: Pack, random: Any) -> None:
    tokens, offsets = flat(docs)
    links = np.array([random.choice([np.nan, 0.0, 0.3, random.random()]) for _ in docs], np.float32)
    packed = pack(tokens, offsets, PAD, links)
    check(packed, docs)
    again = pack(tokens.copy(), offsets, PAD, links)
    assert packed.tokens.tobytes() == again.tokens.tobytes()
    assert packed.pieces == again.pieces
    assert unpacked(packed.tokens, packed, offsets).tolist() == tokens.tolist()
    lengths = np.diff(packed.offsets)
    if pack.mode != "decompose":
        assert (lengths == SHORT).all()
    sequences: list[set[int]] = [set() for _ in docs]
    for piece in packed.pieces.to_pylist():
        sequences[piece["document"]].add(piece["sequence"])
    cut = [len(found) > 1 and len(doc) <= SHORT for found, doc in zip(sequences, docs, strict=True)]
    if pack.mode in ("best_fit", "icp_fit"):
        assert not any(cut)
    linked = np.isfinite(links)
    kept = [i for i in np.flatnonzero(linked) if i and sequences[i] & sequences[i - 1]]
    assert packed.costs == {
        "documents": len(docs),
        "documents_cut": sum(cut),
        "links": linked.sum(),
        "similarity": pytest.approx(links[linked].sum(dtype=float), abs=1e-3),
        "similarity_kept": pytest.approx(links[kept].sum(dtype=float), abs=1e-3),
    }


@given(documents)
@settings(max_examples=50, deadline=None)
def test_documents_stay_as_they_are(docs: list[list[int]]) -> None:
    tokens, offsets = flat(docs)
    packed = Pack()(tokens, offsets, PAD)
    assert packed.tokens.tolist() == tokens.tolist()
    assert packed.offsets.tolist() == offsets.tolist()
    check(packed._replace(pieces=packed.pieces.filter(packed.pieces["end"].to_numpy() > 0)), docs)


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
    packed = Pack(layout="windows", seq_len=seq_len, shuffle=False)(*flat(docs, np.uint16), PAD)
    assert packed.tokens.reshape(-1, seq_len).tolist() == windows
    assert packed.offsets.tolist() == [k * seq_len for k in range(len(windows) + 1)]
    assert [tuple(row.values()) for row in packed.pieces.to_pylist()] == pieces


def test_best_fit_in_path_order() -> None:
    docs = [[1] * 2, [2] * 5, [3] * 3, [4] * 9, [5] * 4]
    packed = Pack(layout="windows", mode="best_fit", seq_len=8, shuffle=False)(*flat(docs), PAD)
    windows = packed.tokens.reshape(-1, 8).tolist()
    assert windows == [[1, 1, 4, 5, 5, 5, 5, 0], [2, 2, 2, 2, 2, 3, 3, 3], [4] * 8]


@pytest.mark.parametrize("mode", ["concat_chunk", "best_fit", "icp_fit", "decompose"])
def test_the_shuffle_moves_windows_alone(mode: str) -> None:
    random = np.random.default_rng(3)
    docs = [random.integers(1, 99, n).tolist() for n in random.integers(1, 40, 300)]
    small = {"min_len": 4} if mode == "decompose" else {}
    fields: dict[str, Any] = {"layout": "windows", "mode": mode, "seq_len": 32, **small}
    plain = Pack(**fields, shuffle=False)(*flat(docs), PAD)
    drawn = [Pack(**fields, seed=seed)(*flat(docs), PAD) for seed in (0, 1)]
    windows = np.split(plain.tokens, plain.offsets[1:-1])
    by_place = {int(place): window.tolist() for place, window in zip(plain.contexts, windows, strict=True)}
    for packed in drawn:
        assert packed.offsets.tolist() == plain.offsets.tolist()
        assert packed.costs == plain.costs
        for place, window in zip(packed.contexts, np.split(packed.tokens, packed.offsets[1:-1]), strict=True):
            assert by_place[int(place)] == window.tolist()
        if mode != "decompose":
            assert np.abs(np.diff(packed.contexts)).min() > 1
    assert drawn[0].contexts.tolist() != drawn[1].contexts.tolist()
    assert plain.contexts.tolist() != drawn[0].contexts.tolist()


def test_offsets_of_a_part_of_the_tokens_are_honoured() -> None:
    tokens = np.arange(10, 20, dtype=np.uint16)
    tokens.flags.writeable = False  # as Arrow's are
    packed = Pack(layout="windows", seq_len=2, shuffle=False)(tokens, np.array([3, 5, 8]), PAD)
    assert packed.tokens.tolist() == [13, 14, 15, 16, 17, 0]
    assert packed.tokens.dtype == np.uint16
    assert unpacked(packed.tokens, packed, np.array([3, 5, 8])).tolist() == [13, 14, 15, 16, 17]


def test_flat_tokens_of_chunks_and_nulls() -> None:
    chunks = pa.chunked_array([[[1, 2], None], [], [[3]]], pa.large_list(pa.uint16()))
    tokens, offsets = flat_tokens(chunks)
    assert (tokens.tolist(), offsets.tolist()) == ([1, 2, 3], [0, 2, 2, 3])
    tokens, offsets = flat_tokens(pa.chunked_array([], pa.large_list(pa.uint16())))
    assert (len(tokens), offsets.tolist(), tokens.dtype) == (0, [0], np.dtype(np.uint16))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"mode": "fit"}, "mode"),
        ({"seq_len": 1}, "seq_len"),
        ({"layout": "rows"}, "layout"),
        ({"length": 4}, "length"),
        ({"seed": -1}, "seed"),
        ({"fillers": 1.5}, "fillers"),
        ({"mode": "best_fit"}, "mode: best_fit has no effect with layout: documents"),
        ({"seq_len": 4096}, "seq_len: 4096 has no effect with layout: documents"),
        ({"shuffle": False}, "shuffle: False has no effect with layout: documents"),
        ({"layout": "windows", "shuffle": False, "seed": 1}, "seed: 1 has no effect with shuffle: false"),
        ({"layout": "windows", "fillers": 0.2}, "fillers: 0.2 has no effect with mode: concat_chunk"),
        ({"layout": "windows", "mode": "icp_fit", "min_len": 32}, "min_len: 32 has no effect with mode: icp_fit"),
        ({"layout": "windows", "batch_tokens": 4096}, "batch_tokens: 4096 has no effect with mode: concat_chunk"),
        (
            {"layout": "windows", "mode": "decompose", "batch_tokens": 5000},
            "batch_tokens: 5000 is no multiple of seq_len",
        ),
        ({"layout": "windows", "mode": "decompose", "seq_len": 1000}, "seq_len: 1000 is no power of two"),
        ({"layout": "windows", "mode": "decompose", "min_len": 96}, "min_len: 96 is no power of two"),
        ({"layout": "windows", "mode": "decompose", "seq_len": 32}, "min_len: 64 is more than seq_len: 32"),
    ],
)
def test_bad_parameters(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=told):
        Pack(**fields)
