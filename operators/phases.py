"""Operators that must see all documents, told as phases of pure functions.

A phase is a shuffle. Each of its `maps` turns one unit of a source (the documents, or the output of an earlier
phase) into rows that carry a uint64 column `key`; rows are partitioned by ranges of `key`, so equal keys always
meet; `reduce` sees all rows of one partition and returns a table. The engine (cluster/exchange.py) moves the rows
through files in the store, in whatever order and on however many workers, so a reduce must sort before it decides
and nothing may depend on how documents were cut into units.

Documents are named by `doc`, a uint64 made of the unit's number (upper 32 bits) and the row in it (lower 32):
short, without collisions, and it says where a verdict has to go. Ties break on the full `id`.

An operator may remember: a phase's `remember` makes from what its map made of the documents, and from the verdicts,
rows for an index that is kept with the build. In later builds the reduce of that phase is given those of them whose
keys it has, as the source HISTORY.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

DOCUMENTS = "documents"
HISTORY = "history"
PUBLISHED = "published"  # `drop_detail` of a duplicate of what an earlier build remembers
VERDICT = pa.schema(
    [
        pa.field("doc", pa.uint64()),
        pa.field("drop_reason", pa.string()),  # null: the document stays, and takes the other columns with it
        pa.field("drop_value", pa.float64()),
        pa.field("drop_threshold", pa.float64()),
        pa.field("drop_detail", pa.string()),
        pa.field("duplicate_of", pa.string()),  # id of the document that stays in its place
        pa.field("cluster", pa.string()),  # smallest id in the cluster, the same for all its members
        pa.field("cluster_size", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Phase:
    """One shuffle: `maps` by source name, then `reduce` by partition.

    `remember` is given the rows that the map over DOCUMENTS made of one unit, and of the same unit `doc`, `id`,
    `keeper` (id of the document that stands for it, often its own) and `published` (the keeper is an earlier build's).
    It returns rows with a uint64 `key` that name documents by what is the same in every build, never by `doc`; equal
    rows count once. Where the operator `recalls`, the reduce finds the remembered rows whose `key` occurs in its
    partition under HISTORY, which is absent when there are none.
    """

    name: str
    maps: Mapping[str, Callable[[pa.Table], pa.Table]]
    reduce: Callable[[Mapping[str, pa.Table]], pa.Table]
    partitions: int = 1
    remember: Callable[[pa.Table, pa.Table], pa.Table] | None = None


class GlobalOperator:
    """Base of operators over the whole dataset. The last phase's reduce returns rows of VERDICT (at most one a
    document, in any order; extra columns are allowed and join the document). Documents without a verdict stay."""

    name: ClassVar[str]

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of the documents that the first phase's map reads, beside `id` and `doc`."""
        return ("text",)

    @property
    def adds(self) -> tuple[str, ...]:
        return ("cluster", "cluster_size")

    @property
    def recalls(self) -> bool:
        """Whether this build is compared with what earlier ones remember."""
        return False

    def phases(self, rows: int) -> Sequence[Phase]:
        """The phases, sized for about `rows` documents; the count of partitions may never change the verdicts."""
        raise NotImplementedError


def partition_of(keys: NDArray[np.uint64], partitions: int) -> NDArray[np.int64]:
    """The partition of each key: partition p owns the p-th of `partitions` equal ranges of the 64-bit keys."""
    high = (keys >> np.uint64(32)).astype(np.uint64)
    return ((high * np.uint64(partitions)) >> np.uint64(32)).astype(np.int64)


Index = Mapping[str, pa.Table]
"""What one build remembers for one operator, by phase."""


def run_in_memory(operator: GlobalOperator, units: Sequence[pa.Table], history: Sequence[Index] = ()) -> pa.Table:
    """The verdicts of `operator` on tables in memory, for tests and small callers: the engine without files."""
    outputs: dict[str, list[pa.Table]] = {DOCUMENTS: [with_doc(table, unit) for unit, table in enumerate(units)]}
    phases = operator.phases(sum(table.num_rows for table in units))
    for phase in phases:
        mapped = {source: [function(t) for t in outputs[source]] for source, function in phase.maps.items()}
        known = [index[phase.name] for index in history if operator.recalls and phase.remember]
        outputs[phase.name] = []
        for p in range(phase.partitions):
            parts = {
                source: pa.concat_tables([t.filter(partition_of(_keys(t), phase.partitions) == p) for t in tables])
                for source, tables in mapped.items()
            }
            keys = distinct_keys(parts)
            if found := [rows for t in known if (rows := t.filter(np.isin(_keys(t), keys))).num_rows]:
                parts[HISTORY] = pa.concat_tables(found)
            outputs[phase.name].append(phase.reduce(parts))
    return pa.concat_tables(outputs[phases[-1].name])


def remember_in_memory(operator: GlobalOperator, units: Sequence[pa.Table], verdicts: pa.Table) -> Index:
    """What `operator` remembers of the build in which it gave these verdicts."""
    phases = operator.phases(sum(table.num_rows for table in units))
    documents = [with_doc(table, unit) for unit, table in enumerate(units)]
    return {
        phase.name: pa.concat_tables(
            [
                phase.remember(phase.maps[DOCUMENTS](docs), with_keepers(docs.select(["doc", "id"]), verdicts))
                for docs in documents
            ]
        )
        for phase in phases
        if phase.remember
    }


def with_keepers(docs: pa.Table, verdicts: pa.Table) -> pa.Table:
    """Documents (`doc`, `id`) with `keeper` and `published`, as `Phase.remember` takes them."""
    at = pc.index_in(docs["doc"], value_set=verdicts["doc"])
    keeper = pc.coalesce(verdicts["duplicate_of"].take(at), docs["id"].cast(pa.string()))
    published = pc.fill_null(pc.equal(verdicts["drop_detail"].take(at), PUBLISHED), False)
    return pa.table({"doc": docs["doc"], "id": docs["id"], "keeper": keeper, "published": published})


def with_doc(table: pa.Table, unit: int) -> pa.Table:
    """The unit's documents with their column `doc`."""
    doc = (np.uint64(unit) << np.uint64(32)) + np.arange(table.num_rows, dtype=np.uint64)
    return table.append_column("doc", pa.array(doc))


def distinct_keys(parts: Mapping[str, pa.Table]) -> NDArray[np.uint64]:
    """The keys of a partition's rows, ascending."""
    return np.unique(np.concatenate([_keys(table) for table in parts.values()]))


def _keys(table: pa.Table) -> NDArray[np.uint64]:
    keys: NDArray[np.uint64] = table["key"].to_numpy()
    return keys
