from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.dedup import semantic
from operators.dedup.semantic import SemanticDedup
from operators.dedup.stars import greedy_stars
from operators.ordering import lexical
from operators.ordering.vectors import Vectors, on_grid
from operators.phases import MEMORY, VERDICT, Fold, GlobalOperator, Phase, run_in_memory
from tests.operators.dedup.rows import Repartitioned, documents, dropped, fates, sample_texts, word

NAN, INF = float("nan"), float("inf")
STORY = " ".join(word(k) for k in range(80))
FAR = " ".join(word(k) for k in range(500, 550))


def embedded(rows: Sequence[dict[str, Any]], kind: pa.DataType | None = None) -> pa.Table:
    """Documents with a column `e`; their text is their id where none is given."""
    named = [{"id": f"r{k}", "text": row.get("text", f"r{k}"), **row} for k, row in enumerate(rows)]
    table = documents([{name: value for name, value in row.items() if name != "e"} for row in named])
    return table.append_column("e", pa.array([row["e"] for row in named], kind or pa.list_(pa.float64())))


def stars_by_hand(rows: Sequence[dict[str, Any]], vectors: Sequence[Sequence[int]], threshold: float) -> dict[str, Any]:
    """id -> (id that stays, cosine) of what goes, comparing every pair in whole numbers."""
    best_first = sorted(
        (k for k in range(len(rows)) if any(vectors[k])),
        key=lambda k: (-(rows[k].get("priority") or 0), -len(rows[k]["text"] or ""), rows[k]["id"]),
    )
    kept: list[int] = []
    gone = {}

    def product(a: int, b: int) -> int:
        return sum(x * y for x, y in zip(vectors[a], vectors[b], strict=True))

    for k in best_first:
        near = [(product(k, j) / math.sqrt(product(k, k) * product(j, j)), rows[j]["id"]) for j in kept]
        if like := [(-cosine, i) for cosine, i in near if cosine >= threshold]:
            cosine, stays = min(like)
            gone[rows[k]["id"]] = (stays, -cosine)
        else:
            kept.append(k)
    return gone


def gone(operator: SemanticDedup, units: Sequence[pa.Table]) -> dict[str, tuple[str, float]]:
    verdict = run_in_memory(operator, units)
    ids = {(unit << 32) + row: i for unit, t in enumerate(units) for row, i in enumerate(t["id"].to_pylist())}
    return {ids[v["doc"]]: (v["duplicate_of"], v["drop_value"]) for v in verdict.to_pylist() if v["drop_reason"]}


@pytest.mark.parametrize(
    ("rows", "fell"),
    [
        ([{"text": STORY}, {"text": STORY.upper() + "!"}], {"r0": "r1"}),  # the longer stays
        ([{"text": STORY}, {"text": STORY}], {"r1": "r0"}),  # the smaller id
        ([{"text": STORY}, {"text": STORY, "priority": 1}], {"r0": "r1"}),
        ([{"text": STORY}, {"text": " ".join(reversed(STORY.split()))}], {"r1": "r0"}),  # the order does not count
        ([{"text": STORY}, {"text": " ".join([*STORY.split()[1:], word(300)])}, {"text": FAR}], {"r0": "r1"}),
        ([{"text": STORY}, {"text": STORY + " " + FAR}], {}),
        ([{"text": STORY}, {"text": FAR}], {}),
        ([{"text": ""}, {"text": "..."}, {"text": None}, {"text": "\0"}, {"text": "😀"}], {}),
        ([{"text": "吾輩は猫である。"}, {"text": "吾輩は、猫である"}, {"text": "犬も歩けば棒に当たる"}], {"r1": "r0"}),
        ([{"text": STORY}], {}),
        ([{"text": "same"}] * 7, {f"r{k}": "r0" for k in range(1, 7)}),
    ],
)
def test_who_goes(rows: list[dict[str, Any]], fell: dict[str, str]) -> None:
    assert dropped(SemanticDedup(), rows) == {i: ("similar", kept) for i, kept in fell.items()}
    assert dropped(SemanticDedup(clusters=3), rows).keys() <= fell.keys()


@pytest.mark.parametrize(
    ("embeddings", "fell"),
    [
        ([[1, 0], [0, 1]], {}),
        ([[1, 0], [2, 0], [-1, 0]], {"r1": "r0"}),  # lengths do not count
        ([[1e300, 0], [2e-300, 0]], {"r1": "r0"}),
        ([[0, 0], [0, 0]], {}),
        ([[NAN, 1], [NAN, 1], [INF, 1], [INF, 1], [1, -INF]], {}),
        ([None, None, [], [1, None], [1, None]], {}),
        ([[1, 0], [1, 0, 0], [1, 0, 0], [1, 0]], {"r3": "r0"}),  # of two numbers of dimensions, the smaller
        ([[1, 0], [1, 0], [1, 0, 0], [1, 0, 0], [2, 0, 0]], {"r3": "r2", "r4": "r2"}),  # the commoner
        ([None], {}),
        ([[1.0]], {}),
        ([], {}),
    ],
)
def test_own_embeddings(embeddings: list[Any], fell: dict[str, str]) -> None:
    rows = [{"e": e} for e in embeddings]
    for clusters in (1, 2, 50):
        operator = SemanticDedup(column="e", clusters=clusters)
        for units in (
            [embedded(rows)],
            [embedded([]), *(embedded([{"id": f"r{k}", **r}]) for k, r in enumerate(rows))],
        ):
            assert {i: kept for i, (kept, _) in gone(operator, units).items()} == fell


@pytest.mark.parametrize("kind", [pa.list_(pa.float16()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 2)])
def test_columns_of_other_types(kind: pa.DataType) -> None:
    units = [embedded([{"e": [1, 2]}, {"e": None}, {"e": [2, 4]}], kind), embedded([{"id": "s0", "e": [9, 1]}], kind)]
    assert gone(SemanticDedup(column="e"), units) == {"r2": ("r0", 1.0)}
    nulls = documents([{"id": "t0"}]).append_column("e", pa.nulls(1))
    assert gone(SemanticDedup(column="e"), [*units, nulls]) == {"r2": ("r0", 1.0)}


def test_a_column_without_lists_of_numbers_is_named() -> None:
    with pytest.raises(TypeError, match="column 'text' is of type large_string"):
        run_in_memory(SemanticDedup(column="text"), [documents([{"text": "[1, 2]"}])])


def test_a_chain_does_not_fall_together() -> None:
    """Each is like the next one only: every other goes, as what it was like has gone."""
    angles = [0.3 * k for k in range(7)]
    rows = [{"e": [math.cos(a), math.sin(a)], "text": "x" * (50 - k)} for k, a in enumerate(angles)]
    found = gone(SemanticDedup(column="e", threshold=0.95), [embedded(rows)])
    assert {i: kept for i, (kept, _) in found.items()} == {"r1": "r0", "r3": "r2", "r5": "r4"}
    assert [round(value, 3) for _, value in found.values()] == [0.955] * 3


def test_the_most_similar_one_stands_for_it() -> None:
    rows = [[1, 0.25], [1, -0.2], [1, 0.2], [1, 0.0]]
    lengths = [50, 40, 30, 20]
    docs = embedded([{"e": e, "text": "x" * n} for e, n in zip(rows, lengths, strict=True)])
    found = gone(SemanticDedup(column="e", threshold=0.94), [docs])
    assert {i: kept for i, (kept, _) in found.items()} == {"r2": "r0", "r3": "r1"}
    equal = embedded(
        [{"e": [1, s], "id": i, "text": "x" * n} for s, i, n in ((0.3, "b", 9), (-0.3, "a", 8), (0, "c", 7))]
    )
    assert gone(SemanticDedup(column="e", threshold=0.94), [equal])["c"][0] == "a"  # the smaller id, not the better one


def test_the_verdict_tells_why() -> None:
    rows = [{"text": STORY}, {"text": STORY + " more"}, {"text": FAR}]
    verdict = run_in_memory(SemanticDedup(threshold=0.9), [documents(rows)])
    assert verdict.schema.equals(VERDICT)
    fell, stays = verdict.sort_by("doc").to_pylist()
    assert (fell["drop_reason"], fell["duplicate_of"], fell["drop_threshold"]) == ("similar", "r1", 0.9)
    assert 0.97 < fell["drop_value"] < 1
    assert (stays["drop_reason"], stays["drop_value"], stays["drop_threshold"]) == (None, None, None)
    assert {(row["cluster"], row["cluster_size"]) for row in (fell, stays)} == {("r0", 2)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"threshold": 0}, r"(?s)threshold.*input_value=0"),
        ({"threshold": 1.01}, r"(?s)threshold.*input_value=1.01"),
        ({"dimensions": 1000}, r"(?s)dimensions.*input_value=1000"),
        ({"clusters": 0}, r"(?s)clusters.*input_value=0"),
        ({"max_share": 0}, r"(?s)max_share.*input_value=0"),
        ({"max_share": 1}, r"(?s)max_share.*input_value=1"),
        ({"column": "e", "dimensions": 512}, "dimensions: 512 has no effect with column"),
        ({"embedding": "e"}, "embedding"),
    ],
)
def test_bad_parameters(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        SemanticDedup(**fields)


def test_phases_follow_the_corpus() -> None:
    def sizes(operator: SemanticDedup, rows: int) -> dict[str, tuple[int, int]]:
        phases = [phase for phase in operator.phases(rows) if isinstance(phase, Phase)]
        return {phase.name: (phase.bytes, phase.partitions_in(2 << 30)) for phase in phases}

    assert sizes(SemanticDedup(), 1_000_000)["centroids"] == (1000 * 64 * 2048, 1)
    assert sizes(SemanticDedup(), 10**9)["centroids"] == (4096 * 64 * 2048, 1)
    assert sizes(SemanticDedup(), 10**6)["stars"] == (10**6 * 2176, 9)
    assert sizes(SemanticDedup(dimensions=256), 10**6)["stars"] == (10**6 * 640, 3)
    assert sizes(SemanticDedup(column="e"), 10**6)["counts"] == (0, 1)
    assert SemanticDedup(column="e").needs == ("text", "priority", "e")
    assert not SemanticDedup().recalls

    assert "nearest" not in sizes(SemanticDedup(), 10**6)
    calibrated = sizes(SemanticDedup(max_share=0.02), 10**9)
    assert calibrated["sample"] == (2000 * 2176, 1)
    assert calibrated["nearest"] == (2000 * 26 * 10**6, 194)


def threshold_by_hand(vectors: Vectors, least: float, share: float) -> float:
    """The smallest multiple of 0.0001, from `least` to 1, that no more than this share of the vectors reaches."""
    wide = vectors[vectors.any(axis=1)].astype(np.int64)
    squares = (wide * wide).sum(axis=1)
    cosines = wide @ wide.T / np.sqrt(np.outer(squares, squares))
    np.fill_diagonal(cosines, 0)
    nearest = cosines.max(axis=1, initial=0)
    steps = [least, *(step / 10_000 for step in range(math.ceil(least * 10_000), 10_001))]
    return next((t for t in steps if (nearest >= t).sum() <= share * len(nearest)), 1.0)


@given(
    st.integers(0, 2**32),
    st.lists(st.integers(0, 90), max_size=4),
    st.lists(st.integers(1, 4), min_size=4, max_size=4),
    st.sampled_from([0.01, 0.1, 0.3, 0.6, 0.99]),
    st.sampled_from([0.5, 0.9, 0.99]),
    st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_no_more_than_max_share_go(
    seed: int, cuts: list[int], partitions: list[int], share: float, least: float, copies: bool
) -> None:
    """All documents are in the sample: the threshold is that of every pair, however documents are cut and divided."""
    random = np.random.default_rng(seed)
    numbers = random.normal(size=(90, 4))
    if copies:
        numbers[:30] = numbers[60:]
    numbers[5] = 0
    table = embedded([{"e": e} for e in numbers.tolist()])
    bounds = sorted({0, 90, *cuts})
    units = [table.slice(a, b - a) for a, b in zip(bounds, bounds[1:], strict=False)]
    operator = SemanticDedup(column="e", threshold=least, max_share=share)
    found = gone(operator, units)
    expected = threshold_by_hand(on_grid(numbers), least, share)
    used = {v["drop_threshold"] for v in run_in_memory(operator, units).to_pylist() if v["drop_reason"]}
    # nearest similarities are known to 16 bits, and the threshold is above all that they may stand for
    assert used <= {expected, min(round(expected + 0.0001, 4), 1.0)}
    assert found == gone(SemanticDedup(column="e", threshold=max(used, default=1.0)), [table])
    assert fates(Repartitioned(operator, partitions), units) == fates(operator, [table])
    if expected < 1:
        assert len(found) <= share * 89


def outputs_of(operator: SemanticDedup, units: Sequence[pa.Table]) -> pa.Table:
    """What the phase `threshold` finds: it is made the last one."""

    class Calibration(GlobalOperator):
        def phases(self, rows: int, memory: int = MEMORY) -> Sequence[Phase | Fold]:
            return operator.phases(rows, memory)[:-1]

    return run_in_memory(Calibration(), units)


def test_the_summary_states_the_threshold() -> None:
    """A hundred pairs, the k-th at an angle of k hundredths to each other, and far from all others."""
    points = [np.exp(1j * (0.03 * k + a)) for k in range(100) for a in (0, k / 100)]
    rows = [{"e": [*(z.real, z.imag), *np.eye(100)[k // 2].tolist()]} for k, z in enumerate(points)]
    operator = SemanticDedup(column="e", threshold=0.9, max_share=0.1)
    summary = operator.summary(outputs_of(operator, [embedded(rows)]))
    at = {share: round(math.cos(k / 100) / 2 + 0.5, 3) for share, k in ((0.01, 0), (0.1, 9), (0.5, 49))}
    assert summary["sampled"] == 200
    assert {share: round(summary["similar"][str(share)], 3) for share in at} == at
    assert summary["threshold"] == math.ceil((math.cos(0.1) / 2 + 0.5) * 10_000) / 10_000
    assert len(gone(operator, [embedded(rows)])) == 10
    assert operator.summarised == ("threshold",)
    assert SemanticDedup().summarised == ()
    assert SemanticDedup().summary() == {}


@pytest.mark.parametrize("rows", [[], [{"e": None}, {"e": [0, 0]}], [{"e": [1, 0]}]])
def test_nothing_to_calibrate_by(rows: list[dict[str, Any]]) -> None:
    operator = SemanticDedup(column="e", max_share=0.1)
    assert gone(operator, [embedded(rows)]) == {}
    summary = operator.summary(outputs_of(operator, [embedded(rows)]))
    assert summary == {} or summary["similar"]["0.01"] == 0


def test_a_small_sample_is_that_of_all_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic, "SAMPLED", 60)
    random = np.random.default_rng(5)
    table = embedded([{"e": e} for e in random.normal(size=(600, 5)).tolist()])
    units = [table.slice(400), table.slice(0, 1), table.slice(1, 399)]
    operator = SemanticDedup(column="e", threshold=0.5, max_share=0.2)
    found = outputs_of(operator, [table])
    assert 40 < len(found) < 80
    assert found.equals(outputs_of(operator, units))
    assert 0.9 < found["threshold"][0].as_py() < 1
    assert 30 < len(gone(operator, units)) < 120  # of a share of .2 with such a neighbour about half stay


@given(
    st.integers(0, 2**32),
    st.lists(st.integers(0, 60), max_size=5),
    st.permutations(range(6)),
    st.lists(st.integers(1, 5), min_size=3, max_size=3),
    st.sampled_from([None, 1, 2, 5, 100]),
    st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_layout_does_not_matter(
    seed: int, cuts: list[int], order: list[int], partitions: list[int], clusters: int | None, own: bool
) -> None:
    """Random corpora, cut and partitioned anyhow: the same verdicts, and with one cluster those of every pair."""
    random = np.random.default_rng(seed)
    rows = []
    for k in random.permutation(60).tolist():
        text = " ".join(word(j) for j in random.integers(0, 12, random.integers(0, 9)))
        numbers: Any = random.integers(-2, 3, 3 if random.random() < 0.9 else 2).tolist()
        priority = [None, 0, 1][random.integers(3)]
        rows.append(
            {"id": f"d{k}", "text": text, "priority": priority, "e": numbers if random.random() < 0.9 else None}
        )
    table = embedded(rows, pa.list_(pa.float32()))
    bounds = sorted({0, 60, *cuts})
    units = [table.slice(a, b - a) for a, b in zip(bounds, bounds[1:], strict=False)]
    shuffled = [units[k] for k in order if k < len(units)]
    threshold = float(random.choice([0.5, 0.8, 0.95, 1.0]))
    operator = SemanticDedup(column="e" if own else None, clusters=clusters, threshold=threshold)
    expected = fates(operator, [table])
    assert fates(Repartitioned(operator, partitions), shuffled) == expected
    if clusters in (None, 1):
        if own:
            vectors = on_grid(np.array([r["e"] if r["e"] and len(r["e"]) == 3 else [0, 0, 0] for r in rows]))
        else:
            texts = table["text"]
            vectors = lexical.embed(texts, lexical.weights_of(lexical.frequencies(texts)), 1024)
        assert gone(operator, [table]) == stars_by_hand(rows, vectors.tolist(), threshold)


def test_the_sample_does_not_depend_on_the_units() -> None:
    """More documents than the sample takes: the centroids are the same, bit for bit."""
    texts = sample_texts("en", 150)
    table = documents(
        [{"id": f"{k:04}", "text": " ".join(text.split()[k % 7 :][:60])} for k, text in enumerate(texts * 4)]
    )
    units = [table.slice(0, 1), table.slice(1, 400), table.slice(401)]
    operator = SemanticDedup(clusters=4, dimensions=256)

    def centroids(tables: list[pa.Table]) -> bytes:
        counts, sample, _ = operator.phases(600)
        assert isinstance(counts, Phase)
        assert isinstance(sample, Phase)
        found = counts.reduce({"documents": pa.concat_tables([counts.maps["documents"](t) for t in tables])})
        rows = pa.concat_tables([sample.maps["documents"](t, found) for t in tables])
        assert 200 < len(rows) < 310  # about 4 x 64
        return b"".join(sample.reduce({"documents": rows})["vector"].to_pylist())

    assert len(centroids([table])) == 4 * 512
    assert centroids([table]) == centroids(units) == centroids(units[::-1])
    assert fates(operator, [table]) == fates(Repartitioned(operator, [3, 5]), units)


def test_planted_copies_go_and_others_stay() -> None:
    random = np.random.default_rng(7)
    texts = [t for t in sample_texts("en", 150) if len(t.split()) > 60][:80]
    rows = [{"id": f"a{k:03}", "text": t} for k, t in enumerate(texts)]
    for k, text in enumerate(texts):
        words = text.split()
        for at in random.integers(0, len(words), max(1, len(words) // 100)):
            words[at] = word(int(random.integers(100)))
        rows.append({"id": f"b{k:03}", "text": " ".join(words)})
    for clusters in (1, 8):
        found = gone(SemanticDedup(clusters=clusters), [documents(rows)])
        pairs = [i[1:] == kept[1:] for i, (kept, _) in found.items()]
        assert sum(pairs) > 0.9 * len(texts)
        assert len(pairs) - sum(pairs) <= 2


def test_more_rows_than_a_block_takes() -> None:
    """Across the blocks of rows and of those that stay, against comparing every pair."""
    random = np.random.default_rng(11)
    vectors = on_grid(random.normal(size=(6000, 5)))
    ranks = random.permutation(6000)
    star, cosines = greedy_stars(vectors, ranks, 0.96)
    assert (star[-1000:] < 1000).any()
    wide = vectors.astype(np.int64)
    squares = (wide * wide).sum(axis=1)
    kept: list[int] = []
    for k in range(6000):
        near = wide[kept] @ wide[k] / np.sqrt(squares[kept] * squares[k])
        if near.size and near.max() >= 0.96:
            ties = np.array(kept)[near == near.max()]
            assert star[k] == ties[ranks[ties].argmin()]
            assert cosines[k] == near.max()
        else:
            assert star[k] == k
            assert cosines[k] == 0
            kept.append(k)
    few, _ = greedy_stars(np.repeat(vectors[:2], 30_000, axis=0), np.arange(60_000), 0.99)
    assert np.unique(few).tolist() == [0, 30_000]
