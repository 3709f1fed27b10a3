"""Builds one after the other: what is published stays, and what duplicates it goes, however the nights were cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.dedup.exact import ExactDedup
from operators.dedup.minhash import MinHashDedup
from operators.dedup.published import published_numbers
from operators.dedup.unique_id import UniqueId
from operators.phases import (
    DOCUMENTS,
    PUBLISHED_NUMBER,
    GlobalOperator,
    Index,
    remember_in_memory,
    run_in_memory,
    with_doc,
)
from tests.operators.dedup.rows import Repartitioned, documents, word

NEAR = MinHashDedup(bands=6, rows=3, shingle=2)
OPERATORS: list[GlobalOperator] = [ExactDedup(), NEAR]
Fate = tuple[str | None, str | None, str | None, str, int]  # reason, detail, duplicate of, cluster, size


@dataclass
class Corpus:
    """Nights so far: what each remembers."""

    operator: GlobalOperator
    history: list[Index] = field(default_factory=list)

    def night(self, units: Sequence[pa.Table], history: Sequence[Index] | None = None) -> dict[str, Fate]:
        """Build the units and publish them; the fates of documents with a verdict, by id."""
        verdicts = run_in_memory(self.operator, units, self.history if history is None else history)
        self.history.append(remember_in_memory(self.operator, units, verdicts))
        ids = {(unit << 32) + row: i for unit, t in enumerate(units) for row, i in enumerate(t["id"].to_pylist())}
        columns = ("drop_reason", "drop_detail", "duplicate_of", "cluster", "cluster_size")
        return {ids[row["doc"]]: tuple(row[name] for name in columns) for row in verdicts.to_pylist()}


class Oracle:
    """The rules in a few lines of sets: every key that was ever seen, and who stands for it."""

    def __init__(self, operator: GlobalOperator) -> None:
        self.operator = operator
        self.known: dict[Any, set[str]] = {}

    def keys(self, table: pa.Table) -> dict[str, set[Any]]:
        rows = self.operator.phases(table.num_rows)[0].maps[DOCUMENTS](with_doc(table, 0)).to_pylist()
        found: dict[str, set[Any]] = {i: set() for i in table["id"].to_pylist()}
        for row in rows:
            found[table["id"][row["doc"]].as_py()].add((row["key"], row.get("low")))
        return found

    def night(self, table: pa.Table) -> dict[str, Fate]:
        keys = self.keys(table)
        rank = {r["id"]: (-(r["priority"] or 0), -len(r["text"]), r["id"]) for r in table.to_pylist()}
        groups: list[tuple[set[str], set[str], set[Any]]] = []  # new ids, published ids, keys
        for doc, own in keys.items():
            new, published, held = {doc}, {i for key in own for i in self.known.get(key, ())}, set(own)
            apart = []
            for other in groups:
                if other[1] & published or other[2] & held:
                    new, published, held = new | other[0], published | other[1], held | other[2]
                else:
                    apart.append(other)
            groups = [*apart, (new, published, held)]
        fates: dict[str, Fate] = {}
        keeper = {doc: doc for doc in keys}
        for new, published, _ in groups:
            best = min(published) if published else min(new, key=rank.__getitem__)
            for doc in new if len(new | published) > 1 else ():
                keeper[doc] = best
                told = (None, None, None) if doc == best else ("duplicate", "published" if published else None, best)
                fates[doc] = (*told, min(new | published), len(new) + len(published))
        for doc, own in keys.items():
            for key in own:
                self.known.setdefault(key, set()).add(keeper[doc])
        return fates


def corpus(seed: int, count: int) -> pa.Table:
    """Stories with edits, so that there are copies, near copies and chains of them."""
    random = np.random.default_rng(seed)
    stories = [[word(100 * s + k) for k in range(random.integers(3, 30))] for s in range(3)]
    rows = []
    for k in random.permutation(count).tolist():
        words = list(stories[random.integers(3)])
        for at in random.integers(0, len(words), random.integers(0, 3)):
            words[at] = word(1000 + random.integers(4))
        rows.append({"id": f"d{k}", "text": " ".join(words), "priority": [None, 0, 1][random.integers(3)]})
    return documents(rows)


def cut(table: pa.Table, bounds: Sequence[int]) -> list[pa.Table]:
    ends = sorted({0, table.num_rows, *(min(b, table.num_rows) for b in bounds)})
    return [table.slice(a, b - a) for a, b in zip(ends, ends[1:], strict=False)] or [table]


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.name)
@given(
    seed=st.integers(0, 2**32),
    nights=st.integers(1, 5).flatmap(lambda n: st.lists(st.integers(0, n - 1), min_size=24, max_size=24)),
    bounds=st.lists(st.integers(0, 24), max_size=2),
    partitions=st.lists(st.integers(1, 5), min_size=4, max_size=4),
    shuffle=st.randoms(use_true_random=False),
)
@settings(max_examples=20, deadline=None)
def test_nights(
    operator: GlobalOperator, seed: int, nights: list[int], bounds: list[int], partitions: list[int], shuffle: Any
) -> None:
    """A document stays if and only if no published one is in its group and it is the best of the new ones, whatever
    the units, the partitions and the order of the history."""
    table = corpus(seed, len(nights))
    oracle, whole = Oracle(operator), Corpus(operator)
    cut_up = Corpus(Repartitioned(operator, partitions))
    kept: set[str] = set()
    for night in range(max(nights) + 1):
        new = table.filter(pa.array([n == night for n in nights]))
        expected = oracle.night(new)
        assert whole.night([new]) == expected
        units = cut(new, bounds)
        shuffle.shuffle(units)
        assert cut_up.night(units, shuffle.sample(cut_up.history, night)) == expected
        assert [rows_of(index) for index in whole.history] == [rows_of(index) for index in cut_up.history]
        kept |= {i for i in new["id"].to_pylist() if i not in expected or expected[i][0] is None}
    clusters: dict[str, set[str]] = {}
    for i, (*_, cluster, _) in Corpus(operator).night([table]).items():
        clusters.setdefault(cluster, set()).add(i)
    assert all(cluster & kept for cluster in clusters.values())
    assert set(table["id"].to_pylist()) - kept <= {i for cluster in clusters.values() for i in cluster}


CASCADE: tuple[GlobalOperator, ...] = (UniqueId(), ExactDedup(), NEAR)


@dataclass
class Build:
    """One published build: what it remembers, the documents that stay, and of the others which stands for each."""

    indexes: list[Index]
    kept: dict[str, str]
    gone: dict[str, str]


def publish(table: pa.Table, visible: Sequence[Build]) -> Build:
    """The cascade over new documents, each operator on what the one before left."""
    left, gone, indexes = table, {}, []
    for n, operator in enumerate(CASCADE):
        verdicts = run_in_memory(operator, [left], [build.indexes[n] for build in visible])
        indexes.append(remember_in_memory(operator, [left], verdicts))
        dead = {row["doc"]: row["duplicate_of"] for row in verdicts.to_pylist() if row["drop_reason"]}
        gone |= {left["id"][row].as_py(): keeper for row, keeper in dead.items()}
        left = left.filter(pa.array([row not in dead for row in range(left.num_rows)], pa.bool_()))
    return Build(indexes, dict(zip(left["id"].to_pylist(), left["text"].to_pylist(), strict=True)), gone)


def keys_of(text: str) -> set[Any]:
    """All by which a document of this text meets others."""
    docs = with_doc(documents([{"text": text}]), 0)
    found = [(op.name, op.phases(1)[0].maps[DOCUMENTS](docs).drop_columns("doc").to_pylist()) for op in CASCADE[1:]]
    return {(name, row["key"], row.get("low")) for name, rows in found for row in rows}


@given(
    seed=st.integers(0, 2**32),
    nights=st.lists(st.integers(0, 4), min_size=24, max_size=24),
    back=st.integers(0, 4),
    late=st.lists(st.integers(0, 1), min_size=24, max_size=24),
)
@settings(max_examples=20, deadline=None)
def test_a_cascade_over_five_nights_keeps_one_of_each_cluster_and_a_rollback_forgets(
    seed: int, nights: list[int], back: int, late: list[int]
) -> None:
    """No two published documents meet in any key, and what went leads to one that is published; also after the nights
    from `back` on were rolled back and their documents came again in two others. The same night after the rollback does
    what it did before."""
    table = corpus(seed, len(nights))
    keys = {row["id"]: keys_of(row["text"]) for row in table.to_pylist()}
    parts = [table.filter(pa.array([n == night for n in nights])) for night in range(5)]
    visible: list[Build] = []
    for new in parts:
        visible.append(publish(new, visible))
    check(visible, table, keys)
    before, visible = visible, visible[:back]
    again, then = publish(parts[back], visible), before[back]
    assert (again.kept, again.gone) == (then.kept, then.gone)
    assert [rows_of(index) for index in again.indexes] == [rows_of(index) for index in then.indexes]
    for night in range(2):
        new = table.filter(pa.array([n >= back and late[k] == night for k, n in enumerate(nights)]))
        visible.append(publish(new, visible))
    check(visible, table, keys)


def check(visible: Sequence[Build], table: pa.Table, keys: dict[str, set[Any]]) -> None:
    kept = [doc for build in visible for doc in build.kept]
    gone = {doc: keeper for build in visible for doc, keeper in build.gone.items()}
    assert sorted([*kept, *gone]) == sorted(table["id"].to_pylist())
    owner: dict[Any, str] = {}
    for doc in kept:
        for key in keys[doc]:
            assert owner.setdefault(key, doc) == doc
    clusters = Components(keys)
    for doc, keeper in gone.items():
        assert clusters[doc] == clusters[keeper]
        while keeper in gone:
            keeper = gone[keeper]
        assert keeper in kept


class Components(dict[str, int]):
    """The cluster of each document: those that meet in a key, directly or through others."""

    def __init__(self, keys: dict[str, set[Any]]) -> None:
        super().__init__({doc: n for n, doc in enumerate(keys)})
        changed = True
        while changed:
            least: dict[Any, int] = {}
            for doc, own in keys.items():
                for key in own:
                    least[key] = min(self[doc], least.get(key, self[doc]))
            found = {doc: min([self[doc], *(least[key] for key in own)]) for doc, own in keys.items()}
            changed = found != dict(self)
            self.update(found)


def rows_of(index: Index) -> dict[str, set[tuple[Any, ...]]]:
    """What an index holds: order and repetitions do not count."""
    return {phase: {tuple(row.values()) for row in table.to_pylist()} for phase, table in index.items()}


STORY = " ".join(word(k) for k in range(80))


@pytest.mark.parametrize("operator", [ExactDedup(), MinHashDedup()], ids=lambda operator: operator.name)
def test_published_wins(operator: GlobalOperator) -> None:
    """Against a priority, a length and a smaller id; and a copy of the copy that went is told the same."""
    nights = Corpus(operator)
    assert nights.night([documents([{"id": "p", "text": STORY}])]) == {}
    better = documents([{"id": "a", "text": STORY + "!!!", "priority": 9}])
    assert nights.night([better]) == {"a": ("duplicate", "published", "p", "a", 2)}
    again = documents([{"id": "x", "text": STORY + "!!!"}, {"id": "y", "text": STORY}])
    expected = dict.fromkeys(("x", "y"), ("duplicate", "published", "p", "p", 3))
    assert nights.night([again]) == expected


def test_a_copy_of_a_dropped_near_copy_is_found() -> None:
    """It is like the one that went, and not like the one that stayed."""
    words = [word(k) for k in range(300)]
    rows = [{"id": f"c{k}", "text": " ".join(words[8 * k : 8 * k + 140])} for k in range(12)]
    operator = MinHashDedup(bands=28, rows=4)
    longest = max(rows, key=lambda row: len(row["text"]))["id"]
    last = {"id": "new", "text": rows[-1 if longest != "c11" else 0]["text"]}
    nights = Corpus(operator)
    nights.night([documents(rows)])
    assert nights.night([documents([last])])["new"][:3] == ("duplicate", "published", longest)
    alone = Corpus(operator)
    alone.night([documents([row for row in rows if row["id"] == longest])])
    assert alone.night([documents([last])]) == {}


def test_a_new_document_between_two_published_ones_goes_and_they_stay() -> None:
    left, right = (" ".join(word(k) for k in range(a, a + 100)) for a in (0, 100))
    nights = Corpus(MinHashDedup(bands=56, rows=2))
    assert nights.night([documents([{"id": "p2", "text": left}])]) == {}
    assert nights.night([documents([{"id": "p1", "text": right}])]) == {}
    bridge = documents([{"id": "m", "text": f"{left} {right}"}])
    assert nights.night([bridge]) == {"m": ("duplicate", "published", "p1", "m", 3)}


@pytest.mark.parametrize("operator", [ExactDedup(scope="build"), MinHashDedup(scope="build")], ids=lambda o: o.name)
def test_scope_build_compares_with_nothing_published_and_is_remembered(operator: GlobalOperator) -> None:
    nights = Corpus(operator)
    nights.night([documents([{"id": "p", "text": STORY}])])
    assert nights.night([documents([{"id": "a", "text": STORY}])]) == {}
    later = Corpus(type(operator)(), nights.history)
    expected = {"b": ("duplicate", "published", "a", "a", 3)}
    assert later.night([documents([{"id": "b", "text": STORY}])]) == expected


def test_what_was_rolled_back_is_forgotten() -> None:
    """A document whose published one is out of sight stays, though a visible build remembers another copy of it."""
    for operator in (ExactDedup(), MinHashDedup()):
        nights = Corpus(operator)
        for i in ("p", "q"):
            nights.night([documents([{"id": i, "text": STORY}])])
        for history in ([], nights.history[1:]):
            assert nights.night([documents([{"id": "r", "text": STORY}])], history) == {}


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["", "a", "ab"])), max_size=8), max_size=5),
    st.integers(1, 4),
)
@settings(max_examples=25, deadline=None)
def test_ids_are_unique_over_all_nights(nights: list[list[tuple[int, str]]], partitions: int) -> None:
    operator = Repartitioned(UniqueId(), [partitions])
    history: list[Index] = []
    published: set[str] = set()
    for night in nights:
        table = documents([{"id": f"d{i}", "text": text} for i, text in night])
        verdicts = run_in_memory(operator, [table], history)
        history.insert(0, remember_in_memory(operator, [table], verdicts))
        gone = {row["doc"]: row for row in verdicts.to_pylist() if row["drop_reason"]}
        kept = [i for doc, i in enumerate(table["id"].to_pylist()) if doc not in gone]
        assert sorted(kept) == sorted(set(table["id"].to_pylist()) - published)
        for doc, row in gone.items():
            i = table["id"][doc].as_py()
            assert (row["drop_reason"], row["duplicate_of"], row["cluster"]) == ("duplicate_id", i, i)
            assert row["drop_detail"] == ("published" if i in published else None)
        published |= set(kept)
    assert sum(len(rows_of(index)["ids"]) for index in history) == len(published)


def test_numbers_of_published_documents_are_fixed() -> None:
    """Indexes are kept between builds: a change of these values is a new `revision`."""
    numbers = published_numbers(pa.chunked_array([["a", "b"]]))
    assert (numbers >= PUBLISHED_NUMBER).all()
    assert [hex(n) for n in numbers] == ["0xf363195b0f4b270f", "0xabad058e226c421f"]
