"""How facts are said, and how they are recognised in what somebody else wrote.

SAID has words for each (kind, value) of facts.py that grammar.py puts into sentences; the patterns of heard.txt find
these and their synonyms in English text. What no expert listens for (a dog, rain, a trumpet, a mood) is found as well,
as kind OTHER, so that a caption that invents it can be told from one that does not. So is every other word, unless it
is one of neutral.txt, which say nothing of the sound: the vocabulary is closed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from operators.caption.facts import GENRES, INSTRUMENTS

OTHER = "other"  # kind of what is recognised, or is a word nobody knows, but no kind of fact
PACE = "pace"  # kind of a tempo that belongs to whatever else is told of
VOICE = ("sound", "voice")  # recognised: of somebody who speaks or sings
LANGUAGES = {  # Whisper's, and the names that captions call them by; the first is written
    "af": "Afrikaans", "am": "Amharic", "ar": "Arabic", "as": "Assamese", "az": "Azerbaijani", "ba": "Bashkir",
    "be": "Belarusian", "bg": "Bulgarian", "bn": "Bengali|Bangla", "bo": "Tibetan", "br": "Breton", "bs": "Bosnian",
    "ca": "Catalan|Valencian", "cs": "Czech", "cy": "Welsh", "da": "Danish", "de": "German", "el": "Greek",
    "en": "English", "es": "Spanish|Castilian", "et": "Estonian", "eu": "Basque", "fa": "Persian|Farsi",
    "fi": "Finnish", "fo": "Faroese", "fr": "French", "gl": "Galician", "gu": "Gujarati", "ha": "Hausa",
    "haw": "Hawaiian", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "ht": "Haitian Creole|Haitian",
    "hu": "Hungarian", "hy": "Armenian", "id": "Indonesian", "is": "Icelandic", "it": "Italian", "ja": "Japanese",
    "jw": "Javanese", "ka": "Georgian", "kk": "Kazakh", "km": "Khmer|Cambodian", "kn": "Kannada", "ko": "Korean",
    "la": "Latin", "lb": "Luxembourgish|Letzeburgesch", "ln": "Lingala", "lo": "Lao|Laotian", "lt": "Lithuanian",
    "lv": "Latvian", "mg": "Malagasy", "mi": "Maori", "mk": "Macedonian", "ml": "Malayalam", "mn": "Mongolian",
    "mr": "Marathi", "ms": "Malay", "mt": "Maltese", "my": "Burmese|Myanmar", "ne": "Nepali", "nl": "Dutch|Flemish",
    "nn": "Nynorsk", "no": "Norwegian", "oc": "Occitan", "pa": "Punjabi|Panjabi", "pl": "Polish",
    "ps": "Pashto|Pushto", "pt": "Portuguese", "ro": "Romanian|Moldavian|Moldovan", "ru": "Russian",
    "sa": "Sanskrit", "sd": "Sindhi", "si": "Sinhala|Sinhalese", "sk": "Slovak", "sl": "Slovenian|Slovene",
    "sn": "Shona", "so": "Somali", "sq": "Albanian", "sr": "Serbian", "su": "Sundanese", "sv": "Swedish",
    "sw": "Swahili", "ta": "Tamil", "te": "Telugu", "tg": "Tajik", "th": "Thai", "tk": "Turkmen",
    "tl": "Tagalog|Filipino", "tr": "Turkish", "tt": "Tatar", "uk": "Ukrainian", "ur": "Urdu", "uz": "Uzbek",
    "vi": "Vietnamese", "yi": "Yiddish", "yo": "Yoruba", "yue": "Cantonese", "zh": "Chinese|Mandarin",
}  # fmt: skip
SAID: dict[tuple[str, str], tuple[str, ...]] = {
    ("sound", "speech"): ("speaks", "talks", "is speaking", "is talking", "is heard speaking", "can be heard talking"),
    ("sound", "singing"): ("sings", "is singing", "is heard singing", "can be heard singing"),
    ("sound", "music"): ("music",),
    ("sound", "silence"): ("silence",),
    ("gender", "male"): ("a man", "a male voice", "a man's voice"),
    ("gender", "female"): ("a woman", "a female voice", "a woman's voice"),
    ("event", "burst"): ("a short@ sound", "a brief@ sound", "a single short@ sound"),  # @: where the pitch goes
    ("event", "series"): ("a series of short@ sounds", "several brief@ sounds", "a sequence of short@ sounds"),
    ("event", "hum"): ("a steady@ hum", "a continuous@ tone", "a constant@ hum"),
    ("event", "noise"): ("a steady@ noise", "a hissing@ noise", "a constant@ noise"),
    ("pitch", "low"): ("low-pitched",),
    ("pitch", "high"): ("high-pitched",),
    ("tempo", "slow"): ("slow", "slow-paced"),
    ("tempo", "fast"): ("fast", "fast-paced"),
    ("quality", "clean"): ("clearly", "in a clear recording", "in a clean recording"),
    ("quality", "noisy"): ("in a noisy recording", "over background noise", "against background noise"),
    **{("language", code): (names.split("|")[0],) for code, names in LANGUAGES.items()},
    **{("genre", genre): (genre,) for genre in GENRES},
    **{("instrument", instrument): (f"a {instrument}",) for instrument in INSTRUMENTS},
    ("instrument", "organ"): ("an organ",),
    ("instrument", "drums"): ("drums",),
    ("instrument", "strings"): ("strings",),
}


def _patterns() -> list[tuple[tuple[str, str] | None, str]]:
    """What is recognised, and by which pattern: of heard.txt, and names of languages."""
    words: dict[str, str] = {}
    found: list[tuple[tuple[str, str] | None, str]] = []
    for line in Path(__file__).with_name("heard.txt").read_text("utf-8").splitlines():
        if not line or line[0] == "#":
            continue
        name, pattern = line.split(" = ", 1)
        for word, others in words.items():
            pattern = pattern.replace(f"<{word}>", f"(?:{others})")
        kind, _, value = name.partition(" ")
        if value or kind == "nothing":
            pattern = re.sub(r" \.\.\.\((.*)\)$", r"(?=,? (?:[a-z-]+,? ){0,3}?(?:\1)\\b)", pattern)
            found.append(((kind, value) if value else None, pattern))
        else:
            words[name] = pattern
    return found + [(("language", code), names.lower()) for code, names in LANGUAGES.items()]


def _neutral() -> frozenset[str]:
    lines = Path(__file__).with_name("neutral.txt").read_text("utf-8").splitlines()
    return frozenset(word for line in lines if line[:1] != "#" for word in line.split())


_NEUTRAL = _neutral()
_WORD = re.compile(r"(?<!\w)(?<!\w')[^\W_]+(?:'[^\W_]+)?")
_ENDING = re.compile(r"(?<=\w{3})(?:ings?|ers?|ed|es|e|s|ly)$")  # that owl and owls, hoot and hooting are one
_PATTERNS = _patterns()
_HEARD = re.compile(  # the groups are empty and stand last, so that the first letter decides what is tried
    r"\b(?:" + "|".join(rf"(?:{pattern})(?!\w)()" for _, pattern in _PATTERNS) + ")"
)


class Heard(NamedTuple):
    """What was recognised, from character `start` to `end`."""

    what: tuple[str, str]
    start: int
    end: int


def recognise(text: str) -> Iterator[Heard]:
    """All that the text speaks of, in order, whether it says that it is there or not; `text` in lower case, with
    single spaces."""
    end = 0
    for match in _HEARD.finditer(text):
        assert match.lastindex is not None  # no pattern holds a group of its own
        yield from _unknown(text, end, match.start())
        what, end = _PATTERNS[match.lastindex - 1][0], match.end()
        if what is not None:
            yield Heard(what, match.start(), end)
    yield from _unknown(text, end, len(text))


def _unknown(text: str, start: int, end: int) -> Iterator[Heard]:
    """The words that no pattern knows, without their endings, but for neutral ones."""
    for match in _WORD.finditer(text, start, end):
        word = match[0].removesuffix("'s")
        if match[0] not in _NEUTRAL and word not in _NEUTRAL:
            yield Heard((OTHER, _ENDING.sub("", word)), match.start(), match.end())
