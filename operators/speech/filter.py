"""Which utterances stay: Emilia-Pipe's last step (He et al. 2024, arXiv 2407.05361, and its published code).

An utterance is 3 to 30 s long, sounds as good as a DNSMOS of 3, has two characters or more that are no punctuation, and
is spoken neither much faster nor much slower than others: its seconds a character lie within one and a half
interquartile ranges of the quartiles. Emilia-Pipe takes these quartiles of a recording, all languages together; here
they are a language's, of the whole corpus, for few numbers say nothing, and scripts differ in what a character is.

Quartiles are exact, of paces in steps of 0.1 ms: units count how many utterances have which, and the counts add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, model_validator

from operators.document import parameters
from operators.hashes import spread, xxh3_64
from operators.histogram import numbers
from operators.phases import DOCUMENTS, MEMORY, GlobalOperator, Phase, as_mapped
from operators.speech.spool import RATE

PUNCTUATION = """[,.!?"'，。！？“”‘’ ]"""  # what Emilia-Pipe does not count as characters
STEP = 1e-4  # seconds a character
FENCE = 1.5  # interquartile ranges
BIN_BYTES, VERDICT_BYTES = 48, 64


@parameters
class SpeechFilter(GlobalOperator):
    """Drops utterances by `duration`, `dnsmos`, `characters`, then `pace`; a rule that is unset, or whose column is
    null, drops none. `per`: whose paces are compared; a group of fewer than `min_rows` utterances has no rule."""

    name: ClassVar[str] = "speech_filter"
    min_seconds: Annotated[float, Field(ge=0)] | None = 3.0
    max_seconds: Annotated[float, Field(gt=0)] | None = 30.0
    min_dnsmos: Annotated[float, Field(ge=1, le=5)] | None = 3.0
    min_characters: Annotated[int, Field(ge=1)] | None = 2
    per: Literal["language", "recording"] | None = "language"
    min_rows: Annotated[int, Field(ge=1)] = 8
    revision: Literal[1] = 1

    @model_validator(mode="after")
    def _fields_fit_together(self) -> Self:
        if self.min_seconds is not None and self.max_seconds is not None and self.min_seconds > self.max_seconds:
            raise ValueError(f"min_seconds: {self.min_seconds:g} is above max_seconds {self.max_seconds:g}")
        if self.per is None and self.min_rows != type(self).__dataclass_fields__["min_rows"].default:
            raise ValueError(f"min_rows: {self.min_rows} has no meaning without per")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        dnsmos = () if self.min_dnsmos is None else ("dnsmos",)
        group = () if self.per is None else (self.per,)
        return ("samples", "text", *dnsmos, *group)

    @property
    def adds(self) -> tuple[str, ...]:
        return ()

    def phases(self, rows: int, _memory: int = MEMORY) -> Sequence[Phase]:
        bins = (rows if self.per == "recording" else min(rows, 1 << 18)) * BIN_BYTES
        judged = rows * VERDICT_BYTES
        if self.per is None:
            return [Phase("verdicts", {DOCUMENTS: self._verdicts}, as_mapped, bytes=judged)]
        return [
            Phase("paces", {DOCUMENTS: self._paces}, self._fences, bytes=bins),
            Phase("verdicts", {DOCUMENTS: self._verdicts}, as_mapped, bytes=judged, whole=("paces",)),
        ]

    def _groups(self, docs: pa.Table) -> NDArray[np.uint64]:
        return xxh3_64(docs[self.per].cast(pa.string()))

    def _paces(self, docs: pa.Table) -> pa.Table:
        """How many utterances of each group have each pace."""
        frame = pl.DataFrame({"key": self._groups(docs), "pace": _steps(docs)}).filter(pl.col("pace") >= 0)
        return frame.group_by("key", "pace").agg(rows=pl.len().cast(pl.Int64)).to_arrow()

    def _fences(self, parts: Mapping[str, pa.Table]) -> pa.Table:
        """The bounds of the paces of each group, in steps."""
        counts = pl.DataFrame(parts[DOCUMENTS]).group_by("key", "pace").agg(pl.col("rows").sum()).sort("key", "pace")
        pace, rows = counts["pace"].to_numpy(), counts["rows"].to_numpy()
        groups, first = np.unique(counts["key"].to_numpy(), return_index=True)
        total = np.add.reduceat(rows, first) if len(first) else np.zeros(0, np.int64)
        before = np.concatenate([[0], np.cumsum(total)[:-1]])[: len(total)]
        through = np.cumsum(rows)

        def quartile(share: float) -> NDArray[np.float64]:
            """As numpy's percentile: between the two neighbours by rank, in proportion."""
            rank = (total - 1) * share
            low = pace[np.searchsorted(through, before + np.floor(rank), "right")]
            high = pace[np.searchsorted(through, before + np.ceil(rank), "right")]
            return np.asarray(low + (high - low) * (rank - np.floor(rank)), np.float64)

        first_quartile, third = quartile(0.25), quartile(0.75)
        fence = FENCE * (third - first_quartile)
        found = pa.table({"group": groups, "low": first_quartile - fence, "high": third + fence})
        return found.filter(pa.array(total >= self.min_rows))

    def _verdicts(self, docs: pa.Table, fences: pa.Table | None = None) -> pa.Table:
        """What becomes of each utterance: the first rule it breaks, the number and the bound."""
        seconds, characters, pace = _seconds(docs), _characters(docs), _steps(docs)
        rules: list[tuple[str, NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64] | float]] = []
        if self.min_seconds is not None:
            rules.append(("duration", seconds < self.min_seconds, seconds, self.min_seconds))
        if self.max_seconds is not None:
            rules.append(("duration", seconds > self.max_seconds, seconds, self.max_seconds))
        if self.min_dnsmos is not None:
            dnsmos = numbers(docs["dnsmos"]).round(3)  # as it was rounded, before it became a float32
            rules.append(("dnsmos", dnsmos < self.min_dnsmos, dnsmos, self.min_dnsmos))
        if self.min_characters is not None:
            rules.append(("characters", characters < self.min_characters, characters, float(self.min_characters)))
        if fences is not None:
            low, high = self._bounds(docs, fences)
            paced, spoken = pace >= 0, np.asarray(pace * STEP, np.float64)
            rules.append(("pace", paced & (pace < low), spoken, (low * STEP).round(6)))
            rules.append(("pace", paced & (pace > high), spoken, (high * STEP).round(6)))
        which = np.full(docs.num_rows, -1, np.int64)
        value, threshold = np.full(docs.num_rows, np.nan), np.full(docs.num_rows, np.nan)
        for k, (_, broken, number, bound) in enumerate(rules):
            hit = broken & (which < 0)
            which[hit] = k
            value[hit], threshold[hit] = number[hit], np.broadcast_to(bound, value.shape)[hit]
        reasons = pa.array([reason for reason, *_ in rules], pa.string())
        columns = {
            "key": spread(docs["doc"].to_numpy()),
            "doc": docs["doc"],
            "drop_reason": reasons.take(pa.array(which, mask=which < 0)),
            "drop_value": pa.array(value.round(4), from_pandas=True),
            "drop_threshold": pa.array(threshold, from_pandas=True),
        }
        return pa.table(columns).filter(pa.array(which >= 0))

    def _bounds(self, docs: pa.Table, fences: pa.Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The bounds of each utterance's pace; not a number where its group has none."""
        at = pc.index_in(pa.array(self._groups(docs)), value_set=fences["group"].combine_chunks())
        low, high = (fences[name].take(at).to_numpy().astype(np.float64) for name in ("low", "high"))
        return low, high


def _seconds(docs: pa.Table) -> NDArray[np.float64]:
    return numbers(docs["samples"]) / RATE


def _characters(docs: pa.Table) -> NDArray[np.float64]:
    """How many each text has that are not punctuation; not a number where there is no text."""
    texts = docs["text"].cast(pa.large_string())
    return numbers(pc.utf8_length(pc.replace_substring_regex(texts, PUNCTUATION, "")))


def _steps(docs: pa.Table) -> NDArray[np.int64]:
    """The pace of each utterance in steps; -1 where it has none."""
    characters = _characters(docs)
    spoken = characters > 0
    seconds = _seconds(docs)
    pace = np.divide(seconds, characters, out=np.full(len(seconds), -STEP), where=spoken)
    return np.asarray(np.rint(pace / STEP), np.int64)
