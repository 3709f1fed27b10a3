"""Clips with facts, as tables."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from operators.caption.facts import ANSWERS, Fact, facts_column
from operators.caption.grammar import answer

SPEECH = [Fact("sound", "speech", 0.95), Fact("gender", "male", 0.9), Fact("language", "fr", 0.97)]
MUSIC = [Fact("sound", "music", 0.9)]


def clips(
    facts: Sequence[Sequence[Fact]], labels: Sequence[Sequence[str] | None] | None = None, first: int = 0
) -> pa.Table:
    """A clip of each list of facts, with the three answers that follow from them."""
    return pa.table(
        {
            "id": [f"recording/{first + k:05}" for k in range(len(facts))],
            "text": pa.nulls(len(facts), pa.large_string()),
            "facts": facts_column(facts),
            "labels": pa.array(labels or [None] * len(facts), pa.list_(pa.string())),
            "answers": pa.array([answer(one) for one in facts], ANSWERS),
        }
    )
