"""How well the losses of language models on a document predict their ranks on benchmarks (PreSelect, Shum et al. 2025,
arXiv:2503.00808, section 3): of all pairs of models, the share in which the better one has the lower loss.

Losses are compared within a document only, so that its total negative log-likelihood does as well as its bits per
character, and tokenizers may differ.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def concordance(losses: NDArray[np.float64], benchmarks: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share for each row of `losses` (documents by models), from 0 to 1; NaN where a loss is not finite.

    Equal losses or equal benchmark scores make no pair concordant.
    """
    models = len(benchmarks)
    pairs = [(i, j) for i in range(models) for j in range(models) if benchmarks[i] > benchmarks[j]]
    agreeing = np.zeros(len(losses), np.int64)
    for better, worse in pairs:
        agreeing += losses[:, better] < losses[:, worse]
    share = agreeing / max(1, models * (models - 1) // 2)
    return np.where(np.isfinite(losses).all(axis=1), share, np.nan)
