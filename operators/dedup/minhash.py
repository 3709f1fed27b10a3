"""Drop near-duplicates: MinHash signatures, banded (Lee et al. 2022, arXiv 2107.06499; FineWeb, arXiv 2406.17557).

Documents that agree in all rows of a band are linked, and all that are linked, directly or through others, form a
cluster of which one document stays. Only keys travel: 16 bytes a band, then edges, then ids.

A build remembers every band it has seen with the number of the document that stands for it, and the ids of these
numbers; where candidates are compared, also a sketch of each document that stays.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pydantic
from numpy.typing import NDArray
from pydantic import Field

from operators.dedup import datatrove
from operators.dedup.components import connect, forest, links
from operators.dedup.keeper import COLUMNS, ROW_BYTES, verdicts
from operators.dedup.published import by, named, published, published_numbers, remember_ids
from operators.dedup.scope import Scope, recalls
from operators.dedup.signature import family, hash_bands, shingle_sets, sign
from operators.dedup.verify import compare, groups, judge, members, remember_sketches, sketch_rows, with_root
from operators.document import parameters
from operators.phases import DOCUMENTS, HISTORY, MEMORY, Fold, GlobalOperator, Phase

MOST_PERMUTATIONS = 10_000  # 40 kB a signature; RefinedWeb's 450 x 20 = 9,000 is the largest in use
BANDS, ROWS = 14, 8  # FineWeb's: pairs above 0.72 are likelier found than not
CHAR_SHINGLE = 8
BAND_BYTES = 16  # a row of the key of one band and its document
ID_BYTES = 72  # of an id and its number in the index, which is more than what is asked of it
PAIR_BYTES = 48  # a document, for a pair and its root
SHINGLES_BYTES = 500  # a document, where one in four sends those of 500 words
MIN_SIMILARITY = 0.7
PARENT_BYTES = 4  # a document, while they are fewer than 2^32
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
    mode: Literal["corpusmill", "datatrove"] = "corpusmill"  # whose signatures
    bands: Count = BANDS
    rows: Count = ROWS
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None  # instead of bands and rows: derives them
    permutations: Annotated[int, Field(ge=2, le=1024)] | None = None  # hash functions that `threshold` may use
    shingle: Count = 5  # words
    char_shingle: Count = CHAR_SHINGLE  # characters, for documents mostly in scripts without spaces
    seed: Annotated[int, Field(ge=0, le=2**64 - 1)] = 1
    verify: Literal["off", "estimated", "exact"] = "off"  # compare candidates before they count, and how
    min_similarity: Annotated[float, Field(gt=0, le=1)] | None = None  # of `verify`; unset: `threshold`, or 0.7
    scope: Scope = "history"  # compared with this build and the published ones, or this alone, or this and a list
    revision: Literal[1] = 1

    @pydantic.model_validator(mode="after")
    def _fields_fit_together(self) -> MinHashDedup:
        if self.bands * self.rows > MOST_PERMUTATIONS:
            raise ValueError(f"bands: {self.bands} x rows: {self.rows} exceeds {MOST_PERMUTATIONS} hash functions")
        if self.threshold is not None and (self.bands, self.rows) != (BANDS, ROWS):
            raise ValueError(f"threshold: {self.threshold} derives bands and rows, so they cannot be given as well")
        if self.permutations is not None and self.threshold is None:
            raise ValueError(f"permutations: {self.permutations} has no effect without threshold")
        if self.mode == "datatrove" and self.char_shingle != CHAR_SHINGLE:
            raise ValueError(f"char_shingle: {self.char_shingle} has no effect with mode: datatrove")
        if self.mode == "datatrove" and self.seed >= 2**32:
            raise ValueError(f"seed: {self.seed} is not below 2^32, as it must be with mode: datatrove")
        if self.min_similarity is not None and self.verify == "off":
            raise ValueError(f"min_similarity: {self.min_similarity} has no effect without verify")
        return self

    @property
    def recalls(self) -> bool | tuple[str, ...]:
        return recalls(self.scope)

    @property
    def needs(self) -> tuple[str, ...]:
        return COLUMNS

    @property
    def banding(self) -> tuple[int, int]:
        """The (bands, rows) in force."""
        if self.threshold is None:
            return self.bands, self.rows
        return optimal_banding(self.threshold, self.permutations or BANDS * ROWS)

    @property
    def least_similarity(self) -> float:
        """The bound in force where candidates are compared."""
        return self.min_similarity or self.threshold or MIN_SIMILARITY

    def phases(self, rows: int, memory: int = MEMORY) -> Sequence[Phase | Fold]:
        bands, hashes = self.banding
        size = rows * bands * BAND_BYTES
        banded = Phase("bands", {DOCUMENTS: self._bands}, _link, bytes=size, remember=_remember_bands)
        connected = Fold("components", ("bands",), functools.partial(connect, memory=memory // 2))
        connected = replace(connected, bytes=min(PARENT_BYTES * rows, memory // 2) + rows // 8)
        known = Phase("published", {"components": published}, named, bytes=rows * ID_BYTES, remember=remember_ids)
        alike: dict[str, Callable[..., pa.Table]] = {DOCUMENTS: members, "published": functools.partial(by, "root")}
        keepers = Phase("keepers", alike, _judge, bytes=rows * ROW_BYTES, own="components")
        if self.verify == "off":
            return [banded, connected, known, keepers]
        least = self.least_similarity
        shingles = SHINGLES_BYTES * (2 if self.mode == "datatrove" else 1)  # of 64 or 32 bits
        size = rows * (bands * hashes + ROW_BYTES + (shingles if self.verify == "exact" else 0))
        compared = functools.partial(compare, min_similarity=least)
        maps = {"pairs": functools.partial(by, "right"), "components": functools.partial(by, "doc")}
        return [
            replace(banded, reduce=groups),
            Phase("pairs", {DOCUMENTS: self._sketches}, compared, size, own="bands", remember=remember_sketches),
            replace(connected, sources=("pairs",)),
            known,
            Phase("similar", maps, with_root, bytes=rows * PAIR_BYTES),
            replace(
                keepers,
                maps=alike | {"similar": functools.partial(by, "root")},
                reduce=functools.partial(judge, reason="duplicate", min_similarity=least),
            ),
        ]

    def _signatures(self, docs: pa.Table) -> tuple[NDArray[np.uint32] | NDArray[np.uint64], NDArray[np.bool_]]:
        """A signature for each document, and which have one: texts shorter than one shingle are never alike."""
        bands, rows = self.banding
        if self.mode == "datatrove":
            wide, shingles = datatrove.sign(docs["text"], datatrove.family(self.seed, bands * rows), self.shingle)
            return wide[:, : bands * rows], shingles > 0
        signatures, shingles = sign(docs["text"], family(self.seed, bands * rows), self.shingle, self.char_shingle)
        return signatures[:, : bands * rows], shingles > 0

    def _bands(self, docs: pa.Table) -> pa.Table:
        """A row for each band of each document."""
        signatures, signed = self._signatures(docs)
        bands, rows = self.banding
        keys = hash_bands(signatures[signed], bands, rows)
        docs_of = docs["doc"].to_numpy()[signed]
        return pa.table({"key": pa.array(keys.ravel()), "doc": pa.array(np.repeat(docs_of, bands))})

    def _shingles(self, texts: pa.ChunkedArray) -> pa.LargeListArray:
        if self.mode == "datatrove":
            return datatrove.shingle_sets(texts, self.shingle)
        return shingle_sets(texts, self.shingle, self.char_shingle)

    def _sketches(self, docs: pa.Table, met: pa.Table | None = None) -> pa.Table:
        """What is compared of each document."""
        return sketch_rows(docs, *self._signatures(docs), met, self._shingles if self.verify == "exact" else None)


def _link(parts: Mapping[str, pa.Table]) -> pa.Table:
    sources = [parts[name].select(["key", "doc"]) for name in (DOCUMENTS, HISTORY) if name in parts]
    rows = pa.concat_tables(sources)
    left, right = forest(*links(_numbers(rows, "key"), _numbers(rows, "doc")))
    return pa.table({"left": pa.array(left), "right": pa.array(right)})


def _judge(parts: Mapping[str, pa.Table]) -> pa.Table:
    return verdicts(parts[DOCUMENTS], ["root"], reason="duplicate", published=parts["published"])


def _remember_bands(rows: pa.Table | None, docs: pa.Table) -> pa.Table:
    """Each band with the document that stands for its own, so that a copy of a copy is found."""
    assert rows is not None
    at = _numbers(docs, "doc").searchsorted(_numbers(rows, "doc"))  # ascending, and all there
    return pa.table({"key": rows["key"], "doc": pa.array(published_numbers(docs["keeper"])[at])})


def _numbers(table: pa.Table, column: str) -> NDArray[np.uint64]:
    numbers: NDArray[np.uint64] = table[column].to_numpy()
    return numbers
