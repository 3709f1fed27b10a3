"""Small tables of documents, and verdicts in a form that can be compared."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from operators.phases import MEMORY, Fold, GlobalOperator, Phase, run_in_memory

SAMPLE = Path(__file__).parents[3] / "workflows" / "sample" / "sample.parquet"


def documents(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows with any of id, text, priority, url; ids are r0, r1, ... if not given."""
    schema = pa.schema({"id": pa.string(), "text": pa.large_string(), "priority": pa.int32(), "url": pa.string()})
    named = [{"id": f"r{k}", **row} for k, row in enumerate(rows)]
    return pa.Table.from_pylist(named, schema)


def word(k: int) -> str:
    """The k-th of many distinct words; without digits, which signatures take for one another."""
    letters = "".join(chr(ord("a") + int(digit)) for digit in str(k))
    return f"w{letters}"


def sample_texts(lang: str, count: int) -> list[str]:
    table = pq.read_table(SAMPLE, columns=["text", "lang"], filters=[("lang", "==", lang)])
    texts: list[str] = table["text"].to_pylist()
    return texts[:count]


def fates(operator: GlobalOperator, units: Sequence[pa.Table]) -> list[tuple[Any, ...]]:
    """(id, reason, duplicate of, cluster, size) of every verdict, sorted; never the document numbers."""
    verdict = run_in_memory(operator, units)
    ids = {(unit << 32) + row: i for unit, t in enumerate(units) for row, i in enumerate(t["id"].to_pylist())}
    found = verdict.to_pylist()
    assert len({row["doc"] for row in found}) == len(found)
    return sorted(
        (
            ids[row["doc"]],
            row["drop_reason"] or "",
            row["duplicate_of"] or "",
            row["cluster"],
            row["cluster_size"],
        )
        for row in found
    )


def dropped(operator: GlobalOperator, rows: Sequence[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    """id -> (reason, duplicate of), of the dropped rows."""
    return {i: (reason, kept) for i, reason, kept, _, _ in fates(operator, [documents(rows)]) if reason}


@dataclass(frozen=True)
class Repartitioned(GlobalOperator):
    """`operator` with other numbers of partitions, which may never show in the verdicts."""

    operator: GlobalOperator
    counts: Sequence[int]

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.operator.name

    @property
    def needs(self) -> tuple[str, ...]:
        return self.operator.needs

    @property
    def recalls(self) -> bool:
        return self.operator.recalls

    def phases(self, rows: int, memory: int = MEMORY) -> Sequence[Phase | Fold]:
        counts = itertools.cycle(self.counts)
        return [
            phase if isinstance(phase, Fold) else replace(phase, partitions=phase.partitions or next(counts))
            for phase in self.operator.phases(rows, memory)
        ]
