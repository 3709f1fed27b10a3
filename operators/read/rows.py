"""Collects documents and quarantined spans one by one into batches of bounded size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa

from operators.document import DROP, SCHEMA, SCRATCH_COLUMN, STATISTICS_COLUMN
from operators.phases import CUTS, VERDICT
from operators.read.span import BATCH_BYTES, BATCH_ROWS, MOST_COLUMNS, QUARANTINE, Batch, ReadError, Span, fallback_id

ADDED = ("title", "decode_errors", "normalized_chars", "language", "language_score", "input_ids", "tokens")
PREFIXES = (STATISTICS_COLUMN, SCRATCH_COLUMN, f"{CUTS}/")
INTERNAL = frozenset([*SCHEMA.names, *DROP.names, *VERDICT.names, *ADDED, "key", "chars", "row"])


def passed_name(name: str) -> str:
    """The name under which a user's column passes through: `user_` before what would hide a column of ours.

    `user_text` becomes `user_user_text`, so no two columns ever meet.
    """
    stem = _stem(name)
    return f"user_{name}" if stem in INTERNAL or stem.startswith(PREFIXES) else name


def _stem(name: str) -> str:
    while name.startswith("user_"):
        name = name.removeprefix("user_")
    return name


class Doc(NamedTuple):
    """One document, with the fields of SCHEMA that its source states."""

    id: str
    text: str | None
    payload: bytes | None
    content_type: str | None
    url: str | None
    date: str | None
    size: int  # bytes it counts for in the batch


Provenance = tuple[str | None, int, float]  # source, priority, weight


class Rows:
    """The rows of the batch that is being filled."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self.rel = span.rel
        self._names: set[str] = set()
        self._start()

    def _start(self) -> None:
        self._docs: list[Doc] = []
        self._provenance: list[Provenance] = []
        self._bad: list[tuple[str, str, int, int, str, str | None]] = []
        self._extras: dict[str, list[str | None]] = {}
        self._bytes = 0

    def add(self, doc: Doc, provenance: Provenance | None = None, extras: dict[str, str | None] | None = None) -> None:
        """A document; `provenance` where the row itself states it. Raises ReadError where names never end."""
        self._names.update(extras or ())
        if len(self._names) > MOST_COLUMNS:
            raise ReadError(f"{self.rel}: more than {MOST_COLUMNS} different keys, each of which would be a column")
        row = len(self._docs)
        self._docs.append(doc)
        self._provenance.append(provenance or (self._span.source, self._span.priority, self._span.weight))
        self._bytes += doc.size
        for name, value in (extras or {}).items():
            column = self._extras.setdefault(name, [])
            column.extend([None] * (row - len(column)))
            column.append(value)

    def bad(
        self, at: int, length: int, reason: str, detail: str | None = None, *, id: str | None = None, position: str = ""
    ) -> None:
        """A span of the file that gives no document. `position` names it where `at` alone does not."""
        made = id or fallback_id(self._span.rel, position or at)
        self._bad.append((made, self._span.rel, at, length, reason, detail and detail[:200]))

    @property
    def full(self) -> bool:
        return self._bytes >= BATCH_BYTES or len(self._docs) >= BATCH_ROWS or len(self._bad) >= BATCH_ROWS

    def __bool__(self) -> bool:
        return bool(self._docs or self._bad)

    def take(self) -> Batch:
        """What was collected, as tables; collecting starts anew."""
        columns = list(zip(*self._docs, strict=True))[:-1] or [()] * 6
        columns += list(zip(*self._provenance, strict=True)) or [()] * 3
        docs = pa.Table.from_arrays(
            [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
        )
        extras = {}
        for name in sorted(self._extras):
            values = self._extras[name]
            values.extend([None] * (docs.num_rows - len(values)))
            extras[name] = pa.array(values, pa.string())
        docs = joined_columns(docs, extras)
        batch = Batch(docs, quarantine(self._bad))
        self._start()
        return batch


def joined_columns(docs: pa.Table, extras: Mapping[str, pa.Array | pa.ChunkedArray]) -> pa.Table:
    """The table with all of `extras` after its own columns, in one go: there may be thousands."""
    return pa.table({**dict(zip(docs.column_names, docs.columns, strict=True)), **extras})


def quarantine(rows: list[tuple[str, str, int, int, str, str | None]]) -> pa.Table:
    """The table of quarantined spans from its rows."""
    columns = list(zip(*rows, strict=True)) or [()] * len(QUARANTINE)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, QUARANTINE, strict=True)]
    return pa.Table.from_arrays(arrays, schema=QUARANTINE)
