"""What no caption may have, whatever it says: signs that a model answered something else than it was asked for.

Of the captions of a published set, six in a hundred have raw probabilities in them, and nearly five the word "label".
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

REPEATED = 4  # words that may not follow each other in the same order twice
LAST_LATIN = "\u024f"


class Rejected(NamedTuple):
    """Why a text is no caption, or why there is none: a drop reason, with the number and bound that decided; `final`:
    no other try would change it."""

    reason: str
    value: float = math.nan
    threshold: float = math.nan
    detail: str | None = None
    final: bool = False


_SIGNS = tuple(  # reasons, and what gives a text away
    (reason, re.compile(pattern, re.IGNORECASE))
    for reason, pattern in (
        (
            "refusal",
            r"\bas an ai\b|\b(?:ai|language) model\b|\bi(?: a|'|\u2019)?m (?:sorry|unable)|\bsorry,"
            r"|\bi (?:can ?not|can(?:'|\u2019)t|could not|apologi[sz]e|do(?:n'?t)?|don\u2019t|hear|know)\b|(?-i:\bI\b)"
            r"|\bunfortunately\b|\binformation\b",
        ),
        ("markup", r"https?:|www\.|```|</?[a-z]+>|[{}\[\]|#*_~\\]|\bjson\b"),
        (
            "numbers",
            r"\d[.,]\d|\.\d|\d ?(?:%|percent\b)|\bpercent(?:age)?\b|\bprobabilit(?:y|ies)\b|\blikelihood\b"
            r"|\bconfidence\b|\bcertainty\b|\baccuracy\b|\bscores? (?:of|is|was|\d+)\b|\b[01]\b",
        ),
        (
            "meta",
            r"\blabel(?:s|ed|led)?\b|\bground[- ]truth\b|\bcaptions?\b|\bcrowd[- ]?sourc\w+"
            r"|\baudio (?:clip|file|sample)s?\b"
            r"|\b(?:this|the|an) audio\b|\b(?:sound|video) clips?\b|\b(?:the|this) clip\b"
            r"|\bbased on the\b|\binstructions?\b|\bwithin fifty words\b|\bhere (?:is|are) (?:a|an|the|your)\b"
            r"|\btag(?:s|ged)?\b|\baccording to\b|\bnotes? (?:says?|states?|mentions?|describes?)\b|\bnotes:"
            r"|\bfacts?\b|\bmeasure(?:d|ments?)\b|\bdescriptions?\b|\b(?:in|out)put\b|\bprovided\b|\blisteners?\b"
            r"|^(?:sure|certainly|of course|okay|ok|absolutely|great|yes|no)[,!.]|\byou(?:rs?)?\b|\?",
        ),
        (
            "quotation",
            r"[\"\u201c\u201d\u00ab\u00bb\u201e\u300c]|(?:^|[\s:,])['\u2018](?!n['\u2019])\w[^'\u2019]*['\u2019](?=[\s.,!?]|$)",
        ),
    )
)
_END = re.compile(r"[.!?]$")
_WORD = re.compile(r"[\w'\u2019-]+")
_GAPS = re.compile(r"\W+")


def lint(text: str, max_words: int, labels: Sequence[str] = ()) -> Rejected | None:
    """Why `text` is no caption, if it is none. `labels` are not to be quoted: no list of them, and none that is no
    ordinary phrase, as "Male speech, man speaking"."""
    words = _WORD.findall(text.lower())
    if not words:
        return Rejected("empty", 0, 1)
    if len(text.split()) > max_words:
        return Rejected("too_long", len(text.split()), max_words)
    for reason, pattern in _SIGNS:
        if sign := pattern.search(text):
            return Rejected(reason, detail=sign[0].strip())
    if foreign := sum(letter.isalpha() and letter > LAST_LATIN for letter in text):
        return Rejected("script", foreign, 0)
    if again := _repeated(words) or _said_twice(text):
        return Rejected("repetition", detail=again)
    if not _END.search(text):
        return Rejected("no_end", detail=words[-1])
    if quoted := _quoted(text, labels):
        return Rejected("quoted_label", detail=quoted)
    return None


def _repeated(words: Sequence[str]) -> str | None:
    """The first words that come again: the same word three times on end, or REPEATED words."""
    seen: set[tuple[str, ...]] = set()
    for k in range(len(words)):
        if words[k : k + 3] == [words[k]] * 3:
            return words[k]
        gram = tuple(words[k : k + REPEATED])
        if len(gram) == REPEATED and gram in seen:
            return " ".join(gram)
        seen.add(gram)
    return None


def _said_twice(text: str) -> str | None:
    """The first sentence that comes again, however short."""
    sentences = [" ".join(_WORD.findall(part)) for part in re.split("[.!?]", text.lower())]
    return next((one for k, one in enumerate(sentences) if one and one in sentences[:k]), None)


def _quoted(text: str, labels: Sequence[str]) -> str | None:
    plain = f" {_GAPS.sub(' ', text.lower())} "
    labels = [label for label in labels if _GAPS.sub("", label)]
    odd = [label for label in labels if re.search("[,&]", label)]
    for quote in (*odd, *([", ".join(labels)] if len(labels) > 1 else [])):
        if f" {_GAPS.sub(' ', quote.lower()).strip()} " in plain:
            return quote
    return None
