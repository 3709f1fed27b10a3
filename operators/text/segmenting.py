"""Cut documents that are several in one, as Yi does with incoherent ones (arXiv 2403.04652, section 2.1: "segment or
drop"), where the words change (TextTiling: Hearst 1997).

A document is cut at the end of a paragraph (see cohesion.py) whose blocks of 100 words before and after are as little
alike as `max_similarity`, and less so by `min_depth` than the nearest peaks on both sides together: Hearst's depth
score. Of places too near to each other the one with the least similarity is taken.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray
from pydantic import Field

from operators.apply import SPLIT
from operators.document import Splitter, drop, parameters, utf8, with_columns, without_statistics
from operators.text.cohesion import APART, Places, places


@parameters
class Segment(Splitter):
    """Adds the parts of a document as rows `id/0`, `id/1`, ... that together are its text, and drops it as `split`.

    Other columns are the parent's. Documents that are not cut stay as they are.
    """

    name: ClassVar[str] = "segment"
    max_similarity: Annotated[float, Field(ge=0, le=1)] = 0.07
    min_depth: Annotated[float, Field(ge=0, le=2)] = 0.1
    min_words: Annotated[int, Field(ge=APART, le=10_000)] = 50  # of a part
    revision: Literal[1] = 1

    def __call__(self, docs: pa.Table) -> pa.Table:
        found = places(docs["text"])
        cut = np.zeros(len(found.byte), np.bool_)
        _cuts(found, self.max_similarity, self.min_depth, self.min_words, cut)
        if not cut.any():
            return docs
        return _split(docs, found, cut, self.max_similarity)


def _split(docs: pa.Table, found: Places, cut: NDArray[np.bool_], max_similarity: float) -> pa.Table:
    """The rows, those that are cut dropped and followed by their parts."""
    docs = without_statistics(docs)  # counts of the parents' texts are not those of the parts
    of_place = np.repeat(np.arange(len(docs)), np.diff(found.offsets))
    parent, first, cuts = np.unique(of_place[cut], return_index=True, return_counts=True)
    least = np.full(len(docs), np.nan)
    least[parent] = np.minimum.reduceat(found.similarity[cut], first)
    reason = pc.if_else(pa.array(np.isnan(least)), pa.scalar(None, pa.string()), SPLIT)
    marked = drop(docs, reason, value=least, threshold=max_similarity)

    row = np.repeat(parent, cuts + 1)
    number = np.arange(len(row)) - np.repeat(first + np.arange(len(first)), cuts + 1)
    heavy = [name for name in ("text", "payload") if name in docs.column_names]  # never copied once for each part
    parts = docs.drop_columns(heavy).take(pa.array(row))
    ids = pc.binary_join_element_wise(parts["id"].cast(pa.string()), pa.array(number.astype("U")), "/")
    data, bounds = utf8(docs["text"].take(pa.array(parent)))
    offsets = np.append(np.repeat(bounds[:-1], cuts + 1), bounds[-1])
    offsets[:-1][number > 0] += found.byte[cut]
    held = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    text = pa.Array.from_buffers(pa.large_string(), len(row), held).cast(docs.schema.field("text").type)
    parts = with_columns(parts, {"id": ids.cast(docs.schema.field("id").type), "text": text})
    if "payload" in heavy:
        parts = parts.append_column("payload", pa.nulls(len(row), docs.schema.field("payload").type))
    both = pa.concat_tables([marked, parts], promote_options="default")
    return both.take(pa.array(np.argsort(np.concatenate([np.arange(len(docs)), row]), kind="stable")))


@njit(nogil=True, cache=True)
def _cuts(found, max_similarity, min_depth, min_words, cut):  # type: ignore[no-untyped-def]
    """Mark the places to cut at."""
    similarity, word, depth = found.similarity, found.word, np.empty(found.similarity.shape[0])
    for d in range(found.offsets.shape[0] - 1):
        begin, end = found.offsets[d], found.offsets[d + 1]
        _depths(similarity[begin:end], depth[begin:end])
        order = np.argsort(similarity[begin:end], kind="mergesort")
        for k in order:
            at = begin + k
            if similarity[at] > max_similarity:
                break
            if depth[at] < min_depth or word[at] < min_words or found.words[d] - word[at] < min_words:
                continue
            free, i = True, at - 1
            while free and i >= begin and word[at] - word[i] < min_words:
                free, i = not cut[i], i - 1
            i = at + 1
            while free and i < end and word[i] - word[at] < min_words:
                free, i = not cut[i], i + 1
            cut[at] = free


@njit(nogil=True, cache=True)
def _depths(similarity, out):  # type: ignore[no-untyped-def]
    """How far each place lies below the peak that is reached by only going up, to the left and to the right."""
    n = similarity.shape[0]
    peak = 0.0
    for k in range(n):
        peak = peak if k and similarity[k - 1] >= similarity[k] else similarity[k]
        out[k] = peak - similarity[k]
    for k in range(n - 1, -1, -1):
        peak = peak if k < n - 1 and similarity[k + 1] >= similarity[k] else similarity[k]
        out[k] += peak - similarity[k]
