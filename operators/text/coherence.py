"""How far a document hangs together, from 0 to 1: what Yi's document-coherence scorer is for (arXiv 2403.04652,
section 2.1; its model is not published), by words alone.

The score is the product of two parts, each 0.5 where real documents and made-up ones are equally likely. Cohesion: do
the same words return from one part to the next (see cohesion.py)? Low for paragraphs of different documents, lists and
menus. Order: do words follow each other as in real text? Low for shuffled words and lists of keywords. Nothing is said
of what a text means: a coherent lie is coherent.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from operators.document import Operator, parameters, with_columns
from operators.text.cohesion import places

EVEN_COHESION = 0.1  # mean similarity of neighbouring blocks
ORDER = (-3.0, 10.0, 10.0)  # of the odds that a text is no shuffled one: constant, by `pairs`, by `order`


@parameters
class Coherence(Operator):
    """Adds `coherence_score`; null for documents without two parts of 20 words."""

    name: ClassVar[str] = "coherence"
    revision: Literal[1] = 1

    @property
    def adds(self) -> tuple[str, ...]:
        return ("coherence_score",)

    @property
    def measures(self) -> tuple[str, ...]:
        return ("coherence_score",)

    def __call__(self, docs: pa.Table) -> pa.Table:
        found = places(docs["text"])
        number = np.diff(found.offsets)
        sums = np.bincount(np.repeat(np.arange(len(number)), number), found.similarity, len(number))
        mean = sums / np.maximum(number, 1)
        cohesion = mean * mean / (mean * mean + EVEN_COHESION * EVEN_COHESION)
        constant, pairs, order = ORDER
        ordered = 1 / (1 + np.exp(-constant - pairs * found.pairs - order * found.order))
        score = np.round(cohesion * ordered, 4).astype(np.float32)
        return with_columns(docs, {"coherence_score": pa.array(score, mask=number == 0)})
