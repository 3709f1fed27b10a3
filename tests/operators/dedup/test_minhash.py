from __future__ import annotations

from typing import Any

import numpy as np
import pydantic
import pytest
from datasketch import MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.dedup.minhash import MinHashDedup
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
    def counts(rows: int, memory: int) -> dict[str, int]:
        phases = MinHashDedup().phases(rows, memory)
        return {phase.name: phase.partitions_in(memory) for phase in phases if isinstance(phase, Phase)}

    assert counts(100_000_000, 2 << 30) == {"bands": 84, "published": 1, "keepers": 48}
    assert counts(100_000_000, 4 << 30) == {"bands": 42, "published": 1, "keepers": 24}
    assert counts(1000, 2 << 30) == {"bands": 1, "published": 1, "keepers": 1}
    [fold] = [phase for phase in MinHashDedup().phases(10**10, 4 << 30) if isinstance(phase, Fold)]
    assert fold.bytes == (2 << 30) + 10**10 // 8


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
    expected = fates(operator, [table])
    assert expected
    assert fates(Repartitioned(operator, partitions), shuffled) == expected
    by_cluster: dict[str, list[tuple[Any, ...]]] = {}
    for fate in expected:
        by_cluster.setdefault(fate[3], []).append(fate)
    fields = {row["id"]: (-(row["priority"] or 0), -len(row["text"]), row["id"]) for row in rows}
    for cluster, members in by_cluster.items():
        ids = [i for i, *_ in members]
        assert min(ids) == cluster
        assert {size for *_, size in members} == {len(ids)}
        keeper = min(ids, key=fields.__getitem__)
        assert {i: kept for i, _, kept, _, _ in members} == {i: "" if i == keeper else keeper for i in ids}
