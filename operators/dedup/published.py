"""Published documents among new ones: by a number that is the same in every build, where new ones are named by `doc`.

A number is made of the id. Its highest bit tells it from any `doc`. The ids of the numbers are in the indexes of the
builds that published them.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from operators.document import with_columns
from operators.hashes import spread, xxh3_64
from operators.phases import HISTORY, PUBLISHED_NUMBER, Rows

NO_IDS = pl.DataFrame(schema={"doc": pl.UInt64, "id": pl.String})


def published_numbers(ids: pa.ChunkedArray) -> NDArray[np.uint64]:
    """What stands for documents of published builds where new ones are named by `doc`. Should two ids have the same, a
    new document is told to duplicate the one in place of the other: it goes in any case."""
    return np.asarray(PUBLISHED_NUMBER | (xxh3_64(ids) >> np.uint64(1)), np.uint64)


def by(column: str, rows: pa.Table) -> pa.Table:
    """The rows under a key by which those with the same number in `column` meet."""
    return with_columns(rows, {"key": pa.array(spread(rows[column].to_numpy()))})


def published(components: pa.Table) -> pa.Table:
    """The published documents among the components, by their numbers."""
    return by("doc", components.filter(pa.array(components["doc"].to_numpy() >= PUBLISHED_NUMBER)))


def named(parts: Rows) -> pa.Table:
    """Their ids, as far as a visible build has published them."""
    components = pl.DataFrame(parts["components"]).select("doc", "root")
    ids = pl.DataFrame(parts[HISTORY]).select("doc", "id").unique() if HISTORY in parts else NO_IDS
    found: pa.Table = ids.join(components, on="doc").select("doc", "id", "root").to_arrow()
    return found


def remember_ids(_: pa.Table | None, docs: pa.Table) -> pa.Table:
    """The ids of the documents that stay, by number; a published one is in the index of its own build."""
    frame = pl.DataFrame(docs).filter(~pl.col("published"))
    ids = frame.select("keeper").unique().to_arrow()["keeper"].cast(pa.string())
    return by("doc", pa.table({"doc": pa.array(published_numbers(ids)), "id": ids}))
