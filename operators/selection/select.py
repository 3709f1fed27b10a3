"""Keep a budget of documents by a column: what a scorer found, or any number of the user's.

A scorer never drops; a selector never scores. Documents stand in a line, the best first: by the column, ties by id
(without a column: by a hash of the id, a uniform sample). A document is taken while those before it weigh less than
the budget, so what is kept is within one document of it, a smaller budget keeps a part of what a larger one keeps,
and the line does not depend on how documents are partitioned. `per` gives each stratum (a language, a topic, a host)
a line of its own, as CCNet (Wenzek et al. 2019, arXiv 1911.00359) cuts perplexities language by language.

Where the cut falls is found exactly, by rank, without a sort of all documents: a histogram of the 20 upper bits of the
scores finds the bin of each cut, and only the documents of that bin are sorted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pydantic
from numpy.typing import NDArray
from pydantic import Field

from operators.document import parameters
from operators.hashes import spread, xxh3_64
from operators.histogram import numbers
from operators.phases import DOCUMENTS, MEMORY, GlobalOperator, Phase, as_mapped
from operators.text.url_filter import host_of

BIN_BITS = np.uint64(44)  # of a 64-bit rank below its bin: scores of a bin differ by less than one part in 256
LINE_BYTES = 160  # of a document in the bin of a cut, with its id
BIN_BYTES = 64
HEAVIEST = float(1 << 40)  # of one document, so that sums stay whole numbers
TEXTUAL = ("id", "text", "payload", "content_type", "url", "date", "source", "language", "topic")
HOST = "host"  # as `per`: of the URL
EVERY = ""  # the stratum of all documents
Share = Annotated[float, Field(ge=0, le=1)]


class Lines(NamedTuple):
    """The documents of a unit as the selector sees them."""

    stratum: pa.Array
    score: NDArray[np.float64]  # NaN: none
    rank: NDArray[np.uint64]  # the smaller, the better
    weight: NDArray[np.int64]


@parameters
class Select(GlobalOperator):
    """Drops what is beyond `min` and `max`, then of each stratum what the budget does not reach: the best `keep` of its
    `unit`s after the best `skip`, at most `most` of them. `invert` keeps what would be dropped, and nothing else."""

    name: ClassVar[str] = "select"
    by: str | None = None  # a numeric column; unset: a uniform sample
    prefer: Literal["highest", "lowest"] = "highest"
    min: float | None = None
    max: float | None = None
    keep: Share = 1.0
    skip: Share = 0.0
    most: Annotated[int, Field(ge=1)] | None = None
    unit: str = "characters"  # characters, documents, or a column of whole numbers
    per: str | None = None  # a column, or host
    quotas: dict[str, Share] = Field(default_factory=dict)  # `keep` of single strata
    missing: Literal["drop", "keep"] = "drop"  # documents without a score
    invert: bool = False
    seed: int = Field(0, ge=0)
    revision: Literal[1] = 1

    @pydantic.model_validator(mode="after")
    def _fields_fit_together(self) -> Select:
        if self.quotas and self.per is None:
            raise ValueError("quotas: they are shares of strata: name their column with per")
        if self.by is None and (self.min is not None or self.max is not None):
            raise ValueError("min, max: they bound a column: name it with by")
        if self.by in TEXTUAL:
            raise ValueError(f"by: {self.by} holds text: a selector ranks by numbers")
        if self.skip + self.keep > 1 and self.keep < 1:
            raise ValueError(f"keep: {self.keep:g} after skip {self.skip:g} is more than there is")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min: {self.min:g} is above max {self.max:g}")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        weight = {"characters": ("chars",), "documents": ()}.get(self.unit, (self.unit,))
        stratum = () if self.per is None else ("url",) if self.per == HOST else (self.per,)
        return tuple(dict.fromkeys(((self.by,) if self.by else ()) + weight + stratum))

    @property
    def adds(self) -> tuple[str, ...]:
        return ()

    @property
    def measures(self) -> tuple[str, ...]:
        return (self.by,) if self.by else ()

    def phases(self, rows: int, _memory: int = MEMORY) -> Sequence[Phase]:
        bins = (rows if self.per else min(rows, 1 << 16)) * BIN_BYTES  # strata may be as many as documents
        edges = rows * LINE_BYTES // (1 if self.per else 64)
        before = ("bins", "cuts")
        return [
            Phase("bins", {DOCUMENTS: self._bins}, self._limits, bytes=bins),
            Phase("cuts", {DOCUMENTS: self._edges, "bins": _keyed}, _cuts, bytes=edges, whole=before[:1]),
            Phase("verdicts", {DOCUMENTS: self._verdicts}, as_mapped, bytes=rows * BIN_BYTES, whole=before[1:]),
        ]

    def one_by_one(self, units: Callable[[], Iterator[pa.Table]]) -> Iterator[pa.Table]:
        """The verdicts on each of the units, in one process that goes through them three times and holds one at a
        time, with the documents of the bins that cuts fall into."""
        bins = [self._bins(docs) for docs in units()]
        limits = self._limits({DOCUMENTS: pa.concat_tables(bins)})
        edges = [self._edges(docs, limits) for docs in units()]
        cuts = _cuts({DOCUMENTS: pa.concat_tables(edges), "bins": _keyed(limits)})
        for docs in units():
            yield self._verdicts(docs, cuts)

    def lines(self, docs: pa.Table) -> Lines:
        """What the selector must know of each document; those it does not weigh have no score."""
        n = docs.num_rows
        if self.by is None:
            rank = xxh3_64(docs["id"].cast(pa.string()), self.seed)
            score = rank.astype(np.float64) / 2**64
        else:
            score = _numbers_of(docs, self.by)
            score = np.where(np.isfinite(score), score, np.nan)
            rank = _ascending(score if self.prefer == "lowest" else -score)
        stratum = pa.array(np.full(n, EVERY), pa.string())
        if self.per is not None:
            stratum = host_of(docs["url"]).cast(pa.string()) if self.per == HOST else _texts_of(docs, self.per)
        weight = np.ones(n, np.int64)
        if self.unit != "documents":
            found = _numbers_of(docs, "chars" if self.unit == "characters" else self.unit)
            weight = np.clip(np.nan_to_num(found, posinf=0.0), 0, HEAVIEST).astype(np.int64)
        return Lines(stratum, score, rank, weight)

    def _weighed(self, score: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which documents stand in line: those with a score inside the bounds."""
        return np.asarray((score >= self._least) & (score <= self._most), bool)

    @property
    def _least(self) -> float:
        return -math.inf if self.min is None else self.min

    @property
    def _most(self) -> float:
        return math.inf if self.max is None else self.max

    def _bins(self, docs: pa.Table) -> pa.Table:
        """The weight of each bin of each stratum."""
        found = self.lines(docs)
        frame = pl.DataFrame({"stratum": found.stratum, "bin": found.rank >> BIN_BITS, "weight": found.weight})
        frame = frame.filter(pl.Series(self._weighed(found.score)))
        return _keyed(frame.group_by("stratum", "bin").agg(pl.col("weight").sum()).to_arrow())

    def _limits(self, parts: Mapping[str, pa.Table]) -> pa.Table:
        """For either cut of each stratum: the bin it falls into, and how much of that bin is before it; or, where that
        is known already, the rank it falls before: 0 is before all, none behind all."""
        bins = pl.DataFrame(parts[DOCUMENTS]).group_by("stratum", "bin").agg(pl.col("weight").sum())
        bins = bins.sort("stratum", "bin").with_columns(before=pl.col("weight").cum_sum().over("stratum"))
        totals = bins.group_by("stratum", maintain_order=True).agg(total=pl.col("before").last())
        budgets = [self._budget(*row) for row in totals.iter_rows()]
        found = []
        for edge, limits in (("skip", [first for first, _ in budgets]), ("keep", [last for _, last in budgets])):
            limited = totals.with_columns(edge=pl.lit(edge), limit=pl.Series(limits, dtype=pl.Int64))
            within = bins.join(limited.select("stratum", "limit"), on="stratum")
            within = within.filter((pl.col("limit") > 0) & (pl.col("before") >= pl.col("limit")))
            at = within.sort("stratum", "bin").group_by("stratum").first()
            left = pl.col("limit") - (pl.col("before") - pl.col("weight"))
            limited = limited.join(at.select("stratum", "bin", left=left), on="stratum", how="left")
            rank = pl.when(pl.col("limit") == 0).then(pl.lit(0, pl.UInt64))
            found.append(limited.with_columns(rank=rank).select(LIMITS.keys()))
        return pl.concat(found).cast(LIMITS).to_arrow()

    def _budget(self, stratum: str, total: int) -> tuple[int, int | None]:
        """(weight that is skipped, weight at which the line ends, none at its end): a document is taken while those
        before it weigh less."""
        skip = Decimal(repr(self.skip))
        end = skip + Decimal(repr(self.quotas.get(stratum, self.keep)))
        first, last = math.ceil(skip * total), math.ceil(end * total) if end < 1 else None
        if self.most is not None:
            last = first + self.most if last is None else min(last, first + self.most)
        return first, last

    def _edges(self, docs: pa.Table, limits: pa.Table) -> pa.Table:
        """The documents of the bins that cuts fall into, with all that decides their order."""
        found = self.lines(docs)
        columns = {"stratum": found.stratum, "rank": found.rank, "score": found.score, "weight": found.weight}
        frame = pl.DataFrame(columns | {"id": docs["id"].cast(pa.large_string())})
        frame = frame.with_columns(bin=found.rank >> BIN_BITS).filter(pl.Series(self._weighed(found.score)))
        bins = pl.DataFrame(limits).select("stratum", "bin").unique()
        return _keyed(frame.join(bins, on=["stratum", "bin"]).to_arrow())

    def _verdicts(self, docs: pa.Table, cuts: pa.Table) -> pa.Table:
        """What becomes of each document, by its place in the line before or after the cuts."""
        found = self.lines(docs)
        frame = pl.DataFrame({"stratum": found.stratum, "rank": found.rank, "id": docs["id"].cast(pa.large_string())})
        for edge in ("skip", "keep"):
            own = pl.DataFrame(cuts).filter(pl.col("edge") == edge)
            own = own.select("stratum", pl.col("rank", "id", "score").name.suffix(f"_{edge}"))
            frame = frame.join(own, on="stratum", how="left", maintain_order="left")
        skipped, taken = (_before(frame, edge) for edge in ("skip", "keep"))
        score, weighed = found.score, self._weighed(found.score)
        rules = {
            "no_score": np.isnan(score) & (self.missing == "drop"),
            "below_min": score < self._least,
            "above_max": score > self._most,
        }
        rules |= {"skipped": weighed & skipped, "not_selected": weighed & ~skipped & ~taken}
        reason = np.select(list(rules.values()), list(rules), "")
        bounds = {"below_min": np.full(len(score), self._least), "above_max": np.full(len(score), self._most)}
        bounds |= {"skipped": _numbers(frame["score_skip"]), "not_selected": _numbers(frame["score_keep"])}
        threshold = np.select([reason == name for name in bounds], list(bounds.values()), np.nan)
        if self.invert:
            reason, threshold = np.where(reason == "", "selected", ""), np.full(len(score), np.nan)
        columns = {
            "key": spread(docs["doc"].to_numpy()),
            "doc": docs["doc"],
            "drop_reason": pa.array(reason, pa.string()),
            "drop_value": pa.array(score, from_pandas=True),
            "drop_threshold": pa.array(threshold, from_pandas=True),
            "drop_detail": pc.if_else(pc.equal(found.stratum, EVERY), pa.scalar(None, pa.string()), found.stratum),
        }
        return pa.table(columns).filter(pa.array(reason != ""))


LIMITS = pl.Schema({"stratum": pl.String, "edge": pl.String, "bin": pl.UInt64, "left": pl.Int64, "rank": pl.UInt64})


def _numbers_of(docs: pa.Table, name: str) -> NDArray[np.float64]:
    """A column as numbers, none where the unit lacks it: rows of JSON state different keys."""
    return numbers(docs[name]) if name in docs.column_names else np.full(docs.num_rows, np.nan)


def _texts_of(docs: pa.Table, name: str) -> pa.Array:
    """A column as strata: nulls, lists and the like are in the one without a name."""
    if name not in docs.column_names or pa.types.is_nested(docs[name].type) or pa.types.is_binary(docs[name].type):
        return pa.array([EVERY] * docs.num_rows, pa.string())
    column = docs[name].cast(pa.string())
    return pc.fill_null(pa.concat_arrays([pa.array([], pa.string()), *column.chunks]), EVERY)


def _keyed(rows: pa.Table, _limits: pa.Table | None = None) -> pa.Table:
    """With all rows of a stratum in one partition."""
    return rows.append_column("key", pa.array(xxh3_64(rows["stratum"])))


def _cuts(parts: Mapping[str, pa.Table]) -> pa.Table:
    """Before which document each cut falls: its rank and id (none of them: behind all), and the last score before."""
    limits, lines = pl.DataFrame(parts["bins"]).drop("key"), pl.DataFrame(parts[DOCUMENTS])
    lines = lines.join(limits.drop("rank"), on=["stratum", "bin"]).sort("stratum", "edge", "rank", "id")
    before = (pl.col("weight").cum_sum() - pl.col("weight")).over("stratum", "edge")
    lines = lines.with_columns(taken=before < pl.col("left"))
    group = lines.group_by("stratum", "edge")
    first = pl.col("taken").not_()
    cuts = group.agg(
        rank_found=pl.col("rank").filter(first).first(),
        id=pl.col("id").filter(first).first(),
        score=pl.coalesce(pl.col("score").filter("taken").last(), pl.col("score").first()),
    )
    found = limits.join(cuts, on=["stratum", "edge"], how="left")
    after = (pl.col("bin") + 1) * (1 << int(BIN_BITS))  # the whole bin is before; the last one ends beyond all ranks
    after = pl.when(pl.col("bin") < (1 << 20) - 1).then(after)
    rank = pl.coalesce("rank_found", "rank", after)
    return found.select("stratum", "edge", "score", rank.alias("rank"), pl.col("id").fill_null("")).to_arrow()


def _before(frame: pl.DataFrame, edge: str) -> NDArray[np.bool_]:
    """Which documents of a joined table stand before a cut."""
    rank, at, first = pl.col("rank"), pl.col(f"rank_{edge}"), pl.col(f"id_{edge}")
    found = frame.select(at.is_null() | (rank < at) | ((rank == at) & (pl.col("id") < first)))
    return found.to_series().to_numpy()


def _ascending(values: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Whole numbers in the order of the values; -0.0 is 0.0, and NaN comes last."""
    bits = (values + 0.0).view(np.uint64)
    sign = np.uint64(1 << 63)
    ranks = np.where(bits & sign, ~bits, bits | sign)
    return np.where(np.isnan(values), np.uint64(2**64 - 1), ranks)


def _numbers(column: pl.Series) -> NDArray[np.float64]:
    return np.asarray(column.fill_null(math.nan).to_numpy(), np.float64)
