from __future__ import annotations

import itertools

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.dedup.words import simplify
from operators.document import loaded
from operators.models.fasttext import FastText
from operators.text.chunks import chunks
from operators.text.rewrite_prompts import BEGIN, CONTRACT, END, STYLES, has_marks, new_text, prompt
from operators.text.rewrite_rules import (
    Bounds,
    Text,
    Violation,
    copied_share,
    language_changed,
    length_ratio,
    repeated_share,
    shared_share,
    topical,
    violation,
)
from tests.operators.dedup.rows import sample_texts
from tests.operators.text import paraphrases as p

BOUNDS = Bounds(min_ratio=0.3, max_ratio=3.0, max_repeated=0.3, max_copied=0.5, min_shared=0.2)
FUNCTIONS = "Which would there be, whether their window opened or their shutter closed, before others should knock?"
OTHER_FUNCTIONS = "Whether there would be others, which should bake their biscuit before their kettle boils over again"
WORDS = st.lists(
    st.sampled_from(["a", "bb", "lighthouse", "keeper", "storms", "灯", "塔", "7"]), min_size=1, max_size=40
)


def words(text: str) -> list[str]:
    found: list[str] = simplify(pa.array([text], pa.large_string()))[0].as_py().split()
    return found


def known(text: str) -> Text:
    (language,), (score,) = loaded(FastText()).best([text])
    return Text(words(text), language, float(score))


@pytest.mark.parametrize("style", ["EASY", "WIKI", "HARD", "QA"])
def test_what_people_wrote_in_each_style_is_accepted(style: str) -> None:
    assert violation(known(p.SOURCE), known(getattr(p, style)), BOUNDS) is None
    assert violation(known(getattr(p, style)), known(p.SOURCE), BOUNDS) is None


@pytest.mark.parametrize("text", ["GERMAN", "OTHER", "CHINESE"])
def test_what_people_wrote_of_other_texts_is_accepted(text: str) -> None:
    assert violation(known(getattr(p, text)), known(getattr(p, f"{text}_AGAIN")), BOUNDS) is None
    assert violation(known(getattr(p, f"{text}_AGAIN")), known(getattr(p, text)), BOUNDS) is None


@pytest.mark.parametrize(
    ("source", "written", "reason"),
    [
        (p.SOURCE, p.SOURCE, "copied"),
        (p.SOURCE, p.SOURCE.upper().replace(",", ""), "copied"),
        (p.SOURCE, p.SOURCE.partition("\n\n")[0], "copied"),  # a part of it
        (p.SOURCE, p.OTHER, "unrelated"),
        (p.SOURCE, p.OTHER_AGAIN, "unrelated"),
        (p.SOURCE, p.MONOTONE, "unrelated"),  # which has no topical words at all
        (p.MONOTONE, p.EASY.partition("\n")[0], "unrelated"),
        ("He had a dog and a cat, and he fed them.", "Sure! Let me know what you want me to do.", "unrelated"),
        ("He had a dog and a cat, and he fed them.", "A dog and a cat were what he had, and fed.", None),
        (" ".join(map(str, range(1, 50))), " ".join(map(str, range(99, 50, -1))), "unrelated"),
        (FUNCTIONS, OTHER_FUNCTIONS, "unrelated"),  # which have many long words in common, and no topical one
        (p.SOURCE, p.GERMAN, "language_changed"),
        (p.GERMAN, p.WIKI, "language_changed"),
        (p.SOURCE, "A lighthouse.", "too_short"),
        (p.SOURCE, "", "too_short"),
        (p.SOURCE, (p.WIKI + p.EASY) * 2, "too_long"),
        (p.SOURCE, p.WIKI + p.WIKI, "repetitive"),
        (p.SOURCE, "The keeper of the lighthouse was there. " * 12, "repetitive"),
        (p.CHINESE, p.CHINESE_AGAIN, None),
        (p.CHINESE, p.CHINESE_OTHER, "unrelated"),
        (p.CHINESE, p.CHINESE, "copied"),
    ],
)
def test_other_texts_are_not(source: str, written: str, reason: str | None) -> None:
    found = violation(known(source), known(written), BOUNDS)
    assert (found and found.reason) == reason


def test_a_violation_says_what_decided() -> None:
    def found(written: str) -> Violation | None:
        return violation(known(p.SOURCE), known(written), BOUNDS)

    assert found(p.SOURCE) == ("copied", 1.0, 0.5, None)
    assert found(p.GERMAN) == ("language_changed", None, None, "en to de")
    assert found("A lighthouse.") == ("too_short", 0.0164, 0.3, None)


def test_bounds_are_not_broken_by_what_equals_them() -> None:
    source, written = known(p.SOURCE), known(p.WIKI)
    ratio, copied, shared = (
        round(value, 4)
        for value in (
            length_ratio(source.words, written.words),
            copied_share(source.words, written.words),
            shared_share(source.words, written.words),
        )
    )
    assert violation(source, written, Bounds(ratio, ratio, 0, copied, shared)) is None
    for field, by, reason in (
        ("min_ratio", 1e-4, "too_short"),
        ("max_ratio", -1e-4, "too_long"),
        ("max_copied", -1e-4, "copied"),
        ("min_shared", 1e-4, "unrelated"),
    ):
        bounds = BOUNDS._replace(
            **{field: {"min_ratio": ratio, "max_ratio": ratio, "max_copied": copied, "min_shared": shared}[field] + by}
        )
        broken = violation(source, written, bounds)
        assert broken is not None
        assert broken.reason == reason


def test_languages_are_compared_where_both_are_sure() -> None:
    assert language_changed(Text((), "en", 0.5), Text((), "de", 0.5))
    assert not language_changed(Text((), "en", 0.49), Text((), "de", 0.9))
    assert not language_changed(Text((), "en", 0.9), Text((), "de", 0.49))
    assert not language_changed(Text((), "en", 0.9), Text((), "en", 0.6))
    assert not language_changed(Text((), "en", 0.9), Text((), None, 0.0))


def test_measures_of_small_texts() -> None:
    six = ["a", "b", "c", "d", "e", "f"]
    assert copied_share(six, six[1:]) == 1
    assert copied_share(six, ["x", *six[:5]]) == 0.5
    assert copied_share(six, ["a", "b"]) == 0  # runs of other lengths are others
    assert copied_share(["a", "b"], ["a", "b"]) == 1
    assert copied_share(six, []) == 0
    assert repeated_share(six) == 0
    assert repeated_share(six * 2) == pytest.approx(2 / 8)
    assert topical(["tower", "was", "灯", "塔", "a", "7", "b"]) == {("tower",), ("灯", "塔")}
    assert topical(["would", "tower", "was", "7"], 1) == {("tower",), ("7",)}


@pytest.mark.parametrize(
    ("source", "written", "share"),
    [
        ("tower keeper storm light water", "tower", 0.2),  # as if of five
        ("tower keeper storm light water", "tower was his light", 0.4),
        ("tower keeper storm light water", "he had a dog", 0),
        ("tower keeper storm light water gulls", "tower keeper storm light water gulls museum", 1),
        ("tower light 7 a", "a light of the tower 7", 1),
        ("tower light 7 a", "a light of the tower 8", 2 / 3),
        ("tower light 7", "tower", 1 / 3),
        ("a dog", "the dog that ran after a cat", 1),
        ("it was so", "it was so", 0),  # nothing tells them from others
        ("灯塔", "塔灯", 2 / 3),
    ],
)
def test_what_is_shared(source: str, written: str, share: float) -> None:
    assert shared_share(words(source), words(written)) == pytest.approx(share)


def test_texts_of_different_subjects_are_told_apart() -> None:
    """The first chunks of documents in the sample, nearly all about other things."""
    texts = [chunks(text, 225)[0] for text in sample_texts("en", 60)]
    found = [words(text) for text in texts]
    shares = [shared_share(a, b) for a, b in itertools.permutations(found, 2)]
    assert sum(share < BOUNDS.min_shared for share in shares) > 0.95 * len(shares)


@settings(deadline=None)
@given(WORDS, WORDS)
def test_measures_are_shares(source: list[str], written: list[str]) -> None:
    for value in (copied_share(source, written), shared_share(source, written), repeated_share(written)):
        assert 0 <= value <= 1
    assert copied_share(source, source) == 1
    assert shared_share(source, source) == bool(topical(source, 1))
    assert shared_share(source, source + written) == shared_share(source, source)
    assert length_ratio(source, written) * length_ratio(written, source) == pytest.approx(1)


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("EDITED: The new text. <end>", "The new text."),
        ("Sure!\n\nEDITED:\nThe new\n\ntext.\n<end>\n", "The new\n\ntext."),
        ("EDITED: The new text. <end>\nI hope that it helps.", Violation("no_end_marker")),
        ("EDITED: a <end> EDITED: b <end>", Violation("more_markers")),
        ("EDITED:\nEDITED: text<end>", Violation("more_markers")),
        ("EDITED: text <end>\n<end>", Violation("more_markers")),
        ("<end> EDITED: text <end>", Violation("more_markers")),
        ("EDITED: Close each block with an `<end>` tag; otherwise it stays open. <end>", Violation("more_markers")),
        ("<think>Perhaps EDITED: draft <end> or so.</think>EDITED: final<end>", "final"),
        ("\n<think>\nA draft.\n</think>\n\nEDITED: <think> is a tag. <end>", "<think> is a tag."),
        ("<think>Perhaps EDITED: draft <end>", Violation("no_start_marker")),
        ("Perhaps EDITED: draft <end></think>EDITED: final<end>", Violation("more_markers")),
        ("EDITED: <end>", ""),
        ("EDITED: The new te", Violation("no_end_marker")),
        ("<end> EDITED: a", Violation("no_end_marker")),
        ("The new text. <end>", Violation("no_start_marker")),
        ("", Violation("no_start_marker")),
        ("I'm sorry, but I can't help with that.", Violation("refused")),
        ("I cannot rewrite this.", Violation("refused")),
        ("As an AI language model, I cannot assist with this request.", Violation("refused")),
        ("Sorry, I am unable to rephrase this.", Violation("refused")),
        ("I'm afraid I'm not able to continue with this.", Violation("refused")),
        ("Unfortunately, I can't help.", Violation("refused")),
        ("EDITED: I\u2019m sorry, I won\u2019t provide this. <end>", Violation("refused")),
        ("EDITED: I can't believe how good it was. <end>", "I can't believe how good it was."),
        ("EDITED: I cannot help loving it. <end>", "I cannot help loving it."),
        ("EDITED: I won't forget that. <end>", "I won't forget that."),
        ("EDITED: As an AI researcher, she knew. <end>", "As an AI researcher, she knew."),
        ("EDITED: I am sorry that the ferry was late. <end>", "I am sorry that the ferry was late."),
    ],
)
def test_what_stands_between_the_marks_is_the_text(reply: str, found: str | Violation) -> None:
    assert new_text(reply, "A text.") == found


def test_what_the_source_says_itself_is_no_refusal() -> None:
    written = "I can't help you with that, she said."
    assert new_text(f"EDITED: {written} <end>", "She said: I cannot help with it, sorry.") == written
    assert new_text(f"EDITED: {written} <end>", "She said that she was sorry.") == Violation("refused")
    assert [has_marks(text) for text in ("an <end> tag", "EDITED: typo", "edited <END>")] == [True, True, False]


def test_a_prompt_says_style_contract_and_text() -> None:
    for style in STYLES.values():
        asked = prompt(style, "The text.")
        assert asked == f"{style}\n\n{CONTRACT}\n\nTEXT:\nThe text."
        assert BEGIN in CONTRACT
        assert CONTRACT.endswith(END)
