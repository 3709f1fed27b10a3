"""Placement: one node must have all that a process asks for; GPU units keep their process, which may die."""

from __future__ import annotations

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
