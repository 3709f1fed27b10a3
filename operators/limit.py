"""Take a sample of a fixed number of documents, for trying a recipe out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from operators.document import parameters
from operators.hashes import xxh3_64
from operators.phases import DOCUMENTS, MEMORY, GlobalOperator, Phase


@parameters
class Limit(GlobalOperator):
    """Keep the `documents` documents whose ids hash lowest: the same ones however the input is cut."""

    name: ClassVar[str] = "limit"
    documents: Annotated[int, Field(ge=1)]
    revision: Literal[1] = 1

    @property
    def needs(self) -> tuple[str, ...]:
        return ()

    @property
    def adds(self) -> tuple[str, ...]:
        return ()

    def phases(self, _rows: int, _memory: int = MEMORY) -> Sequence[Phase]:
        return (Phase("sample", {DOCUMENTS: self._hashed}, self._verdicts, partitions=1),)

    def _hashed(self, docs: pa.Table) -> pa.Table:
        hashes = xxh3_64(docs["id"])
        return pa.table({"key": np.zeros(len(hashes), np.uint64), "hash": hashes, "id": docs["id"], "doc": docs["doc"]})

    def _verdicts(self, sources: Mapping[str, pa.Table]) -> pa.Table:
        ranked = sources[DOCUMENTS].sort_by([("hash", "ascending"), ("id", "ascending"), ("doc", "ascending")])
        rest = ranked.slice(self.documents)
        return pa.table({"doc": rest["doc"], "drop_reason": pa.array(["not_sampled"] * rest.num_rows, pa.string())})
