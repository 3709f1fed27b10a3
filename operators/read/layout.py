"""What a Parquet footer says of columns and row groups, read without Arrow.

Arrow's own view of a damaged footer can end the process (it throws where its Python binding does not catch), follows a
schema as deep as it goes, and would let two columns have the same bytes.
"""

from __future__ import annotations

import functools
from itertools import pairwise
from typing import NamedTuple

from operators.read.span import MOST_COLUMNS
from operators.read.thrift import I32, I64, LIST, STRUCT, Compact, Malformed, Struct

_DEEPEST = 32  # columns in columns
_MOST_CHUNKS = 1 << 20
_MOST_ROWS = 1 << 48
_REPEATED = 2


class Column(NamedTuple):
    """A column that holds values: its physical type, the bytes of a value where those are fixed, whether it is in a
    list."""

    type: int
    width: int
    repeats: bool


class Chunk(NamedTuple):
    """Where the pages of a column of a row group are."""

    start: int
    end: int


class Group(NamedTuple):
    rows: int
    chunks: tuple[Chunk, ...]  # one a column

    @property
    def size(self) -> int:
        return sum(chunk.end - chunk.start for chunk in self.chunks)


class Layout(NamedTuple):
    columns: tuple[Column, ...]
    groups: tuple[Group, ...]


@functools.lru_cache(maxsize=4)  # a worker reads the spans of one file, each of which opens it
def layout(footer: bytes, size: int) -> Layout:
    """The layout of a file of `size` bytes with that footer. Raises Malformed."""
    compact = Compact(footer)
    columns: tuple[Column, ...] = ()
    groups: tuple[Group, ...] = ()
    try:
        for field in compact.fields():
            if field == (2, LIST):
                columns = _columns([_element(compact, kind) for kind in compact.items()])
            elif field == (4, LIST):
                groups = _groups(compact)
            else:
                compact.skip(field[1])
    except (IndexError, KeyError) as error:
        raise Malformed("its footer breaks off or lacks what it needs") from error
    _check(columns, groups, size)
    return Layout(columns, groups)


def _element(compact: Compact, kind: int) -> Struct:
    if kind != STRUCT:
        raise Malformed("a schema of something else than columns")
    return compact.struct()


def _columns(elements: list[Struct]) -> tuple[Column, ...]:
    """The columns that hold values, of a tree that is written depth first."""
    found: list[Column] = []
    above: list[tuple[int, bool]] = []  # children still to come, and whether they repeat
    for element in elements:
        while above and above[-1][0] == 0:
            above.pop()
        repeats = element.get((3, I32)) == _REPEATED
        if above:
            left, within = above[-1]
            above[-1] = (left - 1, within)
            repeats |= within
        if (children := element.get((5, I32), 0)) > 0:
            above.append((children, repeats))
        else:
            found.append(Column(element.get((1, I32), -1), element.get((2, I32), 0), repeats))
        if len(above) > _DEEPEST or len(found) > MOST_COLUMNS:
            raise Malformed(f"columns more than {_DEEPEST} deep, or more than {MOST_COLUMNS} of them")
    return tuple(found)


def _groups(compact: Compact) -> tuple[Group, ...]:
    found: list[Group] = []
    chunks = 0
    for kind in compact.items():
        if kind != STRUCT:
            raise Malformed("row groups that are something else")
        found.append(_group(compact))
        chunks += len(found[-1].chunks)
        if chunks > _MOST_CHUNKS:
            raise Malformed(f"more than {_MOST_CHUNKS} parts of columns")
    return tuple(found)


def _group(compact: Compact) -> Group:
    rows = 0
    chunks: tuple[Chunk, ...] = ()
    for field in compact.fields():
        if field == (1, LIST):
            chunks = tuple(_chunk(compact) for _ in compact.items())
        elif field == (3, I64):
            rows = compact.integer()
        else:
            compact.skip(field[1])
    return Group(rows, chunks)


def _chunk(compact: Compact) -> Chunk:
    found: Struct = {}
    for field in compact.fields():
        if field == (3, STRUCT):
            found = {}
            for inner in compact.fields():
                if inner in ((7, I64), (9, I64), (11, I64)):
                    found[inner] = compact.integer()
                else:
                    compact.skip(inner[1])
        else:
            compact.skip(field[1])
    data, dictionary = found[9, I64], found.get((11, I64), 0)
    start = dictionary if 0 < dictionary < data else data  # as Arrow decides it
    return Chunk(start, start + found[7, I64])


def _check(columns: tuple[Column, ...], groups: tuple[Group, ...], size: int) -> None:
    for number, group in enumerate(groups):
        if len(group.chunks) != len(columns):
            raise Malformed(f"row group {number} has {len(group.chunks)} columns, the schema {len(columns)}")
    if sum(group.rows for group in groups) > _MOST_ROWS or any(group.rows < 0 for group in groups):
        raise Malformed("its footer states impossible numbers of rows")
    chunks = sorted(chunk for group in groups if group.rows for chunk in group.chunks if chunk.end != chunk.start)
    for before, after in pairwise([Chunk(0, 0), *chunks, Chunk(size, size)]):
        if not before.start <= before.end <= after.start:
            raise Malformed(f"columns that share bytes, or lie where the file has none: at {after.start}")
