"""What is no caption is told from what is, with a reason."""

from __future__ import annotations

import pytest

from operators.caption.lint import lint

WORDS = 50


@pytest.mark.parametrize(
    ("text", "reason", "detail"),
    [
        ("", "empty", None),
        (" ... ", "empty", None),
        ("word " * 51 + ".", "too_long", None),
        ("I'm sorry, I cannot hear the sound.", "refusal", "I'm sorry"),
        ("As an AI, I describe a man who speaks.", "refusal", "As an AI"),
        ("I can\u2019t listen to audio.", "refusal", "I can\u2019t"),
        ("Music plays, see https://example.org.", "markup", "https:"),
        ("```A man speaks.```", "markup", "```"),
        ('{"caption": "A man speaks."}', "markup", "{"),
        ("A man speaks with a score of 0.93.", "numbers", "score of"),
        ("Speech is heard, 93% sure.", "numbers", "3%"),
        ("Music plays (.87).", "numbers", ".8"),
        ("Speech with high probability.", "numbers", "probability"),
        ("The label says that a dog barks.", "meta", "label"),
        ("The ground truth is music.", "meta", "ground truth"),
        ("Caption: A man speaks.", "meta", "Caption"),
        ("This audio clip has a man speaking.", "meta", "This audio"),
        ("Here is your sentence: a man speaks.", "meta", "Here is your"),
        ('A man says "good morning" in English.', "quotation", '"'),
        ("A man says 'good morning' in English.", "quotation", "'good morning'"),
        ("A man says \u00abbonjour\u00bb.", "quotation", "\u00ab"),
        ("A man speaks \u4e2d\u6587.", "script", None),
        ("Music music music plays.", "repetition", "music"),
        ("A man speaks in French and a man speaks in French.", "repetition", "a man speaks in"),
        ("A woman speaks. Music plays. A woman speaks!", "repetition", "a woman speaks"),
        ("A man speaks in", "no_end", "in"),
        ("Male speech, man speaking, is heard.", "quoted_label", "Male speech, man speaking"),
        ("According to the notes, a man speaks.", "meta", "According to"),
        ("A dog barks, as tagged by listeners.", "meta", "tagged"),
        ("Measured facts: a man speaks.", "meta", "Measured"),
        ("Tags: male, speech.", "meta", "Tags"),
        ("Music plays with a score 87.", "numbers", "score 87"),
        ("Music plays, certainty 95.", "numbers", "certainty"),
        ("Sure, a man speaks.", "meta", "Sure,"),
        ("Certainly! A man speaks.", "meta", "Certainly!"),
        ("Output: a man speaks.", "meta", "Output"),
        ("A man speaks. Is there anything else you need?", "meta", "you"),
        ("The provided description says that a man speaks.", "meta", "provided"),
        ("Unfortunately, there is nothing to hear.", "refusal", "Unfortunately"),
        ("There is no information.", "refusal", "information"),
        ("I do not hear anything.", "refusal", "I do"),
        ("I don't know what this sound is.", "refusal", "I don't"),
        ("Rock music, guitar are heard.", "quoted_label", "Rock music, Guitar"),
    ],
)
def test_what_no_caption_has(text: str, reason: str, detail: str | None) -> None:
    labels = ["Rock music", "Guitar"] if "Rock" in text else ["Male speech, man speaking"]
    found = lint(text, WORDS, labels)
    assert found is not None
    assert (found.reason, found.detail) == (reason, detail)


@pytest.mark.parametrize(
    "text",
    [
        "A man speaks in French while slow music plays.",
        "A man's voice and a woman's voice are heard.",
        "Rock music of the 1980s plays; a crowd cheers!",
        "Caf\u00e9 noise with a clich\u00e9 melody.",
        "The musicians' instruments are tuned.",
        "An acoustic guitar plays.",
        "Rock 'n' roll plays.",
        "A series of notes is played at a fast tempo.",
        "word " * 49 + "end.",
    ],
)
def test_captions_pass(text: str) -> None:
    found = lint(text, WORDS, ["Acoustic guitar"])
    assert found is None or (text.startswith("word") and found.reason == "repetition")


@pytest.mark.parametrize("labels", [["?"], ["\U0001f3b5"], ["Speech", "?"], ["Child's voice"], ["...", "!"]])
def test_labels_that_may_be_said(labels: list[str]) -> None:
    assert lint("A child's voice, and  speech.", WORDS, labels) is None


def test_numbers_that_decided() -> None:
    found = lint("one " * 11, 10)
    assert found is not None
    assert (found.value, found.threshold) == (11, 10)
