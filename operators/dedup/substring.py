"""Cut what other texts have word for word: ExactSubstr (Lee et al. 2022, arXiv 2107.06499), without suffix arrays.

A window is `length` units (tokens or bytes) in a row. Of equal windows the one in the document of the highest
priority, then the smallest id, then the first there, stays; the others are cut, but those that overlap it in its own
document, so that of "a a a ..." one window is left and not one word. What is cut of a document is the union of such
windows: every substring of at least `length` units that occurs elsewhere before.

Two passes over the texts keep the exchange small. The first sends the seeds of windows (operators/dedup/windows.py), a
fourteenth of the tokens at 50; where a window occurs twice its seed does. The second sends the windows whose seeds were
found twice, each with its place, and of those that a unit can tell to go by itself, no more than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from operators.dedup.components import first_rows
from operators.dedup.windows import Seeds, seeds_of, windows_of
from operators.document import parameters
from operators.hashes import spread
from operators.phases import CUTS, DOCUMENTS, MEMORY, GlobalOperator, Phase

LONGEST = (1 << 32) - 2  # bytes of a text: places in it are 32-bit numbers
SEEDS, WINDOWS = 32, 80  # that a document sends, for estimates: as 51,000 of 3.7 kB did, a tenth of them duplicates
SEED_BYTES, WINDOW_BYTES, PLACE_BYTES = 17, 100, 24


@parameters
class ExactSubstring(GlobalOperator):
    """`length` counts tokens (words with their punctuation; characters in scripts without spaces) or bytes."""

    name: ClassVar[str] = "exact_substring"
    unit: Literal["tokens", "bytes"] = "tokens"
    length: Annotated[int, Field(ge=8, le=100_000)] = 50
    revision: Literal[1] = 1

    @property
    def needs(self) -> tuple[str, ...]:
        return ("text", "priority")

    @property
    def adds(self) -> tuple[str, ...]:
        return ()

    def phases(self, rows: int, _memory: int = MEMORY) -> Sequence[Phase]:
        return [
            Phase("seeds", {DOCUMENTS: self._seeds}, _repeated, bytes=rows * SEEDS * SEED_BYTES),
            Phase(
                "windows", {DOCUMENTS: self._windows}, self._copies, bytes=rows * WINDOWS * WINDOW_BYTES, own="seeds"
            ),
            Phase("documents", {"windows": _by_doc}, self._judge, bytes=rows * WINDOWS * PLACE_BYTES),
        ]

    def _seeds(self, docs: pa.Table) -> pa.Table:
        """A row for each seed of a document (`key`, `doc`); `twice` where it has it more than once."""
        docs = _ranked(docs)
        found, _ = seeds_of(docs["text"], np.arange(docs.num_rows), self.unit, self.length)
        rows = pl.DataFrame({"key": found.key, "doc": docs["doc"].to_numpy()[found.row]})
        told: pa.Table = rows.group_by("key", "doc").agg(twice=pl.len() > 1).to_arrow()
        return told

    def _windows(self, docs: pa.Table, repeated: pa.Table) -> pa.Table:
        """A row for each window whose seed occurs elsewhere. `settled` ones go in any case."""
        docs = _ranked(docs)
        found, units = seeds_of(docs["text"], np.arange(docs.num_rows), self.unit, self.length)
        seen = np.isin(found.key, repeated["key"].to_numpy())
        window = windows_of(docs["text"], Seeds._make(column[seen] for column in found), self.unit, self.length)
        doc = docs["doc"].to_numpy()[window.row]
        first = first_rows(window.key)  # of the unit's documents, in the order in which they would stay
        before = window.position[first].astype(np.int64) + self.length <= window.position
        settled = (window.low == window.low[first]) & ((doc != doc[first]) | before)
        columns: dict[str, Any] = {"key": np.where(settled, spread(doc), window.key), "low": window.low, "doc": doc}
        columns |= {"position": window.position, "start": window.start, "end": window.end, "settled": settled}
        columns |= {"units": units[window.row], "priority": docs["priority"].take(pa.array(window.row))}
        columns["id"] = docs["id"].cast(pa.large_string()).take(pa.array(window.row, mask=settled))
        return pa.table(columns)

    def _copies(self, parts: Mapping[str, pa.Table]) -> pa.Table:
        """The places of the windows that go."""
        place = ["doc", "position", "start", "end", "units"]
        rows = pl.DataFrame(parts[DOCUMENTS])
        settled, rows = rows.filter("settled"), rows.filter(~pl.col("settled"))
        rows = rows.filter(pl.col("key").is_duplicated())
        order = ["key", "low", "priority", "id", "position"]
        rows = rows.sort(order, descending=[name == "priority" for name in order])
        window = pl.struct("key", "low")
        stays = pl.col("doc", "position").first().over(window).name.prefix("first_")
        rows = rows.with_columns(stays)
        after = pl.col("position").cast(pl.Int64) - pl.col("first_position") >= self.length
        goes = rows.filter((pl.col("doc") != pl.col("first_doc")) | after)
        copies: pa.Table = pl.concat([settled, goes], how="diagonal").select(place).to_arrow()
        return copies

    def _judge(self, parts: Mapping[str, pa.Table]) -> pa.Table:
        """One verdict a document: the union of its windows."""
        rows = pl.DataFrame(parts["windows"]).sort("doc", "position")
        doc = rows["doc"].to_numpy()
        position, start, end = (rows[name].to_numpy().astype(np.int64) for name in ("position", "start", "end"))
        docs, at = np.unique(doc, return_index=True)
        new = np.append(True, doc[1:] != doc[:-1])[: len(doc)]
        # Windows of a document stand in the order of their places, so one begins a range where the one before ended.
        apart = new | np.append(True, start[1:] > end[:-1])[: len(doc)]
        last = np.append(apart, True)[1:]
        fresh = np.where(new, self.length, np.minimum(self.length, np.diff(position, prepend=0)))
        cut = np.add.reduceat(fresh, at) if len(docs) else fresh
        emptied = cut == rows["units"].to_numpy()[at]
        of = np.searchsorted(docs, doc[apart])
        stays = ~emptied[of]
        ranges = np.stack([start[apart], end[last]], axis=1)[stays]
        bounds = 2 * np.append(0, np.cumsum(np.bincount(of[stays], minlength=len(docs))))
        reason = pc.if_else(pa.array(emptied), pa.scalar("emptied"), pa.scalar(None, pa.string()))
        return pa.table(
            {
                "doc": docs,
                "drop_reason": reason,
                "drop_value": pa.array(cut.astype(np.float64), mask=~emptied),
                CUTS: pa.LargeListArray.from_arrays(pa.array(bounds), pa.array(ranges.ravel())),
            }
        )


def _ranked(docs: pa.Table) -> pa.Table:
    """The documents with a text that can be numbered, in the order in which they keep what they share."""
    docs = docs.filter(pc.less_equal(pc.binary_length(docs["text"]), LONGEST))
    ranks = pa.table({"priority": pc.fill_null(docs["priority"].cast(pa.int32()), 0), "id": docs["id"]})
    docs = docs.set_column(docs.schema.get_field_index("priority"), "priority", ranks["priority"])
    return docs.take(pc.sort_indices(ranks, [("priority", "descending"), ("id", "ascending")]))


def _repeated(parts: Mapping[str, pa.Table]) -> pa.Table:
    """The documents of each seed that occurs more than once."""
    rows = pl.DataFrame(parts[DOCUMENTS])
    found: pa.Table = rows.filter(pl.col("key").is_duplicated() | pl.col("twice")).select("key", "doc").to_arrow()
    return found


def _by_doc(rows: pa.Table) -> pa.Table:
    return rows.append_column("key", pa.array(spread(rows["doc"].to_numpy())))
