"""Cut lines that other documents have as well: CCNet's deduplication of paragraphs (Wenzek et al. 2020, 4.1).

A line is compared in CCNet's normal form, in this order: without white space at its ends, lower case, every digit
read as 0, punctuation and characters that do not print deleted. Accents stay, as in CCNet's code; its paper strips
them. Punctuation is all that Unicode calls so, as the paper has it; the code deletes 34 characters, no ASCII ones.
CCNet's paper and code differ also in what becomes of the copies: `keep`.

Only hashes and places travel, and of a line that every page has, no more than two copies a unit do to where they
meet: what becomes of the rest is clear before. A line without any letter or digit is no duplicate of anything.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numba
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from operators.dedup.components import first_rows
from operators.dedup.signature import MIX1, MIX2
from operators.dedup.words import GOLDEN, MAPPED, buffers, frozen
from operators.document import parameters
from operators.hashes import spread
from operators.phases import CUTS, DOCUMENTS, MEMORY, GlobalOperator, Phase
from operators.text.segment import decode, line_end, strip
from operators.text.unicode_classes import WORD, flags

LINES = 50  # that a document has to compare, for estimates: 47 in 51,000 pages of documentation, code and dictionaries
PLACE_BYTES = 28  # of a row: key, doc, start, end, lines
LOW_BYTES = 8
RANK_BYTES = 60  # priority, and an id of about 48 letters
LONGEST = (1 << 32) - 2  # bytes of a text: places in it are 32-bit numbers
CCNET_SYMBOLS = "\u00b4\u2236\uff5e\u2501\u25ba"  # not punctuation to Unicode, but to CCNet
LANE1, LANE2 = np.uint64(0x9FB21C651E98DF25), np.uint64(0xD6E8FEB86659FD93)  # odd, without structure
HALF = np.uint64(32)
Hashes = NDArray[np.uint64]


@parameters
class LineDedup(GlobalOperator):
    """`keep` first: of the copies of a line the one in the document of the highest priority, then the smallest id,
    stays, and in it the first. `keep` none: none stays if two documents have the line, as in CCNet's code."""

    name: ClassVar[str] = "line_dedup"
    keep: Literal["first", "none"] = "first"
    unit: Literal["line", "paragraph"] = "line"  # a paragraph: the lines between blank ones
    min_characters: Annotated[int, Field(ge=1)] = 16  # of the normal form; what is shorter stays
    revision: Literal[1] = 1

    @property
    def needs(self) -> tuple[str, ...]:
        return ("text", "priority") if self.keep == "first" else ("text",)

    @property
    def adds(self) -> tuple[str, ...]:
        return ()

    def phases(self, rows: int, _memory: int = MEMORY) -> Sequence[Phase]:
        row = PLACE_BYTES + LOW_BYTES + (RANK_BYTES if self.keep == "first" else 0)
        return [
            Phase("lines", {DOCUMENTS: self._lines}, self._copies, bytes=rows * LINES * row),
            Phase("documents", {"lines": _by_doc}, _judge, bytes=rows * LINES * PLACE_BYTES),
        ]

    def _lines(self, docs: pa.Table) -> pa.Table:
        """A row for each line that can be a duplicate: its hash (`key`, `low`), its place (`doc`, `start`, `end` in
        bytes, without the newline), the number of `lines` with a letter or digit in its document, and what ranks the
        document. Those that are `settled` go in any case; their `key` is their document's.
        """
        docs = docs.filter(pc.less_equal(pc.binary_length(docs["text"]), LONGEST))  # and not null
        order = np.arange(docs.num_rows)
        if self.keep == "first":
            ranks = pa.table({"priority": pc.fill_null(docs["priority"].cast(pa.int32()), 0), "id": docs["id"]})
            ranked = pl.DataFrame(ranks).with_row_index("row")
            best_first = ranked.sort("priority", "id", descending=[True, False], maintain_order=True)
            order = best_first["row"].to_numpy().astype(np.int64)
        data, offsets = buffers(docs["text"])
        tables = (letters(), flags())
        found = _hash_lines(data, offsets, order, tables, self.unit == "paragraph", self.min_characters)
        key, low, of, start, end, lines = found
        doc = docs["doc"].to_numpy()[of]
        settled = self._settled(key, low, of)
        columns: dict[str, Any] = {"key": np.where(settled, spread(doc), key), "low": low, "doc": doc}
        columns |= {"start": start, "end": end, "lines": lines[of], "settled": settled}
        if self.keep == "first":
            columns["priority"] = ranks["priority"].take(pa.array(of))
            columns["id"] = ranks["id"].cast(pa.large_string()).take(pa.array(of, mask=settled))
        return pa.table(columns)

    def _settled(self, key: Hashes, low: Hashes, of: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which lines go, whatever other units have, without being needed to tell that others go. `of` is the row of
        each one's document; for `keep` first, lines stand in the order in which they would stay."""
        first = first_rows(key)
        settled: NDArray[np.bool_] = (first != np.arange(len(key))) & (low == low[first])
        if self.keep == "none":
            others = np.flatnonzero(settled & (of != of[first]))
            second = first_rows(key[others]) == np.arange(len(others))
            settled[others[second]] = False  # it shows that two documents have the line
        return settled

    def _copies(self, parts: Mapping[str, pa.Table]) -> pa.Table:
        """The places of the lines that go."""
        line, place = ["key", "low"], ["doc", "start"]
        rows = pl.DataFrame(parts[DOCUMENTS])
        settled, rows = rows.filter("settled"), rows.filter(~pl.col("settled"))
        rows = rows.filter(pl.col("key").is_duplicated())
        goes = pl.all_horizontal(pl.col(name) == pl.col(name).shift() for name in line)  # the line of the row before
        if self.keep == "first":
            order = [*line, "priority", "id", *place]
            rows = rows.sort(order, descending=[name == "priority" for name in order])
        else:
            rows = rows.sort(*line, *place)
            goes |= pl.col("doc").min().over(line) < pl.col("doc").max().over(line)
        copies: pa.Table = pl.concat([settled, rows.filter(goes)]).select(*place, "end", "lines").to_arrow()
        return copies


def _by_doc(rows: pa.Table) -> pa.Table:
    return rows.append_column("key", pa.array(spread(rows["doc"].to_numpy())))


def _judge(parts: Mapping[str, pa.Table]) -> pa.Table:
    """One verdict a document. What is left of a text is its other lines with a newline between them."""
    rows = pl.DataFrame(parts["lines"]).sort("doc", "start")
    doc, start, end = (rows[name].to_numpy() for name in ("doc", "start", "end"))
    start, end = start.astype(np.int64), end.astype(np.int64)
    docs, at, cut = np.unique(doc, return_index=True, return_counts=True)
    emptied = cut == rows["lines"].to_numpy()[at]
    # A line goes with the "\n" before it; where all lines before it go as well, with the one after it.
    before = np.cumsum(end + 1 - start) - (end + 1 - start)
    leads = start == before - np.repeat(before[at], cut)
    left, right = start - ~leads, end + leads
    begins = np.append(True, (doc[1:] != doc[:-1]) | (left[1:] != right[:-1]))[: len(doc)]
    ends = np.append(begins, True)[1:]
    ranges = np.stack([left[begins], right[ends]], axis=1)
    of = np.searchsorted(docs, doc[begins])
    stays = ~emptied[of]
    bounds = 2 * np.append(0, np.cumsum(np.bincount(of[stays], minlength=len(docs))))
    reason = np.full(len(docs), None, object)
    reason[emptied] = "emptied"
    return pa.table(
        {
            "doc": docs,
            "drop_reason": pa.array(reason, pa.string()),
            "drop_value": pa.array(cut.astype(np.float64), mask=~emptied),
            CUTS: pa.LargeListArray.from_arrays(pa.array(bounds), pa.array(ranges[stays].ravel())),
        }
    )


@functools.cache
def letters() -> NDArray[np.uint32]:
    """What each code point is in the normal form, 0 for deleted ones. Made once in a process, in about 0.2 s."""
    characters = np.arange(0x110000, dtype=np.uint32).view("U1")
    table = np.strings.lower(characters).view(np.uint32)  # of U+0130, which becomes two characters, the first
    table[0x3C2] = 0x3C3  # the final sigma, which a capital one is or is not by its place
    table[np.strings.isdecimal(characters)] = ord("0")
    for first, last in MAPPED:
        categories = [unicodedata.category(chr(code)) for code in range(first, last)]
        table[first:last][[name[0] == "P" or name in ("Cc", "Cf") for name in categories]] = 0
    table[[ord(char) for char in CCNET_SYMBOLS]] = 0
    table[ord("\n")] = ord(" ")  # inside a paragraph
    return frozen(table)


@numba.njit(inline="always")
def _mix(h: Any, letter: Any, factor: Any) -> Any:
    h = (h ^ letter) * factor
    return h ^ (h >> HALF)


@numba.njit(nogil=True, cache=True)
def _hash_lines(data: Any, offsets: Any, order: Any, tables: Any, paragraphs: Any, shortest: Any) -> Any:
    """(key, low, row, start, end) of each line that can be a duplicate, row by row in the `order` given, and how many
    lines with a letter or digit each row has."""
    letters, flags = tables
    room = offsets.shape[0]
    for i in range(np.uint64(offsets[0]), np.uint64(offsets[-1])):
        room += data[i] == np.uint8(10)
    key, low = np.empty(room, np.uint64), np.empty(room, np.uint64)
    row, start, end = np.empty(room, np.int64), np.empty(room, np.uint32), np.empty(room, np.uint32)
    lines = np.zeros(offsets.shape[0] - 1, np.uint32)
    n = np.uint64(0)
    for d in order:
        stop = offsets[d + 1]
        at = offsets[d]
        while at < stop:
            until = line_end(data, at, stop)
            i, last = strip(data, at, until, flags)
            while paragraphs and i < last and until < stop:
                following = line_end(data, until + 1, stop)
                blank, solid = strip(data, until + 1, following, flags)
                if blank == solid:
                    break
                until, last = following, solid
            a, b = np.uint64(GOLDEN), MIX2
            characters, kinds = np.uint64(0), np.uint8(0)
            while i < last:
                point, i = decode(data, i)
                letter = np.uint64(letters[np.uint64(point)])
                if letter:
                    a, b = _mix(a, letter, LANE1), _mix(b, letter, LANE2)
                    characters += np.uint64(1)
                    kinds |= flags[np.uint64(point)]
            if kinds & WORD:
                lines[d] += np.uint32(1)
                if characters >= shortest:
                    key[n], low[n] = _mix(a, characters, MIX1), _mix(b, characters, MIX1)
                    row[n], start[n], end[n] = d, at - offsets[d], until - offsets[d]
                    n += np.uint64(1)
            at = until + 1
    return key[:n], low[:n], row[:n], start[:n], end[:n], lines
