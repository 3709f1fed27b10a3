from __future__ import annotations

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.apply import Step, apply
from operators.text.cohesion import places
from operators.text.segmenting import Segment
from tests.operators.dedup.rows import sample_texts

TOPICS = [[f"{topic}{chr(97 + k)}x" for k in range(20)] for topic in ("cat", "dog", "eel", "fox", "gnu")]


def essay(topic: int, paragraphs: int = 5) -> str:
    """Paragraphs that all speak of one thing."""
    lot = random.Random(topic)
    return "".join(" ".join(lot.choices(TOPICS[topic], k=30)) + "\n\n" for _ in range(paragraphs))


def documents(texts: list[str | None], kind: pa.DataType | None = None) -> pa.Table:
    ids = [f"d{k}" for k in range(len(texts))]
    return pa.table({"id": ids, "text": pa.array(texts, kind or pa.large_string()), "n": list(range(len(texts)))})


def fates(docs: pa.Table, **fields: Any) -> list[tuple[str, str | None]]:
    marked = Segment(**fields)(docs)
    reasons = marked["drop_reason"].to_pylist() if "drop_reason" in marked.column_names else [None] * len(marked)
    return list(zip(marked["id"].to_pylist(), reasons, strict=True))


def test_documents_of_several_are_cut_where_they_meet() -> None:
    parts = [essay(0), essay(1), essay(2)]
    marked = Segment()(documents(["whole " + essay(3), "".join(parts), None]))
    assert marked["id"].to_pylist() == ["d0", "d1", "d1/0", "d1/1", "d1/2", "d2"]
    assert marked["drop_reason"].to_pylist() == [None, "split", None, None, None, None]
    assert marked["text"].to_pylist()[2:5] == parts
    assert marked["n"].to_pylist() == [0, 1, 1, 1, 1, 2]
    assert marked["drop_threshold"].to_pylist()[1] == 0.07
    assert marked["drop_value"].to_pylist()[1] == 0.0


@pytest.mark.parametrize(
    ("texts", "fields", "ids"),
    [
        ([essay(0) + essay(1)], {}, ["d0", "d0/0", "d0/1"]),
        ([essay(0, 1) + essay(1, 5)], {}, ["d0"]),  # the first part would be too short
        ([essay(0, 1) + essay(1, 5)], {"min_words": 30}, ["d0", "d0/0", "d0/1"]),
        ([essay(0) + essay(1)], {"min_depth": 2}, ["d0"]),
        ([essay(0) + essay(0)], {"max_similarity": 0.5}, ["d0"]),
        (["", None, "one", "。" * 9000, "x" * 9000, "\n" * 9000], {}, ["d0", "d1", "d2", "d3", "d4", "d5"]),
        ([], {}, []),
    ],
)
def test_what_is_cut(texts: list[str | None], fields: dict[str, Any], ids: list[str]) -> None:
    assert [i for i, _ in fates(documents(texts), **fields)] == ids


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_similarity": 1.5}, r"(?s)max_similarity.*input_value=1.5"),
        ({"min_depth": -1}, r"(?s)min_depth.*input_value=-1"),
        ({"min_words": 19}, r"(?s)min_words.*input_value=19"),
        ({"words": 1}, "words"),
    ],
)
def test_bad_parameters(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        Segment(**fields)


PIECE = st.one_of(
    st.integers(0, 4).map(essay),
    st.integers(0, 4).map(lambda topic: essay(topic, 2).replace("\n\n", ". ")),
    st.integers(0, 4).map(lambda topic: essay(topic, 2).replace("x", "é").replace("\n\n", "\r\n \r\n")),
    st.text(st.sampled_from('ab .\n\u3002水é"\0\u2028'), max_size=40),
)


@given(st.lists(st.lists(PIECE, max_size=7).map("".join) | st.none(), max_size=4), st.floats(0, 1), st.integers(20, 90))
@settings(max_examples=60, deadline=None)
def test_the_parts_are_the_text(texts: list[str | None], max_similarity: float, min_words: int) -> None:
    """Whatever is cut: the parts together are the parent, none is too short, and no batch changes anything."""
    operator = Segment(max_similarity=max_similarity, min_depth=0, min_words=min_words)
    docs = documents(texts, pa.string())
    applied = apply([Step("segment", operator)], docs)
    assert applied.kept.schema.equals(docs.schema)
    kept = dict(zip(applied.kept["id"].to_pylist(), applied.kept["text"].to_pylist(), strict=True))
    split = set(applied.dropped["id"].to_pylist())
    [count] = applied.counts
    assert count.chars_out == count.chars_in
    for k, text in enumerate(texts):
        if f"d{k}" not in split:
            assert kept[f"d{k}"] == text
            continue
        parts = [kept[f"d{k}/{n}"] for n in range(sum(i.startswith(f"d{k}/") for i in kept))]
        assert len(parts) > 1
        assert "".join(parts) == text
        assert places(pa.array(parts, pa.string())).words.min() >= min_words
    alone = [fate for k in range(len(docs)) for fate in fates(docs.slice(k, 1), **vars_of(operator))]
    assert fates(docs, **vars_of(operator)) == alone


def vars_of(operator: Segment) -> dict[str, Any]:
    return {name: getattr(operator, name) for name in ("max_similarity", "min_depth", "min_words")}


def test_joined_documents_come_apart_near_where_they_were_joined() -> None:
    """Of 200 texts made of 2 to 5 real documents: a cut counts as right within one segment of 50 words of a seam."""
    lot = random.Random(2)
    pool = [text.rstrip() + "\n\n" for text in sample_texts("en", 2000) if 100 < len(text.split()) < 600]
    joined = [lot.sample(pool, lot.randint(2, 5)) for _ in range(200)]
    marked = Segment()(documents(["".join(parts) for parts in joined]))
    right = cuts = 0
    for k, parts in enumerate(joined):
        own = marked.filter(pc.starts_with(marked["id"], f"d{k}/"))["text"].to_pylist()
        found = np.cumsum([len(part.split()) for part in own])[:-1]
        seams = np.cumsum([len(part.split()) for part in parts])[:-1]
        cuts += len(found)
        right += sum(bool(len(found)) and np.abs(found - seam).min() <= 50 for seam in seams)
    assert right / sum(len(parts) - 1 for parts in joined) > 0.5
    assert right / cuts > 0.7


def test_parts_do_not_each_hold_the_whole_text() -> None:
    letters = str.maketrans("0123456789", "abcdefghij")
    paragraphs = [" ".join(f"{k // 2:03d}{n % 40:02d}" for n in range(110)).translate(letters) for k in range(800)]
    docs = pa.table({"id": ["a"], "text": pa.array(["\n\n".join(paragraphs)], pa.large_string())})
    before = pa.default_memory_pool().max_memory()
    found = Segment()(docs)
    assert found.num_rows > 300
    assert pa.default_memory_pool().max_memory() <= max(before, 60 * docs.nbytes)
