"""The document, and the one protocol of everything that is done to it.

A document is a row of an Arrow table. `id` names it; `text` (or `payload`, the raw bytes of a page not yet
extracted) is its content; the other declared columns say where it came from; columns that nobody declared pass
through. A row whose `drop_reason` is null is alive.

An operator is a frozen dataclass of validated parameters that is called with a table of living documents and
returns the same rows, with columns added or `drop_reason` set. It never removes a row: whoever runs it counts,
and a lost row is an error. It knows nothing of Ray, files or stages.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol, TypeVar, dataclass_transform

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pydantic
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from operators.histogram import numbers

T = TypeVar("T")

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),  # the user's, else WARC-Record-ID, else 32 hex digits of path and position
        pa.field("text", pa.large_string()),  # null until a page has been extracted
        pa.field("payload", pa.large_binary()),  # raw bytes of a page; null for text input, null after extraction
        pa.field("content_type", pa.string()),  # what the server said of the payload
        pa.field("url", pa.string()),
        pa.field("date", pa.string()),  # as the source states it
        pa.field("source", pa.string()),  # the input's name in the recipe
        pa.field("priority", pa.int32()),  # deduplication keeps the highest
        pa.field("weight", pa.float32()),  # passed through for samplers
    ]
)
DROP = pa.schema(
    [
        pa.field("drop_reason", pa.string()),
        pa.field("drop_value", pa.float64()),  # the number that decided
        pa.field("drop_threshold", pa.float64()),  # the bound it broke
        pa.field("drop_detail", pa.string()),  # what decided, where that is no number: a language, a host
        pa.field("duplicate_of", pa.string()),
    ]
)
STATISTICS_COLUMN = "statistics/"  # begins names of hidden columns: counts of the text (text/statistics.py)
SCRATCH_COLUMN = "scratch/"  # and of those that only operators of the same stage need


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field, dataclasses.field))
def parameters(cls: type[T]) -> type[T]:
    """Class decorator: a frozen, keyword-only dataclass whose fields pydantic checks; unknown fields are errors."""
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    return pydantic_dataclass(cls, frozen=True, kw_only=True, config=config)  # type: ignore[return-value]


class Operator:
    """Base of all operators: `name` in recipes, drop reasons and metrics, and the columns read and added."""

    name: ClassVar[str]

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns that must exist before; checked before work starts."""
        return ("text",)

    @property
    def adds(self) -> tuple[str, ...]:
        """Columns that exist after, beside those of SCHEMA and DROP."""
        return ()

    @property
    def gpu(self) -> bool:
        """Whether it works faster with a GPU to itself."""
        return False

    @property
    def measures(self) -> tuple[str, ...]:
        """Numeric columns among those added whose distribution, over all rows given, goes into manifest and report."""
        return ()

    @property
    def counts(self) -> tuple[str, ...]:
        """Columns of whole numbers among those added whose sums go into manifest and report."""
        return ()

    def counted(self, marked: pa.Table) -> Mapping[str, int]:
        """Those sums, and whatever else a reader of the report should be told a number of, from what the call gave."""
        return {name: pc.sum(marked[name]).as_py() or 0 for name in self.counts}

    @property
    def cuts(self) -> Mapping[str, tuple[float, ...]]:
        """Where in these distributions the operator's bounds lie."""
        return {}

    def measured(self, marked: pa.Table) -> Mapping[str, NDArray[np.float64]]:
        """The numbers to draw, from what the call returned, under the names that `cuts` uses; NaN is not counted."""
        return {name: numbers(marked[name]) for name in self.measures}

    def __call__(self, docs: pa.Table) -> pa.Table:
        """The same rows, with columns added or `drop_reason` (and value, threshold, detail) set by `drop`."""
        raise NotImplementedError


class Splitter(Operator):
    """The only operator that may add rows: children `parent/n`, the parent kept in the table and dropped as `split`."""


class Model(Protocol):
    """A frozen, hashable description of a heavy model; workers load it once a process through `loaded`."""

    def load(self) -> Any: ...


@functools.lru_cache(maxsize=16)
def loaded(model: Model) -> Any:
    """The model that `model` describes, loaded once in this process."""
    return model.load()


class Pinned(NamedTuple):
    """A file that takes part in identity by its content: the path may differ from machine to machine."""

    path: str
    sha256: str

    def read(self) -> bytes:
        data = Path(self.path).read_bytes()
        if (found := hashlib.sha256(data).hexdigest()) != self.sha256:
            raise ValueError(f"{self.path}: sha256 is {found}, the recipe was validated with {self.sha256}")
        return data


def _pin(value: object) -> object:
    if isinstance(value, str):
        path = Path(value)
        if not path.is_file():
            raise ValueError(f"no such file: {value}")
        return Pinned(str(path.resolve()), hashlib.sha256(path.read_bytes()).hexdigest())
    return tuple(value) if isinstance(value, list) else value


PinnedFile = Annotated[Pinned, pydantic.BeforeValidator(_pin, json_schema_input_type=str)]
"""Field type for a file given by path in a recipe: it must exist when the recipe is read, and is pinned by sha256."""


def identity(value: Any) -> Any:
    """What enters a fingerprint: every field of an operator or model, but those that its class names as PLACEMENT; a
    pinned file by its hash. JSON-able."""
    if isinstance(value, Pinned):
        return {"sha256": value.sha256}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = [f.name for f in dataclasses.fields(value) if f.name not in getattr(value, "PLACEMENT", ())]
        fields = {name: identity(getattr(value, name)) for name in named}
        return {"type": type(value).__qualname__, **fields}
    if isinstance(value, dict):
        return {str(k): identity(v) for k, v in sorted(value.items(), key=lambda kv: str(kv[0]))}
    if isinstance(value, (list, tuple)):
        return [identity(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted((identity(v) for v in value), key=repr)
    return value


class Rule(NamedTuple):
    """One rule on every row of a table: which rows break it, and the number and bound that say so."""

    reason: str
    broken: NDArray[np.bool_]
    value: NDArray[np.float64]
    threshold: float


def drop_by_rules(docs: pa.Table, rules: Sequence[Rule]) -> pa.Table:
    """Drop each row for the first rule it breaks, with that rule's value and threshold."""
    n = docs.num_rows
    which = np.full(n, -1, np.int64)
    for k, rule in enumerate(rules):
        which[(which < 0) & rule.broken] = k
    reasons = pa.array([rule.reason for rule in rules], pa.string())
    index = pa.array(which, mask=which < 0)
    value = np.full(n, np.nan)
    threshold = np.full(n, np.nan)
    for k, rule in enumerate(rules):
        hit = which == k
        value[hit] = rule.value[hit]
        threshold[hit] = rule.threshold
    return drop(docs, reasons.take(index), value=value, threshold=threshold)


def drop(
    docs: pa.Table,
    reason: pa.Array | Sequence[str | None],
    value: NDArray[np.float64] | None = None,
    threshold: NDArray[np.float64] | float | None = None,
    detail: pa.Array | Sequence[str | None] | None = None,
) -> pa.Table:
    """Mark the rows whose `reason` is not null as dropped; value, threshold and detail count for those rows only.

    A reason is a short snake_case word without the operator's name; whoever runs the operator puts that before it.
    """
    n = docs.num_rows
    reason = pa.array(reason, pa.string()) if not isinstance(reason, (pa.Array, pa.ChunkedArray)) else reason
    dead = pc.is_valid(reason)
    nothing = pa.scalar(None)

    def column(given: Any, dtype: pa.DataType) -> pa.Array:
        if given is None:
            return pa.nulls(n, dtype)
        if isinstance(given, (int, float)):
            given = pa.array(np.full(n, given))
        array = given if isinstance(given, (pa.Array, pa.ChunkedArray)) else pa.array(given, from_pandas=True)
        return pc.if_else(dead, array.cast(dtype), nothing.cast(dtype))

    columns = {
        "drop_reason": reason.cast(pa.string()),
        "drop_value": column(value, pa.float64()),
        "drop_threshold": column(threshold, pa.float64()),
        "drop_detail": column(detail, pa.string()),
    }
    return with_columns(docs, columns)


def with_columns(docs: pa.Table, columns: dict[str, Any]) -> pa.Table:
    """The table with each column set, replaced where it exists, appended where not. A new text has no statistics."""
    if "text" in columns:
        docs = without_statistics(docs)
    for name, column in columns.items():
        at = docs.schema.get_field_index(name)
        docs = docs.append_column(name, column) if at < 0 else docs.set_column(at, name, column)
    return docs


def without_statistics(docs: pa.Table) -> pa.Table:
    """The table without hidden columns of counts."""
    return docs.drop_columns([name for name in docs.column_names if name.startswith(STATISTICS_COLUMN)])


def without_hidden(docs: pa.Table) -> pa.Table:
    """The table as it leaves a stage."""
    hidden = (STATISTICS_COLUMN, SCRATCH_COLUMN)
    return docs.drop_columns([name for name in docs.column_names if name.startswith(hidden)])


def utf8(column: pa.ChunkedArray | pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """A string column as kernels read it: (bytes, offsets[n + 1] into them), zero copy where it is one chunk.

    Nulls read as empty. Kernels must index with unsigned integers: numba's wrap-around check costs half the speed.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # an empty column has no chunk to combine
        array = pa.array([], pa.large_string())
    if array.null_count:
        array = pc.fill_null(array, "")
    array = array.cast(pa.large_string())
    _, offsets, data = array.buffers()
    if len(array) == 0:
        return np.zeros(1, np.uint8), np.zeros(1, np.int64)
    bounds = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(1, np.uint8), bounds
