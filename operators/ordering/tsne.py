"""A picture of vectors in two dimensions in which neighbours stay near: t-SNE (van der Maaten and Hinton 2008), exact.

Each vector is drawn to its nearest ones, all alike, which gives the same pictures as the perplexity of the paper
(Böhm et al. 2022, arXiv 2007.08902, section 4.3), and the start is the plane of the principal components (Kobak and
Berens 2019). So nothing is drawn by lot, and there is no function but the square root: sums are taken in one order, and
the picture is the same on any machine. The cost is that of all pairs: 1,600 vectors take two seconds.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from operators.ordering.vectors import Vectors

NEIGHBOURS = 8  # of 1,500 real documents more keep fewer of the ten nearest near, and fewer tear groups apart
ROUNDS, EARLY = 400, 100  # in the early ones neighbours are drawn together harder, which sorts out what belongs where
EXAGGERATION = 12.0
TURNS = 30  # of the power iteration: more do not change the picture
SPREAD = 1e-4  # of the start, so that no vector is far from where it has to go


def tsne(vectors: Vectors) -> NDArray[np.float64]:
    """A place for each vector, shape [n, 2], around the origin; at the origin if there are fewer than three."""
    count = len(vectors)
    if count < 3:
        return np.zeros((count, 2))
    rows = vectors.astype(np.float32)  # products are whole numbers of at most 2^24
    products = (rows @ rows.T).astype(np.float64)
    sums = products.sum(axis=1)
    centred = count * count * products - count * (sums[:, None] + sums) + sums.sum()  # whole numbers below 2^53
    start = _principal(centred, TURNS)
    np.fill_diagonal(products, -np.inf)
    nearest = np.argsort(-products, axis=1, kind="stable")[:, : min(NEIGHBOURS, count - 1)]
    return np.asarray(_descend(start, nearest, ROUNDS), np.float64)


@numba.njit(nogil=True, cache=True)
def _principal(centred: Any, turns: Any) -> Any:
    """The rows' places on the two largest axes of their Gram matrix, by orthogonal iteration."""
    count = centred.shape[0]
    axes = np.empty((2, count))
    for i in range(count):
        axes[0, i] = i % 7 - 3.0
        axes[1, i] = i % 5 - 2.0
    for _ in range(turns):
        turned = np.zeros((2, count))
        for i in range(count):
            for j in range(count):
                turned[0, j] += axes[0, i] * centred[i, j]
                turned[1, j] += axes[1, i] * centred[i, j]
        for a in range(2):
            if a == 1:
                shared = 0.0
                for i in range(count):
                    shared += turned[0, i] * turned[1, i]
                for i in range(count):
                    turned[1, i] -= shared * turned[0, i]
            square = 0.0
            for i in range(count):
                square += turned[a, i] * turned[a, i]
            for i in range(count):
                turned[a, i] = turned[a, i] / np.sqrt(square) if square > 0 else 0.0
        axes = turned
    return axes.T * (SPREAD * np.sqrt(count))


@numba.njit(nogil=True, cache=True)
def _descend(places: Any, nearest: Any, rounds: Any) -> Any:
    """Gradient descent with momentum on the divergence between who is near whom, and who is in the picture."""
    count, drawn = nearest.shape
    places = places.copy()
    speed = np.zeros((count, 2))
    push, pull = np.empty((count, 2)), np.empty((count, 2))
    for turn in range(rounds):
        push[:], pull[:] = 0.0, 0.0
        total = 0.0
        for i in range(count):
            x, y, a, b = places[i, 0], places[i, 1], 0.0, 0.0
            for j in range(i):
                dx, dy = x - places[j, 0], y - places[j, 1]
                near = 1.0 / (1.0 + dx * dx + dy * dy)
                total += near
                a += near * near * dx
                b += near * near * dy
                push[j, 0] -= near * near * dx
                push[j, 1] -= near * near * dy
            push[i, 0] += a
            push[i, 1] += b
            for j in nearest[i]:
                dx, dy = x - places[j, 0], y - places[j, 1]
                near = 1.0 / (1.0 + dx * dx + dy * dy)
                pull[i, 0] += near * dx
                pull[i, 1] += near * dy
                pull[j, 0] -= near * dx
                pull[j, 1] -= near * dy
        early = turn < EARLY
        harder, momentum = (EXAGGERATION, 0.5) if early else (1.0, 0.8)
        rate = count / harder
        for i in range(count):
            for d in range(2):
                slope = 4.0 * (harder * pull[i, d] / (2.0 * count * drawn) - push[i, d] / (2.0 * total))
                speed[i, d] = momentum * speed[i, d] - rate * slope
                places[i, d] += speed[i, d]
    return places
