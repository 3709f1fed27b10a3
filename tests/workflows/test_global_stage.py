"""The engine of global operators: what it hands to maps and folds, and what becomes of verdicts that cut texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from cluster.storage import open_store
from cluster.tables import TableWriter, read_entry
from operators.document import parameters
from operators.hashes import xxh3_64
from operators.phases import DOCUMENTS, MEMORY, PUBLISHED_NUMBER, VERDICT, Fold, GlobalOperator, Phase, run_in_memory
from workflows.global_stage import estimate, run_global_stage
from workflows.recipe import Recipe
from workflows.stage import Job, Manifest, Stage, StageError, save_manifest

TEXTS = ["a b c", "b c", "é x y", "c", "q é", "", "zz é", "a a a"]


@parameters
class Letters(GlobalOperator):
    """A toy that takes every way through the engine: cuts from each text its first word if other texts have it, and
    drops texts of which nothing is left. `common` counts the texts that have one of the shared words."""

    name: ClassVar[str] = "letters"
    partitions: int = 3

    @property
    def adds(self) -> tuple[str, ...]:
        return ("common",)

    def phases(self, _rows: int, _memory: int = MEMORY) -> Sequence[Phase | Fold]:
        return [
            Phase("words", {DOCUMENTS: _words}, _shared, partitions=self.partitions),
            Fold("total", ("words",), _total, bytes=100),
            Phase("cuts", {DOCUMENTS: _cuts}, _only, bytes=1000, own="words", whole=("total", "words")),
        ]


@parameters
class Greedy(Letters):
    """The same with a fold that nobody has the memory for."""

    name: ClassVar[str] = "greedy"

    def phases(self, rows: int, memory: int = MEMORY) -> Sequence[Phase | Fold]:
        words, total, *rest = super().phases(rows, memory)
        assert isinstance(total, Fold)
        return [words, replace(total, bytes=1 << 40), *rest]


def _words(docs: pa.Table) -> pa.Table:
    words = pc.split_pattern(docs["text"].cast(pa.string()), " ").combine_chunks()
    firsts = pc.list_parent_indices(words)
    flat = pc.list_flatten(words)
    return pa.table({"key": pa.array(xxh3_64(flat)), "word": flat, "doc": docs["doc"].take(firsts)})


def _shared(parts: Mapping[str, pa.Table]) -> pa.Table:
    rows = parts[DOCUMENTS].select(["word", "doc"])
    counts = rows.group_by("word").aggregate([("doc", "count_distinct")])
    shared = counts.filter(pc.greater(counts["doc_count_distinct"], 1))["word"]
    found = rows.filter(pc.is_in(rows["word"], value_set=shared.combine_chunks()))
    stranger = pa.table({"word": ["stranger"], "doc": pa.array([int(PUBLISHED_NUMBER) + 5], pa.uint64())})
    return pa.concat_tables([found, stranger])  # a published document, of which no map may hear


def _total(tables: Iterable[pa.Table], sizes: Sequence[int]) -> Iterator[pa.Table]:
    docs = {doc for table in tables for doc in table["doc"].to_pylist() if doc < PUBLISHED_NUMBER}
    assert sum(table.num_rows for table in tables) > 0  # a second time
    yield pa.table({"common": [len(docs)], "documents": [sum(sizes)]})
    yield pa.table({"common": pa.array([], pa.int64()), "documents": pa.array([], pa.int64())})


def _cuts(docs: pa.Table, own: pa.Table, total: pa.Table, words: pa.Table) -> pa.Table:
    assert set(own["doc"].to_pylist()) <= set(docs["doc"].to_pylist())
    assert words.num_rows >= own.num_rows
    shared = set(zip(own["doc"].to_pylist(), own["word"].to_pylist(), strict=True))
    rows: list[dict[str, Any]] = []
    for doc, text in zip(docs["doc"].to_pylist(), docs["text"].to_pylist(), strict=True):
        first = text.split(" ")[0]
        if (doc, first) in shared:
            gone = {"drop_reason": "nothing_left", "drop_value": 1.0} if text == first else {"drop_detail": "first"}
            end = len(first.encode()) + (text != first)
            rows.append({"doc": doc, "cuts": [0, end], "common": total["common"][0].as_py()} | gone)
    schema = pa.schema([*VERDICT, ("cuts", pa.list_(pa.int64())), ("common", pa.int64())])
    verdicts = pa.Table.from_pylist(rows, schema)
    return verdicts.append_column("key", verdicts["doc"])


def _only(parts: Mapping[str, pa.Table]) -> pa.Table:
    return parts[DOCUMENTS].drop_columns(["key"])


def run(folder: Path, units: Sequence[Sequence[str]], *steps: Any, **workers: Any) -> tuple[Job, Stage, Manifest]:
    stage = Stage("dedup", Stage("read", None, ()), steps)
    item = {"rel": "a.txt", "version": str(len(units)), "source": None, "priority": 0, "weight": 1.0}
    now = Job(open_store(str(folder)), Recipe(inputs=["a.txt"], output="o", workers=workers), (item,))
    entries, number = [], 0
    for texts in units:
        ids = [f"d{number + k}" for k in range(len(texts))]
        table = pa.table({"id": ids, "text": pa.array(texts, pa.large_string()), "chars": [len(t) for t in texts]})
        with TableWriter(now.store, f"above-{len(units)}", number) as out:
            out.write(table)
        entries += out.entries
        number += len(texts)
    manifest = run_global_stage(stage, now, {"name": "read", "kept": number, "files": {"kept": entries}})
    save_manifest(now.store, "stages/dedup", manifest)  # checks the laws
    return now, stage, manifest


def kept(now: Job, manifest: Manifest) -> dict[str, tuple[str, int]]:
    rows = [row for entry in manifest["files"]["kept"] for row in read_entry(now.store, entry).to_pylist()]
    return {row["id"]: (row["text"], row["chars"]) for row in rows}


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("units", [[TEXTS], [TEXTS[:3], TEXTS[3:4], TEXTS[4:]]], ids=["one", "three"])
def test_verdicts_cut_texts(tmp_path: Path, units: list[list[str]]) -> None:
    """Twice in one stage: the second use sees what the first left. The files of the stage hold no text."""
    from operators.apply import Step

    now, _, manifest = run(tmp_path, units, Step("first", Letters()), Step("second", Letters(partitions=1)))
    # first: a, b, c, é (é x y, q é, zz é) are shared; d3 "c" goes, d0, d1, d2, d7 lose their first word
    # second, of "b c", "c", "x y", "q é", "", "zz é", "a a": c and é are shared; d1 goes
    assert kept(now, manifest) == {
        "d0": ("b c", 3),
        "d2": ("x y", 3),
        "d4": ("q é", 3),
        "d5": ("", 0),
        "d6": ("zz é", 4),
        "d7": ("a a", 3),
    }
    first, second = manifest["operators"]
    assert (first["dropped"], first["trimmed"]) == ({"first/nothing_left": 1}, {"first": 4})
    assert (second["dropped"], second["trimmed"]) == ({"second/nothing_left": 1}, {})
    assert (first["chars_cut"], first["chars_dropped"], second["chars_in"]) == (8, 1, 17)
    assert manifest["characters"] == {"in": 26, "created": 0, "kept": 16, "dropped": 2, "cut": 8}
    layers = [Path(tmp_path, entry["path"]) for entry in manifest["files"]["kept"]]
    assert not any(b"zz" in layer.read_bytes() for layer in layers)
    row = next(r for e in manifest["files"]["dropped"] for r in read_entry(now.store, e).to_pylist() if r["id"] == "d1")
    assert (row["drop_reason"], row["chars"]) == ("second/nothing_left", 1)


def test_the_same_in_memory() -> None:
    docs = [pa.table({"id": ["a"], "text": [t]}) for t in TEXTS]
    verdicts = run_in_memory(Letters(), docs).sort_by("doc").to_pylist()
    found = {row["doc"] >> 32: (row["drop_reason"], row["cuts"], row["common"]) for row in verdicts}
    assert found == {
        0: (None, [0, 2], 7),
        1: (None, [0, 2], 7),
        2: (None, [0, 3], 7),
        3: ("nothing_left", [0, 1], 7),
        7: (None, [0, 2], 7),
    }


def test_estimates(tmp_path: Path) -> None:
    """Half the memory is twice the partitions; what no partition bounds is told as it is."""
    stage = Stage("dedup", Stage("read", None, ()), (Letters(),))
    recipe = Recipe(inputs=["a.txt"], output="o", workers={"memory_bytes": 1 << 26})
    now = Job(open_store(str(tmp_path)), recipe, ())
    told = estimate(stage, now, 10)
    assert [(t["phase"], t["partitions"], t["memory"]) for t in told] == [
        ("words", 3, 0),
        ("total", 1, 100),
        ("cuts", 1, 8000),
    ]
    phase = Phase("p", {}, lambda parts: parts[DOCUMENTS], bytes=10**9)
    assert [phase.partitions_in(m) for m in (1 << 30, 1 << 29, 1 << 40)] == [8, 15, 1]
    assert np.uint64(PUBLISHED_NUMBER) == 1 << 63


@pytest.mark.usefixtures("ray_session")
def test_a_fold_that_takes_more_than_a_process_may_fails_before_anything_runs(tmp_path: Path) -> None:
    from operators.apply import Step

    with pytest.raises(StageError, match=r"dedup: big/total would hold about 1099.5 GB in one process, and workers"):
        run(tmp_path, [TEXTS], Step("big", Greedy()))
    assert not list(tmp_path.rglob("exchange/*"))
