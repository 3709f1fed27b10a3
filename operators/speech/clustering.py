"""Average-linkage agglomerative clustering, and how many voices there are among vectors of speech.

Average linkage needs no more of a cluster than the mean of its vectors and how many they are: the mean distance between
the members of two clusters is one less the product of their means. So stretches of a long recording are clustered one
after the other, and then their clusters, by the same function, in the memory that one stretch takes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 1125  # vectors clustered together: 15 minutes of one every 0.8 s
DECIMALS = 6  # of distances: coarser than any machine's rounding, so ties fall the same way
Vectors = NDArray[np.float64]
Labels = NDArray[np.int64]


def voices_in_noise(
    vectors: Vectors,
    seconds: NDArray[np.float64],
    noisy: NDArray[np.bool_],
    apart: float,
    alike: float,
    alike_in_noise: float,
    shortest: float,
) -> Labels:
    """The same as `voices`, where noise is heard in some of the vectors.

    Such vectors are near to each other whoever speaks, and far from those of the same voice without noise. So they are
    clustered by themselves, and a cluster of them is the voice without noise whose mean has the highest cosine, if that
    is `alike_in_noise`; or else another one. With less than `shortest` seconds without noise, all are clustered
    together; with less than that in noise, each vector is the nearest voice.
    """
    clean = ~noisy
    if not noisy.any() or seconds[clean].sum() < shortest:
        return voices(vectors, seconds, apart, alike, shortest)
    found = np.zeros(len(vectors), np.int64)
    found[clean] = voices(vectors[clean], seconds[clean], apart, alike, shortest)
    known, _ = centroids(vectors[clean], found[clean])
    if seconds[noisy].sum() >= shortest:
        parts, least = _large_clusters(vectors[noisy], seconds[noisy], apart, shortest), alike_in_noise
    else:
        parts, least = np.arange(noisy.sum()), -1.0
    means, sizes = centroids(vectors[noisy], parts)
    cosines = _cosines(unit(means), unit(known))
    others = len(known) + alikes(means, sizes, alike)
    found[noisy] = np.where(cosines.max(axis=1) >= least, np.argmax(cosines, axis=1), others)[parts]
    return numbered(found)


def voices(vectors: Vectors, seconds: NDArray[np.float64], apart: float, alike: float, shortest: float) -> Labels:
    """The voice of each unit vector, which stands for so many seconds of speech; numbered by first appearance.

    The mean of the recording, which is what room, microphone and noise add to all vectors, is taken off, and they are
    clustered to the distance `apart`. This tells voices apart, but makes several of one where there is no other: so the
    clusters are compared as they were, mean and all, and those whose means have a cosine of `alike` are one voice.
    Clusters of less than `shortest` seconds are none; their vectors go to the nearest.
    """
    if not len(vectors):
        return np.zeros(0, np.int64)
    found = _large_clusters(vectors, seconds, apart, shortest)
    means, sizes = centroids(vectors, found)
    return numbered(alikes(means, sizes, alike)[found])


def _large_clusters(vectors: Vectors, seconds: NDArray[np.float64], apart: float, shortest: float) -> Labels:
    """The cluster of each unit vector, once the mean is taken off; those of less than `shortest` seconds go to the
    nearest other. All are one where none is that large."""
    left = unit(vectors - vectors.mean(axis=0))
    found = clusters(left, apart)
    large = np.flatnonzero(np.bincount(found, seconds) >= shortest)
    if not len(large):
        return np.zeros(len(vectors), np.int64)
    large = _largest(large, np.bincount(found))
    means = unit(centroids(left, found)[0][large])
    blocks = (left[at : at + BLOCK] for at in range(0, len(left), BLOCK))
    nearest = np.concatenate([np.argmax(_cosines(block, means), axis=1) for block in blocks])
    return np.where(np.isin(found, large), np.searchsorted(large, found), nearest)


def alikes(means: Vectors, sizes: NDArray[np.float64], threshold: float) -> Labels:
    """The part of each cluster, given the mean and number of its vectors, after joining the two whose means have the
    highest cosine, again and again, while that is `threshold` or more. Ties go to the first."""
    sums, labels = means * sizes[:, None], np.arange(len(means))
    cosines = _cosines(unit(means), unit(means))
    np.fill_diagonal(cosines, -np.inf)
    while len(means) > 1:
        first, second = sorted(int(at) for at in np.unravel_index(np.argmax(cosines), cosines.shape))
        if cosines[first, second] < threshold:
            break
        labels[labels == second] = first
        sums[first] += sums[second]
        row = _cosines(unit(sums), unit(sums[first : first + 1]))[:, 0]
        row[np.isneginf(cosines[first])] = -np.inf
        row[[first, second]] = -np.inf
        cosines[first], cosines[:, first] = row, row
        cosines[second], cosines[:, second] = -np.inf, -np.inf
    return labels


def clusters(vectors: Vectors, threshold: float) -> Labels:
    """The cluster of each unit vector, in blocks of BLOCK whose clusters are clustered then, the BLOCK largest of them:
    others stay as they are."""
    labels = np.zeros(len(vectors), np.int64)
    count = 0
    for at in range(0, len(vectors), BLOCK):
        block = vectors[at : at + BLOCK]
        labels[at : at + BLOCK] = count + average_linkage(block, np.ones(len(block)), threshold)
        count = int(labels[at : at + BLOCK].max()) + 1
    if len(vectors) <= BLOCK:
        return labels
    means, sizes = centroids(vectors, labels)
    largest = _largest(np.arange(len(sizes)), sizes)
    joined = np.arange(len(sizes))
    joined[largest] = largest[_first(average_linkage(means[largest], sizes[largest], threshold))]
    return numbered(joined[labels])


def average_linkage(means: Vectors, sizes: NDArray[np.float64], threshold: float) -> Labels:
    """The cluster of each item, numbered by first appearance: none nearer than `threshold` to another in the mean of
    1 - cosine over their members. An item is a unit vector of size 1, or the mean and number of several.

    Nearest-neighbour chains (Murtagh 1983): the same clusters as joining the nearest pair again and again, in O(n^2)
    time and one matrix of n^2 numbers. Ties go to the item on the chain, then to the first.
    """
    n = len(means)
    distances = 1 - _cosines(means, means)
    np.fill_diagonal(distances, np.inf)
    weight, alive, parent = sizes.astype(np.float64), np.ones(n, bool), np.arange(n)
    chain: list[int] = []
    for _ in range(n - 1):
        chain = chain or [int(np.argmax(alive))]
        while True:
            last = chain[-1]
            near = int(np.argmin(distances[last]))
            if len(chain) > 1 and distances[last, chain[-2]] <= distances[last, near]:
                near = chain[-2]
                break
            chain.append(near)
        del chain[-2:]
        first, second = min(last, near), max(last, near)
        if distances[first, second] < threshold:
            parent[second] = first
        joined = weight[first] + weight[second]
        row = (weight[first] * distances[first] + weight[second] * distances[second]) / joined
        row[first] = np.inf
        distances[first], distances[:, first] = row, row
        distances[second], distances[:, second] = np.inf, np.inf
        weight[first], alive[second] = joined, False
    for item in range(n):  # parents come before their children
        parent[item] = parent[parent[item]]
    return numbered(parent)


def centroids(vectors: Vectors, labels: Labels) -> tuple[Vectors, NDArray[np.float64]]:
    """The mean, not of unit length, and the number of the vectors of each label."""
    sizes = np.bincount(labels).astype(np.float64)
    sums = np.zeros((len(sizes), vectors.shape[1]))
    np.add.at(sums, labels, vectors)
    return sums / np.maximum(sizes, 1)[:, None], sizes


def unit(vectors: Vectors) -> Vectors:
    """Each scaled to length 1; those of length 0 stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1))


def numbered(labels: Labels) -> Labels:
    """The same partition, its parts numbered by first appearance."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[inverse])


def _cosines(these: Vectors, those: Vectors) -> Vectors:
    return np.asarray(np.round(these @ those.T, DECIMALS))


def _largest(these: Labels, sizes: NDArray[np.number]) -> Labels:
    """The BLOCK of them with the largest sizes, in order; of equal ones the first."""
    return np.sort(these[np.argsort(-sizes[these], kind="stable")[:BLOCK]])


def _first(labels: Labels) -> Labels:
    """The place of the first item of each item's part."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.asarray(first[inverse])
