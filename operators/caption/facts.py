"""What is known of a clip, as facts that captions are written from and checked against.

A fact is one statement of a closed vocabulary with a score, from 0 to 1, of how sure whoever found it is, and the share
of the clip's time that it holds for, where that is known. Experts that listen make them (listen.py); grammar.py writes
them down, evidence.py finds them in captions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa

SOUNDS = ("speech", "singing", "music", "silence")
GENDERS = ("male", "female")
EVENTS = ("burst", "series", "hum", "noise")  # one short sound, several, a steady tone, something like wind or hiss
PITCHES = ("low", "high")  # of what is no speech
TEMPOS = ("slow", "fast")
GENRES = ("ambient", "blues", "classical", "country", "electronic", "folk", "hip hop", "jazz", "metal", "pop", "rock")
INSTRUMENTS = (
    *("banjo", "bass", "cello", "drums", "flute", "guitar", "harp", "harpsichord", "organ", "piano", "sitar"),
    *("strings", "synthesizer", "violin"),
)
KINDS = {  # of facts: their values; of a language its code, such as en
    "sound": SOUNDS,
    "language": (),
    "gender": GENDERS,
    "event": EVENTS,
    "pitch": PITCHES,
    "tempo": TEMPOS,
    "genre": GENRES,
    "instrument": INSTRUMENTS,
    "quality": ("clean", "noisy"),  # of speech
}
CLAIM, MUST = 0.5, 0.8  # scores: from the first on a fact may be told, from the second on it has to be
FACTS = pa.list_(
    pa.struct([("kind", pa.string()), ("value", pa.string()), ("score", pa.float32()), ("share", pa.float32())])
)
ANSWERS = pa.struct([("description", pa.string()), ("speech", pa.string()), ("music", pa.string())])
"""Of AudioSetCaps's three questions: what is heard; of speech, if any, emotion, gender and language; of music, if any,
genre and instruments."""


class Fact(NamedTuple):
    """One statement of a clip."""

    kind: str
    value: str
    score: float
    share: float | None = None


def facts_of(column: pa.ChunkedArray) -> list[list[Fact]]:
    """The facts of each clip; none where the column is null."""
    return [[Fact(**fact) for fact in facts or ()] for facts in column.to_pylist()]


def known_facts(docs: pa.Table) -> list[list[Fact] | None]:
    """The facts of each clip; None where nobody has listened, which is not to have heard nothing."""
    if "facts" not in docs.column_names:
        return [None] * docs.num_rows
    listened = docs["facts"].is_valid().to_pylist()
    return [facts if there else None for facts, there in zip(facts_of(docs["facts"]), listened, strict=True)]


def facts_column(rows: Iterable[Iterable[Fact]]) -> pa.Array:
    """Facts as a column, scores and shares rounded to four decimals, in the order of KINDS, then by score."""
    order = list(KINDS)
    ranked = [sorted(facts, key=lambda fact: (order.index(fact.kind), -fact.score, fact.value)) for facts in rows]
    return pa.array(
        [
            [
                fact._replace(
                    score=round(fact.score, 4), share=None if fact.share is None else round(fact.share, 4)
                )._asdict()
                for fact in facts
            ]
            for facts in ranked
        ],
        FACTS,
    )
