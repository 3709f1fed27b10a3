from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pydantic
import pytest
from datasketch import MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.dedup.minhash import MinHashDedup
from operators.dedup.signature import family, sign
from operators.phases import VERDICT, Fold, Phase, run_in_memory
from tests.operators.dedup.rows import Repartitioned, documents, dropped, fates, sample_texts, word
from tests.operators.dedup.test_signature import edited, jaccard, shingles

STORY = " ".join(word(k) for k in range(80))
FAR = " ".join(word(k) for k in range(500, 550))


def test_recall_and_precision_against_exact_jaccard() -> None:
    """Real texts and edited copies: (nearly) every pair above the curve's knee meets, and hardly any below it."""
    texts = [t for t in sample_texts("en", 120) if len(t.split()) > 40][:80]
    rows = [{"id": f"{k:03}", "text": t} for k, t in enumerate(texts)]
    for every in (8, 25, 60, 150):
        rows += [{"id": f"{k:03}/{every}", "text": edited(t, every)} for k, t in enumerate(texts)]
    cluster = {i: c for i, _, _, c, _ in fates(MinHashDedup(), [documents(rows)])}
    sets = [(row["id"], shingles(row["text"])) for row in rows]
    near, far = [], []
    for k, (a, of_a) in enumerate(sets):
        for b, of_b in sets[:k]:
            similarity = jaccard(of_a, of_b)
            met = cluster.get(a, a) == cluster.get(b, b)
            if similarity >= 0.8:
                near.append(met)
            elif 0 < similarity < 0.3:
                far.append(met)
    assert len(near) > 100
    assert np.mean(near) > 0.98
    assert len(far) > 1000
    assert not any(far)


@pytest.mark.parametrize(
    ("rows", "gone"),
    [
        ([{"text": STORY}, {"text": STORY.upper() + "!"}], {"r0": "r1"}),  # the longer stays
        ([{"text": STORY}, {"text": STORY}], {"r1": "r0"}),  # the smaller id
        ([{"text": STORY}, {"text": STORY, "priority": 1}], {"r0": "r1"}),
        ([{"text": STORY, "priority": 1}, {"text": STORY + " more", "priority": 0}], {"r1": "r0"}),
        ([{"text": STORY}, {"text": " ".join(reversed(STORY.split()))}], {}),
        ([{"text": "too short"}, {"text": "too short"}], {}),  # exact deduplication's work
        ([{"text": "one two three four five"}] * 2, {"r1": "r0"}),  # one shingle
        ([{"text": "2019 sales were 300 more"}, {"text": "2020 sales were 410 more"}], {"r1": "r0"}),  # digits
        ([{"text": ""}, {"text": ""}, {"text": None}, {"text": None}], {}),
        ([{"text": "吾輩は猫である。名前はまだ無い。"}, {"text": "吾輩は猫である 名前はまだ\n無い"}], {"r1": "r0"}),
        ([{"text": "吾輩は猫である"}, {"text": "吾輩は猫である"}], {}),  # shorter than eight characters
        ([{"text": "吾輩は猫である。名前はまだ無い。"}, {"text": "どこで生れたか頓と見当がつかぬ。"}], {}),
    ],
)
def test_who_goes(rows: list[dict[str, Any]], gone: dict[str, str]) -> None:
    assert dropped(MinHashDedup(), rows) == {i: ("duplicate", kept) for i, kept in gone.items()}


def test_a_chain_is_one_cluster() -> None:
    """Each text is like the next, the first and the last are not alike."""
    words = [word(k) for k in range(260)]
    rows = [{"id": f"c{k:02}", "text": " ".join(words[k * 8 : k * 8 + 140])} for k in range(16)]
    assert jaccard(shingles(rows[0]["text"]), shingles(rows[-1]["text"])) < 0.1
    found = fates(MinHashDedup(bands=28, rows=4), [documents(rows[8:]), documents(rows[:8])])
    assert {(c, n) for *_, c, n in found} == {("c00", 16)}
    longest = max(rows, key=lambda row: len(row["text"]))["id"]
    assert {(i if not reason else kept) for i, reason, kept, _, _ in found} == {longest}


def test_every_member_has_a_verdict() -> None:
    found = fates(MinHashDedup(), [documents([{"text": STORY}, {"text": STORY}, {"text": FAR}])])
    assert found == [("r0", "", "", "r0", 2), ("r1", "duplicate", "r0", "r0", 2)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bands": 0}, r"(?s)bands.*input_value=0"),
        ({"rows": -1}, r"(?s)rows.*input_value=-1"),
        ({"threshold": 1.0}, r"(?s)threshold.*input_value=1.0"),
        ({"permutations": 256}, "permutations: 256 has no effect without threshold"),
        ({"bands": 450, "rows": 200}, "bands: 450 x rows: 200 exceeds"),
        ({"permutations": 4096, "threshold": 0.8}, r"(?s)permutations.*4096"),
        ({"bands": 20, "threshold": 0.8}, "threshold: 0.8 derives bands and rows"),
        ({"scope": "all"}, r"(?s)scope.*'all'"),
        ({"verify": "on"}, r"(?s)verify.*'on'"),
        ({"min_similarity": 0.8}, "min_similarity: 0.8 has no effect without verify"),
        ({"verify": "exact", "min_similarity": 1.5}, r"(?s)min_similarity.*input_value=1.5"),
        ({"band": 3}, "band"),
    ],
)
def test_bad_parameters(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        MinHashDedup(**fields)


def test_banding_from_a_threshold() -> None:
    assert MinHashDedup().banding == (14, 8)
    for threshold, permutations in ((0.5, 112), (0.8, 112), (0.8, 128)):
        lsh = MinHashLSH(threshold=threshold, num_perm=permutations)
        assert MinHashDedup(threshold=threshold, permutations=permutations).banding == (lsh.b, lsh.r)
    assert MinHashDedup(threshold=0.8).banding == MinHashDedup(threshold=0.8, permutations=112).banding


def test_partitions_grow_with_the_corpus_and_shrink_with_the_memory() -> None:
    def counts(rows: int, memory: int, **fields: Any) -> dict[str, int]:
        phases = MinHashDedup(**fields).phases(rows, memory)
        return {phase.name: phase.partitions_in(memory) for phase in phases if isinstance(phase, Phase)}

    assert counts(100_000_000, 2 << 30) == {"bands": 84, "published": 27, "keepers": 48}
    assert counts(100_000_000, 4 << 30) == {"bands": 42, "published": 14, "keepers": 24}
    assert counts(1000, 2 << 30) == {"bands": 1, "published": 1, "keepers": 1}
    verified = {"bands": 84, "pairs": 90, "published": 27, "similar": 18, "keepers": 48}
    assert counts(100_000_000, 2 << 30, verify="estimated") == verified
    assert counts(100_000_000, 2 << 30, verify="exact") == verified | {"pairs": 276}
    for verify in ("off", "exact"):
        [fold] = [p for p in MinHashDedup(verify=verify).phases(10**10, 4 << 30) if isinstance(p, Fold)]
        assert fold.bytes == (2 << 30) + 10**10 // 8


def reference(operator: MinHashDedup, rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The same with a dictionary of bands, and labels spread until nothing changes."""
    bands, width = operator.banding
    texts = pa.array([row["text"] for row in rows], pa.large_string())
    signatures, shingles = sign(texts, family(operator.seed, bands * width), operator.shingle, operator.char_shingle)
    meet: dict[Any, list[int]] = {}
    for k, signature in enumerate(signatures.tolist()):
        for band in range(bands if shingles[k] else 0):
            meet.setdefault((band, *signature[band * width : (band + 1) * width]), []).append(k)
    label, before = list(range(len(rows))), []
    while label != before:
        before = list(label)
        for own in meet.values():
            low = min(label[k] for k in own)
            for k in own:
                label[k] = low
    found = []
    for root in set(label):
        members = [row for row, low in zip(rows, label, strict=True) if low == root]
        best = min(members, key=lambda row: (-(row["priority"] or 0), -len(row["text"]), row["id"]))["id"]
        cluster, size = min(row["id"] for row in members), len(members)
        for i in (row["id"] for row in members if size > 1):
            found.append((i, *(("", "") if i == best else ("duplicate", best)), cluster, size))
    return sorted(found)


def test_no_rows() -> None:
    for units in ([documents([])], [documents([]), documents([{"text": STORY}])]):
        verdict = run_in_memory(Repartitioned(MinHashDedup(), [3, 2, 2, 3]), units)
        assert verdict.schema.equals(VERDICT)
        assert verdict.num_rows == 0


@given(
    st.integers(0, 2**32),
    st.lists(st.integers(0, 40), max_size=5),
    st.permutations(range(6)),
    st.lists(st.integers(1, 5), min_size=4, max_size=4),
)
@settings(max_examples=40, deadline=None)
def test_layout_does_not_matter(seed: int, cuts: list[int], order: list[int], partitions: list[int]) -> None:
    """Random corpora with planted duplicates, cut and partitioned anyhow: always the same verdicts."""
    random = np.random.default_rng(seed)
    stories = [[word(100 * s + k) for k in range(random.integers(3, 40))] for s in range(5)]
    rows = []
    for k in random.permutation(40).tolist():
        words = list(stories[random.integers(5)])
        for at in random.integers(0, len(words), random.integers(0, 3)):
            words[at] = word(1000 + random.integers(4))
        priority = [None, 0, 1, 2][random.integers(4)]
        rows.append({"id": f"d{k}", "text": " ".join(words), "priority": priority})
    table = documents(rows)
    bounds = sorted({0, 40, *cuts})
    units = [table.slice(a, b - a) for a, b in zip(bounds, bounds[1:], strict=False)]
    shuffled = [units[k] for k in order if k < len(units)]
    operator = MinHashDedup(bands=6, rows=3, shingle=2)
    expected = reference(operator, rows)
    assert expected
    assert fates(operator, [table]) == expected
    assert fates(Repartitioned(operator, partitions), shuffled) == expected


@pytest.mark.parametrize("verify", ["off", "estimated", "exact"])
def test_all_alike_and_none_alike(verify: Any) -> None:
    operator = Repartitioned(MinHashDedup(verify=verify), [3, 1, 2])
    same = documents([{"id": f"d{k:03}", "text": STORY} for k in range(300)])
    expected = [("d000", "", "", "d000", 300)]
    expected += [(f"d{k:03}", "duplicate", "d000", "d000", 300) for k in range(1, 300)]
    assert fates(operator, [same.slice(200), same.slice(0, 200)]) == expected
    apart = documents([{"text": " ".join(word(20 * k + i) for i in range(20))} for k in range(300)])
    assert fates(operator, [apart.slice(0, 100), apart.slice(100)]) == []
