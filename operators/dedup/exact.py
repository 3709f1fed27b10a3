"""Drop documents whose text, or any other field, equals that of another one, by 128-bit hash (xxh3).

In mode `words` two values are equal when they have the same words in the same order: case, accents, punctuation,
symbols and white space do not count, digits do (unlike in near-duplicate detection: pages that differ in one number
are alike, but not the same). A value without any word is compared as it stands. In mode `none` the bytes decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from operators.dedup.keeper import COLUMNS, ROW_BYTES, candidates, verdicts
from operators.dedup.scope import Scope, recalls
from operators.dedup.words import simplify
from operators.document import parameters, with_columns
from operators.hashes import xxh3_128
from operators.phases import DOCUMENTS, HISTORY, MEMORY, GlobalOperator, Phase

AS_IT_STANDS = 1  # hash seed: a value without words never meets the normal form of another


@parameters
class ExactDedup(GlobalOperator):
    """`field` is the column compared; nulls equal nothing. `normalize` unset: words for text, none for the rest.
    `scope` is what a document is compared with: this build and the published ones, this alone, or this and a list."""

    name: ClassVar[str] = "exact_dedup"
    field: str = "text"
    normalize: Literal["words", "none"] | None = None
    scope: Scope = "history"
    revision: Literal[1] = 1

    @property
    def recalls(self) -> bool | tuple[str, ...]:
        return recalls(self.scope)

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.field, *COLUMNS)))

    def phases(self, rows: int, _memory: int = MEMORY) -> Sequence[Phase]:
        return [Phase("hashes", {DOCUMENTS: self._keys}, _judge, bytes=rows * ROW_BYTES, remember=_remember)]

    def _keys(self, docs: pa.Table) -> pa.Table:
        docs = docs.filter(pc.is_valid(docs[self.field]))
        values = docs[self.field]
        mode = self.normalize or ("words" if self.field == "text" else "none")
        if mode == "none":
            high, low = xxh3_128(values)
        else:
            words = simplify(values)
            high, low = xxh3_128(words)
            wordless = np.flatnonzero(pc.equal(pc.binary_length(words), 0).to_numpy(zero_copy_only=False))
            high[wordless], low[wordless] = xxh3_128(values.take(pa.array(wordless)), AS_IT_STANDS)
        return with_columns(candidates(docs), {"key": pa.array(high), "low": pa.array(low)})


def _judge(parts: Mapping[str, pa.Table]) -> pa.Table:
    return verdicts(parts[DOCUMENTS], ["key", "low"], reason="duplicate", published=parts.get(HISTORY))


def _remember(rows: pa.Table, docs: pa.Table) -> pa.Table:
    """Each value that no earlier build has, and the id of the document that stands for it."""
    added = pl.DataFrame(docs).filter(~pl.col("published")).select("doc", "keeper")
    found = pl.DataFrame(rows).join(added, on="doc").select("key", "low", id="keeper")
    remembered: pa.Table = found.to_arrow()
    return remembered
