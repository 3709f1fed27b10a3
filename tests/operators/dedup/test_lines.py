from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pydantic
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from operators.dedup.lines import LineDedup
from operators.phases import DOCUMENTS, GlobalOperator, partition_of, run_in_memory, with_doc
from tests.operators.dedup.rows import Repartitioned, documents

FIRST = LineDedup(min_characters=1)
NONE = LineDedup(min_characters=1, keep="none")
Fates = dict[str, tuple[str | None, int | None]]


def fates(operator: GlobalOperator, units: Sequence[pa.Table]) -> Fates:
    """id -> (text that is left, None), or (None, lines cut) of documents dropped as emptied."""
    verdicts = run_in_memory(operator, units)
    found = {row["doc"]: row for row in verdicts.to_pylist()}
    assert len(found) == verdicts.num_rows
    out: Fates = {}
    for unit, table in enumerate(units):
        for n, row in enumerate(table.to_pylist()):
            verdict = found.pop((unit << 32) + n, None)
            if verdict is None:
                out[row["id"]] = (row["text"], None)
            elif verdict["drop_reason"]:
                assert (verdict["drop_reason"], verdict["cuts"]) == ("emptied", [])
                out[row["id"]] = (None, verdict["drop_value"])
            else:
                assert verdict["drop_value"] is None
                out[row["id"]] = (without(row["text"], verdict["cuts"]), None)
    assert not found
    return out


def without(text: str, cuts: list[int]) -> str:
    """The text without the ranges, which must be as few as can be: none empty, none touching the next."""
    data = text.encode()
    assert cuts
    assert all(a < b for a, b in zip([-1, *cuts], [*cuts, len(data) + 1], strict=True))
    bounds = [0, *cuts, len(data)]
    return b"".join(data[a:b] for a, b in zip(bounds[::2], bounds[1::2], strict=True)).decode()


# The reference: plain Python, from the operator's description.


def normal_form(line: str) -> str:
    out = []
    for char in line.strip():
        category = unicodedata.category(char)
        if category == "Nd":
            out.append("0")
        elif char == "\n":
            out.append(" ")
        elif category[0] != "P" and category not in ("Cc", "Cf") and char not in "´∶～━►":
            out.append(char.lower()[0].replace("ς", "σ"))
    return "".join(out)


def paragraphs(text: str) -> list[str]:
    """Blank lines, and the runs of others between them."""
    parts: list[str] = []
    inside = False
    for line in text.split("\n"):
        if inside and line.strip():
            parts[-1] += "\n" + line
        else:
            parts.append(line)
        inside = bool(line.strip())
    return parts


def expected(operator: LineDedup, rows: Sequence[dict[str, Any]]) -> Fates:
    cut: Callable[[str], list[str]] = paragraphs if operator.unit == "paragraph" else lambda text: text.split("\n")
    texts = {row["id"]: cut(row["text"]) for row in rows if row["text"] is not None}
    order = sorted(rows, key=lambda row: (-(row["priority"] or 0), row["id"]))
    holders: dict[str, set[str]] = {}
    for i, lines in texts.items():
        for line in lines:
            holders.setdefault(normal_form(line), set()).add(i)
    seen: set[str] = set()
    out: Fates = {}
    for row in order:
        i = row["id"]
        if i not in texts:
            out[i] = (None, None)
            continue
        left = []
        for line in texts[i]:
            form = normal_form(line)
            if not any(map(str.isalnum, form)) or len(form) < operator.min_characters:
                left.append(line)
                continue
            if not (form in seen or (operator.keep == "none" and len(holders[form]) > 1)):
                left.append(line)
            seen.add(form)
        gone = len(texts[i]) - len(left)
        emptied = gone and not any(map(str.isalnum, "".join(map(normal_form, left))))
        out[i] = (None, gone) if emptied else ("\n".join(left), None)
    return out


LINES = [
    "Home",
    "home!",
    "\tHOME\r",
    "Page 1",
    "page 2",
    "猫である。",
    "猫である",
    "",
    "  ",
    "---",
    "Ünder the sea, 1999",
]
LINES += [
    "under the sea 2000",
    "ΟΔΟΣ",
    "οδος",
    "a\u200bb",
    "ab",
    "a b",
    "\u3000ab\u00a0",
    "x",
    "\u2028ab",
    "* * *",
    "½",
    "🙂",
]
texts = st.lists(st.one_of(st.sampled_from(LINES), st.text("aB1. \n\r", max_size=3)), max_size=7).map("\n".join)
rows = st.lists(
    st.fixed_dictionaries({"text": st.none() | texts, "priority": st.sampled_from([None, None, 0, 1, -1])}), max_size=9
)
operators = st.builds(
    LineDedup,
    keep=st.sampled_from(["first", "none"]),
    unit=st.sampled_from(["line", "paragraph"]),
    min_characters=st.sampled_from([1, 1, 3, 5]),
)


@settings(max_examples=60, deadline=None)
@given(rows, operators, st.lists(st.integers(0, 9), max_size=3), st.randoms(use_true_random=False))
@example([{"text": "ab\n\nx\nb", "priority": 0}, {"text": "ab\nx", "priority": 1}], FIRST, [1], None)
def test_equals_the_reference(rows: list[dict[str, Any]], operator: LineDedup, at: list[int], random: Any) -> None:
    """Whatever the units, the order of documents and the partitions are."""
    named = [{"id": f"d{k * 7 % 10}", **row} for k, row in enumerate(rows)]
    wanted = expected(operator, named)
    if random:
        random.shuffle(named)
    bounds = [0, *sorted(min(k, len(named)) for k in at), len(named)]
    units = [documents(named[a:b]) for a, b in zip(bounds, bounds[1:], strict=False)]
    assert fates(operator, units) == wanted
    assert fates(Repartitioned(operator, [3, 2]), units) == wanted


LONG = "All rights reserved."


@pytest.mark.parametrize(
    ("line", "other", "same"),
    [
        ("Read More", "read more", True),
        ("Read more", "  Read more\t\r", True),
        ("Page 1 of 20", "page 3 of 41", True),
        ("Page 1 of 20", "page 3 of 4", False),
        ("Read more!", "“Read, more…”", True),
        ("snake_case", "snakecase", True),  # ASCII punctuation too
        ("a\u00adb\u200bc\x00", "abc", True),  # soft hyphen, zero-width space, NUL
        ("résumé", "resume", False),  # as in CCNet's code
        ("Ärger", "äRGER", True),
        ("ΟΔΟΣ", "οδος", True),
        ("１２ ٣", "98 7", True),  # digits of any script
        ("a  b", "a b", False),  # white space inside counts
        ("- a", "a", False),  # white space goes before punctuation, as in CCNet
        ("a + b", "a = b", False),  # symbols are not punctuation
        ("吾輩は猫である。", "吾輩は猫である", True),
        ("吾輩は猫である", "吾輩は猫でない", False),
        ("►x", "x", True),  # a mark of CCNet's list
        ("---", "---", False),
        ("", "", False),
        ("🙂", "🙂", False),
        ("½", "½", True),
        ("x" * 5_000_000 + "y", "X" * 5_000_000 + "Y", True),
        ("x" * 5_000_000 + "y", "x" * 5_000_000 + "z", False),
    ],
)
def test_which_lines_are_the_same(line: str, other: str, same: bool) -> None:
    table = documents([{"text": f"one\n{line}"}, {"text": f"two\n{other}"}])
    assert fates(FIRST, [table]) == {"r0": (f"one\n{line}", None), "r1": ("two" if same else f"two\n{other}", None)}


@pytest.mark.parametrize(
    ("operator", "texts", "left"),
    [
        (FIRST, ["a\nb\nc", "b\nd"], ["a\nb\nc", "d"]),
        (FIRST, ["b\nd", "a\nb\nc"], ["b\nd", "a\nc"]),
        (FIRST, ["b\nd", "a\nb"], ["b\nd", "a"]),  # the last line takes the newline before it along
        (FIRST, ["b\nd", "a\nb\n"], ["b\nd", "a\n"]),
        (FIRST, ["b\nc", "a\nb\nc"], ["b\nc", "a"]),
        (FIRST, ["b\nc", "b\nc\na"], ["b\nc", "a"]),
        (FIRST, ["a\nx\na\na\ny"], ["a\nx\ny"]),  # within one document the first stays
        (FIRST, ["x\n\n--\n\nx\ny", "x\n\n--\nz"], ["x\n\n--\n\ny", "\n--\nz"]),  # blank lines and rules stay
        (FIRST, ["x\r\ny\r\nz", "y\nq"], ["x\r\ny\r\nz", "q"]),
        (FIRST, ["y\nq", "x\r\ny\r\nz"], ["y\nq", "x\r\nz"]),
        (FIRST, ["x\ny", "y\nx"], ["x\ny", 2]),
        (FIRST, ["x", "\n*\nx\n\n"], ["x", 1]),
        (FIRST, [None, "", None, "\n", "\n", "--", "--"], [None, "", None, "\n", "\n", "--", "--"]),
        (NONE, ["a\nb\nc", "b\nd"], ["a\nc", "d"]),
        (NONE, ["a\nb\na", "b"], ["a", 1]),  # a line of one document only
        (NONE, ["a\na"], ["a"]),
        (NONE, ["x", "X"], [1, 1]),
        (LineDedup(), ["return x\nend", "return x\nend"], ["return x\nend", "return x\nend"]),
        (LineDedup(), [f"a\n{LONG}", f"{LONG}\nb", LONG], [f"a\n{LONG}", "b", 1]),
        (LineDedup(), [LONG, f"{LONG}\nshort"], [LONG, "short"]),
        (LineDedup(), ["猫" * 16, "猫" * 16, "犬" * 15, "犬" * 15], ["猫" * 16, 1, "犬" * 15, "犬" * 15]),  # not bytes
        (LineDedup(unit="paragraph", min_characters=1), ["a\nb\n\nc", "b\n\nA\nB!"], ["a\nb\n\nc", "b\n"]),
        (LineDedup(unit="paragraph", min_characters=1), ["a\nb ", "a\nb\n\nc", " a\nb"], ["a\nb ", "\nc", 1]),
        (LineDedup(unit="paragraph", min_characters=1), ["a b", "\n \na\r\nb\n\nc"], ["a b", "\n \n\nc"]),
    ],
)
def test_what_is_left(operator: LineDedup, texts: list[str | None], left: list[str | int | None]) -> None:
    named = {f"r{k}": (None, text) if isinstance(text, int) else (text, None) for k, text in enumerate(left)}
    assert fates(operator, [documents([{"text": text} for text in texts])]) == named


@pytest.mark.parametrize(
    ("rows", "holder"),
    [
        ([{"id": "b"}, {"id": "a"}], "a"),
        ([{"id": "a10"}, {"id": "a9"}], "a10"),
        ([{"id": "a", "priority": 1}, {"id": "b", "priority": 2}], "b"),
        ([{"id": "b", "priority": 0}, {"id": "a", "priority": None}], "a"),  # null counts as 0
        ([{"id": "a", "priority": None}, {"id": "b", "priority": -1}], "a"),
    ],
)
def test_which_copy_stays(rows: list[dict[str, Any]], holder: str) -> None:
    units = [documents([{**row, "text": f"{LONG}\n{row['id']}"}]) for row in rows]
    for order in (units, units[::-1]):
        found = fates(LineDedup(), order)
        assert [i for i, (text, _) in found.items() if text and LONG in text] == [holder]


@pytest.mark.parametrize(("operator", "most"), [(FIRST, 1), (NONE, 2)])
def test_a_line_of_every_document_does_not_pile_up(operator: LineDedup, most: int) -> None:
    """Of a unit's copies few go where the line's copies meet; the others are spread by document."""
    table = documents([{"text": f"{LONG}\nmore {k * 'x'}\n{LONG}"} for k in range(500)])
    mapped = operator.phases(1)[0].maps[DOCUMENTS](with_doc(table, 0))
    keys, counts = np.unique(mapped["key"].to_numpy(), return_counts=True)
    assert len(mapped) == 1500
    assert counts.max() == 2  # repeats in one document
    assert len(keys) > 990
    assert mapped.filter(pc.invert(mapped["settled"])).num_rows == 500 + most


def test_documents_that_lose_nothing_have_no_verdict() -> None:
    units = [documents([{"text": "a\nb"}, {"text": None}]), documents([]), documents([{"text": "c\n\n"}])]
    for operator in (FIRST, NONE):
        assert run_in_memory(Repartitioned(operator, [2, 3]), units).num_rows == 0


def test_short_lines_have_different_hashes_all_over_the_range() -> None:
    letters = [chr(code) for code in (*range(0x61, 0x7B), *range(0x4E00, 0x4E26))]
    lines = [a + b + c for a in ["", *letters] for b in ["", *letters] for c in letters]
    distinct = sorted(set(lines))
    mapped = FIRST.phases(1)[0].maps[DOCUMENTS](with_doc(documents([{"text": "\n".join(distinct)}]), 0))
    assert len(mapped) == len(distinct) > 200_000
    for name in ("key", "low"):
        assert len(np.unique(mapped[name].to_numpy())) == len(distinct)
    sizes = np.bincount(partition_of(mapped["key"].to_numpy(), 100))
    assert np.abs(sizes / len(distinct) * 100 - 1).max() < 0.1


def test_partitions_grow_with_the_corpus() -> None:
    million = [phase.partitions_in(2 << 30) for phase in LineDedup().phases(1_000_000)]
    assert million == [18, 6]
    assert [phase.partitions_in(2 << 30) for phase in LineDedup().phases(1000)] == [1, 1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keep": "last"}, r"(?s)keep.*'last'"),
        ({"unit": "sentence"}, r"(?s)unit.*'sentence'"),
        ({"min_characters": 0}, r"(?s)min_characters.*input_value=0"),
        ({"minimum": 3}, "minimum"),
    ],
)
def test_bad_parameters(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        LineDedup(**fields)
