"""Operators that must see all documents, told as phases of pure functions.

A phase is a shuffle. Each of its `maps` turns one unit of a source (the documents, or the output of an earlier
phase) into rows that carry a uint64 column `key`; rows are partitioned by ranges of `key`, so equal keys always
meet; `reduce` sees all rows of one partition and returns a table. The engine (cluster/exchange.py) moves the rows
through files in the store, in whatever order and on however many workers, so a reduce must sort before it decides
and nothing may depend on how documents were cut into units.

Documents are named by `doc`, a uint64 made of the unit's number (upper 32 bits) and the row in it (lower 32):
short, without collisions, and it says where a verdict has to go. Ties break on the full `id`.

A map may be given what an earlier phase found out: `whole`, small tables that every worker can hold, and, if it is
over the documents, `own`, the rows with a `doc` of the unit at hand. A fold goes through all that phases returned in
one place, a table at a time.

A verdict drops a document, or cuts byte ranges out of its text, or only adds columns to it. Operators that come later
see the text as it was cut.

An operator may remember: a phase's `remember` makes from what its map made of the documents, and from the verdicts,
rows for an index that is kept with the build. In later builds the reduce of that phase is given those of them whose
keys it has, as the source HISTORY.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

DOCUMENTS = "documents"
HISTORY = "history"
PUBLISHED = "published"  # `drop_detail` of a duplicate of what an earlier build remembers
PUBLISHED_NUMBER = np.uint64(1 << 63)  # and above: names of published documents beside `doc`, which never gets there
CUTS = "cuts"  # column of verdicts: [start, end, start, end, ...] in bytes, ascending, disjoint, between characters
MEMORY = 2 << 30  # bytes that one process may take, where the recipe does not say
SHARE = 8  # of that goes to the rows of one partition: sorted copies and what is made of them take the rest
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
Rows = Mapping[str, pa.Table]


@dataclass(frozen=True)
class Phase:
    """One shuffle: `maps` by source name, then `reduce` by partition.

    `bytes` estimates what its rows take in memory, from which follows the number of partitions, unless `partitions`
    fixes it. A map is called with one unit of its source and, as further arguments, the output of each phase of
    `whole`; that over DOCUMENTS gets its rows of the earlier phase `own` before these. `gpu`: the reduce can use one.

    `remember` is given the rows that the map over DOCUMENTS made of one unit (none where there is no such map), and of
    the unit's documents that the operator saw `doc`, `id`, `keeper` (id of the document that stands for it, often its
    own) and `published` (the keeper is an earlier build's). It returns rows with a uint64 `key` that name documents by
    what is the same in every build, never by `doc`; equal rows count once. Where the operator `recalls`, the reduce
    finds the remembered rows whose `key` occurs in its partition under HISTORY, which is absent when there are none.
    """

    name: str
    maps: Mapping[str, Callable[..., pa.Table]]
    reduce: Callable[[Rows], pa.Table]
    bytes: int = 0
    partitions: int | None = None
    own: str | None = None
    whole: tuple[str, ...] = ()
    gpu: bool = False
    remember: Callable[[pa.Table | None, pa.Table], pa.Table] | None = None

    def partitions_in(self, memory: int) -> int:
        """The number of partitions where a process may take `memory` bytes."""
        return self.partitions or max(1, -(-self.bytes * SHARE // memory))


@dataclass(frozen=True)
class Fold:
    """All that the phases `sources` returned, in one process: `fold` gets of each its tables, to be gone through as
    often as needed, then the output of each phase of `whole` as one table, then the number of documents in each unit.
    It yields tables of bounded size, at least one. `bytes` estimates what it holds.

    With `parts` it runs as many times, on as many equal slices of the tables of each source: the partitions of these
    phases are a multiple of it. What it yields follows in that order."""

    name: str
    sources: tuple[str, ...]
    fold: Callable[..., Iterator[pa.Table]]
    bytes: int = 0
    whole: tuple[str, ...] = ()
    parts: int = 1

    def slices(self, outputs: Mapping[str, Sequence[Any]]) -> list[list[Sequence[Any]]]:
        """For each part its slice of each source's tables."""
        cut = {name: len(outputs[name]) // self.parts for name in self.sources}
        if any(cut[name] * self.parts != len(outputs[name]) for name in self.sources):
            raise ValueError(
                f"fold {self.name}: {self.parts} parts of {[len(outputs[s]) for s in self.sources]} tables"
            )
        return [[outputs[s][p * cut[s] : (p + 1) * cut[s]] for s in self.sources] for p in range(self.parts)]


class GlobalOperator:
    """Base of operators over the whole dataset. What comes last returns rows of VERDICT (at most one a document, in any
    order, columns may be missing; CUTS may be added, and extra columns, which join the document). Documents without a
    verdict stay."""

    name: ClassVar[str]

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of the documents that maps read, beside `id` and `doc`."""
        return ("text",)

    @property
    def embeddings(self) -> tuple[str, ...]:
        """Those of them that have to be lists of numbers."""
        return ()

    @property
    def adds(self) -> tuple[str, ...]:
        return ("cluster", "cluster_size")

    @property
    def measures(self) -> tuple[str, ...]:
        """Numeric columns whose distribution, over all documents given, goes into manifest and report: with the bounds
        of those dropped."""
        return ()

    @property
    def summarised(self) -> tuple[str, ...]:
        """Phases with small outputs of which `summary` makes what manifest and report should be told."""
        return ()

    def summary(self, *_tables: pa.Table) -> Mapping[str, Any]:
        """What the outputs of the phases `summarised` say, JSON-able. Raises ValueError where it is too bad to go on
        with: the stage fails."""
        return {}

    @property
    def recalls(self) -> bool | tuple[str, ...]:
        """Whether this build is compared with what the published ones remember, or the builds it is compared with."""
        return False

    def phases(self, rows: int, memory: int = MEMORY) -> Sequence[Phase | Fold]:
        """The phases, sized for about `rows` documents and processes of `memory` bytes; neither may change the
        verdicts."""
        raise NotImplementedError


def as_mapped(parts: Rows) -> pa.Table:
    """The reduce of a phase whose one map has decided everything: its rows."""
    (rows,) = parts.values()
    return rows.drop_columns(["key"])


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
        whole = [pa.concat_tables(outputs[name]) for name in phase.whole]
        if isinstance(phase, Fold):
            sizes = [table.num_rows for table in units]
            parts_of = phase.slices(outputs)
            outputs[phase.name] = [table for part in parts_of for table in phase.fold(*part, *whole, sizes)]
            continue
        mapped = {source: _mapped(phase, source, outputs) for source in phase.maps}
        known = [index[phase.name] for index in history if operator.recalls and phase.remember]
        outputs[phase.name] = []
        partitions = phase.partitions_in(MEMORY)
        for p in range(partitions):
            parts = {
                source: pa.concat_tables([t.filter(partition_of(_keys(t), partitions) == p) for t in tables])
                for source, tables in mapped.items()
            }
            keys = distinct_keys(parts)
            if found := [rows for t in known if (rows := t.filter(np.isin(_keys(t), keys))).num_rows]:
                parts[HISTORY] = pa.concat_tables(found)
            outputs[phase.name].append(phase.reduce(parts))
    return pa.concat_tables(outputs[phases[-1].name])


def _mapped(phase: Phase, source: str, outputs: Mapping[str, list[pa.Table]]) -> list[pa.Table]:
    function, tables = phase.maps[source], outputs[source]
    whole = [pa.concat_tables(outputs[name]) for name in phase.whole]
    if source != DOCUMENTS or phase.own is None:
        return [function(docs, *whole) for docs in tables]
    rows = pa.concat_tables(outputs[phase.own])
    unit = rows["doc"].to_numpy() >> np.uint64(32)
    return [function(docs, rows.filter(pa.array(unit == number)), *whole) for number, docs in enumerate(tables)]


def remember_in_memory(operator: GlobalOperator, units: Sequence[pa.Table], verdicts: pa.Table) -> Index:
    """What `operator` remembers of the build in which it gave these verdicts."""
    documents = [with_doc(table, unit) for unit, table in enumerate(units)]
    index: dict[str, pa.Table] = {}
    for phase in operator.phases(sum(table.num_rows for table in units)):
        if isinstance(phase, Fold) or phase.remember is None:
            continue
        function = phase.maps.get(DOCUMENTS)
        index[phase.name] = pa.concat_tables(
            [
                phase.remember(function(docs) if function else None, with_keepers(docs.select(["doc", "id"]), verdicts))
                for docs in documents
            ]
        )
    return index


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
