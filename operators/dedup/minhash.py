"""Drop near-duplicates: MinHash signatures, banded (Lee et al. 2022, arXiv 2107.06499; FineWeb, arXiv 2406.17557).

Documents that agree in all rows of a band are linked, and all that are linked, directly or through others, form a
cluster of which one document stays. Only keys travel: 16 bytes a band, then edges, then ids.

A build remembers every band it has seen with the number of the document that stands for it, and the ids of these
numbers. A number is made of the id, so it is the same in every build, and its highest bit tells it from any `doc`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pydantic
from numpy.typing import NDArray
from pydantic import Field

from operators.dedup.components import connect, forest, links
from operators.dedup.keeper import COLUMNS, ROW_BYTES, candidates, verdicts
from operators.dedup.signature import family, hash_bands, sign
from operators.document import parameters, with_columns
from operators.hashes import spread, xxh3_64
from operators.phases import DOCUMENTS, HISTORY, MEMORY, PUBLISHED_NUMBER, Fold, GlobalOperator, Phase

MOST_PERMUTATIONS = 10_000  # 40 kB a signature; RefinedWeb's 450 x 20 = 9,000 is the largest in use
BANDS, ROWS = 14, 8  # FineWeb's: pairs above 0.72 are likelier found than not
BAND_BYTES = 16  # a row of the key of one band and its document
NUMBER_BYTES = 1  # a document, of rows on published ones: those that a night's documents are alike
PARENT_BYTES = 4  # a document, while they are fewer than 2^32
NO_IDS = pl.DataFrame(schema={"doc": pl.UInt64, "id": pl.String})
Count = Annotated[int, Field(ge=1, le=MOST_PERMUTATIONS)]


@functools.lru_cache(maxsize=64)
def optimal_banding(threshold: float, permutations: int) -> tuple[int, int]:
    """(bands, rows) with the fewest false positives and negatives around `threshold`, as datasketch chooses them."""
    from datasketch import MinHashLSH  # here, because it takes a second to import and few builds need it

    lsh = MinHashLSH(threshold=threshold, num_perm=permutations)
    return lsh.b, lsh.r


@parameters
class MinHashDedup(GlobalOperator):
    """Two documents of Jaccard similarity J become candidates with probability 1 - (1 - J^rows)^bands."""

    name: ClassVar[str] = "minhash_dedup"
    bands: Count = BANDS
    rows: Count = ROWS
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None  # instead of bands and rows: derives them
    permutations: Annotated[int, Field(ge=2, le=1024)] | None = None  # hash functions that `threshold` may use
    shingle: Count = 5  # words
    char_shingle: Count = 8  # characters, for documents mostly in scripts without spaces
    seed: Annotated[int, Field(ge=0, le=2**64 - 1)] = 1
    scope: Literal["history", "build"] = "history"  # compared with this build and the published ones, or this alone
    revision: Literal[1] = 1

    @pydantic.model_validator(mode="after")
    def _fields_fit_together(self) -> MinHashDedup:
        if self.bands * self.rows > MOST_PERMUTATIONS:
            raise ValueError(f"bands: {self.bands} x rows: {self.rows} exceeds {MOST_PERMUTATIONS} hash functions")
        if self.threshold is not None and (self.bands, self.rows) != (BANDS, ROWS):
            raise ValueError(f"threshold: {self.threshold} derives bands and rows, so they cannot be given as well")
        if self.permutations is not None and self.threshold is None:
            raise ValueError(f"permutations: {self.permutations} has no effect without threshold")
        return self

    @property
    def recalls(self) -> bool:
        return self.scope == "history"

    @property
    def needs(self) -> tuple[str, ...]:
        return COLUMNS

    @property
    def banding(self) -> tuple[int, int]:
        """The (bands, rows) in force."""
        if self.threshold is None:
            return self.bands, self.rows
        return optimal_banding(self.threshold, self.permutations or BANDS * ROWS)

    def phases(self, rows: int, memory: int = MEMORY) -> Sequence[Phase | Fold]:
        bands, _ = self.banding
        parents = PARENT_BYTES * rows
        fold = functools.partial(connect, memory=memory // 2)
        return [
            Phase("bands", {DOCUMENTS: self._bands}, _link, bytes=rows * bands * BAND_BYTES, remember=_remember_bands),
            Fold("components", "bands", fold, bytes=min(parents, memory // 2) + rows // 8),
            Phase("published", {"components": _published}, _named, bytes=rows * NUMBER_BYTES, remember=_remember_ids),
            Phase(
                "keepers",
                {DOCUMENTS: _members, "published": _by_root},
                _judge,
                bytes=rows * ROW_BYTES,
                own="components",
            ),
        ]

    def _bands(self, docs: pa.Table) -> pa.Table:
        """A row for each band of each document; texts shorter than one shingle have none and are never alike."""
        bands, rows = self.banding
        signatures, shingles = sign(docs["text"], family(self.seed, bands * rows), self.shingle, self.char_shingle)
        signed = shingles > 0
        keys = hash_bands(signatures[signed], bands, rows)
        docs_of = docs["doc"].to_numpy()[signed]
        return pa.table({"key": pa.array(keys.ravel()), "doc": pa.array(np.repeat(docs_of, bands))})


def _link(parts: Mapping[str, pa.Table]) -> pa.Table:
    sources = [parts[name].select(["key", "doc"]) for name in (DOCUMENTS, HISTORY) if name in parts]
    rows = pa.concat_tables(sources)
    left, right = forest(*links(_numbers(rows, "key"), _numbers(rows, "doc")))
    return pa.table({"left": pa.array(left), "right": pa.array(right)})


def _published(components: pa.Table) -> pa.Table:
    """The published documents among the components, by their numbers."""
    found = components.filter(pa.array(_numbers(components, "doc") >= PUBLISHED_NUMBER))
    return with_columns(found, {"key": pa.array(spread(_numbers(found, "doc")))})


def _named(parts: Mapping[str, pa.Table]) -> pa.Table:
    """Their ids, as far as a visible build has published them."""
    components = pl.DataFrame(parts["components"]).select("doc", "root")
    ids = pl.DataFrame(parts[HISTORY]).select("doc", "id").unique() if HISTORY in parts else NO_IDS
    named: pa.Table = ids.join(components, on="doc").select("id", "root").to_arrow()
    return named


def _members(docs: pa.Table, components: pa.Table) -> pa.Table:
    """What the keeper rule must know of the documents that are alike others."""
    at = pc.index_in(docs["doc"], value_set=components["doc"].combine_chunks())
    alike = pc.is_valid(at)
    rows = candidates(docs.filter(alike))
    return _by_root(rows.append_column("root", components["root"].take(at.filter(alike))))


def _by_root(rows: pa.Table) -> pa.Table:
    return with_columns(rows, {"key": pa.array(spread(_numbers(rows, "root")))})


def _judge(parts: Mapping[str, pa.Table]) -> pa.Table:
    return verdicts(parts[DOCUMENTS], ["root"], reason="duplicate", published=parts["published"])


def _remember_bands(rows: pa.Table | None, docs: pa.Table) -> pa.Table:
    """Each band with the document that stands for its own, so that a copy of a copy is found."""
    numbers = pl.DataFrame({"doc": _numbers(docs, "doc"), "number": published_numbers(docs["keeper"])})
    remembered: pa.Table = pl.DataFrame(rows).join(numbers, on="doc").select("key", doc="number").to_arrow()
    return remembered


def _remember_ids(_: pa.Table | None, docs: pa.Table) -> pa.Table:
    """The ids of the documents that stay, by number; a published one is in the index of its own build."""
    frame = pl.DataFrame(docs).filter(~pl.col("published"))
    ids = frame.select("keeper").unique().to_arrow()["keeper"].cast(pa.string())
    numbers = published_numbers(ids)
    return pa.table({"key": pa.array(spread(numbers)), "doc": pa.array(numbers), "id": ids})


def published_numbers(ids: pa.ChunkedArray) -> NDArray[np.uint64]:
    """What stands for documents of published builds where new ones are named by `doc`. Should two ids have the same, a
    new document is told to duplicate the one in place of the other: it goes in any case."""
    return np.asarray(PUBLISHED_NUMBER | (xxh3_64(ids) >> np.uint64(1)), np.uint64)


def _numbers(table: pa.Table, column: str) -> NDArray[np.uint64]:
    numbers: NDArray[np.uint64] = table[column].to_numpy()
    return numbers
