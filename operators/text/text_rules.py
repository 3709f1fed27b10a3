"""Bounds on any statistic of the text, a set of them for each language: thresholds of the user's own corpus.

Yi (arXiv 2403.04652, section 2.1) and CulturaX (Nguyen et al. 2023, arXiv 2309.09400, 3.2) publish no thresholds: they
take percentiles of what samples of each language show. `corpusmill fit-thresholds` does, and writes them here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pydantic
from numpy.typing import NDArray
from pydantic import Field

from operators.document import Operator, drop, parameters
from operators.text.segment import Segmenter
from operators.text.statistics import STATISTICS, statistics

OTHERS = "*"  # the language of documents that have no bounds of their own
NAMES = tuple(name for name, _ in STATISTICS)


@parameters
class Bounds:
    """Of one statistic; a document outside of them goes."""

    min: float | None = None
    max: float | None = None

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> Bounds:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self


@parameters
class TextRules(Operator):
    """Drops documents of which a statistic is out of bounds, for the first one in the order of the list of statistics.
    Documents that lack a statistic (a mean of no words, words of a script without spaces) are not asked for it."""

    name: ClassVar[str] = "text_rules"
    words: Segmenter = "whitespace"
    bounds: dict[str, dict[str, Bounds]] = Field(default_factory=dict)  # language, or * for others -> statistic
    revision: Literal[1] = 1

    @pydantic.field_validator("bounds")
    @classmethod
    def _are_known(cls, bounds: dict[str, dict[str, Bounds]]) -> dict[str, dict[str, Bounds]]:
        for language, own in bounds.items():
            for name in own:
                if name not in NAMES:
                    raise ValueError(f"{language}: no statistic {name!r}; there are: {', '.join(NAMES)}")
        return bounds

    @property
    def needs(self) -> tuple[str, ...]:
        return ("text", "language") if self.bounds.keys() - {OTHERS} else ("text",)

    @property
    def cuts(self) -> Mapping[str, tuple[float, ...]]:
        ends = {(name, language): (b.min, b.max) for language, own in self.bounds.items() for name, b in own.items()}
        return {_title(*key): tuple(end for end in found if end is not None) for key, found in ends.items()}

    def __call__(self, docs: pa.Table) -> pa.Table:
        docs, values = statistics(docs, "paper", self.words)
        language = self._language(docs)
        n = docs.num_rows
        reason, value, threshold = np.full(n, "", object), np.full(n, np.nan), np.full(n, np.nan)
        for name in NAMES:
            for code, bounds in ((code, own[name]) for code, own in self.bounds.items() if name in own):
                for word, end in (("low", bounds.min), ("high", bounds.max)):
                    if end is None:
                        continue
                    out = values[name] < end if word == "low" else values[name] > end
                    hit = out & (language == code) & (reason == "")
                    reason[hit], value[hit], threshold[hit] = f"{word}_{name}", values[name][hit], end
        reasons = pa.array(reason, pa.string(), mask=reason == "")
        return drop(docs, reasons, value, threshold, pa.array(language, pa.string()))

    def measured(self, marked: pa.Table) -> Mapping[str, NDArray[np.float64]]:
        _, values = statistics(marked, "paper", self.words)
        language = self._language(marked)
        return {
            _title(name, code): values[name][language == code]
            for name in NAMES
            for code, own in self.bounds.items()
            if name in own
        }

    def _language(self, docs: pa.Table) -> NDArray[np.object_]:
        """Under which language's bounds each document falls."""
        if "language" not in docs.column_names:
            return np.full(docs.num_rows, OTHERS, object)
        codes = pc.cast(docs["language"], pa.string())
        own = pc.is_in(codes, value_set=pa.array(self.bounds.keys() - {OTHERS}, pa.string()))
        return np.asarray(pc.if_else(own, codes, OTHERS).to_numpy(zero_copy_only=False), object)


def _title(statistic: str, language: str) -> str:
    return statistic if language == OTHERS else f"{statistic} ({language})"
