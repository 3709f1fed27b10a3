"""TextRules drops by bounds of each language, and asks nothing of a document that lacks a statistic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from operators.apply import Step, apply
from operators.text.text_rules import TextRules
from workflows.recipe import ParameterError, Params

PLAIN = "A plain sentence of some words stands here. " * 3


def rules(**bounds: Any) -> TextRules:
    step = Params({"text_rules": {"bounds": bounds}}).use(TextRules)
    assert step is not None
    operator: TextRules = step.operator
    return operator


def fates(operator: TextRules, docs: pa.Table) -> dict[str, tuple[str, float, float, str]]:
    """{id: (reason, value, threshold, detail)} of what is dropped."""
    dropped = apply([Step("text_rules", operator)], docs).dropped
    columns = ("drop_reason", "drop_value", "drop_threshold", "drop_detail")
    return {row["id"]: tuple(row[name] for name in columns) for row in dropped.to_pylist()}


def table(**texts: tuple[str | None, str | None]) -> pa.Table:
    text, language = zip(*texts.values(), strict=True)
    columns = {"id": pa.array(texts), "text": pa.array(text, pa.large_string())}
    return pa.table(columns | {"language": pa.array(language, pa.string())})


def test_each_language_has_its_own_bounds_and_the_others_share_theirs() -> None:
    operator = rules(en={"words": {"min": 10}}, **{"*": {"words": {"min": 30, "max": 40}}})
    docs = table(
        en=(PLAIN, "en"), short=("two words", "en"), de=(PLAIN, "de"), none=("one", None), long=("x " * 41, "fr")
    )
    assert fates(operator, docs) == {
        "short": ("text_rules/low_words", 2.0, 10.0, "en"),
        "de": ("text_rules/low_words", 24.0, 30.0, "*"),
        "none": ("text_rules/low_words", 1.0, 30.0, "*"),
        "long": ("text_rules/high_words", 41.0, 40.0, "*"),
    }


def test_the_first_statistic_of_the_list_counts() -> None:
    operator = rules(**{"*": {"words": {"min": 100}, "characters": {"max": 5}}})
    assert fates(operator, table(a=(PLAIN, "en")))["a"][0] == "text_rules/high_characters"


def test_what_lacks_a_statistic_is_not_asked_and_not_drawn() -> None:
    operator = rules(**{"*": {"mean_word_chars": {"min": 3, "max": 10}}})
    docs = table(en=(PLAIN, "en"), zh=("这是一个没有空格的句子。" * 5, "zh"), empty=("", None), null=(None, None))
    assert fates(operator, docs) == {}
    drawn = operator.measured(operator(docs))["mean_word_chars"]
    assert np.isfinite(drawn).tolist() == [True, False, False, False]


def test_bounds_are_drawn_by_language() -> None:
    operator = rules(en={"words": {"min": 10, "max": 99}}, **{"*": {"digits": {"max": 0.2}}})
    assert operator.cuts == {"words (en)": (10.0, 99.0), "digits": (0.2,)}
    assert set(operator.measured(operator(table(a=(PLAIN, "en"))))) == {"words (en)", "digits"}


def test_without_a_language_all_fall_under_the_common_bounds() -> None:
    docs = table(a=("two words", "en")).drop_columns(["language"])
    operator = rules(**{"*": {"words": {"min": 3}}})
    assert operator.needs == ("text",)
    assert rules(en={"words": {"min": 3}}).needs == ("text", "language")
    assert fates(operator, docs)["a"][0] == "text_rules/low_words"


@pytest.mark.parametrize(
    ("bounds", "told"),
    [
        ({"en": {"wrods": {"min": 1}}}, "en: no statistic 'wrods'; there are: characters, "),
        ({"en": {"words": {"min": 9, "max": 1}}}, "min 9 is above max 1"),
        ({"en": {"words": {"least": 9}}}, "least"),
    ],
)
def test_wrong_bounds_are_refused(bounds: dict[str, Any], told: str) -> None:
    with pytest.raises(ParameterError, match=told):
        rules(**bounds)
