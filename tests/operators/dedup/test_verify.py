from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.dedup.minhash import MinHashDedup
from operators.dedup.published import published_numbers
from operators.dedup.signature import family, sign
from operators.dedup.similarity import sketches
from operators.dedup.verify import compare, judge
from operators.phases import DOCUMENTS, Index, remember_in_memory, run_in_memory
from tests.operators.dedup.rows import Repartitioned, documents, sample_texts, word
from tests.operators.dedup.test_nights import corpus, cut, rows_of
from tests.operators.dedup.test_signature import edited, jaccard, shingles

Fate = tuple[str | None, float | None, str | None, str | None, str, int]  # reason, value, detail, keeper, cluster, size
COLUMNS = ("drop_reason", "drop_value", "drop_detail", "duplicate_of", "cluster", "cluster_size")


def fates(operator: Any, units: Sequence[pa.Table], history: Sequence[Index] = ()) -> tuple[dict[str, Fate], Index]:
    """The verdicts by id, and what is remembered of this build."""
    verdicts = run_in_memory(operator, units, history)
    ids = {(unit << 32) + row: i for unit, t in enumerate(units) for row, i in enumerate(t["id"].to_pylist())}
    found = {ids[row["doc"]]: tuple(row[name] for name in COLUMNS) for row in verdicts.to_pylist()}
    assert len(found) == verdicts.num_rows
    least = MinHashDedup(verify="exact").least_similarity
    assert {row["drop_threshold"] for row in verdicts.to_pylist()} <= {None, least}
    return found, remember_in_memory(operator, units, verdicts)


@dataclass
class Oracle:
    """The rules in Python's sets, a night at a time."""

    operator: MinHashDedup
    known: dict[Any, set[tuple[int, str]]] = field(default_factory=dict)  # who stands for a band, with numbers
    sketches: dict[str, Any] = field(default_factory=dict)

    def night(self, table: pa.Table) -> dict[str, Fate]:
        bands, width = self.operator.banding
        rows = {row["id"]: row for row in table.to_pylist()}
        signatures, _ = sign(table["text"], family(self.operator.seed, bands * width), self.operator.shingle, 8)
        by_id = dict(zip(rows, signatures[:, : bands * width], strict=True))
        own = {i: {(b, *s[b * width : (b + 1) * width].tolist()) for b in range(bands)} for i, s in by_id.items()}
        sketch = {i: ((s.astype(np.uint64) * 0x9E3779B9) % 2**32) >> 24 for i, s in by_id.items()}
        sets = {i: shingles(row["text"], self.operator.shingle) for i, row in rows.items()}
        rank = {i: (-(row["priority"] or 0), -len(row["text"]), i) for i, row in rows.items()}

        def similarity(a: str, b: str) -> float:
            if self.operator.verify == "exact" and a in rows and b in rows:
                return round(jaccard(sets[a], sets[b]), 6)
            equal = float(np.mean((sketch | self.sketches)[a] == sketch[b]))
            return round(max(0.0, (equal - 1 / 256) / (255 / 256)), 6)

        groups: set[tuple[str, ...]] = set()
        asked: dict[str, set[str]] = {}
        for band in set().union(*own.values()) if own else ():
            groups.add(tuple(sorted((i for i in rows if band in own[i]), key=rank.__getitem__)))
            for _, i in sorted(self.known.get(band, ()))[:4]:
                asked.setdefault(i, set()).update(j for j in rows if band in own[j])
        groups |= {(i, *sorted(new, key=rank.__getitem__)) for i, new in asked.items()}
        alike: dict[tuple[str, str], float] = {}
        for group in groups:
            for (k, a), (_, b) in itertools.combinations(enumerate(group), 2):
                if (len(group) <= 8 or k < 4) and (found := similarity(a, b)) >= self.operator.least_similarity:
                    alike[a, b] = found
        label = {i: i for pair in alike for i in pair}
        for _ in label:
            for a, b in alike:
                label[a] = label[b] = min(label[a], label[b])
        stays = sorted(i for i in label if i not in rows)
        fates: dict[str, Fate] = {}
        keeper = {i: i for i in rows}
        for i in sorted((i for i in label if i in rows), key=rank.__getitem__):
            leaders = [k for k in stays if (k, i) in alike]
            members = [k for k in label if label[k] == label[i]]
            told: tuple[Any, ...] = (None, None, None, None)
            if leaders:
                keeper[i] = leaders[0]
                told = ("duplicate", alike[leaders[0], i], None if leaders[0] in rows else "published", leaders[0])
            else:
                stays.append(i)
            fates[i] = (*told, min(members), len(members))
        numbers = published_numbers(pa.chunked_array([list(keeper.values())], pa.string())).tolist()
        for (i, kept), number in zip(keeper.items(), numbers, strict=True):
            for band in own[i]:
                self.known.setdefault(band, set()).add((number, kept))
            if kept == i:
                self.sketches[i] = sketch[i]
        return fates


@pytest.mark.parametrize("verify", ["estimated", "exact"])
@given(
    seed=st.integers(0, 2**32),
    nights=st.integers(1, 4).flatmap(lambda n: st.lists(st.integers(0, n - 1), min_size=30, max_size=30)),
    bounds=st.lists(st.integers(0, 30), max_size=2),
    partitions=st.lists(st.integers(1, 5), min_size=5, max_size=5),
    shuffle=st.randoms(use_true_random=False),
)
@settings(max_examples=15, deadline=None)
def test_nights(
    verify: Any, seed: int, nights: list[int], bounds: list[int], partitions: list[int], shuffle: Any
) -> None:
    """As the rules say, whatever the units, the partitions and the order of the history."""
    table = corpus(seed, len(nights))
    operator = MinHashDedup(bands=10, rows=2, shingle=2, verify=verify)
    oracle = Oracle(operator)
    whole: list[Index] = []
    cut_up: list[Index] = []
    for night in range(max(nights) + 1):
        new = table.filter(pa.array([n == night for n in nights]))
        expected = oracle.night(new)
        found, index = fates(operator, [new], whole)
        assert found == expected
        units = cut(new, bounds)
        shuffle.shuffle(units)
        found, other = fates(Repartitioned(operator, partitions), units, shuffle.sample(cut_up, night))
        assert found == expected
        assert rows_of(index) == rows_of(other)
        stays = [i for i in new["id"].to_pylist() if i in oracle.sketches]
        assert set(index["pairs"]["doc"].to_pylist()) == set(published_numbers(pa.chunked_array([stays], pa.string())))
        whole.append(index)
        cut_up.append(other)


@pytest.mark.parametrize("verify", ["estimated", "exact"])
def test_precision_and_recall_on_edited_texts(verify: Any) -> None:
    """Who goes is like the one that stays in its place, and hardly two that are alike stay."""
    texts = [t for t in sample_texts("en", 120) if len(t.split()) > 60][:60]
    rows = [{"id": f"{k:03}", "text": t} for k, t in enumerate(texts)]
    for every in (22, 26, 30, 35, 45, 70, 150):
        rows += [{"id": f"{k:03}/{every}", "text": edited(t, every)} for k, t in enumerate(texts)]
    found, _ = fates(MinHashDedup(bands=20, rows=6, verify=verify), [documents(rows)])
    sets = {row["id"]: shingles(row["text"]) for row in rows}
    gone = {i: fate for i, fate in found.items() if fate[0]}
    exact = {i: jaccard(sets[i], sets[fate[3]]) for i, fate in gone.items() if fate[3]}
    assert len(exact) == len(gone) > 100
    error = [abs(fate[1] - exact[i]) for i, fate in gone.items() if fate[1]]
    if verify == "exact":
        assert max(error) < 1e-6
        assert min(exact.values()) >= 0.7
    else:
        assert np.mean(error) < 0.03
        assert np.mean([similarity >= 0.7 for similarity in exact.values()]) > 0.9
        assert min(exact.values()) > 0.55
    stays = [i for i in sets if i not in gone]
    alike = [(a, b) for a, b in itertools.combinations(sets, 2) if jaccard(sets[a], sets[b]) >= 0.8]
    assert len(alike) > 100
    assert np.mean([a in stays and b in stays for a, b in alike]) < 0.005


WORDS = [word(k) for k in range(400)]
CHAIN = [{"id": f"c{k:02}", "text": " ".join(WORDS[6 * k : 6 * k + 130])} for k in range(20)]


@pytest.mark.parametrize("verify", ["estimated", "exact"])
def test_a_chain_leaves_more_than_one(verify: Any) -> None:
    """Where banding alone would leave one: its ends have nothing in common."""
    operator = MinHashDedup(bands=28, rows=4, verify=verify)
    found, index = fates(operator, [documents(CHAIN)])
    assert {(cluster, size) for *_, cluster, size in found.values()} == {("c00", 20)}
    stays = [i for i, fate in found.items() if fate[0] is None]
    assert 3 <= len(stays) < 10
    again, _ = fates(operator, [documents([row | {"id": f"x{row['id']}"} for row in CHAIN])], [index])
    assert len(again) == 20  # copies of those that went are like those that stayed in their place
    assert {fate[0] for fate in again.values()} == {"duplicate"}
    assert {fate[3] for fate in again.values()} <= set(stays)
    assert all(again[f"x{i}"][1] == 1.0 for i in stays if again[f"x{i}"][3] == i)


def test_what_shares_a_band_and_is_not_alike_stays() -> None:
    left, right = (" ".join(WORDS[a : a + 100]) for a in (0, 100))
    rows = [{"id": "a", "text": left}, {"id": "b", "text": right}, {"id": "m", "text": f"{left} {right}"}]
    for verify in ("estimated", "exact"):
        operator = MinHashDedup(bands=56, rows=2, verify=verify)
        assert fates(operator, [documents(rows)])[0] == {}
        _, index = fates(operator, [documents(rows[:2])])
        found, later = fates(operator, [documents([rows[2], {"id": "n", "text": f"{left} {right}"}])], [index])
        assert found == {"m": (None, None, None, None, "m", 2), "n": ("duplicate", 1.0, None, "m", "m", 2)}
        last = documents([{"id": "o", "text": f"{left} {right} and"}])
        assert fates(operator, [last], [index, later])[0]["o"][3] == "m"
        assert fates(operator, [last], [index])[0] == {}  # the one it is like was rolled back


def test_equals_and_nothing() -> None:
    for verify in ("estimated", "exact"):
        operator = MinHashDedup(verify=verify)
        same = documents([{"id": f"d{k:02}", "text": CHAIN[0]["text"]} for k in range(40)])
        found, _ = fates(operator, [same.slice(0, 17), same.slice(17)])
        assert found.pop("d00") == (None, None, None, None, "d00", 40)
        assert set(found.values()) == {("duplicate", 1.0, None, "d00", "d00", 40)}
        apart = documents([{"text": " ".join(WORDS[9 * k : 9 * k + 9])} for k in range(40)])
        assert fates(operator, [apart])[0] == {}
        empty = documents([{"text": ""}, {"text": None}, {"text": "too short"}, {"text": "too short"}])
        for units in ([documents([])], [empty], [documents([]), empty]):
            assert fates(operator, units)[0] == {}


@pytest.mark.parametrize(("size", "pairs"), [(1, 0), (2, 1), (8, 28), (9, 6 + 5 * 4), (12, 6 + 8 * 4)])
def test_pairs_of_a_group(size: int, pairs: int) -> None:
    """All of eight, or with the best four."""
    doc = pa.array(np.arange(size, dtype=np.uint64))
    rank = {"priority": [0] * size, "length": [1] * size, "id": [f"{k:02}" for k in range(size)]}
    rows = pa.table({"key": doc, "doc": doc, **rank, "sketch": sketches(np.ones((size, 4), np.uint32))})
    assert compare({DOCUMENTS: rows}, 0.7).num_rows == 0
    assert compare({DOCUMENTS: rows.set_column(0, "key", pa.array([7] * size, pa.uint64()))}, 0.7).num_rows == pairs


def test_a_group_of_a_million() -> None:
    """Each is compared with the best four, here the longest."""
    n = 1_000_000
    doc = np.arange(n, dtype=np.uint64)
    columns = {
        "key": np.full(n, 5, np.uint64),
        "doc": doc,
        "priority": np.zeros(n, np.int32),
        "length": n - np.arange(n),
    }
    rows = pa.table({**columns, "id": pa.array(doc.astype(str)), "sketch": sketches(np.ones((n, 4), np.uint32))})
    pairs = compare({DOCUMENTS: rows}, 0.7)
    assert pairs.num_rows == 4 * n - 10
    assert np.bincount(pairs["left"].to_numpy()).tolist() == [n - 1, n - 2, n - 3, n - 4]


def test_a_chain_of_ten_thousand() -> None:
    n = 10_000
    doc = np.arange(n, dtype=np.uint64)
    root = np.zeros(n, np.uint64)
    columns = {"key": root, "doc": doc, "priority": np.zeros(n, np.int32), "length": np.ones(n, np.int64), "root": root}
    members = pa.table({**columns, "id": pa.array([f"{k:05}" for k in range(n)])})
    published = pa.table({"key": root[:0], "doc": root[:0], "root": root[:0], "id": pa.array([], pa.string())})
    columns = {"left": doc[:-1], "right": doc[1:], "similarity": np.ones(n - 1)}
    pairs = pa.table(columns).take(np.random.default_rng(1).permutation(n - 1))
    verdicts = judge({DOCUMENTS: members, "published": published, "similar": pairs}, "duplicate", 0.7).sort_by("doc")
    assert [i for i, reason in enumerate(verdicts["drop_reason"].to_pylist()) if reason is None] == list(range(0, n, 2))
    assert verdicts["duplicate_of"].to_pylist()[1::2] == members["id"].to_pylist()[::2]


def test_sketches_are_fixed() -> None:
    """Indexes hold them: a change of these values is a new `revision`."""
    numbers = [[0, 1, 2**31], [7, 70000, 2**32 - 1]]
    for dtype, fixed in ((np.uint32, ["009e80", "536161"]), (np.uint64, ["009ebf", "5361e1"])):
        assert [sketch.hex() for sketch in sketches(np.array(numbers, dtype)).to_pylist()] == fixed
