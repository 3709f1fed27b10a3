from __future__ import annotations

import time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.text.correct import MARKS, RULES, Correct
from tests.operators.text.test_pii import ROOT

PHRASES = [
    line.partition(" ")
    for line in (ROOT / "operators" / "text" / "correct.txt").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
]
ANY = Correct(max_removed_words=1)
STAYS = "This line stays.\n"


def table(texts: list[str | None]) -> pa.Table:
    return pa.table({"text": pa.array(texts, pa.large_string())})


def one(operator: Correct, text: str | None) -> tuple[str | None, dict[str, int], str | None]:
    """(text, lines taken out by rule, drop reason)"""
    row: dict[str, Any] = operator(table([text])).to_pylist()[0]
    taken = {rule: row[f"corrected_{rule}"] for rule in RULES}
    return row["text"], {rule: n for rule, n in taken.items() if n}, row["drop_reason"]


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("Read more", "boilerplate"),
        ("READ MORE »", "boilerplate"),
        ("You have 3 items in cart", "boilerplate"),
        ("Sign-in", "boilerplate"),
        ("Sign in to continue", "boilerplate"),
        ("We sign in ink", None),
        ("Share this:", "boilerplate"),
        ("He wanted to share this with everyone he knew.", None),
        ("By continuing you agree that this site uses cookies.", "boilerplate"),
        ("Grandmother's recipe uses cookies, butter, milk and a lot of patience on Sundays.", None),
        ("© 2019 Acme Inc.", "boilerplate"),
        ("Copyright (c) 1999-2004 by Acme", "boilerplate"),
        ("The law on copyright changed in 1976.", None),
        ("Alle Rechte vorbehalten.", "boilerplate"),
        ("Lire la suite", "boilerplate"),
        ("Política de privacidad", "boilerplate"),
        ("ВОЙТИ / Регистрация", "boilerplate"),
        ("登录 | 注册", "boilerplate"),
        ("続きを読む", "boilerplate"),
        ("로그인", "boilerplate"),
        ("12 likes", "counter"),
        ("Likes: 1,234 · Shares 2.3k", "counter"),
        ("1,204 次观看", "counter"),
        ("J’aime 3", "counter"),
        ("3 comments were deleted", None),
        ("1.2M Aufrufe", "counter"),
        ("3.2. Views", None),
        ("3. Comments", None),
        ("like: [1, 0]", None),
        ("z = 0.5 + 1.j", None),
        ("Comments", "short"),
        ("42", "numeric"),
        ("٤٢", "numeric"),
        ("42 43", None),
        ("OPENING HOURS", "uppercase"),
        ("NATO and the EU met", None),
        ("Introduction", "short"),
        ("引言", None),
        ("The council met on Monday to discuss the new road and decided… Read more", "incomplete"),
        ("The council met on Monday to discuss the new road and the old bridge ... [Continue reading]", "incomplete"),
        ("市议会星期一开会讨论新路和旧桥的问题并决定推迟到明年……阅读全文", "incomplete"),
        ("And then... he said more.", None),
    ],
)
def test_line(line: str, rule: str | None) -> None:
    text, taken, reason = one(ANY, STAYS + line + "\nThat one does, too.")
    assert taken == ({rule: 1} if rule else {})
    assert (line in text.split("\n")) == (rule is None)
    assert text.startswith(STAYS)
    assert text.endswith("\nThat one does, too.")
    assert reason is None


@pytest.mark.parametrize(
    ("text", "result", "taken"),
    [
        ("a b\na b\n a b\nc d", "a b\nc d", {"repeated": 2}),
        ("a b\n\na b\n\nc d", "a b\n\nc d", {"repeated": 1}),
        ("a b\n42\na b\nc d", "a b\nc d", {"numeric": 1, "repeated": 1}),
        ("a b\nc d\na b", None, {}),
        ("a b\n\n42\n\nc d", "a b\n\nc d", {"numeric": 1}),
        ("42\n\n\nc d\n", "c d\n", {"numeric": 1}),
        ("c d\n\n42\n\n", "c d", {"numeric": 1}),
        ("  c d  \n\n\n\n\te f\n", None, {}),
        ("c d\nit went on and on...", "c d", {"incomplete": 1}),
        ("c d\n\nit went on\u2026\nand “on…”\n", "c d\n\nit went on…\nand “on…”\n", {}),
        ('c d\n\nit went on\u2026\nand "on..."\n', "c d", {"incomplete": 2}),
        ("it went on...\nc d", None, {}),
        ("c d\r\ne f\x00 \u2028g", None, {}),
        ("😀 水\nc d", None, {}),
    ],
)
def test_page(text: str, result: str | None, taken: dict[str, int]) -> None:
    assert one(ANY, text) == (text if result is None else result, taken, None)


@pytest.mark.parametrize("text", ["", " \n\t", "42", "42\nRead more\n\nHELLO YOU", "...", None])
def test_empty(text: str | None) -> None:
    assert one(ANY, text)[::2] == (text, "empty")


def test_a_page_that_loses_too_many_words_is_dropped_as_it_was() -> None:
    twenty = "one two three four five six seven eight nine ten " * 2
    assert one(Correct(), f"{twenty}\n42")[2] is None
    docs = table([f"{twenty}\nRead more", f"{twenty}\n42"])
    done = Correct()(docs)
    assert done["drop_reason"].to_pylist() == ["too_much_removed", None]
    assert done["drop_value"][0].as_py() == 2 / 22
    assert done["drop_threshold"][0].as_py() == 0.05
    assert done["text"][0] == docs["text"][0]


@pytest.mark.parametrize(
    ("operator", "text"),
    [
        (Correct(boilerplate=False, max_removed_words=1), "c d\nRead more"),
        (Correct(max_boilerplate_words=4, max_removed_words=1), "c d\nThere are 3 items in cart"),
        (Correct(counters=False, max_removed_words=1), "c d\n12 likes"),
        (Correct(max_numeric=1, min_words=1, max_removed_words=1), "c d\n42"),
        (Correct(max_uppercase=1, max_removed_words=1), "c d\nC D"),
        (Correct(min_words=0, max_removed_words=1), "c d\nword"),
        (Correct(repeated=False, max_removed_words=1), "c d\nc d"),
        (Correct(incomplete=False, max_removed_words=1), "c d\nand so on..."),
    ],
)
def test_each_rule_can_be_left_out(operator: Correct, text: str) -> None:
    assert one(operator, text) == (text, {}, None)
    assert one(ANY, text)[1] != {}


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"max_removed_words": 5}, r"(?s)max_removed_words.*5"),
        ({"min_words": -1}, r"(?s)min_words.*-1"),
        ({"max_boilerplate_words": 100}, r"(?s)max_boilerplate_words.*100"),
        ({"phrases": "x"}, "phrases"),
    ],
)
def test_parameters(given_: dict[str, Any], says: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=says):
        Correct(**given_)


def test_every_phrase_of_the_list_works() -> None:
    marks = {mark for mark, _, _ in PHRASES}
    assert marks == set(MARKS)
    lines = [phrase.upper() for mark, _, phrase in PHRASES if mark != "N"]
    lines += [f"{7} {text}" for mark, _, phrases in PHRASES if mark == "N" for text in phrases.split(", ")]
    done = ANY(table([STAYS + line for line in lines]))
    assert [text for text in done["text"].to_pylist() if text != STAYS.strip()] == []
    assert sum(done["corrected_boilerplate"].to_pylist()) == sum(mark != "N" for mark, _, _ in PHRASES)


def test_on_the_sample() -> None:
    """Documentation and code: hardly a phrase or counter in it, but many short, repeated and capital lines."""
    docs = pq.read_table(ROOT / "workflows" / "sample" / "sample.parquet")
    done = ANY(docs)
    assert 0 < sum(done["corrected_boilerplate"].to_pylist()) < 300
    assert sum(done["corrected_counter"].to_pylist()) < 5
    check(docs["text"].to_pylist(), done)


def check(texts: list[str | None], done: pa.Table) -> None:
    """What stays are lines of the text in their order, and each line is there or counted."""
    for text, row in zip(texts, done.to_pylist(), strict=True):
        if row["drop_reason"] is not None:
            assert row["text"] == text
            continue
        lines, kept = text.split("\n"), row["text"].split("\n")
        taken = sum(row[f"corrected_{rule}"] for rule in RULES)
        assert sum(not blank(line) for line in lines) == sum(not blank(line) for line in kept) + taken
        if taken == 0:
            assert row["text"] == text
            continue
        rest = iter([line.strip() for line in lines])
        assert all(line.strip() in rest for line in kept)


def blank(line: str) -> bool:
    return not line.strip()


LINES = st.sampled_from(
    [
        "a b",
        "a b",
        "c d e",
        "",
        " ",
        "42",
        "C D",
        "x",
        "read more",
        "12 likes",
        "go on...",
        "a b… more",
        "登录",
        "我们",
        "\t",
        "...",
    ]
) | st.text(max_size=12).filter(lambda text: "\n" not in text)
TEXTS = st.lists(LINES, max_size=10).map("\n".join)
OPERATORS = st.builds(
    Correct,
    boilerplate=st.booleans(),
    counters=st.booleans(),
    max_numeric=st.sampled_from([0.5, 0.999999, 1]),
    max_uppercase=st.sampled_from([0.5, 1]),
    min_words=st.integers(0, 2),
    repeated=st.booleans(),
    incomplete=st.booleans(),
    max_removed_words=st.just(1),
)


@settings(max_examples=400, deadline=None)
@given(TEXTS, OPERATORS)
def test_lines_are_kept_or_counted_and_twice_is_once(text: str, operator: Correct) -> None:
    done = operator(table([text]))
    check([text], done)
    if done["drop_reason"][0].as_py() is None:
        once = done["text"][0].as_py()
        assert one(operator, once) == (once, {}, None)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.none() | TEXTS, max_size=6), st.integers(0, 6))
def test_slices_give_the_same(texts: list[str | None], cut: int) -> None:
    docs = table(texts)
    assert ANY(docs).equals(pa.concat_tables([ANY(docs.slice(0, cut)), ANY(docs.slice(cut))]))


@pytest.mark.parametrize(
    "unit", ["x", "x y ", "...", "a b...\n", "read ", "1 like ", "水", "😀", "\x00", "\n", "a b\n", "read more\n"]
)
def test_long_texts(unit: str) -> None:
    text = unit * (10_000_000 // len(unit.encode()))
    done = ANY(table([text, None]))
    check([text, None], done)


def test_white_space_before_many_broken_lines_takes_linear_time() -> None:
    def seconds(n: int) -> float:
        docs = pa.table({"id": ["a"], "text": [" " * (80_000 * n) + "w1 x1 y...\n" * (2000 * n)]})
        began = time.process_time()
        Correct(max_removed_words=1.0)(docs)
        return time.process_time() - began

    seconds(1)
    assert seconds(8) < 0.5  # quadratic, it took 10 s
