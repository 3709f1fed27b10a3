from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash, MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.dedup.signature import Family, as_datasketch, family, hash_bands, shingle_hashes, shingle_sets, sign
from operators.dedup.words import buffers, tables, word_hashes
from tests.operators.dedup.rows import sample_texts, word

FOX = "The quick brown fox jumps over the lazy dog, and 12 other animals watch."


def shingles(text: str, length: int = 5) -> set[int]:
    data, offsets = buffers(pa.array([text]))
    room = len(text.encode()) // 2 + 3
    words, sums, out = np.zeros(room, np.uint64), np.zeros(room, np.uint64), np.zeros(room, np.uint32)
    count, _ = word_hashes(data, offsets[0], offsets[1], tables(), words)
    return {int(h) for h in out[: int(shingle_hashes(words, count, np.uint64(length), sums, out))]}


def jaccard(a: set[int], b: set[int]) -> float:
    return len(a & b) / len(a | b)


def edited(text: str, every: int) -> str:
    """The text with every `every`-th word replaced."""
    return " ".join("x" + word(k) if k % every == 0 else w for k, w in enumerate(text.split()))


def test_golden_values() -> None:
    """Signatures are kept between builds: a change of these values is a new `revision`."""
    signatures, counts = sign(
        pa.array([FOX, "日本語の文書は空白なしで書かれています。", "Crème brûlée"]), family(1, 112), 5, 8
    )
    assert counts.tolist() == [10, 12, 0]
    assert [hex(v) for v in signatures[0, :4]] == ["0x577eff9d", "0x11ed6e9b", "0x174331d9", "0x1cc081b7"]
    assert hashlib.sha256(signatures.astype("<u4").tobytes()).hexdigest()[:16] == "34c8404b199c12b8"
    assert hex(hash_bands(signatures, 14, 8)[1, 13]) == "0x33bffef1743d813b"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("one two three four", 0),
        ("one two three four five", 1),
        ("one two three four five six", 2),
        ("日本語の文書です", 1),  # eight characters
        ("日本語の文書", 0),
        ("日本語の文書です a b", 3),  # 8 of 10 words have no spaces: runs of eight
        ("日本 a b c d e", 3),  # 2 of 7: runs of five
        ("ภาษาไทยสวย", 3),
        ("한국어 문서 는 띄어쓰기 를 한다", 2),
    ],
)
def test_how_many_shingles(text: str, count: int) -> None:
    _, counts = sign(pa.array([text]), family(1, 8), 5, 8)
    assert counts.tolist() == [count]


def test_signature_is_the_minimum_of_each_affine_hash() -> None:
    hashes = family(7, 10)
    assert len(hashes.factor) == 12  # padded
    found, _ = sign(pa.array([FOX]), hashes, 3, 3)
    x = np.array(sorted(shingles(FOX, 3)), np.uint64)
    for value, a, b in zip(found[0], *hashes, strict=True):
        assert a % 2 == 1
        assert value == ((x * np.uint64(a) + np.uint64(b)) & np.uint64(0xFFFFFFFF)).min()


def test_seeds_share_nothing() -> None:
    one, other = family(1, 64), family(2, 64)
    assert not set(one.factor.tolist()) & set(other.factor.tolist())
    assert family(1, 64) is one
    assert np.array_equal(family(1, 32).factor, one.factor[:32])


def test_estimates_agree_with_datasketch() -> None:
    """Same shingles, two independent families of 256: both within the error of 256 ideal hash functions."""
    texts = sample_texts("en", 30)
    pairs = [(t, edited(t, every)) for t in texts for every in (6, 15, 40) if len(t.split()) > 60]
    ours_a, _ = sign(pa.array([a for a, _ in pairs]), family(1, 256), 5, 8)
    ours_b, _ = sign(pa.array([b for _, b in pairs]), family(1, 256), 5, 8)
    exact, estimates, peers = [], (ours_a == ours_b).mean(axis=1), []
    for pair in pairs:
        sets = [shingles(t) for t in pair]
        exact.append(jaccard(*sets))
        sketches = [MinHash(num_perm=256, hashfunc=int) for _ in sets]
        for sketch, found in zip(sketches, sets, strict=True):
            sketch.update_batch(found)
        peers.append(sketches[0].jaccard(sketches[1]))
    truth, peer = np.array(exact), np.array(peers)
    assert len(pairs) > 40
    assert truth.min() < 0.3 < 0.7 < truth.max()
    deviation = np.sqrt(truth * (1 - truth) / 256)
    for estimate in (estimates, peer):
        assert np.abs(estimate - truth).mean() < 0.03
        assert np.abs((estimate - truth).mean()) < 0.012
        assert (np.abs(estimate - truth) < 4.5 * deviation + 1e-9).all()
    assert np.abs(estimates - peer).mean() < 0.04


def test_candidates_follow_the_s_curve() -> None:
    """Bands agree with probability J^rows: over many families, within five standard errors."""
    text = " ".join(word(k) for k in range(400))
    a, b = text, edited(text, 50)
    similarity = jaccard(shingles(a), shingles(b))
    tries, bands, rows = 300, 6, 8
    equal = []
    for seed in range(tries):
        signatures, _ = sign(pa.array([a, b]), family(seed, bands * rows), 5, 8)
        hashes = hash_bands(signatures, bands, rows)
        equal.append(hashes[0] == hashes[1])
    expected = similarity**rows
    assert abs(np.mean(equal) - expected) < 5 * np.sqrt(expected * (1 - expected) / (tries * bands))
    any_band = 1 - (1 - expected) ** bands
    found = np.mean([row.any() for row in equal])
    assert abs(found - any_band) < 5 * np.sqrt(any_band * (1 - any_band) / tries)


@given(
    st.lists(st.one_of(st.none(), st.text("ab cé中1.", max_size=40)), max_size=8), st.integers(0, 8), st.integers(0, 8)
)
@settings(max_examples=60, deadline=None)
def test_slices_give_slices(texts: list[str | None], start: int, length: int) -> None:
    hashes = family(1, 12)
    for dtype in (pa.string(), pa.large_string()):
        column = pa.array(texts, dtype)
        whole, counts = sign(column, hashes, 2, 3)
        part, part_counts = sign(column.slice(start, length), hashes, 2, 3)
        assert np.array_equal(part, whole[start : start + length])
        assert np.array_equal(part_counts, counts[start : start + length])
        chunked, _ = sign(pa.chunked_array([column.slice(0, start), column.slice(start)]), hashes, 2, 3)
        assert np.array_equal(chunked, whole)
        sets = shingle_sets(column, 2, 3).to_pylist()
        assert shingle_sets(column.slice(start, length), 2, 3).to_pylist() == sets[start : start + length]
        assert [len(found) > 0 for found in sets] == (counts > 0).tolist()
        assert all(found == sorted(set(found)) for found in sets)


def test_shingle_sets() -> None:
    texts = [FOX, "", "one two three four", f"{FOX} {FOX}", "日本語の文書は空白なしで書かれています。"]
    found = shingle_sets(pa.array(texts), 5, 8).to_pylist()
    assert found[0] == sorted(shingles(FOX))
    assert found[1:3] == [[], []]
    assert set(found[0]) < set(found[3])
    assert len(found[4]) == 12


def test_signatures_in_datasketch() -> None:
    """They compare, are found by its index, and merge as if they had been made there."""
    hashes = family(3, 112)
    texts = [FOX, edited(FOX, 7), " ".join(word(k) for k in range(40))]
    signatures, _ = sign(pa.array(texts), hashes, 5, 8)
    sketches = [as_datasketch(signature, hashes) for signature in signatures]
    assert sketches[0].jaccard(sketches[1]) == (signatures[0] == signatures[1]).mean() > 0
    lsh = MinHashLSH(num_perm=112, params=(14, 8))
    for k, sketch in enumerate(sketches):
        lsh.insert(k, sketch)
    copy, _ = sign(pa.array([FOX.upper()]), hashes, 5, 8)
    assert lsh.query(as_datasketch(copy[0], hashes)) == [0]
    merged = MinHash.union(*sketches)
    assert np.array_equal(merged.hashvalues, signatures.min(axis=0))
    other, _ = sign(pa.array([FOX]), family(4, 112), 5, 8)
    for stranger in (as_datasketch(other[0], family(4, 112)), MinHash(num_perm=112)):
        with pytest.raises(ValueError, match="seeds"):
            sketches[0].jaccard(stranger)
    odd, _ = sign(pa.array([FOX]), family(3, 10), 5, 8)
    assert as_datasketch(odd[0, :10], family(3, 10)).jaccard(as_datasketch(signatures[0, :10], hashes)) == 1


def test_equal_bands_only_at_equal_places() -> None:
    signatures = np.ones((1, 112), np.uint32)
    assert len(set(hash_bands(signatures, 14, 8)[0].tolist())) == 14
    assert isinstance(family(1, 4), Family)
