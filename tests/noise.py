"""Bad texts made of good ones, to see whether a scorer tells them apart: shuffled words, boilerplate, spam, insults.

Each is made of a real document and seeded choices, and keeps words of that document, so that the topic gives nothing
away. Insults are mild and name nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pyarrow.parquet as pq

SAMPLE = Path(__file__).parents[1] / "workflows" / "sample" / "sample.parquet"
MENU = """Home|About us|Contact|Privacy policy|Terms of use|Cookie settings|Sign in|Log out|Register|My account|Site map
Accept all cookies|Share on Facebook|Tweet this|Print this page|Back to top|Next|Previous|Read more|Subscribe to our
newsletter|Follow us|All rights reserved|Copyright|Powered by|Related posts|Leave a comment|Search|Help|FAQ|Careers
Press|Advertise|Report a problem|Download our app|View in browser|Unsubscribe|Skip to main content"""
MENUS = [entry.strip() for entry in MENU.replace("\n", "|").split("|")]
OFFERS = [
    "Buy cheap {} online, best {} price guaranteed!",
    "Top 10 {} deals, click here for free {} today",
    "Looking for {}? Discount {} with free shipping worldwide",
    "{} {} review: act now, limited offer, order now",
    "Best {} casino bonus, win {} jackpot, no deposit",
]
INSULTS = [
    "shut up {i}, nobody wants to read this {a} crap",
    "you must be the most {a} {i} ever born",
    "only a {a} {i} would believe such bullshit",
    "what a {a} piece of shit, written by some {i}",
    "you can go to hell, what a {a} {i}",
]
ABUSIVE, NAMES = (
    ("stupid", "fucking", "pathetic", "dumb", "worthless", "goddamn"),
    ("idiot", "moron", "bastard", "loser"),
)
Noise = Callable[[str, Random], str]


def documents(least_words: int = 20, language: str = "en") -> list[str]:
    """Texts of the packaged sample."""
    rows = pq.read_table(SAMPLE, columns=["text", "lang"]).to_pylist()
    return [row["text"] for row in rows if row["lang"] == language and len(row["text"].split()) >= least_words]


def halves(texts: Sequence[str], noise: Noise, seed: int = 1) -> tuple[list[str], list[str]]:
    """(texts as they are, others turned to noise)."""
    draw = Random(seed)
    order = draw.sample(range(len(texts)), len(texts))
    half = len(texts) // 2
    return [texts[k] for k in order[:half]], [noise(texts[k], draw) for k in order[half:]]


def shuffled(text: str, draw: Random) -> str:
    words = text.split()
    return " ".join(draw.sample(words, len(words)))


def boilerplate(text: str, draw: Random) -> str:
    """A menu with a line of the text here and there."""
    lines = [line for line in text.split("\n") if line.strip()]
    entries = draw.choices(MENUS, k=draw.randrange(10, 30)) + draw.choices(lines, k=10)
    draw.shuffle(entries)
    return draw.choice(["\n", " | ", " » "]).join(entries)


def spam(text: str, draw: Random) -> str:
    """Offers of the words of the text, between its sentences."""
    words = text.split()
    pieces = []
    for _ in range(draw.randrange(4, 12)):
        at = draw.randrange(len(words))
        pieces += [draw.choice(OFFERS).format(draw.choice(words), draw.choice(words)), " ".join(words[at : at + 12])]
    return " ".join(pieces)


def insult(draw: Random) -> str:
    return draw.choice(INSULTS).format(a=draw.choice(ABUSIVE), i=draw.choice(NAMES))


def insulting(text: str, draw: Random) -> str:
    """The text with a line of insult for each 100 words."""
    lines = text.split("\n")
    for _ in range(1 + len(text.split()) // 100):
        lines.insert(draw.randrange(len(lines) + 1), insult(draw))
    return "\n".join(lines)
