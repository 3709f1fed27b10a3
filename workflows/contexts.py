"""What a person is shown of order and packing: numbers, pictures, and a few contexts as they were written.

`sample_contexts` takes them from a shard while it is made; `orderings` and `packings` read a build's manifest.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from operators.hashes import xxh3_64
from operators.histogram import cumulative
from operators.ordering.order import SIMILARITY, Order
from operators.tokens.pack import Pack, Packed
from workflows.distributions import Bin, Comparison

Json = Mapping[str, Any]

SEQUENCES = 3  # shown of a shard
DOCUMENTS = 12  # shown of a sequence
TITLE = 90  # characters
LOOKED_AT = 4000  # characters, for a title
STEP = 0.05  # of similarity, the width of a bar
LINKS = {
    "edge": "a nearest neighbour",
    "stitch": "the nearest end of another stretch of the path",
    "jump": "whatever comes next: nothing near is left",
}
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")


def sample_contexts(docs: pa.Table, packed: Packed, links: NDArray[np.float64] | None) -> list[dict[str, Any]]:
    """A few sequences of several documents: those whose first document's id hashes lowest. Of each its number, its
    first documents (id, title, tokens in this sequence, similarity to the one before it if that is also the one before
    it in the order: its `links`, as `Pack` is given them) and how many more it has."""
    pieces = pl.DataFrame(packed.pieces.select(["sequence", "start", "end", "document"]))
    held = pieces.group_by("sequence", "document").agg(
        pl.col("start").min(), tokens=(pl.col("end") - pl.col("start")).sum()
    )
    held = held.sort("sequence", "start")
    firsts = held.group_by("sequence", maintain_order=True).agg(pl.col("document").first(), several=pl.len() > 1)
    firsts = firsts.filter("several")
    hashes = xxh3_64(docs["id"].take(pa.array(firsts["document"].to_numpy())))
    sequences = firsts["sequence"].to_numpy()
    chosen = np.sort(sequences[np.lexsort((sequences, hashes))[:SEQUENCES]])
    links = np.full(docs.num_rows, np.nan) if links is None else links
    return [_context(docs, number, held.filter(sequence=number), links) for number in chosen]


def _context(docs: pa.Table, number: int, held: pl.DataFrame, links: NDArray[np.float64]) -> dict[str, Any]:
    shown = held.head(DOCUMENTS)
    documents = shown["document"].to_numpy()
    similar = np.where(np.diff(documents, prepend=-2) == 1, links[documents], np.nan)
    rows = docs.select(["id", "text"]).take(pa.array(documents))
    titles = [title(text or "") for text in pc.utf8_slice_codeunits(rows["text"], 0, LOOKED_AT).to_pylist()]
    told = zip(rows["id"].to_pylist(), titles, shown["tokens"].to_list(), _told(similar), strict=True)
    return {
        "sequence": int(number),
        "documents": [dict(zip(("id", "title", "tokens", "similarity"), one, strict=True)) for one in told],
        "more": len(held) - len(shown),
    }


def _told(cosines: NDArray[np.float64]) -> list[float | None]:
    return [round(cosine, 4) if np.isfinite(cosine) else None for cosine in cosines.tolist()]


def title(text: str) -> str:
    """The first line with something on it, cut, its control characters replaced."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    short = _CONTROLS.sub("\ufffd", " ".join(line.split()))
    return short if len(short) <= TITLE else short[: TITLE - 1] + "…"


class Link(NamedTuple):
    kind: str
    what: str
    documents: int


class Drawing(NamedTuple):
    """Places in a square of 400: of the documents sampled, and of runs of consecutive ones in their order."""

    land: list[tuple[float, float]]
    runs: list[list[tuple[float, float]]]
    height: float


class Ordering(NamedTuple):
    stage: str
    method: str
    settings: Mapping[str, Any]  # of the method
    documents: int
    summary: Json
    chart: Comparison | None
    links: list[Link]
    drawing: Drawing | None


class Packing(NamedTuple):
    stage: str
    mode: str
    seq_len: int | None
    costs: Json
    positions: int  # tokens and padding
    contexts: Sequence[Json]


def orderings(stages: Sequence[Json]) -> Iterator[Ordering]:
    """What is known of each order that a stage gave its documents."""
    for stage in stages:
        for operator in stage.get("operators") or ():
            name = operator.get("name") or ""
            settings = _settings(stage, name)
            if name != Order.name and settings.get("type") != Order.__name__:
                continue
            summary = operator.get("summary") or {}
            links: Json = summary.get("links") or {}
            method = str(summary.get("method") or settings.get("method") or "not recorded")
            yield Ordering(
                stage.get("name") or "",
                method,
                {key: settings[key] for key in ("field", "descending", "seed") if settings.get(key)},
                summary.get("documents") or operator.get("rows_in") or 0,
                summary,
                _similarities_of(operator, summary),
                [Link(kind, LINKS.get(kind, ""), n) for kind, n in links.items()] if sum(links.values()) else [],
                _drawing(summary.get("landscape") or {}),
            )


def packings(stages: Sequence[Json]) -> Iterator[Packing]:
    """What laying documents out in windows cost, and a few of the windows."""
    for stage in stages:
        costs, contexts = stage.get("packing") or {}, stage.get("contexts") or ()
        if costs or contexts:
            found = [_settings(stage, step.get("name") or "") for step in stage.get("steps") or ()]
            settings = next((one for one in found if one.get("type") == Pack.__name__), {}) | costs
            positions = (stage.get("tokens") or 0) + (costs.get("padding") or 0)
            mode = str(settings.get("mode") or "not recorded")
            yield Packing(stage.get("name") or "", mode, settings.get("seq_len"), costs, positions, contexts)


def _settings(stage: Json, name: str) -> dict[str, Any]:
    """The parameters of the step of this name."""
    found = (step.get("parameters") for step in stage.get("steps") or () if step.get("name") == name)
    return dict(next(found, None) or {})


def _similarities_of(operator: Json, summary: Json) -> Comparison | None:
    """Similarity of random pairs and of neighbours on the path, as shares in equal bins."""
    both: list[Json] = [summary.get("random_similarity") or {}, (operator.get("measured") or {}).get(SIMILARITY) or {}]
    if not any(sum(bins.values()) for bins in both):
        return None
    lowest = min(float(start) for bins in both for start in bins)
    first = min(0, int(np.floor(lowest / STEP)))
    limits = np.arange(first, round(1 / STEP) + 1, dtype=np.float64) * STEP
    early, late = (_counts(bins, limits) for bins in both)
    labels = [f"{low:.2f} to {high:.2f}" for low, high in itertools.pairwise(limits)]
    bins = [Bin(label, a, b) for label, a, b in zip(labels, early, late, strict=True)]
    ticks = {k - first: f"{k * STEP:g}" for k in range(first, len(bins) + first + 1) if k % 5 == 0}
    title = "Similarity of each document to the one before it"
    return Comparison(title, "of random pairs", "along the path", bins, ticks, of="pairs")


def _counts(bins: Json, limits: NDArray[np.float64]) -> list[int]:
    if not sum(bins.values()):
        return [0] * (len(limits) - 1)
    edges, below = cumulative(bins)
    at_limits = np.interp(limits - 1e-9, np.minimum(edges, limits[-1]), below)  # a limit belongs to the bin above it
    at_limits[0], at_limits[-1] = 0, 1
    return [round(n) for n in np.diff(np.rint(at_limits * sum(bins.values())))]


def _drawing(landscape: Json) -> Drawing | None:
    x, y, contexts = (list(landscape.get(key) or ()) for key in ("x", "y", "context"))
    if not x or not len(x) == len(y) == len(contexts):
        return None
    places = np.column_stack([x, y]).astype(np.float64)
    places -= places.min(axis=0)
    places = 12 + places * (376 / (places.max() or 1.0))
    rows = [(round(float(a), 1), round(float(b), 1)) for a, b in places]
    runs = [[row for row, run in zip(rows, contexts, strict=True) if run == k] for k in sorted({*contexts} - {-1})]
    land = [row for row, run in zip(rows, contexts, strict=True) if run == -1]
    return Drawing(land, runs, max(row[1] for row in rows) + 12)
