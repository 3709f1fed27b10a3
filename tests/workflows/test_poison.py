"""Rows that end the process that works on them: found, quarantined, and the rest of the corpus built without them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.exchange import read_table, write_partitions
from cluster.local_store import LocalStore
from cluster.storage import open_store
from cluster.tables import TableWriter, read_entry
from cluster.units import UnitFailed
from operators.apply import Step
from operators.document import Operator, drop, parameters
from operators.read.span import Batch, Fields, fallback_id
from workflows import isolate
from workflows.build import build, newest_build, prepare
from workflows.explain import why
from workflows.global_stage import PhaseMap
from workflows.isolate import Crash, bisected
from workflows.map_stage import MapTask, whole_file
from workflows.verify import verify

CRASH = Crash("SIGSEGV", "step")


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
@pytest.mark.parametrize("culprits", [set(), {0}, {6}, {2, 3}, {0, 1, 5, 6}])
def test_bisecting_finds_the_culprits_and_keeps_all_else_in_order(rows: int, culprits: set[int]) -> None:
    def attempt(start: int, stop: int) -> list[int] | Crash:
        return CRASH if culprits & set(range(start, stop)) else list(range(start, stop))

    found = list(bisected(attempt, 0, rows))
    assert [n for start, _, outcome in found if isinstance(outcome, Crash) for n in [start]] == sorted(
        culprits & set(range(rows))
    )
    kept = [n for _, _, outcome in found if not isinstance(outcome, Crash) for n in outcome]
    assert kept == sorted(set(range(rows)) - culprits)


def test_bisecting_tries_few_ranges_and_blames_no_row_for_a_crash_of_many_together() -> None:
    tried: list[tuple[int, int]] = []

    def attempt(start: int, stop: int) -> str | Crash:
        tried.append((start, stop))
        return CRASH if start <= 700 < stop else "done"

    assert sum(isinstance(outcome, Crash) for _, _, outcome in bisected(attempt, 0, 2000)) == 1
    assert len(tried) <= 2 * 11 + 1
    together = bisected(lambda start, stop: CRASH if stop - start > 3 else "done", 0, 10)
    assert [outcome for _, _, outcome in together] == ["done"] * 4
    assert list(bisected(attempt, 5, 5)) == []


@parameters
class Fragile(Operator):
    """Drops texts with `drop` in them, ends the process on `poison`, raises on `bug`, prints."""

    name: ClassVar[str] = "fragile"

    def __call__(self, docs: pa.Table) -> pa.Table:
        print("operators may print")  # noqa: T201
        texts = docs["text"].to_pylist()
        if any("poison" in text for text in texts):
            os.kill(os.getpid(), signal.SIGSEGV)
        if any("hungry" in text for text in texts):
            np.zeros(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 3 // 4, np.uint8)  # more than half
        if any("bug" in text for text in texts):
            raise ValueError("a bug,\nin two lines")
        return drop(docs, ["unwanted" if "drop" in text else None for text in texts])


@dataclass(frozen=True)
class Reading(MapTask):
    """Stands in for a reader in C that breaks on a file."""

    def batches(self, work: Any) -> Iterator[Batch]:
        if any("broken" in span["url"] for span in work["spans"]):
            os.abort()
        yield from super().batches(work)


@pytest.fixture
def unit(tmp_path: Path) -> Callable[..., Any]:
    """Lays files of lines out and gives the work of one unit that reads them all."""

    def lay_out(**files: list[str]) -> Any:
        spans, versions = [], {}
        for name, texts in files.items():
            path = tmp_path / f"{name}.jsonl"
            path.write_bytes(
                b"".join(orjson.dumps({"id": f"{name}-{n}", "text": t}) + b"\n" for n, t in enumerate(texts))
            )
            stat = path.stat()
            item = {"url": str(path), "rel": path.name, "format": "jsonl", "size": stat.st_size}
            spans.append(whole_file(item | {"source": None, "priority": 0, "weight": 1.0}).__dict__)
            versions[str(path)] = f"{stat.st_size}-{stat.st_mtime_ns}"
        return {"spans": spans, "versions": versions}

    return lay_out


def task(tmp_path: Path, kind: type[MapTask] = MapTask, reads_inputs: bool = True) -> MapTask:
    steps = (Step("first", Fragile()),)
    return kind(LocalStore(str(tmp_path / "out")), "stage", steps, False, Fields(), reads_inputs)


def rows_of(tmp_path: Path, record: dict[str, Any], fate: str) -> list[dict[str, Any]]:
    return [row for e in record["files"][fate] for row in pq.read_table(tmp_path / "out" / e["path"]).to_pylist()]


TEXTS = ["some text", "drop this", "more text", "the end"] * 20


def test_a_unit_without_culprits_gives_the_same_record_and_rows_when_isolated(
    tmp_path: Path, unit: Callable[..., Any]
) -> None:
    work = unit(a=TEXTS, b=[*TEXTS, "nul \0"])
    plain, isolated = task(tmp_path)(0, work), task(tmp_path).isolate(1, work)
    for key in ("rows_in", "kept", "dropped", "quarantined", "quarantine_reasons", "characters", "profile"):
        assert isolated[key] == plain[key], key
    for fate in ("kept", "dropped", "quarantined"):
        assert rows_of(tmp_path, isolated, fate) == rows_of(tmp_path, plain, fate)
    assert plain["quarantined"] == 1


def test_culprits_are_quarantined_and_the_rest_is_as_if_they_had_not_been_there(
    tmp_path: Path, unit: Callable[..., Any]
) -> None:
    clean = task(tmp_path)(0, unit(a=TEXTS, b=TEXTS))
    expected = {fate: rows_of(tmp_path, clean, fate) for fate in ("kept", "dropped")}
    work = unit(a=[*TEXTS, "poison"], b=[*TEXTS, "poison", "hungry"])
    first, second = (task(tmp_path).isolate(n, work) for n in (1, 2))
    for fate, rows in expected.items():
        assert rows_of(tmp_path, first, fate) == rows
    bad = rows_of(tmp_path, first, "quarantined")
    assert [(row["id"], row["file"], row["reason"]) for row in bad] == [
        ("a-80", "a.jsonl", "worker_crash"),
        ("b-80", "b.jsonl", "worker_crash"),
        ("b-81", "b.jsonl", "worker_crash"),
    ]
    assert [row["detail"] for row in bad] == ["SIGSEGV in first", "SIGSEGV in first", "SIGKILL in first"]
    assert (first["rows_in"], first["kept"], first["quarantined"]) == (163, 120, 3)
    assert first["operators"][0]["rows_in"] == 160
    hashes = [[e["sha256"] for fate in record["files"].values() for e in fate] for record in (first, second)]
    assert hashes[0] == hashes[1]


def test_a_file_that_ends_the_reader_is_one_row_of_quarantine(tmp_path: Path, unit: Callable[..., Any]) -> None:
    work = unit(a=TEXTS, broken=TEXTS, c=TEXTS)
    record = task(tmp_path, Reading).isolate(0, work)
    assert (record["rows_in"], record["kept"], record["quarantined"]) == (161, 120, 1)
    (bad,) = rows_of(tmp_path, record, "quarantined")
    assert bad == {
        "id": fallback_id("broken.jsonl", 0),
        "file": "broken.jsonl",
        "offset": 0,
        "length": -1,
        "reason": "worker_crash",
        "detail": "SIGABRT in reading",
    }


def test_below_another_stage_the_file_of_that_stage_and_the_row_in_it_are_named(tmp_path: Path) -> None:
    table = pa.table({"id": [f"d{n}" for n in range(9)], "text": pa.array(["text"] * 7 + ["poison", "text"])})
    (tmp_path / "out").mkdir()
    pq.write_table(table, tmp_path / "out" / "above.parquet", row_group_size=4)
    record = task(tmp_path, reads_inputs=False).isolate(0, {"path": "above.parquet", "over": None})
    (bad,) = rows_of(tmp_path, record, "quarantined")
    assert (bad["id"], bad["file"], bad["offset"], bad["length"]) == ("d7", "above.parquet", 7, 1)
    assert [row["id"] for row in rows_of(tmp_path, record, "kept")] == ["d0", "d1", "d2", "d3", "d4", "d5", "d6", "d8"]


def test_an_exception_is_a_bug_and_is_told(tmp_path: Path, unit: Callable[..., Any]) -> None:
    with pytest.raises(UnitFailed, match=r"^ValueError: a bug,\nin two lines$"):
        task(tmp_path).isolate(0, unit(a=["text", "poison", "bug"]))
    assert not list((tmp_path / "out").glob("stage/*/*"))


def test_an_operator_that_ends_every_process_is_not_tried_for_ever(
    tmp_path: Path, unit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolate, "MAX_CRASHES", 5)
    with pytest.raises(UnitFailed, match="5 processes were ended, the last by SIGSEGV in first"):
        task(tmp_path).isolate(0, unit(a=["poison"] * 100))


def lengths(docs: pa.Table, own: pa.Table) -> pa.Table:
    """A map that ends at poison, and gives of the others the length, and what it was given of them."""
    texts = docs["text"].to_pylist()
    if any("poison" in text for text in texts):
        os.kill(os.getpid(), signal.SIGBUS)
    told = pa.table({"doc": docs["doc"], "key": pa.array([len(text) for text in texts], pa.uint64())})
    return told.append_column("own", own["n"])


def test_a_map_leaves_out_the_documents_that_end_it_and_names_them(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    texts = ["text" * n for n in range(50)]
    for poison in (0, 7, 8, 41):
        texts[poison] = "poison"
    with TableWriter(store, "above", 3) as above:
        above.write(pa.table({"id": [f"d{n}" for n in range(50)], "text": texts}))
    docs = pa.array(np.arange(3 << 32, (3 << 32) + 50, dtype=np.uint64))
    own = pa.table({"doc": docs, "n": pa.array(np.arange(50))})
    write_partitions(store, "own.arrow", own, np.full(50, 3), 4)
    task = PhaseMap(store, "mapped", lengths, 1, ("id", "text"), (), ("own.arrow",), ())
    record = task.isolate(3, above.entries[0])
    assert record["ended"] == [((3 << 32) + row, "SIGBUS") for row in (0, 7, 8, 41)]
    rows = read_table(store, "mapped/000003.arrow")
    left = [n for n in range(50) if n not in (0, 7, 8, 41)]
    assert rows["doc"].to_pylist() == [(3 << 32) + n for n in left]
    assert rows["own"].to_pylist() == left
    with pytest.raises(UnitFailed, match="rows of an earlier phase"):
        task.isolate(0, "own.arrow")


WORKFLOW = '''
import os
import signal
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from operators.dedup.unique_id import UniqueId
from operators.document import Operator, parameters
from operators.hashes import xxh3_64
from operators.phases import DOCUMENTS, GlobalOperator, Phase, as_mapped
from operators.tokens.tokenizer import Tokenizer
from workflows.stage import Stage, TokenStage


@parameters
class Marked(Operator):
    """Does something bad to texts with a marker."""

    name: ClassVar[str] = "marked"
    marker: str
    raises: bool = False

    def __call__(self, docs):
        if any(pc.match_substring(docs["text"], self.marker).to_pylist()):
            if self.raises:
                raise ValueError("no text may say " + self.marker)
            os.kill(os.getpid(), signal.SIGKILL)
        return docs


@parameters
class First(GlobalOperator):
    """Keeps of texts that begin alike the one with the smallest id; ends at foxglove when it tells of them."""

    name: ClassVar[str] = "first"

    def phases(self, rows, memory=0):
        return [
            Phase("begin", {DOCUMENTS: self.begin}, self.find, partitions=2),
            Phase("tell", {DOCUMENTS: self.tell}, as_mapped, partitions=2, own="begin"),
        ]

    def begin(self, docs):
        begin = xxh3_64(pc.utf8_slice_codeunits(docs["text"], 0, 13).combine_chunks())
        return docs.select(["doc", "id"]).append_column("key", pa.array(begin))

    def find(self, parts):
        (rows,) = parts.values()
        rows = rows.sort_by([("key", "ascending"), ("id", "ascending")])
        first = rows.group_by("key", use_threads=False).aggregate([("id", "first")])
        at = pc.index_in(rows["key"], value_set=first["key"])
        return rows.select(["doc", "id"]).append_column("first", first["id_first"].take(at))

    def tell(self, docs, own):
        if any(pc.match_substring(docs["text"], "foxglove").to_pylist()):
            os.kill(os.getpid(), signal.SIGBUS)
        own = own.filter(pc.not_equal(own["id"], own["first"]))
        told = {"doc": own["doc"], "key": own["doc"], "duplicate_of": own["first"]}
        return pa.table(told | {"drop_reason": pa.repeat("later", len(own))})


def poisoned(params):
    clean = Stage("clean", Stage("read", None, ()), (params.use(Marked),))
    dedup = Stage("dedup", clean, (UniqueId(), First()))
    return TokenStage("tokens", dedup, (params.use(Marked, name="late"), params.use(Tokenizer)))
'''
RECIPE = """
workflow: {folder}/poison_workflow.py:poisoned
inputs: [{folder}/documents.jsonl]
output: {folder}/out
params:
  marked: {{marker: hemlock, raises: {raises}}}
  late: {{marker: oleander}}
  tokenizer: {{vocab: 300}}
"""
# The marker, and what is told of the row: stage, row in the file of the stage above, detail.
POISON = {
    # The first of those that begin like it: another one stays in its place.
    1000: ("foxglove", "dedup", 1000, "SIGBUS in first/tell"),
    1717: ("oleander", "tokens", 1715, "SIGKILL in late"),
}


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[[bool], Any]:
    def lay_out(raises: bool) -> Any:
        texts = [f"Document {n:04d} says nothing of note." for n in range(2000)]
        for row, (poison, _, _, _) in POISON.items():
            texts[row] += f" {poison}"
        texts[313] += " hemlock" * raises
        texts[1001] = texts[1002] = "Document 1000 is said again."
        lines = [orjson.dumps({"id": f"d{n:04d}", "text": text}) for n, text in enumerate(texts)]
        (tmp_path / "documents.jsonl").write_bytes(b"\n".join(lines))
        (tmp_path / "poison_workflow.py").write_text(WORKFLOW)
        (tmp_path / "recipe.yaml").write_text(RECIPE.format(folder=tmp_path, raises=str(raises).lower()))
        return prepare(tmp_path / "recipe.yaml")

    return lay_out


def test_a_build_goes_on_without_its_poison_rows_and_names_them(
    tmp_path: Path, prepared: Callable[[bool], Any], ray_session: None
) -> None:
    result = build(prepared(False))
    assert result["committed"]
    assert result["documents"] == 1997
    assert [stage["quarantined"] for stage in result["stages"]] == [0, 0, 1, 1]
    store = open_store(str(tmp_path / "out"))
    assert [what for what, error in verify(store) if error] == []
    manifest = newest_build(store)
    for row, (_, stage, offset, detail) in POISON.items():
        answer = why(store, [manifest], f"d{row:04d}")
        assert (answer["fate"], answer["stage"], answer["offset"]) == ("quarantined", stage, offset)
        assert (answer["reason"], answer["detail"]) == ("worker_crash", detail)
    assert answer["file"] == manifest["stages"][2]["files"]["kept"][0]["path"]
    again = why(store, [manifest], "d1002")
    assert (again["fate"], again["reason"], again["duplicate_of"]) == ("dropped", "later", "d1001")
    ids = [i for entry in manifest["stages"][3]["files"]["kept"] for i in read_entry(store, entry)["id"].to_pylist()]
    assert sorted(ids) == [f"d{n:04d}" for n in range(2000) if n not in (*POISON, 1002)]


def test_an_exception_of_an_operator_fails_the_build_and_leaves_no_manifest(
    tmp_path: Path, prepared: Callable[[bool], Any], ray_session: None
) -> None:
    with pytest.raises(UnitFailed, match=r"clean\[marked\]: unit 0: ValueError: no text may say hemlock"):
        build(prepared(True))
    assert not list((tmp_path / "out").glob("stages/clean-*/manifest.json"))
    assert not (tmp_path / "out" / "_log").exists()
