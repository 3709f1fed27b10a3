"""fastText's prediction on UTF-8 text in Arrow buffers: what dictionary.cc, fasttext.cc and loss.cc of fastText 0.9 do.

A text is one line: it is cut at ASCII white space and NUL, and the word `</s>` ends it, as the end of the text does.
Features of a word are its own row of the input matrix if the dictionary has it, and the rows of its character n-grams;
then follow the rows of n-grams of words. The mean of all rows goes through the output matrix.

Words repeat, so the sum over a word's rows is kept in a table of the words seen last, where a word is found by hash and
compared by bytes. Sums of floating-point numbers depend on their order, and here that is fixed: the rows of a word, in
doubles, rounded to float32 whether it is kept or not; then, in doubles, the words of the text. So nothing depends on
what else is in the batch, or was found in the table.

Arrays of a NamedTuple are reference-counted each time that they are read (as in text/segment.py), so the functions that
are called for each word take them one by one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from operators.models.fasttext_file import HIERARCHICAL, LONGEST_NGRAM, MOST_COUNT, SOFTMAX, File, require

ZERO, ONE, HALF, LOW = np.uint64(0), np.uint64(1), np.uint64(32), np.uint64(0xFFFFFFFF)
SIX, LAST = np.uint64(6), np.uint64(63)  # a block has 64 bits
BASIS, PRIME = np.uint32(2166136261), np.uint32(16777619)  # FNV-1a
BEGIN_OF_WORD, END_OF_WORD = np.uint8(ord("<")), np.uint8(ord(">"))
PREFIX = np.frombuffer(b"__label__", np.uint8)  # of labels; the one that fastText assumes, as no file says it
END_OF_LINE = np.frombuffer(b"</s>", np.uint8)
END_OF_LINE_HASH = np.uint32(3617362777)
JOIN = np.uint64(116049371)  # joins hashes of words
SPREAD = np.uint64(0x9E3779B97F4A7C15)
MOST_PROBES = 1000  # a table that is half full needs a few dozen, unless somebody chose its keys
CACHE_BYTES = 1 << 21  # of sums that are kept: they should stay in the cache of a core
FOUND = 512  # n-grams that are collected before their rows are added
NONE, LABEL = np.int64(-1), np.int64(-2)
ADDED = 1e-5  # fastText adds it to each probability, before the logarithm
LEAST = 1e-5  # so that this is the smallest: hierarchical softmax does not look at what is below


class Dictionary(NamedTuple):
    """The way from a word or label to its place."""

    words: NDArray[np.uint8]  # one after the other
    bounds: NDArray[np.int64]
    slots: NDArray[np.uint64]  # (hash << 32 | place + 1), 0 where a slot is empty


class Rows(NamedTuple):
    """The way from places and hashes of n-grams to rows."""

    kept: NDArray[np.uint64]  # a bit for each bucket of n-grams: whether it has a row
    before: NDArray[np.uint32]  # bits that are set before each 64 of them; nothing: every bucket has a row
    rows: NDArray[np.float32]  # those of words, then those of n-grams by bucket
    numbers: NDArray[np.int64]  # words, buckets, minn, maxn (0: none within words), longest of words, row of </s>


class Output(NamedTuple):
    """The way from the mean of rows to labels."""

    loss: int
    weights: NDArray[np.float32]  # a row for each label or inner node; the other way round without a tree
    left: NDArray[np.int32]  # children of the nodes of the tree, leaves first; -1 for a leaf
    right: NDArray[np.int32]
    parent: NDArray[np.int32]
    sigmoid: NDArray[np.float32]  # fastText looks it up


def dictionary(file: File) -> Dictionary:
    """Raises ValueError for words that were chosen so that they collide."""
    entries = file.words + [label.encode() for label in file.labels]
    words = np.frombuffer(b"".join(entries), np.uint8)
    bounds = np.concatenate([[0], np.cumsum([len(entry) for entry in entries])]).astype(np.int64)
    slots = np.zeros(1 << (2 * len(entries)).bit_length(), np.uint64)
    require(fill(slots, words, bounds), "too many of its words collide")
    return Dictionary(words, bounds, slots)


def rows(file: File) -> Rows:
    """The input matrix; where n-grams were pruned, those that were kept in the order of their buckets."""
    words, maxn = len(file.words), file.maxn if file.minn <= file.maxn else 0
    kept, before, matrix = np.zeros(1, np.uint64), np.zeros(0, np.uint32), file.input
    if file.kept is not None:
        by_bucket = file.kept[np.argsort(file.kept[:, 0])]
        bucket = by_bucket[:, 0].astype(np.uint64)
        kept = np.zeros(file.bucket // 64 + 1, np.uint64)
        np.bitwise_or.at(kept, bucket >> SIX, ONE << (bucket & LAST))
        before = np.searchsorted(by_bucket[:, 0], np.arange(len(kept)) * 64).astype(np.uint32)
        matrix = np.concatenate([matrix[:words], matrix[words + by_bucket[:, 1]]])
    end = file.words.index(b"</s>") if b"</s>" in file.words else NONE
    numbers = np.array([words, file.bucket, file.minn, maxn, file.word_ngrams, end], np.int64)
    return Rows(kept, before, matrix, numbers)


class Model(NamedTuple):
    dictionary: Dictionary
    rows: Rows
    output: Output


def model(file: File) -> Model:
    """Raises ValueError for a dictionary whose words were chosen so that they collide."""
    return Model(dictionary(file), rows(file), output(file))


def output(file: File) -> Output:
    """Builds the tree of hierarchical softmax as HierarchicalSoftmaxLoss::buildTree does."""
    n, nodes = len(file.labels), 0
    if file.loss == HIERARCHICAL:
        nodes = 2 * n - 1
    left, right, parent = (np.full(nodes, -1, np.int32) for _ in range(3))
    counts = [*file.label_counts.tolist(), *[MOST_COUNT] * (nodes - n)]
    leaf, node = n - 1, n
    for k in range(n, nodes):
        for side in (left, right):
            if leaf >= 0 and counts[leaf] < counts[node]:
                child, leaf = leaf, leaf - 1
            else:
                child, node = node, node + 1
            side[k], parent[child] = child, k
        counts[k] = counts[left[k]] + counts[right[k]]
    weights = file.output if nodes else np.ascontiguousarray(file.output.T)
    sigmoid = (1 / (1 + np.exp(8 - np.arange(513) / 32))).astype(np.float32)
    return Output(file.loss, weights, left, right, parent, sigmoid)


def predict(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], limit: int, wanted: int, model: Model
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(the most probable label of each text's first `limit` characters, its probability); or, if `wanted` is not -1,
    that label and its probability.

    -1 and 0 where the text has no feature, or hierarchical softmax finds nothing likelier than 1e-5.
    """
    a_word = 8 * model.rows.rows.shape[1] if model.rows.numbers[3] else 64
    slots = max(min(CACHE_BYTES // a_word, len(data) // 4), 1)
    mean, features = means(
        frozen(data), frozen(offsets), limit, 1 << slots.bit_length() - 1, model.dictionary, model.rows
    )
    way = model.output
    if way.loss == HIERARCHICAL:
        found, probability = walk_tree(mean, features, wanted, way)
    else:
        found, probability = weigh_all(mean, features, wanted, way)
    return found, probability


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Read-only, as buffers of Arrow are: kernels are compiled once for each kind of array they meet."""
    view = array.view()
    view.flags.writeable = False
    return view


@njit(nogil=True, cache=True)
def fill(slots, words, bounds):  # type: ignore[no-untyped-def]
    """Puts each word where `_find` will look for it; False where words are crowded."""
    last = np.uint64(slots.shape[0] - 1)
    for k in range(bounds.shape[0] - 1):
        h = np.uint64(_hash(BASIS, words, bounds[k], bounds[k + 1]))
        at = _place(h) & last
        probes = 0
        while slots[at] != ZERO:
            at = (at + ONE) & last
            probes += 1
            if probes > MOST_PROBES:
                return False
        slots[at] = (h << HALF) | np.uint64(k + 1)
    return True


@njit(inline="always")
def _hashed(h, byte):  # type: ignore[no-untyped-def]
    """One step of FNV-1a with fastText's quirk, on which its models rest: bytes from 128 on count as negative."""
    return np.uint32((h ^ np.uint32(np.int32(np.int8(byte)))) * PRIME)


@njit(inline="always")
def _hash(h, data, begin, end):  # type: ignore[no-untyped-def]
    for i in range(begin, end):
        h = _hashed(h, data[np.uint64(i)])
    return h


@njit(inline="always")
def _place(key):  # type: ignore[no-untyped-def]
    return (key * SPREAD) >> HALF


@njit(inline="always")
def _same(a, i, b, j, size):  # type: ignore[no-untyped-def]
    """Whether `size` bytes from a[i] and b[j] on are equal."""
    k = 0
    while k < size and a[np.uint64(i + k)] == b[np.uint64(j + k)]:
        k += 1
    return k == size


@njit(inline="always")
def _find(data, begin, size, h, words, bounds, slots):  # type: ignore[no-untyped-def]
    """Place of a word in the dictionary, or NONE. Dictionary::find."""
    last = np.uint64(slots.shape[0] - 1)
    key = np.uint64(h)
    at = _place(key) & last
    while slots[at] != ZERO:
        if slots[at] >> HALF == key:
            k = (slots[at] & LOW) - ONE
            if bounds[k + ONE] - bounds[k] == size and _same(data, begin, words, bounds[k], size):
                return np.int64(k)
        at = (at + ONE) & last
    return NONE


@njit(inline="always")
def _count_bits(x):  # type: ignore[no-untyped-def]
    """Of a 64-bit number; compilers know this way of writing it and take the processor's own."""
    x -= (x >> ONE) & np.uint64(0x5555555555555555)
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (x * np.uint64(0x0101010101010101)) >> np.uint64(56)


@njit(inline="always")
def _remainder(h, divisor, inverse):  # type: ignore[no-untyped-def]
    """h % divisor of 32-bit numbers by multiplications (Lemire, Kaser and Kurz 2019, arXiv:1902.01961)."""
    fraction = inverse * np.uint64(h)
    return (((fraction & LOW) * divisor >> HALF) + (fraction >> HALF) * divisor) >> HALF


@njit(inline="always")
def _add(total, rows, row):  # type: ignore[no-untyped-def]
    for k in range(total.shape[0]):
        total[np.uint64(k)] += rows[row, np.uint64(k)]


@njit(nogil=True, cache=True)
def _clear(total):  # type: ignore[no-untyped-def]
    for k in range(total.shape[0]):  # not total[:] = 0.0, here and below: that takes numba a second to compile
        total[k] = 0.0


@njit(nogil=True, cache=True)
def _store(rows, row, total):  # type: ignore[no-untyped-def]
    for k in range(total.shape[0]):
        rows[row, k] = total[k]


@njit(nogil=True, cache=True)
def _add_ngrams(total, buckets, n, kept, before, rows, first):  # type: ignore[no-untyped-def]
    """Adds the rows of the n-grams that hash to `buckets`, all of which are kept."""
    for k in range(n):
        row = buckets[np.uint64(k)]
        if before.size:
            block, bit = row >> SIX, row & LAST
            row = before[block] + _count_bits(kept[block] & ((ONE << bit) - ONE))
        _add(total, rows, row + np.uint64(first))


@njit(nogil=True, cache=True, error_model="numpy")
def _add_subwords(total, buckets, data, begin, end, kept, before, rows, numbers):  # type: ignore[no-untyped-def] # noqa: PLR0913
    """Adds the rows of the character n-grams of <word>; returns how many. Dictionary::computeSubwords.

    Most n-grams of a pruned model have no row: buckets are collected first, without a branch on whether one is kept,
    which the processor could not foresee.
    """
    first, divisor, minn, maxn, every = numbers[0], np.uint64(numbers[1]), numbers[2], numbers[3], before.size == 0
    inverse = np.uint64(0xFFFFFFFFFFFFFFFF) // divisor + ONE
    size, n = np.int64(0), ZERO
    start = begin - 1  # of an n-gram; before the word stands <, behind it >
    while start < end:
        h = _hashed(BASIS, BEGIN_OF_WORD if start < begin else data[np.uint64(start)])
        at, next_start, chars = start + 1, np.int64(-1), 1
        while True:
            while at < end and data[np.uint64(at)] & 0xC0 == 0x80:
                h = _hashed(h, data[np.uint64(at)])
                at += 1
            if chars == 1:
                next_start = at
            if chars >= minn and (chars > 1 or start >= begin):
                bucket = _remainder(h, divisor, inverse)
                buckets[n] = bucket
                n += ONE if every else (kept[bucket >> SIX] >> (bucket & LAST)) & ONE
            if chars == maxn or at > end:
                break
            h = _hashed(h, data[np.uint64(at)] if at < end else END_OF_WORD)
            at += 1
            chars += 1
        start = next_start
        if n > np.uint64(FOUND - LONGEST_NGRAM):
            _add_ngrams(total, buckets, n, kept, before, rows, first)
            size += np.int64(n)
            n = ZERO
    _add_ngrams(total, buckets, n, kept, before, rows, first)
    return size + np.int64(n)


@njit(nogil=True, cache=True, error_model="numpy")
def _join_words(buckets, m, begun, n, h, kept, before, numbers):  # type: ignore[no-untyped-def]
    """Collects, from `m` on, n-grams of words that end with the text's word number `n`, of hash `h`; returns how many
    there are now. Dictionary::addWordNgrams: hashes are signed there.

    `begun` are the hashes of those that end one word before, in a ring.
    """
    signed, longest = np.uint64(np.int64(np.int32(h))), np.uint64(numbers[4] - 1)
    for k in range(min(n, longest)):
        begun[k] = begun[k] * JOIN + signed
        bucket = begun[k] % np.uint64(numbers[1])
        buckets[m] = bucket
        m += ONE if before.size == 0 else (kept[bucket >> SIX] >> (bucket & LAST)) & ONE
    begun[n % longest] = signed
    return m


@njit(nogil=True, cache=True)
def means(data, offsets, limit, seen, known, source):  # type: ignore[no-untyped-def]
    """(mean of the rows of the features of each text's first `limit` characters, how many features).

    `seen`, a power of two: how many words' sums are kept.
    """
    words, bounds, slots = known
    kept, before, rows, numbers = source
    n_words, subwords, word_ngrams, end_of_line = numbers[0], numbers[3] > 0, numbers[4], numbers[5]
    texts, dim = offsets.shape[0] - 1, rows.shape[1]
    mean, features = np.empty((texts, dim)), np.zeros(texts, np.int64)
    seen_keys, seen_at, seen_sizes = np.zeros(seen, np.uint64), np.empty(seen, np.int64), np.empty(seen, np.int64)
    seen_rows, sums = np.empty(seen, np.int64), np.empty((seen if subwords else 1, dim), np.float32)
    total, line = np.empty(dim), np.empty(dim)
    buckets, joined, begun = np.empty(FOUND, np.uint64), np.empty(FOUND, np.uint64), np.empty(word_ngrams, np.uint64)
    for text in range(texts):
        _clear(line)
        at = offsets[text]
        end = _limited(data, at, offsets[text + 1], limit)
        size, n, m, last = np.int64(0), ZERO, ZERO, False
        while not last:
            begin, at, h = _next_word(data, at, end)
            length = at - begin
            last = length == 0 or (h == END_OF_LINE_HASH and length == 4 and _same(data, begin, END_OF_LINE, 0, 4))
            if last:
                h = END_OF_LINE_HASH
                if end_of_line != NONE:
                    _add(line, rows, np.uint64(end_of_line))
                    size += 1
            else:
                key = (np.uint64(h) << HALF) | np.uint64(length)
                slot = _place(np.uint64(h)) & np.uint64(seen - 1)
                if seen_keys[slot] != key or not _same(data, begin, data, seen_at[slot], length):
                    seen_keys[slot], seen_at[slot] = key, begin
                    place = _find(data, begin, length, h, words, bounds, slots)
                    if place >= n_words or (place == NONE and _is_label(data, begin, length)):
                        seen_sizes[slot] = LABEL
                        continue
                    seen_rows[slot], seen_sizes[slot] = place, np.int64(place != NONE)
                    if subwords:
                        _clear(total)
                        seen_sizes[slot] += _add_subwords(total, buckets, data, begin, at, kept, before, rows, numbers)
                        if place != NONE:
                            _add(total, rows, np.uint64(place))
                        _store(sums, slot, total)
                if seen_sizes[slot] == LABEL:
                    continue
                size += seen_sizes[slot]
                if subwords:
                    _add(line, sums, slot)
                elif seen_sizes[slot]:
                    _add(line, rows, np.uint64(seen_rows[slot]))
            if word_ngrams > 1:
                m = _join_words(joined, m, begun, n, h, kept, before, numbers)
                n += ONE
                if last or m > np.uint64(FOUND - LONGEST_NGRAM):  # many at once: the processor fetches ahead
                    _add_ngrams(line, joined, m, kept, before, rows, n_words)
                    size += np.int64(m)
                    m = ZERO
        features[text] = size
        for k in range(dim):
            mean[text, k] = line[k] / max(size, 1)
    return mean, features


@njit(inline="always")
def _next_word(data, at, end):  # type: ignore[no-untyped-def]
    """(begin, end, hash) of the next word; an empty one where there is none. Dictionary::readWord."""
    while at < end and _is_space(data[np.uint64(at)]):
        at += 1
    begin, h = at, BASIS
    while at < end and not _is_space(data[np.uint64(at)]):
        h = _hashed(h, data[np.uint64(at)])
        at += 1
    return begin, at, h


@njit(inline="always")
def _limited(data, begin, end, limit):  # type: ignore[no-untyped-def]
    """The end of the first `limit` characters."""
    if end - begin <= limit:
        return end
    at, chars = begin, np.int64(0)
    while at < end:
        chars += np.int64(data[np.uint64(at)] & 0xC0 != 0x80)
        if chars > limit:
            break
        at += 1
    return at


@njit(inline="always")
def _is_label(data, begin, length):  # type: ignore[no-untyped-def]
    return length >= PREFIX.size and _same(data, begin, PREFIX, 0, PREFIX.size)


@njit(inline="always")
def _is_space(byte):  # type: ignore[no-untyped-def]
    return byte <= 32 and (byte == 32 or (9 <= byte <= 13) or byte == 0)


@njit(nogil=True, cache=True, error_model="numpy")
def weigh_all(mean, features, wanted, way):  # type: ignore[no-untyped-def]
    """Labels and probabilities by softmax, or by a sigmoid for each label."""
    weights, sigmoid, softmax = way.weights, way.sigmoid, way.loss == SOFTMAX
    texts, (dim, labels) = mean.shape[0], weights.shape
    found, probability = np.full(texts, NONE), np.zeros(texts)
    scores = np.empty(labels)
    for text in range(texts):
        if not features[text]:
            continue
        _clear(scores)
        for k in range(dim):
            for label in range(labels):
                scores[label] += mean[text, k] * weights[k, label]
        if softmax:
            _softmax(scores)
        else:
            _look_up(scores, sigmoid)
        best = wanted
        if wanted == NONE:
            best = 0
            for label in range(labels):
                if scores[label] >= scores[best]:
                    best = label
        found[text] = best
        probability[text] = min(scores[best] + ADDED, 1.0)
    return found, probability


@njit(nogil=True, cache=True, error_model="numpy")
def _softmax(scores):  # type: ignore[no-untyped-def]
    highest, total = -np.inf, 0.0
    for score in scores:
        highest = max(highest, score)
    for k in range(scores.shape[0]):
        scores[k] = np.exp(scores[k] - highest)
        total += scores[k]
    for k in range(scores.shape[0]):
        scores[k] /= total


@njit(nogil=True, cache=True)
def _look_up(scores, sigmoid):  # type: ignore[no-untyped-def]
    """Loss::sigmoid: 0 below -8, 1 above 8, and between them the next lower of 512 steps."""
    for k in range(scores.shape[0]):
        score = scores[k]
        if abs(score) <= 8:
            scores[k] = sigmoid[np.uint64((score + 8) * 32)]
        else:
            scores[k] = 0.0 if score < 0 else 1.0


@njit(nogil=True, cache=True, error_model="numpy")
def walk_tree(mean, features, wanted, way):  # type: ignore[no-untyped-def]
    """Labels and probabilities by hierarchical softmax: the likelier branch first, and the other if it can win. Of two
    that are equal the right one wins, as fastText, which goes left first, takes the later one.
    """
    _, weights, left, right, parent, _ = way
    texts, nodes, dim = mean.shape[0], left.shape[0], mean.shape[1]
    inner = nodes // 2 + 1  # the first one; before it come the leaves, which are labels
    found, probability = np.full(texts, NONE), np.zeros(texts)
    todo, reached = np.empty(nodes, np.int64), np.empty(nodes)
    for text in range(texts):
        if not features[text]:
            continue
        best, highest = NONE, 0.0
        if wanted != NONE:
            best, highest, node = wanted, 1.0, wanted
            while parent[node] >= 0:
                share = _right_share(mean[text], weights, parent[node] - inner, dim)
                highest *= (share if right[parent[node]] == node else 1 - share) + ADDED
                node = parent[node]
            if highest < LEAST:
                best, highest = NONE, 0.0
        else:
            todo[0], reached[0], open_ = nodes - 1, 1.0, 1
            while open_:
                open_ -= 1
                node, p = todo[open_], reached[open_]
                if p < LEAST or p <= highest:
                    continue
                if left[node] < 0:
                    best, highest = node, p
                    continue
                share = _right_share(mean[text], weights, node - inner, dim)
                first = np.int64(share >= 0.5)
                todo[open_ + first], reached[open_ + first] = right[node], p * (share + ADDED)
                todo[open_ + 1 - first], reached[open_ + 1 - first] = left[node], p * (1 - share + ADDED)
                open_ += 2
        found[text], probability[text] = best, min(highest, 1.0)
    return found, probability


@njit(inline="always")
def _right_share(mean, weights, row, dim):  # type: ignore[no-untyped-def]
    score = 0.0
    for k in range(dim):
        score += mean[np.uint64(k)] * weights[np.uint64(row), np.uint64(k)]
    return 1 / (1 + np.exp(-score))
