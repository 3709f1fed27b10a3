"""The sample, and what datatrove said of it (tests/peers/datatrove_filters.py writes the file)."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from operators.text.segment import WordSpans

ROOT = Path(__file__).parents[3]


def sample() -> pa.Table:
    table = pq.read_table(ROOT / "workflows" / "sample" / "sample.parquet", columns=["id", "text"])
    return table.set_column(1, "text", table["text"].cast(pa.large_string()))


def golden() -> dict[str, NDArray[Any]]:
    with np.load(ROOT / "tests" / "data" / "peers" / "datatrove_filters.npz", allow_pickle=False) as file:
        return dict(file)


def spacy_words(told: dict[str, NDArray[Any]]) -> WordSpans:
    """The words that datatrove's spaCy found, as byte positions in each text."""
    counts = told["word_counts"].astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    lengths = told["word_lengths"].astype(np.int64)
    ends = np.cumsum(told["word_gaps"] + lengths)
    before = np.concatenate([[0], ends])[offsets[:-1]]
    ends = ends - np.repeat(before, counts)
    return WordSpans(offsets, ends - lengths, ends)


def disagreements(result: pa.Table, told: NDArray[Any], names: dict[str, str]) -> list[tuple[int, str | None, str]]:
    """(row, our reason, datatrove's) of rows that differ in decision or first reason."""
    ours = result["drop_reason"].to_pylist()
    return [
        (i, a, b) for i, (a, b) in enumerate(zip(ours, told.tolist(), strict=True)) if a != (names[b] if b else None)
    ]


def kept_alike(result: pa.Table, told: NDArray[Any]) -> float:
    """The share of rows on which the decision is the same, whatever the reason."""
    ours = np.array([reason is None for reason in result["drop_reason"].to_pylist()])
    return float((ours == (told == "")).mean())


def table(*texts: str | None) -> pa.Table:
    return pa.table({"text": pa.array(texts, pa.large_string())})


def in_slices(operator: Any, docs: pa.Table) -> pa.Table:
    """The results for slices of the table, one after the other; the first slice is empty."""
    cuts = [0, 0, docs.num_rows // 3, docs.num_rows // 2, docs.num_rows]
    return pa.concat_tables([operator(docs.slice(a, b - a)) for a, b in zip(cuts[:-1], cuts[1:], strict=True)])
