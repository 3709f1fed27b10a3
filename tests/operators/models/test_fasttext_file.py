"""No bytes make the reader do anything but return a model that can be predicted with, or raise ValueError."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.models.fasttext import LID_176, Classifier
from operators.models.fasttext_file import GROWTH, parse
from operators.models.fasttext_kernel import BASIS, HALF, PRIME, SPREAD, dictionary
from tests.operators.models.trained import RECIPES, stock, trained

TEXTS = ["the committee will meet", "水 é </s>", ""]
ENTRIES = 92  # where the dictionary begins
HUGE = 2**31 - 1


def matrix_at(data: bytes) -> int:
    """Position of the input matrix."""
    at = ENTRIES
    for _ in range(struct.unpack_from("<i", data, 64)[0]):
        at = data.index(b"\0", at) + 10
    pruned: int = struct.unpack_from("<q", data, 84)[0]
    return at + 8 * max(pruned, 0)


def changed(data: bytes, at: int, layout: str, *values: float) -> bytes:
    out = bytearray(data)
    struct.pack_into("<" + layout, out, at, *values)
    return bytes(out)


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_read_is_what_fasttext_has(name: str) -> None:
    file, model = parse(trained(name)), stock(name)
    assert [word.decode() for word in file.words] == model.get_words()
    assert file.labels == model.get_labels()
    assert file.label_counts.tolist() == model.get_labels(include_freq=True)[1].tolist()
    for row in range(0, len(file.input), 101):
        assert np.allclose(file.input[row], model.get_input_vector(row), rtol=0, atol=1e-6)
    if not model.is_quantized():
        assert (file.output == model.get_output_matrix()).all()


def test_the_packaged_model() -> None:
    file = parse(Path(LID_176.path).read_bytes())
    assert (len(file.words), len(file.labels), file.input.shape[1]) == (7235, 176, 16)
    assert file.kept is not None
    assert file.output.shape == (176, 16)


@pytest.mark.parametrize(
    ("at", "layout", "value", "message"),
    [
        (0, "i", 1, "first four bytes"),
        (4, "i", 11, "version 11"),
        (8, "i", 0, "dimension 0"),
        (8, "i", HUGE, "columns"),
        (28, "i", 0, "n-grams of 0 words"),
        (28, "i", HUGE, "n-grams of 2147483647 words"),
        (32, "i", 5, "loss 5"),
        (36, "i", 2, "word vectors, no classifier"),
        (40, "i", 0, "0 buckets"),
        (40, "i", -1, "-1 buckets"),
        (40, "i", HUGE, "rows for"),
        (44, "i", -1, "n-grams of -1 to 4 characters"),
        (48, "i", HUGE, "n-grams of 2 to 2147483647 characters"),
        (48, "i", -1, "n-grams of 2 to -1 characters"),
        (64, "i", HUGE, "labels"),
        (68, "i", -1, "labels"),
        (72, "i", 0, "labels"),
        (84, "q", -2, "-2 n-grams"),
        (84, "q", 2**62, "list of n-grams"),
    ],
)
def test_headers_that_lie(at: int, layout: str, value: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Classifier(changed(trained("tree"), at, layout, value))


@pytest.mark.parametrize(
    ("name", "at", "layout", "value", "message"),
    [
        ("tree", 1, "q", HUGE, "a matrix would take"),
        ("tree", 1, "q", -1, "a matrix of -1 rows"),
        ("tree", 1, "q", 2**62, "a matrix would take"),
        ("tree", 9, "q", 15, "15 columns, the dimension is 16"),
        ("tree", 0, "B", 1, "a matrix of"),
        ("tree", 17, "f", float("nan"), "no numbers"),
        ("tree", 17, "f", float("inf"), "beyond all measure"),
        ("tree", 17, "f", 1e30, "beyond all measure"),
        ("pruned", 0, "B", 0, "not quantised"),
        ("pruned", 2, "q", 2**40, "codes for"),
        ("pruned", 18, "i", HUGE, "quantised matrix would take"),
        ("pruned", 18, "i", -1, "quantised matrix would take"),
    ],
)
def test_matrices_that_lie(name: str, at: int, layout: str, value: float, message: str) -> None:
    data = trained(name)
    with pytest.raises(ValueError, match=message):
        Classifier(changed(data, matrix_at(data) + at, layout, value))


def test_quantisers_that_lie() -> None:
    data = trained("pruned")
    at = matrix_at(data) + 22 + struct.unpack_from("<i", data, matrix_at(data) + 18)[0]
    assert struct.unpack_from("<4i", data, at) == (16, 8, 2, 2)
    for values in [(HUGE, 8, 2, 2), (16, 8, 0, 2), (16, 8, 2, 1), (16, 7, 2, 2), (16, -8, -2, -2), (16, 1, HUGE, 16)]:
        with pytest.raises(ValueError, match="a quantiser of"):
            Classifier(changed(data, at, "4i", *values))


def test_dictionaries_that_lie() -> None:
    data = trained("words")
    file = parse(data)
    first, label = data.index(file.words[0]), data.index(file.labels[0].encode())
    last = data.index(b"\0", label)
    with pytest.raises(ValueError, match="words and labels are mixed"):
        Classifier(changed(data, last + 9, "b", 0))
    for count in (-1, 2**62):
        with pytest.raises(ValueError, match="impossible counts"):
            Classifier(changed(data, last + 1, "q", count))
    with pytest.raises(ValueError, match="not UTF-8"):
        Classifier(changed(data, label + 9, "B", 0xFF))
    long = next(k for k, word in enumerate(file.words[1:], 1) if len(word) == len(file.words[0]))
    copied = data.index(b"\0" + file.words[long] + b"\0", first) + 1
    with pytest.raises(ValueError, match="a word is there twice"):
        Classifier(data[:copied] + file.words[0] + data[copied + len(file.words[0]) :])


def test_pruned_ngrams_that_lie() -> None:
    data = trained("pruned")
    kept = parse(data).kept
    assert kept is not None
    at = matrix_at(data) - 8 * len(kept)
    assert struct.unpack_from("<2i", data, at) == tuple(kept[0])
    for values, message in [
        ((-1, kept[0, 1]), "without a bucket"),
        ((2000, kept[0, 1]), "without a bucket"),
        ((kept[1, 0], kept[0, 1]), "twice"),
        ((kept[0, 0], kept[1, 1]), "twice"),
        ((kept[0, 0], HUGE), "rows for"),
        ((kept[0, 0], -1), "without a bucket"),
    ]:
        with pytest.raises(ValueError, match=message):
            Classifier(changed(data, at, "2i", *values))
    with pytest.raises(ValueError, match="buckets for pruned"):
        Classifier(changed(data, 40, "i", HUGE))


def test_bytes_too_few_and_too_many() -> None:
    for name in ("tree", "all of it"):
        data = trained(name)
        for size in [*range(0, 200), *range(200, len(data), len(data) // 50), len(data) - 1]:
            with pytest.raises(ValueError, match="not a fastText model"):
                parse(data[:size])
        with pytest.raises(ValueError, match="1 bytes follow"):
            parse(data + b"\0")


def test_words_that_collide_are_refused() -> None:
    """Otherwise each look-up takes as long as the dictionary: fastText's hash is no secret."""
    file = parse(trained("words"))
    digits = np.array([f"{k:06}".encode() for k in range(1_000_000)]).view(np.uint8).reshape(-1, 6)
    h = np.full(len(digits), BASIS)
    for column in digits.T:
        h = (h ^ column) * PRIME
    slot = (h.astype(np.uint64) * SPREAD >> HALF) & np.uint64(4095)
    words = [bytes(word) for word in digits[slot < 8][:1500]]
    assert dictionary(file._replace(words=[bytes(word) for word in digits[:1500]])).slots.size == 4096
    with pytest.raises(ValueError, match="collide"):
        dictionary(file._replace(words=words))


SMALLEST = trained("pruned")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_bytes(data: st.DataObject) -> None:
    """Either a ValueError, or a model that predicts."""
    end = matrix_at(SMALLEST) + 40
    out = bytearray(SMALLEST)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, 100) | st.integers(end - 60, end) | st.integers(0, len(out) - 1))
        out[at] = data.draw(st.sampled_from([0, 1, 2, 127, 128, 255]) | st.integers(0, 255))
    tracemalloc.start()
    try:
        model = Classifier(bytes(out))
    except ValueError:
        return
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 3 * GROWTH * len(out)
    labels, found = model.best(TEXTS)
    assert all(label is None or label in model.labels for label in labels)
    assert ((found >= 0) & (found <= 1)).all()
