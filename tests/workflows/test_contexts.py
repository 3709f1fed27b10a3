"""What is shown of order and packing: contexts as they were written, and the numbers of a manifest."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from operators.hashes import xxh3_64
from operators.histogram import histogram
from operators.tokens.pack import Pack, Packed
from tests.browser.example_build import manifest
from workflows import contexts
from workflows.contexts import DOCUMENTS, SEQUENCES, TITLE, orderings, packings, sample_contexts, title


def packed(lengths: list[int], seq_len: int) -> Packed:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    pack = Pack(layout="windows", mode="concat_chunk", seq_len=seq_len, shuffle=False)
    return pack(np.arange(offsets[-1], dtype=np.uint16), offsets, 0)


def links(count: int, *gaps: int) -> NDArray[np.float64]:
    """Document k is k% like the one before it, but for the first, and for those at `gaps`."""
    return np.where(np.isin(np.arange(count), [0, *gaps]), np.nan, np.arange(count) / 100)


def documents(count: int) -> pa.Table:
    columns = {
        "id": pa.array([f"d{k}" for k in range(count)], pa.string()),
        "text": pa.array([f"\n \n Title {k}\nbody" for k in range(count)], pa.large_string()),
    }
    return pa.table(columns)


def test_contexts_hold_what_was_written() -> None:
    found = sample_contexts(documents(4), packed([3, 5, 2, 4], 8), links(4))  # 0: all of d0 and d1, 1: all of d2 and d3
    assert found == [
        {
            "sequence": 0,
            "documents": [
                {"id": "d0", "title": "Title 0", "tokens": 3, "similarity": None},
                {"id": "d1", "title": "Title 1", "tokens": 5, "similarity": 0.01},
            ],
            "more": 0,
        },
        {
            "sequence": 1,
            "documents": [
                {"id": "d2", "title": "Title 2", "tokens": 2, "similarity": None},
                {"id": "d3", "title": "Title 3", "tokens": 4, "similarity": 0.03},
            ],
            "more": 0,
        },
    ]
    assert json.loads(json.dumps(found)) == found


def test_tokens_are_those_in_the_sequence() -> None:
    found = sample_contexts(documents(2), packed([3, 20], 8), links(2))
    assert [(one["sequence"], [d["tokens"] for d in one["documents"]]) for one in found] == [(0, [3, 5])]


def test_similarity_is_told_of_neighbours_in_the_order_alone() -> None:
    [context] = sample_contexts(documents(4), packed([2, 2, 2, 2], 8), links(4, 2))
    assert [one["similarity"] for one in context["documents"]] == [None, 0.01, None, 0.03]
    [context] = sample_contexts(documents(4), packed([2, 2, 2, 2], 8), None)
    assert [one["similarity"] for one in context["documents"]] == [None] * 4


@given(st.integers(0, 60), st.integers(2, 90))
def test_few_are_chosen_by_hash(count: int, seq_len: int) -> None:
    docs = documents(count)
    found = sample_contexts(docs, packed([3] * count, seq_len), links(count))
    assert len(found) <= SEQUENCES
    starts = {s: s * seq_len // 3 for s in range(-(-3 * count // seq_len))}
    several = [s for s, first in starts.items() if min((s + 1) * seq_len, 3 * count) > 3 * (first + 1)]
    hashes = xxh3_64(docs["id"])
    lowest = sorted(several, key=lambda s: (hashes[starts[s]], s))[:SEQUENCES]
    assert [one["sequence"] for one in found] == sorted(lowest)
    for one in found:
        assert one["documents"][0]["id"] == f"d{starts[one['sequence']]}"
        assert len(one["documents"]) <= DOCUMENTS
        assert one["more"] == 0 or len(one["documents"]) == DOCUMENTS
        if not one["more"]:
            assert sum(d["tokens"] for d in one["documents"]) == min(seq_len, 3 * count - one["sequence"] * seq_len)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        (" \n\t\n", ""),
        ("\n  A  title\twith gaps \nbody", "A title with gaps"),
        ("bell\x07 and\x9b escape\x1b[31m", "bell\ufffd and\ufffd escape\ufffd[31m"),
        ("w" * 200, "w" * (TITLE - 1) + "…"),
        ("w" * TITLE, "w" * TITLE),
    ],
)
def test_titles(text: str, expected: str) -> None:
    assert title(text) == expected


def test_orders_of_a_build() -> None:
    [order] = orderings(manifest()["stages"])
    assert (order.stage, order.method, order.settings) == ("order", "greedy_edge", {})
    assert order.chart is not None
    assert order.chart.totals == (4000, 48_000)
    assert [bin.label for bin in order.chart.bins][-1] == "0.95 to 1.00"
    assert order.chart.ticks[len(order.chart.bins)] == "1"
    assert [link.kind for link in order.links] == ["edge", "stitch", "jump"]
    assert order.drawing is not None
    assert len(order.drawing.land) == 1500
    assert [len(run) for run in order.drawing.runs] == [12] * 8
    assert all(0 < x < 400 and 0 < y < order.drawing.height for x, y in order.drawing.land)


def test_orders_without_likeness() -> None:
    settings = {"type": "Order", "method": "by_field", "field": "date", "descending": True, "seed": 0}
    stage = {
        "name": "order",
        "operators": [{"name": "newest_first", "rows_in": 7, "summary": {"method": "by_field"}}],
        "steps": [{"name": "newest_first", "parameters": settings}],
    }
    [order] = orderings([stage])
    assert (order.method, order.settings, order.documents) == ("by_field", {"field": "date", "descending": True}, 7)
    assert (order.chart, order.links, order.drawing) == (None, [], None)
    assert not list(orderings([{"operators": [{"name": "order_by"}]}, {}]))


@given(
    st.lists(st.floats(-1, 1, width=32), max_size=50),
    st.lists(st.sampled_from([-1.0, -0.1, 0.0, 0.1, 1.0, 1.0000001]), max_size=50),
)
def test_similarities_are_all_drawn(random: list[float], path: list[float]) -> None:
    bins = {"order_similarity": histogram(np.array(path))}
    chart = contexts._similarities_of({"measured": bins}, {"random_similarity": histogram(np.array(random))})
    if not random and not path:
        assert chart is None
        return
    assert chart is not None
    assert chart.totals == (len(random), len(path))
    found = {bin.label: bin.after for bin in chart.bins}
    assert found["0.00 to 0.05"] == path.count(0.0)
    assert found["0.95 to 1.00"] == path.count(1.0) + path.count(1.0000001)
    assert all(bin.before >= 0 and bin.after >= 0 for bin in chart.bins)


def test_packing_of_a_build() -> None:
    [packing] = packings(manifest()["stages"])
    assert (packing.mode, packing.seq_len, packing.positions) == ("icp_fit", 2048, 399_998_976 + 118_204)
    assert len(packing.contexts) == 3
    assert not list(packings([{"packing": {}, "contexts": []}, {}]))
    [unknown] = packings([{"packing": {"sequences": 4}}])
    assert (unknown.mode, unknown.seq_len, unknown.positions) == ("not recorded", None, 0)
