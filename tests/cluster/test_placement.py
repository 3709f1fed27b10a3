"""Placement: one node must have all that a process asks for; GPU units keep their process, which may die."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.placement import Ask, Machine, Unsatisfiable, check, launcher_types, nodes, preflight, selects, startable
from cluster.storage import open_store
from cluster.units import Record, run_units

POOL = "corpusmill/pool"
CPU = Machine({"CPU": 2, "memory": 8e9}, {POOL: "cpu"})
GPU = Machine({"CPU": 4, "GPU": 2, "memory": 64e9}, {POOL: "gpu"})
STARTED = Machine({"CPU": 8, "GPU": 1}, {POOL: "gpu"}, "gpu_worker", 3)


@pytest.mark.parametrize(
    ("ask", "machine", "room"),
    [
        (Ask(), CPU, 2),
        (Ask(), Machine({"memory": 8e9}), 0),
        (Ask(cpus=3), CPU, 0),
        (Ask(gpus=1), CPU, 0),
        (Ask(gpus=1), GPU, 2),
        (Ask(gpus=0.5), GPU, 4),
        (Ask(gpus=0.1), GPU, 4),  # its CPUs are the limit
        (Ask(gpus=4), GPU, 0),
        (Ask(memory=5 * 10**9), CPU, 1),
        (Ask(memory=5 * 10**9), Machine({"CPU": 2}), 0),
        (Ask(memory=5 * 10**9), STARTED, 8),  # how much memory it will have is not told
        (Ask(labels={POOL: "gpu"}), CPU, 0),
        (Ask(labels={POOL: "gpu"}), GPU, 4),
        (Ask(labels={POOL: "gpu"}), Machine({"CPU": 1}, None, "kind"), 1),
    ],
)
def test_room_of_a_node(ask: Ask, machine: Machine, room: int) -> None:
    assert machine.room(ask) == room


@pytest.mark.parametrize(
    ("condition", "label", "selected"),
    [
        ("spot", "spot", True),
        ("spot", "steady", False),
        ("spot", None, False),
        ("!spot", "spot", False),
        ("!spot", "steady", True),
        ("!spot", None, True),
        ("in(a, b)", "b", True),
        ("in(a,b)", "c", False),
        ("!in(a,b)", "a", False),
        ("!in(a,b)", "c", True),
    ],
)
def test_selectors(condition: str, label: str | None, selected: bool) -> None:
    assert selects({"k": condition}, {} if label is None else {"k": label}) == selected


def test_what_is_there_is_not_waited_for() -> None:
    assert check({"embed": Ask(gpus=1), "read": Ask()}, [CPU, GPU], []) == []


def test_a_process_does_not_run_on_the_sum_of_nodes() -> None:
    with pytest.raises(Unsatisfiable, match=r"^stage read: no node has 3 CPU; nodes: 2 x \{2 CPU\}$"):
        check({"stage read": Ask(cpus=3)}, [CPU, CPU], [])


def test_what_is_never_there_is_named_beside_what_is() -> None:
    ask = Ask(gpus=2, memory=10**9, labels={POOL: "gpu"})
    with pytest.raises(Unsatisfiable) as raised:
        check({"stage embed: workers.gpus 2": ask}, [CPU, CPU], [STARTED])
    assert str(raised.value) == (
        "stage embed: workers.gpus 2: no node has 1 CPU, 2 GPU, 1.0 GB of memory, labels {corpusmill/pool: gpu}; "
        "nodes: 2 x {2 CPU, 8.0 GB of memory, labels {corpusmill/pool: cpu}}; "
        "the autoscaler starts: gpu_worker {8 CPU, 1 GPU, labels {corpusmill/pool: gpu}}"
    )


def test_what_an_autoscaler_can_start_is_waited_for() -> None:
    wanted = {"stage read": Ask(), "stage embed": Ask(gpus=1, labels={POOL: "gpu"})}
    told = "stage embed: no node with 1 CPU, 1 GPU, labels {corpusmill/pool: gpu} yet: waiting for the autoscaler to "
    assert check(wanted, [CPU], [STARTED]) == [f"{told}start gpu_worker"]
    assert check(wanted, [CPU], None) == [f"{told}start one, if it can"]


labels = st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy"))
amounts = st.sampled_from([0, 0.5, 1, 2, 4])
machines = st.builds(Machine, st.dictionaries(st.sampled_from(["CPU", "GPU", "memory"]), amounts), labels)
asks = st.builds(
    Ask, amounts, amounts, st.integers(0, 3), st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy"))
)


@given(asks, st.lists(machines))
def test_a_fit_is_one_node_with_everything(ask: Ask, there: list[Machine]) -> None:
    def has_everything(node: Machine) -> bool:
        enough = all(node.resources.get(name, 0) >= amount for name, amount in ask.resources.items())
        return enough and all((node.labels or {}).get(key) == value for key, value in ask.labels.items())

    try:
        fits = check({"it": ask}, there, []) == []
    except Unsatisfiable:
        fits = False
    assert fits == any(map(has_everything, there))


def test_types_of_a_launcher_file() -> None:
    config = {
        "max_workers": 5,
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 4}},
            "spot": {"resources": {"CPU": 16}, "labels": {POOL: "cpu"}},
            "gpu": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 2},
            "off": {"resources": {"CPU": 8}, "max_workers": 0},
        },
    }
    spot = Machine({"CPU": 16}, {POOL: "cpu"}, "spot", 5)
    assert launcher_types(config) == [spot, Machine({"CPU": 8, "GPU": 1}, {}, "gpu", 2)]


def test_a_session_without_an_autoscaler(ray_session: None) -> None:
    assert [node.room(Ask()) for node in nodes()] == [2]
    assert startable() == []
    assert preflight({"read": Ask()}) == []
    with pytest.raises(Unsatisfiable, match=r"embed: no node has 1 CPU, 1 GPU; nodes: \{2 CPU\}"):
        preflight({"embed": Ask(gpus=1)})


def test_units_at_once_are_limited(tmp_path: Path, ray_session: None) -> None:
    found = run_units(open_store(str(tmp_path)), "x", [0, 1, 2, 3], During(), "slow", ask=Ask(most=1))
    spans = sorted((record["began"], record["ended"]) for record in found)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


class During:
    """When it ran."""

    def __call__(self, number: int, work: Any) -> Record:
        began = time.time()
        time.sleep(0.3)
        return {"began": began, "ended": time.time()}


GPU_UNITS = """
import json, os, signal, sys
from pathlib import Path
from cluster.placement import Ask, pool_size
from cluster.session import session
from cluster.storage import open_store
from cluster.units import UnitFailed, run_units

class Unit:
    marks = Path(sys.argv[1])

    def __call__(self, number, work):
        mark = self.marks / f"killed-{number}"
        if work == "always" or (work == "once" and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        gpus = os.environ["CUDA_VISIBLE_DEVICES"]
        return {"pid": os.getpid(), "gpus": gpus, "process": Path("/proc/self/cmdline").read_text()}

with session(cpus=3):
    store, told = open_store(sys.argv[1]), {}
    ask = Ask(gpus=1, memory=1 << 20, labels={"corpusmill/pool": "in(gpu, other)", "other": "!x"})
    asks = [(ask, 6), (ask, 1), (Ask(gpus=0.5), 6), (Ask(gpus=1, most=1), 6)]
    told["sizes"] = [pool_size(one, units) for one, units in asks]
    told["units"] = run_units(store, "x", [None, "once", None, None, None, None], Unit(), "embed[model]", ask=ask)
    try:
        run_units(store, "y", ["always"], Unit(), "embed[model]", ask=ask)
    except UnitFailed as error:
        told["failed"] = str(error)
print(json.dumps(told))
"""


def test_gpu_units_share_processes_that_may_die(tmp_path: Path) -> None:
    """With GPUs that only Ray believes in: in a Ray of its own, which the other tests have none for."""
    believed = {"RAY_OVERRIDE_RESOURCES": '{"GPU": 2}', "RAY_OVERRIDE_LABELS": '{"corpusmill/pool": "gpu"}'}
    command = [sys.executable, "-c", GPU_UNITS, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, env=os.environ | believed)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told["sizes"] == [2, 1, 3, 1]  # the CPUs limit the third
    units = told["units"]
    assert [record["gpu_seconds"] >= 0 and record["gpus"] in ("0", "1") for record in units] == [True] * 6
    assert len({record["pid"] for record in units}) <= 3  # two, and the one that took the place of the one that died
    assert all("MapBatches(embed[model])" in record["process"] for record in units)
    assert told["failed"] == "embed[model]: unit 0: UnitFailed: it ended its worker 3 times"
