"""What all embedding models have in common: texts in, vectors of length one out, in half precision.

Half precision (11 bits) moves a cosine of unit vectors by less than 0.001 and halves what is stored (Contriever: 1.5 KB
a document).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Embeddings = NDArray[np.float16]
CHARS_PER_TOKEN = 32  # read of a text, at most: more than any language has, and no text costs more than its head


class Embedder(Protocol):
    """A loaded model."""

    dimensions: int
    max_chars: int  # of a text that are to be given

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """A row for each text, [n, dimensions], of length one, or all zeros where the model has none for it, such as
        for a text without a token. A row depends on its text alone."""
        ...


def unit(values: NDArray[Any]) -> Embeddings:
    """Each row of [n, d] numbers scaled to length one; zeros and rows that are not finite become zeros."""
    rows = values.astype(np.float64)
    largest = np.abs(rows).max(axis=1, initial=0)
    usable = np.isfinite(largest) & (largest > 0)
    rows[~usable] = 0
    rows /= np.where(usable, largest, 1)[:, None]  # so that no square overflows
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    rows /= np.where(usable, norms, 1)[:, None]
    return rows.astype(np.float16)
