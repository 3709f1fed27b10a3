"""The nearest neighbours of vectors on the grid, by blocks of matrix products.

Vectors are cut into lists, and a vector is compared with those of the lists that its own one probes (an inverted file
joined with itself: Johnson et al. 2017, arXiv 1702.08734, section 4). Each list takes one matrix product with all that
it probes, so nothing has to be merged. Products are whole numbers and ties go to the smaller row: the neighbours are
the same on any machine, with or without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from operators.models.faiss import gpu_knn, gpus
from operators.ordering.vectors import Vectors, squares

WEIGHTS = 65_535  # a cosine of 1
QUERY_ROWS = 1024  # compared at a time
ROWS = 4096  # with as many: 16 MB of scores
LANES = 32  # scores looked at together
FETCHED = 64  # by a GPU beyond those wanted, to be ranked again
INNER_PRODUCT = 0  # as FAISS numbers its metrics
GPU_NUMBERS = 1 << 26  # of the vectors that are on a GPU at a time: 256 MB

Rows = NDArray[np.int64]
Weights = NDArray[np.uint16]


def weights_of(cosines: NDArray[Any]) -> Weights:
    """Cosines as 16-bit numbers; 0 for negative ones."""
    weights: Weights = np.rint(np.clip(cosines, 0, 1) * WEIGHTS).astype(np.uint16)
    return weights


def cosines_of(weights: Weights) -> NDArray[np.float32]:
    """The cosines of weights."""
    return (weights / np.float64(WEIGHTS)).astype(np.float32)


@numba.njit(inline="always")
def product_weight(product: Any, length: Any) -> Any:
    """The weight of a product of two vectors with this product of their squared lengths."""
    return min(max(np.int64(np.rint(np.float64(product) / np.sqrt(length) * WEIGHTS)), 0), WEIGHTS)


@numba.njit(inline="always")
def _shortest(columns: Any, lengths: Any) -> Any:
    """The smallest squared length of these rows, but for zero vectors."""
    shortest = np.inf
    for other in columns:
        if 0 < lengths[other] < shortest:
            shortest = lengths[other]
    return shortest


@numba.njit(nogil=True, cache=True)
def _keep(scores: Any, first: Any, columns: Any, lengths: Any, cap: Any, rows: Any, weights: Any) -> None:
    """Keep the best of scores[i, j], the product of row `first + i` with the row columns[j], which come in ascending
    order: a later one of equal weight is never better."""
    last, shortest = rows.shape[1] - 1, _shortest(columns, lengths)
    for i in range(scores.shape[0]):
        row = first + i
        if lengths[row] == 0 or shortest == np.inf:
            continue
        scale = np.sqrt(lengths[row] * shortest) / WEIGHTS
        least = np.float32((weights[i, last] + 0.5) * scale - 1.0)  # no smaller product has a larger weight
        for start in range(0, scores.shape[1], LANES):
            end = min(start + LANES, scores.shape[1])
            hits = 0
            for j in range(start, end):
                hits += scores[i, j] >= least
            if hits == 0:
                continue
            for j in range(start, end):
                other = columns[j]
                if scores[i, j] < least or other == row or lengths[other] == 0:
                    continue
                weight = product_weight(scores[i, j], lengths[row] * lengths[other])
                if weight <= weights[i, last] or weight > cap:
                    continue
                at = last
                while at > 0 and weights[i, at - 1] < weight:
                    weights[i, at], rows[i, at] = weights[i, at - 1], rows[i, at - 1]
                    at -= 1
                weights[i, at], rows[i, at] = weight, other
                least = np.float32((weights[i, last] + 0.5) * scale - 1.0)


def nearest_neighbours(
    found: Vectors,
    lists: Rows,
    probed: Rows,
    k: int,
    queries: slice | None = None,
    cap: float = 1.0,
) -> tuple[Rows, Weights]:
    """For each row of `queries` (all, if unset) of `found` [n, d] the `k` nearest other rows with a positive weight, at
    most that of the cosine `cap`, and their weights, both [q, k]: best first, of equals the smaller row, -1 for none.

    `lists` [n], ascending, holds the list of each row, and row l of `probed` [L, p] the lists that list l probes,
    itself among them, -1 for none; with p = L and no -1, all are compared with all. Zero vectors have no neighbours and
    are nobody's.

    Takes memory for the answer and blocks of a fixed size.
    """
    lengths, most = squares(found), int(weights_of(np.array([cap]))[0])
    bounds = np.searchsorted(lists, np.arange(len(probed) + 1))
    if probed.shape[1] == len(probed) and probed.min(initial=0) >= 0:
        comparable = int(np.flatnonzero(lengths).max(initial=-1)) + 1
        bounds, probed = np.array([0, comparable]), np.zeros((1, 1), np.int64)
    start, stop, _ = (queries or slice(None)).indices(len(found))
    rows = np.full((max(stop - start, 0), k), -1, np.int64)
    weights = np.zeros(rows.shape, np.uint16)
    if not rows.size:
        return rows, weights
    join = _Join(found, lengths, most) if not gpus() else _FetchingJoin(found, lengths, most, gpu_knn())
    for number in range(len(probed)):
        own = slice(max(bounds[number], start), min(bounds[number + 1], stop))
        if own.start < own.stop:
            at = slice(own.start - start, own.stop - start)
            join(own, _slices(probed[number], bounds), rows[at], weights[at])
    return rows, weights


def _slices(probed: Rows, bounds: Rows) -> list[slice]:
    """The rows of the probed lists, ascending; those of lists side by side are one slice."""
    slices: list[slice] = []
    for number in np.unique(probed[probed >= 0]):
        start, end = int(bounds[number]), int(bounds[number + 1])
        if start == end:
            continue
        if slices and slices[-1].stop == start:
            start = slices.pop().start
        slices.append(slice(start, end))
    return slices


def _blocks(slices: list[slice], size: int) -> Iterator[Rows]:
    """The rows of all slices, `size` at a time."""
    held: list[Rows] = []
    room = size
    for whole in slices:
        start = whole.start
        while start < whole.stop:
            end = min(start + room, whole.stop)
            held.append(np.arange(start, end))
            room -= end - start
            start = end
            if room == 0:
                yield np.concatenate(held)
                held, room = [], size
    if held:
        yield np.concatenate(held)


class _Join:
    """Compares rows with those of slices; holds the memory that each comparison needs."""

    def __init__(self, found: Vectors, lengths: NDArray[np.float64], most: int) -> None:
        self.found, self.lengths, self.most = found, lengths, most
        self._others = np.empty((min(ROWS, len(found)), found.shape[1]), np.float32)
        self._scores = np.empty(min(QUERY_ROWS, len(found)) * len(self._others), np.float32)

    def __call__(self, own: slice, others: list[slice], rows: Rows, weights: Weights) -> None:
        for start in range(own.start, own.stop, QUERY_ROWS):
            block = self.found[start : min(start + QUERY_ROWS, own.stop)].astype(np.float32)
            at = slice(start - own.start, start - own.start + len(block))
            for columns in _blocks(others, ROWS):
                candidates = self._others[: len(columns)]
                candidates[:] = self.found[columns]
                scores = self._scores[: len(block) * len(columns)].reshape(len(block), len(columns))
                np.matmul(block, candidates.T, out=scores)
                _keep(scores, start, columns, self.lengths, self.most, rows[at], weights[at])


@numba.njit(nogil=True, cache=True)
def _rank(near: Any, first: Any, columns: Any, found: Any, lengths: Any, cap: Any, rows: Any, weights: Any) -> None:
    """Keep the best of the rows columns[near[i, j]] for row `first + i`, by exact products; they come in any order."""
    last = rows.shape[1] - 1
    for i in range(near.shape[0]):
        row = first + i
        for j in range(near.shape[1]):
            if near[i, j] < 0:
                continue
            other = columns[near[i, j]]
            if other == row or lengths[row] == 0 or lengths[other] == 0:
                continue
            product = np.int64(0)
            for d in range(found.shape[1]):
                product += np.int64(found[row, d]) * np.int64(found[other, d])
            weight = product_weight(product, lengths[row] * lengths[other])
            worst = weights[i, last]
            if weight < max(worst, 1) or weight > cap or (weight == worst and other > rows[i, last]):
                continue
            at = last
            while at > 0 and (
                weights[i, at - 1] < weight or (weights[i, at - 1] == weight and rows[i, at - 1] > other)
            ):
                weights[i, at], rows[i, at] = weights[i, at - 1], rows[i, at - 1]
                at -= 1
            weights[i, at], rows[i, at] = weight, other


class _FetchingJoin(_Join):
    """The same by `knn(queries, others, k, metric)` -> (products, columns) of FAISS, which knows neither our ties nor
    lengths: it is asked for more than is wanted, and rows where what it left out might be better are done over."""

    def __init__(
        self, found: Vectors, lengths: NDArray[np.float64], most: int, knn: Callable[..., Any], fetched: int = FETCHED
    ) -> None:
        super().__init__(found, lengths, most)
        self._knn, self._fetched = knn, fetched
        self._at_once = max(GPU_NUMBERS // found.shape[1], 1)

    def __call__(self, own: slice, others: list[slice], rows: Rows, weights: Weights) -> None:
        for start in range(own.start, own.stop, self._at_once):
            stop = min(start + self._at_once, own.stop)
            at = slice(start - own.start, stop - own.start)
            open_rows = self._fetch(slice(start, stop), others, rows[at], weights[at])
            for again in np.flatnonzero(open_rows) + at.start:
                rows[again], weights[again] = -1, 0
                row = own.start + int(again)
                super().__call__(slice(row, row + 1), others, rows[again : again + 1], weights[again : again + 1])

    def _fetch(self, own: slice, others: list[slice], rows: Rows, weights: Weights) -> NDArray[np.bool_]:
        """Which rows may have better neighbours than those found."""
        block = self.found[own].astype(np.float32)
        left_out = np.zeros(len(block))  # the largest weight that something not fetched may have
        for columns in _blocks(others, self._at_once):
            k = min(rows.shape[1] + self._fetched, len(columns))
            products, near = self._knn(block, self.found[columns].astype(np.float32), k, INNER_PRODUCT)
            _rank(near, own.start, columns, self.found, self.lengths, self.most, rows, weights)
            if k < len(columns):
                held = self.lengths[columns]
                shortest = held[held > 0].min(initial=np.inf)
                scale = np.sqrt(np.maximum(self.lengths[own], 1) * shortest) / WEIGHTS
                np.maximum(left_out, np.rint(products[:, -1] / scale), out=left_out)
        unsure: NDArray[np.bool_] = (left_out > 0) & (left_out >= weights[:, -1])
        return unsure
