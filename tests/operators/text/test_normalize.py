from __future__ import annotations

import unicodedata

import pyarrow as pa
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.document import utf8
from operators.text.normalize import Normalize, _characters, _unclean


def table(texts: list[str | None]) -> pa.Table:
    return pa.table({"text": pa.array(texts, pa.large_string())})


def one(operator: Normalize, text: str | None) -> tuple[str | None, int, str | None]:
    row = operator(table([text])).to_pylist()[0]
    return row["text"], row["normalized_chars"], row["drop_reason"]


DEFAULT = Normalize()


@pytest.mark.parametrize(
    ("operator", "text", "result", "lost"),
    [
        (DEFAULT, "Clean.\n\nText\twith  spaces.\n  Indented.", None, 0),
        (DEFAULT, "naïve café 中文 😀", None, 0),
        (DEFAULT, "a\r\nb\rc\u2028d\x85e\ff", "a\nb\nc\nd\ne\nf", 0),
        (DEFAULT, "a  \nb\t\n c\u00a0\n", "a\nb\n c", 0),
        (DEFAULT, "  a\n\n\n\nb", "a\n\nb", 0),
        (DEFAULT, "a\n \n \nb", "a\n\nb", 0),
        (DEFAULT, "\u3000中", "中", 0),
        (DEFAULT, "a\x00b\x9f\x7f", "ab", 3),
        (DEFAULT, "e\u0301", "é", 2),
        (DEFAULT, "\u1112\u1161\u11ab", "한", 3),
        (DEFAULT, "e\x01\u0301", "é", 3),
        (DEFAULT, "ﬁ", None, 0),
        (Normalize(form="NFKC"), "ﬁ", "fi", 1),
        (Normalize(form="none"), "e\u0301", None, 0),
        (Normalize(max_newlines=1), "a\n\nb", "a\nb", 0),
        (Normalize(collapse_spaces=True), "  a  b\n   c", "a b\n c", 0),
        (Normalize(fix_mojibake=True), "schÃ¶n", "schön", 2),
        (Normalize(fix_mojibake=True), "plain", None, 0),
    ],
)
def test_result(operator: Normalize, text: str, result: str | None, lost: int) -> None:
    assert one(operator, text) == (text if result is None else result, lost, None)


@pytest.mark.parametrize("text", ["", " \n\t ", "\x00\x01", None])
def test_empty(text: str | None) -> None:
    assert one(DEFAULT, text)[2] == "empty"


def test_long_runs_take_linear_time() -> None:
    assert one(DEFAULT, "a" + " " * 2_000_000 + "b\r" + "\n" * 2_000_000 + "c")[0] == "a" + " " * 2_000_000 + "b\n\nc"


def test_clean_rows_do_not_become_strings() -> None:
    data, offsets = utf8(table(["A line.\n\nAnother: naïve, 中文, 😀.", "bad "])["text"])
    assert _unclean(data, offsets, _characters("NFC", False), 2, False).tolist() == [False, True]


def test_no_rows() -> None:
    done = DEFAULT(table([]))
    assert done.num_rows == 0
    assert {"normalized_chars", "drop_reason"} <= set(done.column_names)


def test_parameters() -> None:
    with pytest.raises(pydantic.ValidationError, match=r"(?s)form.*'NFD'"):
        Normalize(form="NFD")  # type: ignore[arg-type]


CHARACTERS = st.sampled_from(
    list("ab \n\r\t\x00\x85\u2028\u00a0\u3000\u0301\u0323\u212bé한ᄒ\u1161\u11a8ﬁ😀")
) | st.characters(exclude_categories=["Cs"])
OPERATORS = st.builds(
    Normalize,
    form=st.sampled_from(["NFC", "NFKC", "none"]),
    collapse_spaces=st.booleans(),
    max_newlines=st.integers(1, 3),
)


@settings(max_examples=300, deadline=None)
@given(st.text(CHARACTERS, max_size=30), OPERATORS)
def test_the_kernel_calls_clean_only_what_stays(text: str, operator: Normalize) -> None:
    result, lost = operator._normalized(text)
    assert one(operator, text)[:2] == (result, lost)
    assert operator._normalized(result)[0] == result
    if operator.form != "none":
        assert unicodedata.is_normalized(operator.form, result)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=30))
def test_nfc_is_that_of_unicode(text: str) -> None:
    assert one(DEFAULT, text)[0] == unicodedata.normalize("NFC", text)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.none() | st.text(CHARACTERS, max_size=10), max_size=8), st.integers(0, 8))
def test_slices_give_the_same(texts: list[str | None], cut: int) -> None:
    docs = table(texts)
    assert DEFAULT(docs).equals(pa.concat_tables([DEFAULT(docs.slice(0, cut)), DEFAULT(docs.slice(cut))]))
