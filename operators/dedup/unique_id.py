"""Drop rows that repeat an id: everything downstream names documents by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import polars as pl
import pyarrow as pa

from operators.dedup.keeper import COLUMNS, ROW_BYTES, candidates, verdicts
from operators.document import parameters, with_columns
from operators.hashes import xxh3_64, xxh3_128
from operators.phases import DOCUMENTS, HISTORY, MEMORY, GlobalOperator, Phase


@parameters
class UniqueId(GlobalOperator):
    """One row for each id: a published one, else by priority, then length of text, then the smallest hash of it."""

    name: ClassVar[str] = "unique_id"
    revision: Literal[1] = 1

    @property
    def needs(self) -> tuple[str, ...]:
        return COLUMNS

    @property
    def recalls(self) -> bool:
        return True

    def phases(self, rows: int, _memory: int = MEMORY) -> Sequence[Phase]:
        return [Phase("ids", {DOCUMENTS: _keys}, _judge, bytes=rows * ROW_BYTES, remember=_remember)]


def _keys(docs: pa.Table) -> pa.Table:
    if docs["id"].null_count:
        raise ValueError(f"unique_id: {docs['id'].null_count} of {docs.num_rows} documents have no id")
    high, low = xxh3_128(docs["text"])
    return with_columns(
        candidates(docs), {"key": pa.array(xxh3_64(docs["id"])), "high": pa.array(high), "low": pa.array(low)}
    )


def _judge(parts: Mapping[str, pa.Table]) -> pa.Table:
    rows = parts[DOCUMENTS]
    return verdicts(rows, ["id"], reason="duplicate_id", ties=["high", "low"], published=parts.get(HISTORY))


def _remember(rows: pa.Table, docs: pa.Table) -> pa.Table:
    """The ids that no earlier build has."""
    added = pl.DataFrame(docs).filter(~pl.col("published")).select("doc")
    remembered: pa.Table = pl.DataFrame(rows).join(added, on="doc").select("key", "id").to_arrow()
    return remembered
