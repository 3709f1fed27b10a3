"""Every repeated window goes once, and nothing else: against a dictionary of tuples."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.dedup.substring import ExactSubstring
from operators.phases import run_in_memory
from tests.operators.dedup.rows import Repartitioned, documents, sample_texts, word

SPACES = r"\s"
CJK = "[\u3041-\u30ff\u4e00-\u9fff]"
TOKEN = re.compile(f"{CJK}|(?:(?!{CJK})[^{SPACES}])+")
Outcome = tuple[str | None, str | None]  # the text that is left, the reason


def tokens(text: str, unit: str) -> list[tuple[Any, int, int]]:
    """(unit, start, end in bytes)."""
    if unit == "bytes":
        return [(b, k, k + 1) for k, b in enumerate(text.encode())]
    at = [len(text[:k].encode()) for k in range(len(text) + 1)] if len(text) < 2000 else None

    def place(k: int) -> int:
        return at[k] if at else len(text[:k].encode())

    return [(m[0], place(m.start()), place(m.end())) for m in TOKEN.finditer(text)]


def expected(rows: Sequence[dict[str, Any]], unit: str, length: int) -> dict[str, Outcome]:
    """By the rule as the documentation states it."""
    where: dict[tuple[Any, ...], list[tuple[int, str, int]]] = {}
    split = {row["id"]: tokens(row["text"] or "", unit) for row in rows}
    for row in rows:
        held = split[row["id"]]
        for k in range(len(held) - length + 1):
            window = tuple(t for t, _, _ in held[k : k + length])
            where.setdefault(window, []).append((-(row["priority"] or 0), row["id"], k))
    gone: dict[str, set[int]] = {row["id"]: set() for row in rows}
    for places in where.values():
        (_, best, first), *others = sorted(places)
        for _, doc, k in others:
            if doc != best or k >= first + length:
                gone[doc].add(k)
    left: dict[str, Outcome] = {}
    for row in rows:
        held, windows = split[row["id"]], gone[row["id"]]
        covered = {k + j for k in windows for j in range(length)}
        if row["text"] is None:
            left[row["id"]] = (None, None)
        elif windows and len(covered) == len(held):
            left[row["id"]] = (None, "emptied")
        else:
            left[row["id"]] = (without(row["text"], [(held[k][1], held[k + length - 1][2]) for k in windows]), None)
    return left


def without(text: str, ranges: list[tuple[int, int]]) -> str:
    """The characters that are not wholly inside any run of the ranges, which may touch one another."""
    data = text.encode()
    cut = np.zeros(len(data) + 1, bool)
    for start, end in ranges:
        cut[start:end] = True
    at, kept = 0, ""
    for char in text:
        size = len(char.encode())
        kept += "" if cut[at : at + size].all() else char
        at += size
    return kept


def found(operator: Any, units: Sequence[pa.Table]) -> dict[str, Outcome]:
    verdicts = run_in_memory(operator, units).to_pylist()
    by_doc = {row["doc"]: row for row in verdicts}
    assert len(by_doc) == len(verdicts)
    left: dict[str, Outcome] = {}
    for number, unit in enumerate(units):
        for row, one in enumerate(unit.to_pylist()):
            verdict = by_doc.get((number << 32) + row)
            if verdict is None:
                left[one["id"]] = (one["text"], None)
            elif verdict["drop_reason"]:
                assert verdict["drop_value"] > 0
                left[one["id"]] = (None, verdict["drop_reason"])
            else:
                data, at, kept, cuts = one["text"].encode(), 0, b"", verdict["cuts"]
                assert cuts == sorted(cuts)
                assert cuts
                for start, end in zip(cuts[::2], cuts[1::2], strict=True):
                    kept, at = kept + data[at:start], end
                left[one["id"]] = ((kept + data[at:]).decode(), None)
    return left


def corpus(seed: int, unit: str) -> list[dict[str, Any]]:
    """Texts of few words, with passages planted in several, twice in one, inside one another, and otherwise spaced."""
    random = np.random.default_rng(seed)
    alphabet = ["a", "b", "c.", "dé", "漢字", "x" * 9] if random.integers(2) else [word(k) for k in range(60)]
    spaces = [" ", "\n", "  ", "\u3000", "\t\n "] if unit == "tokens" else [" ", " ", "é"]

    def text(count: int) -> str:
        return "".join(str(random.choice(alphabet)) + str(random.choice(spaces)) for _ in range(count))

    passages = [text(int(random.integers(4, 40))) for _ in range(3)]
    passages.append(passages[0] * 2 + passages[1])
    rows = []
    for k in random.permutation(10).tolist():
        parts = [text(int(random.integers(0, 12))) for _ in range(3)]
        parts += [passages[i] for i in random.integers(0, len(passages), random.integers(0, 3))]
        random.shuffle(parts)
        joined: str | None = "".join(parts) if k else None
        rows.append({"id": f"d{k}", "text": joined, "priority": [None, 0, 1][random.integers(3)]})
    return rows


@given(
    st.integers(0, 2**32),
    st.sampled_from([("tokens", 8), ("tokens", 11), ("bytes", 8), ("bytes", 19)]),
    st.lists(st.integers(0, 10), max_size=3),
    st.lists(st.integers(1, 4), min_size=3, max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_against_a_dictionary_of_windows(
    seed: int, kind: tuple[str, int], bounds: list[int], partitions: list[int]
) -> None:
    unit, length = kind
    rows = corpus(seed, unit)
    table = documents(rows)
    ends = sorted({0, table.num_rows, *bounds})
    units = [table.slice(a, b - a) for a, b in zip(ends, ends[1:], strict=False)][::-1]
    operator = ExactSubstring(unit=unit, length=length)
    right = expected(rows, unit, length)
    assert found(operator, [table]) == right
    assert found(Repartitioned(operator, partitions), units) == right


def test_fifty_tokens_planted_in_real_texts_go_once_and_nothing_else_changes() -> None:
    random = np.random.default_rng(5)
    texts = [t for t in sample_texts("en", 60) if len(t.split()) > 80][:24]
    rows = [{"id": f"r{k:02}", "text": t, "priority": 0} for k, t in enumerate(texts)]
    before = expected(rows, "tokens", 50)
    passages = [" ".join(word(1000 * p + k) for k in range(50)) for p in range(4)]
    planted: list[tuple[int, int]] = []
    for row in random.permutation(len(rows))[:16].tolist():
        p = int(random.integers(len(passages)))
        words = rows[row]["text"].split(" ")
        words.insert(int(random.integers(len(words))), passages[p])
        rows[row]["text"] = " ".join(words)
        planted.append((p, row))
    right = expected(rows, "tokens", 50)
    left = found(ExactSubstring(), [documents(rows[k::3]) for k in range(3)])
    assert left == right
    for p, passage in enumerate(passages):
        holders = sorted(row for q, row in planted if q == p)
        assert [k for k, row in enumerate(rows) if passage in (left[row["id"]][0] or "")] == holders[:1]
    untouched = set(range(len(rows))) - {row for _, row in planted}
    assert all(left[rows[k]["id"]] == before[rows[k]["id"]] for k in untouched if before[rows[k]["id"]][1] is None)


STORY = " ".join(word(k) for k in range(30))


@pytest.mark.parametrize(
    ("rows", "left"),
    [
        ([{"text": STORY}, {"text": STORY}], [STORY, "emptied"]),
        ([{"text": STORY}, {"text": STORY, "priority": 1}], ["emptied", STORY]),
        ([{"text": STORY}, {"text": f"x {STORY}\ny"}], [STORY, "x \ny"]),
        ([{"text": STORY}, {"text": "x " + STORY.replace(" ", "\n")}], [STORY, "x "]),  # wrapped otherwise
        ([{"text": STORY}, {"text": STORY.upper()}], [STORY, STORY.upper()]),
        ([{"text": STORY}, {"text": f"x {STORY.replace(' ', ', ')}"}], [STORY, f"x {STORY.replace(' ', ', ')}"]),
        ([{"text": "a " * 100}], ["a " * 10 + " "]),  # one window, not one word
        ([{"text": "吾輩は猫である名前はまだ無い。"}, {"text": "「吾輩は猫である名前はまだ無い」"}], None),
        ([{"text": ""}, {"text": None}, {"text": " \n\0"}, {"text": "😀"}], ["", None, " \n\0", "😀"]),
    ],
)
def test_what_is_left(rows: list[dict[str, Any]], left: list[str | None] | None) -> None:
    outcome = found(ExactSubstring(length=10), [documents(rows)])
    assert outcome == expected([{"id": f"r{k}", "priority": 0, **row} for k, row in enumerate(rows)], "tokens", 10)
    if left is not None:
        assert [text if reason is None else reason for text, reason in outcome.values()] == left


def test_hot_windows_and_long_lines() -> None:
    """A document of one window over and over, a line without white space, and a page that all share."""
    page = " ".join(word(k) for k in range(200))
    rows = [{"id": f"p{k:03}", "text": f"{page} {word(1000 + k)}", "priority": 0} for k in range(200)]
    rows += [{"id": "hot", "text": "b " * 200_000, "priority": 0}, {"id": "line", "text": "c" * 10**7, "priority": 0}]
    left = found(ExactSubstring(), [documents(rows[k::2]) for k in range(2)])
    assert left["p000"][0] == rows[0]["text"]
    assert all(left[f"p{k:03}"][0] == f" {word(1000 + k)}" for k in range(1, 200))
    assert left["hot"][0] is not None
    assert left["hot"][0].split() == ["b"] * 50
    assert left["line"] == ("c" * 10**7, None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"length": 7}, r"(?s)length.*input_value=7"), ({"unit": "words"}, r"(?s)unit.*'words'"), ({"size": 3}, "size")],
)
def test_bad_parameters(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        ExactSubstring(**fields)
