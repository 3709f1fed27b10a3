"""What is left of texts when byte ranges are cut out, and the files that say so."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.cuts import TYPE, cut
from cluster.storage import open_store
from cluster.tables import TableWriter, read_entry

TEXTS = st.lists(st.one_of(st.none(), st.text(alphabet="ab é漢😀\n\0", max_size=12)), max_size=8)


@st.composite
def cuts_for(draw: st.DrawFn) -> tuple[list[str | None], list[list[int] | None]]:
    texts = draw(TEXTS)
    cuts: list[list[int] | None] = []
    for text in texts:
        at = [len(text[:k].encode()) for k in range(len(text) + 1)] if text is not None else [0]
        ends = sorted(draw(st.lists(st.sampled_from(at), max_size=6)))
        cuts.append(draw(st.sampled_from([ends[: len(ends) // 2 * 2], None])))
    return texts, cuts


def plain(text: str | None, cuts: list[int] | None) -> str | None:
    if text is None:
        return None
    left, at, data = b"", 0, text.encode()
    for start, end in zip((cuts or [])[::2], (cuts or [])[1::2], strict=True):
        left, at = left + data[at:start], end
    return (left + data[at:]).decode()


@given(cuts_for(), st.integers(0, 8), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_what_is_left(case: tuple[list[str | None], list[list[int] | None]], chunk: int, skip: int) -> None:
    """In any chunks and slices of the columns."""
    texts, cuts = case
    text = pa.chunked_array([pa.array(texts[:chunk], pa.string()), pa.array(texts[chunk:], pa.string())]).slice(skip)
    lists = pa.chunked_array([pa.array(cuts, pa.list_(pa.int64()))]).slice(skip)
    expected = [plain(t, c) for t, c in zip(texts, cuts, strict=True)][skip:]
    assert cut(text, lists).to_pylist() == expected


@pytest.mark.parametrize("cuts", [[1], [2, 1], [0, 2, 1, 3], [0, 9], [-1, 2], [0, 1]])
def test_ranges_that_do_not_fit_are_a_bug(cuts: list[int]) -> None:
    with pytest.raises(ValueError, match="cuts"):
        cut(pa.chunked_array([["éabc"]]), pa.chunked_array([pa.array([cuts], TYPE)]))


def test_text_is_cut_where_it_is_read_through_layers(tmp_path: Path) -> None:
    """Columns of cuts apply in their order, each to what the one before left; rows are selected below."""
    store = open_store(str(tmp_path))
    texts = ["one two three", "four five", None, "six"]
    base = pa.table({"id": ["a", "b", "c", "d"], "text": pa.array(texts, pa.large_string()), "chars": [13, 9, 0, 3]})
    with TableWriter(store, "base", 0) as writer:
        writer.write(base)
    layer = pa.table(
        {
            "row": pa.array([0, 2, 3], pa.uint32()),
            "id": ["a", "c", "d"],
            "cuts/lines": pa.array([[0, 4], None, []], TYPE),
            "cuts/substring": pa.array([[0, 1, 8, 9], None, [0, 3]], TYPE),
            "chars": [7, 0, 0],
        }
    )
    with TableWriter(store, "layer", 0, over=writer.entries[0]) as upper:
        upper.write(layer)
    [entry] = upper.entries
    assert read_entry(store, entry).to_pydict() == {
        "id": ["a", "c", "d"],
        "text": ["wo thre", None, ""],
        "chars": [7, 0, 0],
    }
    assert read_entry(store, entry, ["text"]).to_pydict() == {"text": ["wo thre", None, ""]}
    assert read_entry(store, entry, ["chars", "id"]).to_pydict() == {"chars": [7, 0, 0], "id": ["a", "c", "d"]}
