"""A score from a fastText classifier, such as those that chose the documents of DCLM (Li et al. 2024, arXiv:2406.11794,
4.4) and PreSelect (Shum et al. 2025, arXiv:2503.00808). `corpusmill train` makes one from the user's own files.

The score is the probability of one label. It never drops: what is good enough depends on the whole collection, so
that is a selector's choice.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, Field, model_validator

from operators.document import Operator, Pinned, PinnedFile, loaded, parameters, with_columns
from operators.models.fasttext import PREFIX, Classifier, FastText
from operators.models.lines import MAX_CHARS, lines_of


def _not_taken(column: str) -> str:
    if column == "language_score":
        raise ValueError("the operator `language` adds this column")
    return column


ScoreColumn = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*_score$"), AfterValidator(_not_taken)]
"""Field type for the name of a column of scores."""


@parameters
class Quality(Operator):
    """Adds the probability of `label`, from 0 to 1 with four decimals; null where there is no text."""

    name: ClassVar[str] = "quality"
    model: PinnedFile  # a supervised fastText model, .bin or .ftz
    label: str = "hq"  # with or without __label__
    column: ScoreColumn = "quality_score"
    max_chars: Annotated[int, Field(ge=1)] = MAX_CHARS  # of a document; as many as the model was trained with
    revision: Literal[1] = 1

    @model_validator(mode="after")
    def _model_has_the_label(self) -> Self:
        check_label(self.model, self.label)
        return self

    @property
    def adds(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def measures(self) -> tuple[str, ...]:
        return (self.column,)

    def __call__(self, docs: pa.Table) -> pa.Table:
        return with_columns(docs, {self.column: label_scores(docs["text"], self.model, self.label, self.max_chars)})


def check_label(model: Pinned, label: str) -> None:
    """Raises ValueError, naming the field, for a file that is no classifier or that lacks the label."""
    try:
        labels = loaded(FastText(model)).labels
    except ValueError as error:
        raise ValueError(f"model: {model.path}: {error}") from None
    if label.removeprefix(PREFIX) not in labels:
        known = ", ".join(sorted(labels)[:20])
        raise ValueError(f"label: the model has no label {label!r}; it has {known}")


def label_scores(texts: pa.ChunkedArray, model: Pinned, label: str, max_chars: int) -> pa.Array:
    """The probability of a label for each text, rounded to four decimals; null for text of blank space only."""
    lines = lines_of(texts, max_chars)
    full = pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(lines)), 0).to_numpy(zero_copy_only=False)
    classifier: Classifier = loaded(FastText(model))
    scores = classifier.probability(lines, label.removeprefix(PREFIX)).round(4)
    return pa.array(scores, pa.float32(), mask=~full)
