"""How toxic the most toxic tenth of a text is: insults, swear-words, threats.

Without a model of the user's, a small one that is packaged judges windows of 20 words, about a comment each, which is
what it was trained on (operators/models/toxicity.py), and the score is the mean of the upper tenth of them: the highest
one alone grows with the length of a text, and the mean of all hides what stands in one place. It knows English, and
takes some words for toxic that are only about sex, the body or minorities: read what a threshold drops before using it.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from numba import njit
from pydantic import model_validator

from operators.document import Operator, PinnedFile, parameters, with_columns
from operators.models.lines import MAX_CHARS
from operators.models.toxicity import windows
from operators.text.quality import check_label, label_scores

WINDOW = 20  # words
TOP = 10  # the upper tenth
COLUMN = "toxicity_score"
LABEL = "toxic"


@parameters
class Toxicity(Operator):
    """Adds `toxicity_score`, from 0 to 1 with four decimals; null for texts in which the model knows no word."""

    name: ClassVar[str] = "toxicity"
    model: PinnedFile | None = (
        None  # fastText, .bin or .ftz, as `corpusmill train quality` makes; none: the packaged one
    )
    label: str | None = None  # of the file; none: toxic
    revision: Literal[1] = 1

    @model_validator(mode="after")
    def _model_has_the_label(self) -> Self:
        if self.model:
            check_label(self.model, self.label or LABEL)
        elif self.label is not None:
            raise ValueError("label: the packaged model has no labels; set `model` too, or leave this out")
        return self

    @property
    def adds(self) -> tuple[str, ...]:
        return (COLUMN,)

    @property
    def measures(self) -> tuple[str, ...]:
        return (COLUMN,)

    def __call__(self, docs: pa.Table) -> pa.Table:
        if self.model:
            return with_columns(docs, {COLUMN: label_scores(docs["text"], self.model, self.label or LABEL, MAX_CHARS)})
        found = windows(docs["text"], WINDOW)
        scores = _upper_tenth(found.probability, found.bounds)
        return with_columns(docs, {COLUMN: pa.array(scores.round(4), pa.float32(), mask=found.known == 0)})


@njit(nogil=True, cache=True)
def _upper_tenth(values, bounds):  # type: ignore[no-untyped-def]
    """The mean of the highest tenth of each group, of one value at least."""
    means = np.zeros(bounds.shape[0] - 1)
    for d in range(means.shape[0]):
        ordered = np.sort(values[bounds[d] : bounds[d + 1]])[::-1]
        most = (ordered.shape[0] + TOP - 1) // TOP
        means[d] = ordered[:most].sum() / most
    return means
