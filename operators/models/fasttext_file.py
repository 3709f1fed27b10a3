"""Reads the files that fastText writes (`.bin`, and quantised `.ftz`) into numpy arrays, in Python alone.

The format is that of fastText 0.9 (github.com/facebookresearch/fastText, version 12 of the file): arguments,
dictionary, input matrix, output matrix. A matrix is float32, or product-quantised (Jégou et al. 2011; Joulin et al.
2016, arXiv:1612.03651): for each row and each slice of columns one of 256 centroids and, optionally, one of 256 norms
for the row. Quantised matrices are multiplied out once, here.

A file is data: nothing in it is run, every size in it is held against the bytes that are there before anything is
allocated, and what does not fit is a ValueError. So are weights that are no finite numbers and counts from which no
tree can be built: predicting from what this returns can neither fail nor read beyond an array.
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAGIC, VERSION = 793712314, 12
HIERARCHICAL, NEGATIVE, SOFTMAX, ONE_VS_ALL = 1, 2, 3, 4  # loss_name in args.h
SUPERVISED = 3  # model_name in args.h
CENTROIDS = 256
LONGEST_NGRAM = 100  # characters, and words: the time that a text takes is in proportion to it
MOST_COUNT = 10**15  # loss.cc takes it for the count of a node that is not there yet
MOST_BUCKETS = 1 << 28  # of pruned n-grams, of which each takes a bit and a half
LARGEST = 1e18  # of a weight, so that no sum overflows; trained ones are around 1
GROWTH = 64  # a multiplied-out matrix may be so many times the file: a code of one byte stands for 16 floats


class File(NamedTuple):
    """What a supervised model consists of."""

    loss: int
    bucket: int  # n-grams hash to one of so many
    minn: int  # characters of the shortest and the longest n-gram within words; longest 0: none
    maxn: int
    word_ngrams: int  # words of the longest n-gram of words; 1: none
    words: list[bytes]
    labels: list[str]  # with their prefix
    label_counts: NDArray[np.int64]
    kept: NDArray[np.int32] | None  # (bucket, row - words) of the n-grams that pruning left; none: all of them
    input: NDArray[np.float32]  # a row for each word, then for each bucket (or each one kept)
    output: NDArray[np.float32]  # a row for each label


class _Reader:
    """Takes values off the front of bytes; raises ValueError where there are too few left."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def values(self, layout: str) -> tuple[int, ...]:
        layout = "<" + layout
        self._claim(size := struct.calcsize(layout), "the header of a section")
        return struct.unpack_from(layout, self.data, self.at - size)

    def array(self, dtype: str, count: int, what: str) -> NDArray[np.generic]:
        size = count * np.dtype(dtype).itemsize
        self._claim(size, what)
        return np.frombuffer(self.data, dtype, count, self.at - size)

    def word(self) -> bytes:
        end = self.data.find(b"\0", self.at)
        require(end >= 0, "a word of the dictionary does not end")
        word = self.data[self.at : end]
        self.at = end + 1
        return word

    def _claim(self, size: int, what: str) -> None:
        left = len(self.data) - self.at
        require(0 <= size <= left, f"{what} would take {size:,} bytes, {left:,} are left")
        self.at += size


def require(holds: bool, problem: str) -> None:
    if not holds:
        raise ValueError(f"not a fastText model: {problem}")


def parse(data: bytes) -> File:
    """The supervised model in `data`. Raises ValueError, saying what is wrong, for anything else."""
    reader = _Reader(data)
    magic, version = reader.values("ii")
    require(magic == MAGIC, "its first four bytes are others")
    require(version == VERSION, f"version {version} of the format, only {VERSION} is read")
    dim, _, _, _, _, word_ngrams, loss, model, bucket, minn, maxn, _, _ = reader.values("12id")
    require(model == SUPERVISED, "word vectors, no classifier")
    require(loss in (HIERARCHICAL, NEGATIVE, SOFTMAX, ONE_VS_ALL), f"unknown loss {loss}")
    require(dim > 0, f"dimension {dim}")
    require(minn >= 0 and 0 <= maxn <= LONGEST_NGRAM, f"n-grams of {minn} to {maxn} characters")
    require(1 <= word_ngrams <= LONGEST_NGRAM, f"n-grams of {word_ngrams} words")
    hashed = (maxn > 0 and minn <= maxn) or word_ngrams > 1
    require(bucket > 0 if hashed else bucket >= 0, f"{bucket} buckets for n-grams")
    words, labels, counts, kept = _dictionary(reader)
    rows = len(words) + (bucket if hashed else 0)
    if kept is not None:
        require(bucket <= MOST_BUCKETS, f"{bucket:,} buckets for pruned n-grams")
        require(kept.min(initial=0) >= 0 and kept[:, 0].max(initial=-1) < bucket, "an n-gram without a bucket")
        require(all(len(np.unique(column)) == len(kept) for column in kept.T), "an n-gram is there twice")
        rows = len(words) + int(kept[:, 1].max(initial=-1)) + 1

    (quantised,) = reader.values("?")
    require(bool(quantised) or kept is None, "n-grams were pruned and the matrix is not quantised")
    matrix = _quantised(reader, dim) if quantised else _dense(reader, dim)
    require(len(matrix) >= rows, f"{len(matrix):,} rows for {rows:,} words and n-grams")
    (quantised_output,) = reader.values("?")
    output = _quantised(reader, dim) if quantised and quantised_output else _dense(reader, dim)
    require(len(output) == len(labels), f"{len(output):,} rows for {len(labels):,} labels")
    require(reader.at == len(data), f"{len(data) - reader.at:,} bytes follow the last matrix")
    return File(loss, bucket, minn, maxn, word_ngrams, words, labels, counts, kept, matrix, output)


def _dictionary(reader: _Reader) -> tuple[list[bytes], list[str], NDArray[np.int64], NDArray[np.int32] | None]:
    size, n_words, n_labels, _, n_kept = reader.values("iiiqq")
    require(n_words >= 0 and n_labels > 0 and size == n_words + n_labels, f"{n_words} words and {n_labels} labels")
    entries: list[bytes] = []
    counts: list[int] = []
    for k in range(size):
        entries.append(reader.word())
        count, kind = reader.values("qb")
        require(kind == (k >= n_words), "words and labels are mixed")
        counts.append(count)
    require(len(set(entries)) == size, "a word is there twice")
    require(b"</s>" not in entries[n_words:], "the end of a line is a label")
    require(min(counts) >= 0 and sum(counts[n_words:]) < MOST_COUNT, "impossible counts")
    try:
        labels = [label.decode() for label in entries[n_words:]]
    except UnicodeDecodeError as broken:
        raise ValueError(f"not a fastText model: a label is not UTF-8: {broken}") from broken
    kept = None
    if n_kept >= 0:
        kept = reader.array("<i4", 2 * n_kept, "the list of n-grams").reshape(n_kept, 2).astype(np.int32)
    else:
        require(n_kept == -1, f"{n_kept} n-grams")
    return entries[:n_words], labels, np.array(counts[n_words:], np.int64), kept


def _dense(reader: _Reader, dim: int) -> NDArray[np.float32]:
    rows, columns = reader.values("qq")
    require(rows >= 0 and columns == dim, f"a matrix of {rows} rows and {columns} columns, the dimension is {dim}")
    return _checked(reader.array("<f4", rows * columns, "a matrix").reshape(rows, columns).astype(np.float32))


def _quantised(reader: _Reader, dim: int) -> NDArray[np.float32]:
    with_norms, rows, columns, size = reader.values("?qqi")
    require(rows >= 0 and columns == dim, f"a matrix of {rows} rows and {columns} columns, the dimension is {dim}")
    codes = reader.array("u1", size, "a quantised matrix")
    centroids, width = _quantiser(reader, dim)
    slices = math.ceil(dim / width)
    require(size == rows * slices, f"{size:,} codes for {rows:,} rows of {slices}")
    require(rows * columns * 4 <= GROWTH * len(reader.data), f"{rows:,} rows of {columns} out of a file so small")
    codes = codes.reshape(rows, slices)
    matrix = np.empty((rows, columns), np.float32)
    for k in range(slices):
        first, last = k * width, min((k + 1) * width, dim)
        block = centroids[first * CENTROIDS : last * CENTROIDS].reshape(CENTROIDS, last - first)
        matrix[:, first:last] = block[codes[:, k]]
    if with_norms:
        norm_codes = reader.array("u1", rows, "norms of rows")
        norms, _ = _quantiser(reader, 1)
        matrix *= norms[norm_codes][:, None]
    return _checked(matrix)


def _quantiser(reader: _Reader, dim: int) -> tuple[NDArray[np.float32], int]:
    """(centroids: 256 of the first slice, of the second, …; columns of a slice), the last slice may be narrower."""
    stated, slices, width, last = reader.values("4i")
    fits = (
        stated == dim and 0 < width <= dim and slices == math.ceil(dim / width) and last == dim - width * (slices - 1)
    )
    require(fits, f"a quantiser of {stated} columns in {slices} slices of {width}, the last {last}")
    return reader.array("<f4", dim * CENTROIDS, "centroids").astype(np.float32), width


def _checked(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    within = matrix.size == 0 or (matrix.min() >= -LARGEST and matrix.max() <= LARGEST)  # not so if any is NaN
    require(bool(within), "weights that are no numbers, or beyond all measure")
    return matrix
