"""Units: done once, again when they were done from other work, named when they fail, isolated when they kill."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
import ray

from cluster.storage import open_store
from cluster.units import Record, UnitFailed, _Runner, run_units


class Off(RuntimeError):
    remedy = "start it"


class Double:
    """Its calls leave files, so that a test can count them across processes."""

    def __init__(self, calls: Path, isolating: bool = False) -> None:
        self.calls = calls
        if isolating:
            self.isolate = self._isolate

    def __call__(self, number: int, work: Any) -> Record:
        (self.calls / f"{number}-{os.urandom(4).hex()}").touch()
        if work == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if work == "fail":
            raise ValueError("bad work")
        if work == "off":
            raise Off("nobody answers")
        return {"value": work * 2}

    def _isolate(self, number: int, work: Any) -> Record:
        return {"value": f"isolated {work}"}


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    (tmp_path / "calls").mkdir()
    return tmp_path / "calls"


def values(records: list[Record]) -> list[Any]:
    return [record["value"] for record in records]


def test_a_rerun_does_only_what_is_new(tmp_path: Path, calls: Path, ray_session: None) -> None:
    store, task = open_store(str(tmp_path)), Double(calls)
    assert values(run_units(store, "x", [1, 2, 3], task, "double")) == [2, 4, 6]
    assert values(run_units(store, "x", [1, 2, 3], task, "double")) == [2, 4, 6]
    assert len(list(calls.iterdir())) == 3
    assert values(run_units(store, "x", [1, 5], task, "double")) == [2, 10]
    assert len(list(calls.iterdir())) == 4


def test_records_of_another_basis_do_not_count(tmp_path: Path, calls: Path, ray_session: None) -> None:
    store, task = open_store(str(tmp_path)), Double(calls)
    run_units(store, "x", [1, 2], task, "double", basis="files a")
    run_units(store, "x", [1, 2], task, "double", basis="files b")
    assert len(list(calls.iterdir())) == 4


def test_a_failure_names_the_unit_and_its_cause(tmp_path: Path, calls: Path, ray_session: None) -> None:
    with pytest.raises(UnitFailed, match=r"double: unit 1: ValueError: bad work") as told:
        run_units(open_store(str(tmp_path)), "x", [1, "fail"], Double(calls), "double")
    assert told.value.__notes__[0].startswith("Traceback")
    with pytest.raises(UnitFailed, match=r"double: unit 1: nobody answers; start it$") as told:
        run_units(open_store(str(tmp_path)), "x", [1, "off"], Double(calls), "double")
    assert not hasattr(told.value, "__notes__")


def test_a_unit_that_kills_its_worker_is_not_started_for_ever(tmp_path: Path, calls: Path, ray_session: None) -> None:
    with pytest.raises(UnitFailed, match="ended its worker 3 times"):
        run_units(open_store(str(tmp_path)), "x", ["kill"], Double(calls), "double")
    assert len(list(calls.iterdir())) == 3


def test_a_task_that_can_isolate_is_asked_to(tmp_path: Path, calls: Path, ray_session: None) -> None:
    store = open_store(str(tmp_path))
    assert values(run_units(store, "x", ["kill"], Double(calls, isolating=True), "double")) == ["isolated kill"]


GONE = "f" * 56  # a node that the head does not know
FATES = [
    ([], "did"),
    (["here"] * 2, "did"),
    (["here"] * 3, "isolated"),
    ([GONE] * 3, "did"),  # spot machines that went
    ([GONE, "here"] * 2, "did"),
    ([GONE, "here"] * 3, "isolated"),
    ([GONE] * 11, "isolated"),  # a row that ends its node
    (["here"] * 6, "it ended its worker 6 times"),
    ([GONE] * 14, "it ended its worker 0 times, and lost its node 14 times"),
]


@pytest.mark.parametrize(("earlier", "fate"), FATES)
def test_starts_that_ended_with_their_node_are_no_fault_of_the_unit(
    earlier: list[str], fate: str, tmp_path: Path, ray_session: None
) -> None:
    store = open_store(str(tmp_path))
    here = ray.get_runtime_context().get_node_id()
    for start, node in enumerate(earlier, 1):
        store.write(f"x/_starts/run/000000-{start}", (here if node == "here" else node).encode())

    class Task:
        def __call__(self, number: int, work: Any) -> Record:
            return {"value": "did"}

        def isolate(self, number: int, work: Any) -> Record:
            return {"value": "isolated"}

    batch = pa.table({"number": [0], "work": [b"1"]})
    [row] = _Runner(store, "x", "run", Task(), "")(batch).to_pylist()
    told = orjson.loads(row["failure"])[0] if row["failure"] else orjson.loads(row["record"])["value"]
    assert told.removeprefix("UnitFailed: ") == fate
