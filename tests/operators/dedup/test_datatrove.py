from __future__ import annotations

import functools
import hashlib
import itertools
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from operators.dedup.datatrove import (
    LANES,
    MERSENNE,
    PUNCTUATION,
    YOUNG_DIGITS,
    Family,
    family,
    minima,
    normal_form,
    shingle_sets,
    sign,
    tables,
)
from operators.dedup.minhash import MinHashDedup
from operators.dedup.signature import hash_bands
from operators.dedup.words import buffers, frozen
from operators.phases import run_in_memory
from tests.operators.dedup.rows import SAMPLE, Repartitioned, documents, dropped, fates, word

BLOCK = 4096
GUARD = 0xAA


@functools.cache
def peer() -> dict[str, NDArray[Any]]:
    """What datatrove gave, by tests/peers/datatrove_minhash.py."""
    with np.load(Path(__file__).parents[2] / "data" / "peers" / "datatrove_minhash.npz") as file:
        return dict(file)


@functools.cache
def sample_signatures() -> NDArray[np.uint64]:
    signatures, counts = sign(pq.read_table(SAMPLE, columns=["text"])["text"], family(1, 112), 5)
    assert counts.all()
    return signatures


def normal_words(text: str) -> list[str]:
    """The words of the kernel's normal form; fails if it writes past the places that it says it needs."""
    data, offsets = buffers(pa.array([text], pa.large_string()))
    size = len(text.encode())
    out = np.full(3 * size + 4 + 64, GUARD, np.uint8)
    starts = np.full(size // 2 + 3 + 64, GUARD, np.uint64)
    words = int(normal_form(data, offsets[0], offsets[1], tables(), out, starts))
    assert (out[3 * size + 4 :] == GUARD).all()
    assert (starts[size // 2 + 3 :] == GUARD).all()
    places = starts[: words + 1].tolist()
    normal = bytes(out[: places[-1] - 1]) if words else b""
    found = [normal[a : b - 1].decode() for a, b in itertools.pairwise(places)]
    assert " ".join(found).encode() == normal  # one space between, so that shingles are stretches of it
    return found


def is_digit(char: str) -> bool:
    return unicodedata.category(char) == "Nd" or any(first <= ord(char) < first + 10 for first in YOUNG_DIGITS)


def described_words(text: str) -> list[str]:
    """The steps that datatrove's documentation names, one after the other, and then str.split."""
    kinds = "".join("D" if is_digit(c) else "S" if c in ".,،٫⎖⎗⎘" else "x" for c in text.lower())
    lower, at, numbered = text.lower(), 0, []
    for number in re.finditer("D+(?:SD+)?", kinds):
        numbered += [lower[at : number.start()], "0"]
        at = number.end()
    plain = "".join([*numbered, lower[at:]])
    spaced = "".join(" " if c in PUNCTUATION or c.isspace() else c for c in plain)
    return "".join(c for c in unicodedata.normalize("NFD", spaced) if unicodedata.category(c) != "Mn").split()


def described_shingles(words: Sequence[str], length: int) -> set[int]:
    runs = [" ".join(words[k : k + length]) for k in range(len(words) - length + 1)]
    return {xxhash.xxh64_intdigest(run.encode()) for run in runs}


def described_signature(x: set[int], seed: int, permutations: int) -> list[int] | None:
    if not x:
        return None
    random = np.random.RandomState(seed)
    a = random.randint(1, 2**61 - 1, dtype=np.uint64, size=permutations).tolist()
    b = random.randint(0, 2**61 - 1, dtype=np.uint64, size=permutations).tolist()
    return [min((p * v + q) % 2**64 % (2**61 - 1) for v in x) for p, q in zip(a, b, strict=True)]


def test_the_signature_of_every_row_of_the_sample_is_datatroves() -> None:
    digests = [hashlib.blake2b(s.astype("<u8").tobytes(), digest_size=8).digest() for s in sample_signatures()]
    assert np.array_equal(np.frombuffer(b"".join(digests), "<u8"), peer()["split"])


def test_signatures_in_full() -> None:
    rows = peer()["rows"]
    assert len(rows) > 15
    assert np.array_equal(sample_signatures()[rows], peer()["signatures"])


def test_with_the_words_of_spacy_nine_signatures_in_ten_are_the_same() -> None:
    assert 0.89 < np.mean(peer()["split"] == peer()["spacy"]) < 0.92


@pytest.mark.skipif(peer()["unicode"] != unicodedata.unidata_version, reason="made with another Unicode")
def test_every_character_becomes_what_datatrove_makes_of_it() -> None:
    digests = []
    for first in range(0, 0x110000, BLOCK):
        block = [chr(k) for k in range(first, first + BLOCK) if not 0xD800 <= k < 0xE000]
        words = normal_words("\n".join(f"a{c}b 1{c}2\n{c}Σ\nΑ{c}Σ\nΑΣ{c}" for c in block))
        digests.append(hashlib.blake2b(" ".join(words).encode(), digest_size=8).digest())
    assert np.flatnonzero(np.frombuffer(b"".join(digests), "<u8") != peer()["characters"]).tolist() == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ""),
        (" \n\t", ""),
        ("Hello, World!", "hello world"),
        ("don't e-mail", "don t e mail"),
        ("Crème brûlée İstanbul", "creme brulee istanbul"),
        ("12 1.5 1,234.5 v2 1. 5", "0 0 0 0 v0 0 0"),
        ("1.2.3", "0 0"),
        ("1..2 .5", "0 0 0"),
        ("٣٫٥ 3،4 3، 4", "0 0 0، 0"),  # the Arabic comma is no punctuation of its list
        ("１２ 1\u03082", "0 00"),  # a mark between digits makes two numbers of one word
        ("ΟΔΟΣ ΣΑΣ ΣΣ Σ", "οδος σας σς σ"),
        ("ΑΣ' ΑΣ'Α Α'Σ 'Σ", "ας ασ α α ς σ"),
        ("a\u0308b \u0308 c", "ab c"),
        ("≠ ; \u037e", "= ;"),  # punctuation goes before decomposition
        ("한국", "\u1112\u1161\u11ab\u1100\u116e\u11a8"),
        ("日本語。中文，", "日本語 中文"),
        ("a\u302e\u0301\U00016ff0 b", "a\U00016ff0\u302e b"),
        ("a\u302e\u0900\U00016ff0", "a\u302e\U00016ff0"),  # a mark of class 0 ends the run
        ("\U0001d15e\u1b44", "\U0001d157\u1b44\U0001d165"),
        ("a\x00b\x85c\xadd 😀", "a b c\xadd 😀"),
    ],
)
def test_normal_form(text: str, words: str) -> None:
    assert described_words(text) == words.split()
    assert normal_words(text) == words.split()


SPECIAL = [
    *"Σσςa'’ʰ:.ΑİIß ()\"；．１",
    *"0٣९𝟘\U00010d41\U00011f52.,،٫⎖",
    *"\t\n\x0b\x1c\x7f\x85\xa0\u2000\u2003\u2028\u3000\ufeff\u200b\xad",
    *"\u0301\u0327\u0334\u0345\u0344\u0900\u0f73\u0f76\u20dd\u1b44\u302e\u302f\U00016ff0\U0001d165\U0001d16d",
    *"\U0001d15e\U0001d1bfȺ각가ොෝ\u0ccb\u1b3b;\u037e≮≠`\u1fefÅ\u212bế豈\U0002f800",
]
texts = st.text(st.one_of(st.sampled_from(SPECIAL), st.characters(exclude_categories=["Cs"])), max_size=40)


@given(texts)
@settings(max_examples=300, deadline=None)
def test_any_text_becomes_what_is_described(text: str) -> None:
    assert normal_words(text) == described_words(text)


@given(st.text(st.sampled_from(SPECIAL), max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_of_characters_with_rules_of_their_own(text: str) -> None:
    assert normal_words(text) == described_words(text)


@given(st.lists(texts, max_size=6), st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_signature_is_what_is_described(many: list[str], seed: int, permutations: int, shingle: int) -> None:
    signatures, counts = sign(pa.array(many, pa.string()), family(seed, permutations), shingle)
    for text, signature, count in zip(many, signatures, counts, strict=True):
        expected = described_signature(described_shingles(described_words(text), shingle), seed, permutations)
        assert (signature[:permutations].tolist() if count else None) == expected


@given(st.lists(st.one_of(texts, st.text("ab ")), max_size=6), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_shingle_sets(many: list[str], length: int) -> None:
    found = shingle_sets(pa.array(many, pa.string()), length).to_pylist()
    assert found == [sorted(described_shingles(described_words(text), length)) for text in many]


@pytest.mark.parametrize("near", [0, int(MERSENNE), 2 * int(MERSENNE), 8 * int(MERSENNE), 2**64])
def test_minima_around_multiples_of_the_prime(near: int) -> None:
    """All hashes there are, where the remainder jumps: one at a time, and two in every order."""
    values = [v for v in range(near - 10, near + 10) if 0 <= v < 2**64]
    hashes = Family(frozen(np.ones(LANES, np.uint64)), frozen(np.zeros(LANES, np.uint64)))
    out = np.zeros(LANES, np.uint64)
    for found in [*itertools.product(values, values), *([v] for v in values)]:
        minima(np.array(found, np.uint64), len(found), hashes, out)
        assert out.tolist() == [min(v % int(MERSENNE) for v in found)] * LANES


@pytest.mark.parametrize(("text", "count"), [("one two three four", 0), ("one two three four five", 1), (None, 0)])
def test_how_many_shingles(text: str | None, count: int) -> None:
    _, counts = sign(pa.array([text], pa.string()), family(1, 8), 5)
    assert counts.tolist() == [count]


@given(st.lists(st.one_of(st.none(), texts), max_size=8), st.integers(0, 8), st.integers(0, 8))
@settings(max_examples=40, deadline=None)
def test_slices_give_slices(many: list[str | None], start: int, length: int) -> None:
    hashes = family(1, 12)
    for dtype in (pa.string(), pa.large_string()):
        column = pa.array(many, dtype)
        whole, counts = sign(column, hashes, 2)
        part, part_counts = sign(column.slice(start, length), hashes, 2)
        signed = part_counts > 0
        assert np.array_equal(part_counts, counts[start : start + length])
        assert np.array_equal(part[signed], whole[start : start + length][signed])
        chunked, _ = sign(pa.chunked_array([column.slice(0, start), column.slice(start)]), hashes, 2)
        assert np.array_equal(chunked[counts > 0], whole[counts > 0])


def test_runs_of_marks_and_sigmas_take_linear_time() -> None:
    """A sort by insertion, or a look at all that is around each sigma, would take hours here."""
    many = 500_000
    assert normal_words("a" + "\u302e\U00016ff0" * many) == ["a" + "\U00016ff0" * many + "\u302e" * many]
    assert normal_words("Α" + "'Σ" * many + "'" * many) == ["α", *["σ"] * (many - 1), "ς"]
    assert normal_words("1." * many) == ["0"] * (many // 2)
    assert normal_words("각" * many) == ["\u1100\u1161\u11a8" * many]


def test_bands_of_64_bit_values_differ_where_these_do() -> None:
    signatures = sample_signatures()[:50]
    hashes = hash_bands(signatures, 14, 8)
    flipped = signatures.copy()
    flipped[:, ::8] ^= np.uint64(1 << 60)
    assert not (hash_bands(flipped, 14, 8) == hashes).any()
    assert len(set(hashes.ravel().tolist())) > 600


@pytest.mark.parametrize(
    ("rows", "gone"),
    [
        (["Ten green bottles hang on the wall.", "ten GREEN bottles, hang on: the wall"], {"r0": "r1"}),
        (["sales were 300 in all we say", "sales were 4,100 in all we say"], {"r0": "r1"}),  # the longer stays
        (["one two three four", "one two three four"], {}),
        (["one two three four five", "one two three four five six seven eight nine"], {}),
        (["吾輩は猫である。名前はまだ無い。"] * 2, {}),  # two words
        ([None, None, "", ""], {}),
    ],
)
def test_what_goes(rows: list[str | None], gone: dict[str, str]) -> None:
    found = dropped(MinHashDedup(mode="datatrove"), [{"text": text} for text in rows])
    assert found == {i: ("duplicate", kept) for i, kept in gone.items()}


@given(
    st.lists(st.text("ab ", max_size=14), min_size=1, max_size=9),
    st.integers(0, 9),
    st.integers(1, 3),
    st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_clusters_are_linked_by_equal_buckets(many: list[str], seed: int, bands: int, rows: int) -> None:
    operator = MinHashDedup(mode="datatrove", bands=bands, rows=rows, shingle=2, seed=seed)
    cluster = {f"r{k}": f"r{k}" for k in range(len(many))}
    holder: dict[tuple[int, ...], str] = {}
    for k, text in enumerate(many):
        signature = described_signature(described_shingles(described_words(text), 2), seed, bands * rows) or []
        for band in range(0, len(signature), rows):
            bucket = (band, *signature[band : band + rows])
            a, b = cluster[f"r{k}"], cluster[holder.setdefault(bucket, f"r{k}")]
            cluster = {i: min(a, b) if c in (a, b) else c for i, c in cluster.items()}
    expected = {i: c for i, c in cluster.items() if list(cluster.values()).count(c) > 1}
    units = [documents([{"id": f"r{k}", "text": text}]) for k, text in enumerate(many)]
    assert {i: c for i, _, _, c, _ in fates(Repartitioned(operator, (3, 1, 5)), units)} == expected


def test_modes_are_not_alike() -> None:
    rows = [{"text": "sales were 300 in all we say"}, {"text": "sales were 4,100 in all we say"}]
    assert dropped(MinHashDedup(), rows) == {}


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"seed": 2**32}, "seed: 4294967296"), ({"char_shingle": 5}, "char_shingle: 5"), ({"mode": "nemo"}, "nemo")],
)
def test_bad_parameters_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        MinHashDedup(**{"mode": "datatrove", **fields})


def test_verification_compares_its_own_shingles() -> None:
    """Where each mode counts digits in its own way."""
    words = [f"{word(k)} {k * k}.{k}" for k in range(60)]
    pair = [" ".join(words), " ".join([*words[:-6], "and no more"])]
    one, other = (described_shingles(described_words(text), 5) for text in pair)
    similarity = len(one & other) / len(one | other)
    assert 0.8 < similarity < 0.95
    units = [documents([{"id": f"r{k}", "text": text}]) for k, text in enumerate(pair)]
    for verify, error in (("exact", 1e-6), ("estimated", 0.1)):
        operator = MinHashDedup(mode="datatrove", verify=verify, bands=60, rows=3)
        (found,) = [row for row in run_in_memory(operator, units).to_pylist() if row["drop_reason"]]
        assert found["drop_value"] == pytest.approx(similarity, abs=error)
