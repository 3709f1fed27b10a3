"""Perplexity of a text under an n-gram model of good text in its language: CCNet (Wenzek et al. 2019, arXiv:1911.00359,
section 3.3), and one of Yi's learned filters (arXiv:2403.04652, 2.1).

Low is like what the model was trained on; word salad, lists of keywords and text in another language are high, and
text that repeats itself is low, whatever it says. Scores of different models do not compare, so cuts are by percentile
and language. Each line is a sentence (operators/text/language_model_tokens.py says how it is cut into tokens).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from operators.document import Operator, PinnedFile, loaded, parameters, with_columns
from operators.models.arpa import Arpas, Evaluator

ANY = "*"


@parameters
class Perplexity(Operator):
    """Adds `perplexity` (float32, four digits): 10 ** (-log10 p / tokens), where the end of a line is a token too.

    `models`: files of `corpusmill train perplexity` by the value of `language` they are for; `*` is for all others.
    Null where there is no model for the row's language, or no token.
    """

    name: ClassVar[str] = "perplexity"
    models: Annotated[dict[str, PinnedFile], Field(min_length=1)]
    revision: Literal[1] = 1

    @model_validator(mode="after")
    def _models_can_be_read(self) -> Self:
        loaded(self._files)  # says what is wrong with a file before any work
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        return ("text",) if set(self.models) == {ANY} else ("text", "language")

    @property
    def adds(self) -> tuple[str, ...]:
        return ("perplexity",)

    @property
    def measures(self) -> tuple[str, ...]:
        return ("perplexity",)

    def __call__(self, docs: pa.Table) -> pa.Table:
        models: dict[str, Evaluator] = loaded(self._files)
        named = pa.array([language for language in models if language != ANY], pa.string())
        if len(named):
            language = docs["language"].cast(pa.string())
            language = pc.if_else(pc.is_in(language, value_set=named), language, ANY)
        else:
            language = pa.array([ANY] * docs.num_rows, pa.string())
        scores = np.full(docs.num_rows, np.nan, np.float32)
        for one, model in models.items():
            rows = np.flatnonzero(pc.equal(language, one).to_numpy(zero_copy_only=False))
            if len(rows):
                found = model.perplexity(docs["text"].take(pa.array(rows)))
                scores[rows] = found.to_numpy(zero_copy_only=False)
        return with_columns(docs, {"perplexity": pa.array(scores, from_pandas=True)})

    @property
    def _files(self) -> Arpas:
        return Arpas(tuple(sorted(self.models.items())))
