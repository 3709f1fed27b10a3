"""Texts that break filters: each gets an answer and a reason, in time and memory that grow with the text."""

import pyarrow as pa
import pytest

from operators.document import Operator
from operators.text.c4 import C4
from operators.text.fineweb import FineWeb
from operators.text.gopher_quality import GopherQuality
from operators.text.gopher_repetition import GopherRepetition

MODES = ("paper", "datatrove", "nemo")
FILTERS: list[tuple[type[Operator], str]] = [
    *((GopherQuality, mode) for mode in MODES),
    *((GopherRepetition, mode) for mode in MODES),
    *((FineWeb, mode) for mode in MODES[:2]),
    *((C4, mode) for mode in MODES[:2]),
]
SMALL: dict[str, str | None] = {
    "null": None,
    "empty": "",
    "blanks": " \t\r\n ",
    "one word": "word",
    "one letter": "a",
    "NULs": "\0" * 1000,
    "NULs and words": "a\0b " * 100,
    "emoji": "🙂👨‍👩‍👧 " * 200,
    "Han": "语言模型需要大量文本。" * 50,
    "Thai": "ภาษาไทยไม่มีช่องว่าง" * 50,
    "combining marks": "\u0301" * 500,
    "separators": "\u2028\u2029\x85\x1c\x0b" * 100,
    "lone brackets": "[" * 5000,
    "beginnings of phrases": "use of cooki javascrip lorem ipsu " * 100,
}
LARGE = {
    "one line of words": lambda: "words on one line " * (20_000_000 // 18),
    "one word": lambda: "x" * 20_000_000,
    "line feeds": lambda: "\n" * 10_000_000,
    "short words": lambda: "a " * 5_000_000,
    "one line of Han": lambda: "语" * 3_000_000,
    "NULs": lambda: "\0" * 5_000_000,
}
EXPECTED = {  # by text: reasons of quality, repetition and FineWeb in the paper's reading
    "null": ("too_few_words", "empty", "empty"),
    "empty": ("too_few_words", "empty", "empty"),
    "blanks": ("too_few_words", "empty", "empty"),
    "one word": ("too_few_words", None, "few_terminal_lines"),
    "NULs": ("too_few_words", None, "few_terminal_lines"),
    "emoji": ("too_few_alpha_words", "top_2gram", "few_terminal_lines"),
    "Han": (None, None, None),
    "separators": ("too_few_words", "empty", "empty"),
    "one line of Han": ("too_many_words", None, "few_terminal_lines"),
    "one line of words": ("too_many_words", "top_2gram", "few_terminal_lines"),
    "line feeds": ("too_few_words", "empty", "empty"),
    "short words": ("too_many_words", "top_2gram", "few_terminal_lines"),
}


@pytest.mark.parametrize(("kind", "mode"), FILTERS)
@pytest.mark.parametrize("words", ["whitespace", "words"])
def test_small(kind: type[Operator], mode: str, words: str) -> None:
    """Alone and together, each has the same answer: a reason or none, with a number where there is a reason."""
    fields = {} if kind is C4 else {"words": words}
    operator = kind(mode=mode, **fields)
    together = operator(pa.table({"text": pa.array(SMALL.values(), pa.large_string())}))
    alone = [operator(pa.table({"text": pa.array([text], pa.large_string())})) for text in SMALL.values()]
    columns = ["drop_reason", "drop_value", "drop_threshold"]
    assert together.select(columns).to_pylist() == pa.concat_tables(alone).select(columns).to_pylist()
    for row in together.to_pylist():
        assert (row["drop_reason"] is None) == (row["drop_value"] is None) == (row["drop_threshold"] is None)


@pytest.mark.parametrize("name", [name for name in EXPECTED if name in SMALL])
def test_reasons_of_small_texts(name: str) -> None:
    docs = pa.table({"text": pa.array([SMALL[name]], pa.large_string())})
    reasons = tuple(op(docs)["drop_reason"][0].as_py() for op in (GopherQuality(), GopherRepetition(), FineWeb()))
    assert reasons == EXPECTED[name]


@pytest.mark.parametrize("name", LARGE)
def test_large(name: str) -> None:
    """All modes of all filters; those of one mode read what the first of them counted."""
    text = pa.table({"text": pa.array([LARGE[name]()], pa.large_string())})
    for mode in MODES:
        docs, reasons = text, []
        for kind in (GopherQuality, GopherRepetition, FineWeb, C4):
            if (kind, mode) in FILTERS:
                docs = kind(mode=mode)(docs)
                reasons.append(docs["drop_reason"][0].as_py())
        assert len(reasons) == (2 if mode == "nemo" else 4)
        if mode == "paper" and name in EXPECTED:
            assert tuple(reasons[:3]) == EXPECTED[name]
