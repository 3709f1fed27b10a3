"""N-gram language models in ARPA files, as `corpusmill train perplexity` writes them, held in a hash table.

The file is checked as it is read: counts, numbers, words, and that of every n-gram the context and the n-gram without
its first word are there too, as KenLM (Heafield 2011) wants it. Then the longest n-gram that ends at a token is found
by lengthening one that ended at the token before, and what is missing of the context costs the context's backoff.
A comment in JSON on the first line says how text is cut into tokens; without it there is no way to know.
"""

from __future__ import annotations

import gzip
import io
import zlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from operators.document import Pinned
from operators.text.language_model import find
from operators.text.language_model_tokens import END, FORM, Tokens, decoded, finished, hashes, mixed

END_MARK = b"\\end\\"
MOST_ORDER = 10
MOST_RATIO = 100  # bytes of model a byte of gzip
LEAST_LINE = 4  # bytes of an n-gram
MOST_EXPONENT = 37.0  # of perplexities, which are float32
ONE = np.uint64(1)

_PROBLEMS = {
    1: "is cut off",
    2: "has no number where its probability should be",
    3: "has a probability above 1",
    4: "has no number where its backoff should be",
    5: "has a word that is no 1-gram",
    6: "is there twice",
    7: "has a context that is no n-gram",
    8: "has a suffix that is no n-gram",
    9: "has more or fewer words than its order",
}


class NGrams(NamedTuple):
    """The model as kernels take it. Words are numbered as they stand in the file."""

    words: NDArray[np.uint64]  # hash table from tokens to numbers
    one: NDArray[np.float32]  # log10 p and backoff by number
    longer: NDArray[np.uint64]  # hash table from n-grams to log10 p and backoff
    floats: NDArray[np.float32]  # the same memory, four floats a slot
    unknown: int
    start: int
    stop: int
    order: int


class Evaluator:
    """A loaded model. Raises ValueError for a file that is none, is damaged or was trained on another form of text."""

    def __init__(self, data: bytes) -> None:
        about, sizes, at = _head(data)
        self.tokens: Tokens = about["tokens"]
        self._grams = _read(data, sizes, at)

    @property
    def order(self) -> int:
        return self._grams.order

    def log_probs(self, texts: pa.ChunkedArray | pa.Array) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """log10 of the probability of each text, as the product of those of its lines, and the number of its tokens,
        ends of lines too; 0 and 0 for nulls and texts without a token."""
        found = hashes(texts, self.tokens)
        logs, counts = np.zeros(len(texts)), np.zeros(len(texts), np.int64)
        _score(found.hash, found.offsets, self._grams, logs, counts)
        return logs, counts

    def perplexity(self, texts: pa.ChunkedArray | pa.Array) -> pa.FloatArray:
        """10 ** (-log10 p / tokens) to four digits; null for a text without a token."""
        logs, counts = self.log_probs(texts)
        exponent = np.minimum(-logs / np.maximum(counts, 1), MOST_EXPONENT)
        unit = 10.0 ** (np.floor(exponent) - 3)
        return pa.array(np.rint(10.0**exponent / unit) * unit, pa.float32(), mask=counts == 0)


@dataclass(frozen=True)
class Arpa:
    """A model in a file, checked against its hash when it is loaded."""

    file: Pinned

    def load(self) -> Evaluator:
        """Raises ValueError naming the file and what is wrong with it."""
        data = self.file.read()
        try:
            data = _unpacked(data)  # under the same name: two copies are a lot
            return Evaluator(data)
        except ValueError as error:
            raise ValueError(f"{self.file.path}: it {error}") from None


@dataclass(frozen=True)
class Arpas:
    """Models by language."""

    files: tuple[tuple[str, Pinned], ...]

    def load(self) -> dict[str, Evaluator]:
        """Each file once. Raises ValueError naming the language, the file and what is wrong with it."""
        models: dict[Pinned, Evaluator] = {}
        for language, file in self.files:
            try:
                models[file] = models.get(file) or Arpa(file).load()
            except ValueError as error:
                raise ValueError(f"models.{language}: {error}") from None
        return {language: models[file] for language, file in self.files}


def _unpacked(data: bytes) -> bytes:
    if data[:2] != b"\x1f\x8b":
        return data
    most = len(data) * MOST_RATIO
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            plain = file.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"cannot be decompressed: {error}") from None
    if len(plain) > most:
        raise ValueError(f"is more than {MOST_RATIO} times its compressed size: no model is like that")
    return plain


def _head(data: bytes) -> tuple[dict[str, Any], list[int], int]:
    """(what the first line says, n-grams by order, where the n-grams begin)."""
    if data.startswith(b"mmap lm "):
        raise ValueError("is a binary file of KenLM: only ARPA files can be read")
    head, found, _ = data[: 1 << 16].partition(b"\\1-grams:")
    lines = [line.strip() for line in head.split(b"\n")]
    if not found or b"\\data\\" not in lines:
        raise ValueError("is no ARPA file")
    try:
        about = orjson.loads(lines[0].removeprefix(b"#"))
        mine = about["corpusmill"] == "perplexity" and about["tokens"] in ("words", "characters")
    except (orjson.JSONDecodeError, KeyError, TypeError):
        mine = False
    if not mine:
        raise ValueError("does not say on its first line how to cut tokens: train it by `corpusmill train perplexity`")
    if about.get("form") != FORM:
        raise ValueError(f"was trained on form {about.get('form')} of text, and this is form {FORM}: train it again")
    sizes: list[int] = []
    for line in lines[lines.index(b"\\data\\") + 1 :]:
        if line:
            name, _, size = line.partition(b"=")
            if name != f"ngram {len(sizes) + 1}".encode() or not size.isdigit():
                raise ValueError(f"has {line[:40]!r} where the number of {len(sizes) + 1}-grams should be")
            sizes.append(int(size))
    if not 1 <= len(sizes) <= MOST_ORDER:
        raise ValueError(f"is of order {len(sizes)}; orders 1 to {MOST_ORDER} can be read")
    if sum(sizes) > len(data) // LEAST_LINE:
        raise ValueError(f"is cut off: {len(data)} bytes cannot hold {sum(sizes)} n-grams")
    return about, sizes, len(head)


def _read(data: bytes, sizes: list[int], at: int) -> NGrams:
    end = data.rfind(END_MARK)
    if end < 0 or data[end + len(END_MARK) :].strip():
        raise ValueError("is cut off: it does not end in \\end\\")
    chars = np.frombuffer(data, np.uint8)  # what reads a character may look three bytes ahead: into that mark
    longer = _slots(sum(sizes[1:]))
    one = np.zeros((sizes[0], 2), np.float32)
    grams = NGrams(_slots(sizes[0]), one, longer, longer.view(np.float32), 0, 0, 0, len(sizes))
    for order, size in enumerate(sizes, 1):
        title = f"\\{order}-grams:\n".encode()
        while data[at : at + 1] == b"\n":
            at += 1
        if not data.startswith(title, at):
            raise ValueError(f"has {data[at : at + 20]!r} where {title.decode().strip()} should be")
        at += len(title)
        at, row, problem = _section(chars, at, end, size, order, grams)
        if problem:
            raise ValueError(f"{order}-gram {row + 1} of {size} {_PROBLEMS[problem]}")
    if data[at:end].strip():
        raise ValueError(f"has {data[at : at + 20]!r} where \\end\\ should be")
    numbers = []
    for word in (b"<unk>", b"<s>", b"</s>"):
        numbers.append(_number_of(np.frombuffer(word + bytes(8), np.uint8), len(word), grams.words))
        if numbers[-1] < 0:
            raise ValueError(f"has no {word.decode()}")
    return grams._replace(unknown=numbers[0], start=numbers[1], stop=numbers[2])


def _slots(size: int) -> NDArray[np.uint64]:
    return np.zeros((1 << max(4, (size * 3 // 2).bit_length()), 2), np.uint64)


@njit(inline="always")
def _seed(number: Any) -> Any:
    """The key of an n-gram of one word, to be lengthened to the left."""
    return mixed(np.uint64(0), number + ONE)


@njit(inline="always")
def _longer(key: Any, number: Any) -> Any:
    """The key of the n-gram with one more word before it."""
    h = mixed(key, number + ONE) * np.uint64(0xD6E8FEB86659FD93)
    h ^= h >> np.uint64(29)
    return h if h else ONE


@njit(nogil=True, cache=True)
def _decimal(data: Any, at: Any, stop: Any) -> Any:
    """(value, position after it, whether there is one) of -12.34e-5."""
    negative = data[at] == 45
    at += np.uint64(negative)
    value, scale, digits, point = 0.0, 1.0, 0, False
    while at < stop and digits < 18:
        c = data[at]
        if c == 46 and not point:
            point = True
        elif c >= 48 and c <= 57:
            value = value * 10.0 + (c - 48)
            scale = scale * 10.0 if point else scale
            digits += 1
        else:
            break
        at += ONE
    value /= scale
    good = digits > 0
    if good and at < stop and (data[at] == 101 or data[at] == 69):
        at += ONE
        minus = data[at] == 45
        at += np.uint64(minus or data[at] == 43)
        exponent, begin = 0, at
        while at < stop and data[at] >= 48 and data[at] <= 57 and exponent < 100:
            exponent = exponent * 10 + (data[at] - 48)
            at += ONE
        good = at > begin
        value *= 10.0 ** (-exponent if minus else exponent)
    return (-value if negative else value), at, good


@njit(inline="always")
def _word(data: Any, at: Any, stop: Any) -> Any:
    """(hash, position after it) of the word at `at`, up to white space."""
    h, chars = np.uint64(0), 0
    while at < stop and data[at] > 32:
        code, at = decoded(data, at)
        h = mixed(h, code)
        chars += 1
    return (finished(h, chars) if chars else END), at


@njit(nogil=True, cache=True)
def _number_of(data: Any, size: Any, words: Any) -> Any:
    h, _ = _word(data, np.uint64(0), np.uint64(size))
    at = find(words, h)
    return np.int64(words[at, 1]) if words[at, 0] == h else np.int64(-1)


@njit(nogil=True, cache=True)
def _section(data: Any, begin: Any, end: Any, size: Any, order: Any, grams: Any) -> Any:
    """Read the n-grams of one order; (position after them, row, problem)."""
    words, one, longer, floats = grams.words, grams.one, grams.longer, grams.floats
    at, stop = np.uint64(begin), np.uint64(end)
    numbers = np.zeros(order, np.uint64)
    for row in range(size):
        if at >= stop:
            return at, row, 1
        p, at, good = _decimal(data, at, stop)
        if not good or data[at] != 9:
            return at, row, 2
        if p > 0.0:
            return at, row, 3
        for k in range(order):
            h, at = _word(data, at + ONE, stop)
            parted = data[at] == 32 if k < order - 1 else data[at] == 9 or data[at] == 10
            if h == END or not parted:
                return at, row, 1 if at >= stop else 9
            place = find(words, h)
            if order == 1:
                if words[place, 0] == h:
                    return at, row, 6
                words[place, 0], words[place, 1] = h, np.uint64(row)
            elif words[place, 0] != h:
                return at, row, 5
            numbers[k] = words[place, 1]
        backoff = 0.0
        if data[at] == 9:
            backoff, at, good = _decimal(data, at + ONE, stop)
            if not good or data[at] != 10:
                return at, row, 4
        at += ONE
        if order == 1:
            one[row, 0], one[row, 1] = p, backoff
            continue
        problem = _put(numbers, order, longer, floats, p, backoff)
        if problem:
            return at, row, problem
    return at, 0, 0


@njit(nogil=True, cache=True)
def _put(numbers: Any, order: Any, longer: Any, floats: Any, p: Any, backoff: Any) -> Any:
    """Enter an n-gram; the problem with it, or 0."""
    suffix = key = _seed(numbers[order - 1])
    for k in range(order - 2, -1, -1):
        suffix, key = key, _longer(key, numbers[k])
    if order > 2:
        if longer[find(longer, suffix), 0] != suffix:
            return 8
        context = _seed(numbers[order - 2])
        for k in range(order - 3, -1, -1):
            context = _longer(context, numbers[k])
        if longer[find(longer, context), 0] != context:
            return 7
    place = find(longer, key)
    if longer[place, 0] == key:
        return 6
    longer[place, 0] = key
    floats[place, 2], floats[place, 3] = p, backoff
    return 0


@njit(nogil=True, cache=True)
def _score(found: Any, offsets: Any, grams: Any, logs: Any, counts: Any) -> None:
    words, one, longer, floats, unknown, start, stop, order = grams
    before = np.zeros(order, np.uint64)  # the words before, the nearest first
    backoffs = np.zeros(order, np.float64)  # of the last word, the last two, ..., as far as the model has them
    for d in range(offsets.shape[0] - 1):
        total = 0.0
        fresh = True
        length = 0  # words of context that the model has
        for k in range(offsets[d], offsets[d + 1]):
            if fresh:
                before[0], backoffs[0] = np.uint64(start), one[start, 1]
                length = 1 if order > 1 else 0
            h = found[np.uint64(k)]
            number = np.uint64(stop)
            if h != END:
                at = find(words, h)
                number = words[at, 1] if words[at, 0] == h else np.uint64(unknown)
            fresh = h == END
            p, backoff = one[number, 0], one[number, 1]
            key = _seed(number)
            matched = 0
            while matched < length:
                key = _longer(key, before[matched])
                at = find(longer, key)
                if longer[at, 0] != key:
                    break
                backoffs[matched] = backoff  # in place of one that is not needed any more
                matched += 1
                p, backoff = floats[at, 2], floats[at, 3]
            total += p
            for missing in range(matched, length):
                total += backoffs[missing]
            length = min(matched + 1, order - 1)
            if matched < order - 1:
                backoffs[matched] = backoff
            for place in range(length - 1, 0, -1):
                before[place] = before[place - 1]
            before[0] = number
        logs[d] = total
        counts[d] = offsets[d + 1] - offsets[d]
