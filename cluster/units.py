"""Run bounded units of work on Ray, each exactly once as far as anyone can see.

A unit is done when its done-record lies in the store and says that it was made from the same work; a rerun skips
it. Workers may die and be started again by
Ray: a unit writes its outputs under names derived from its number, so a second try overwrites the same bytes. A
unit that was started `MAX_STARTS` times in one run without finishing is given to the task's `isolate`, which may
find the row to blame; a task without one fails the run, named, instead of killing workers for ever. Starts that ended
with their node are counted apart: where machines come and go, long units are lost without any fault of theirs.
"""

from __future__ import annotations

import functools
import hashlib
import resource
import secrets
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import orjson
import pyarrow as pa

from cluster.placement import Ask, placed, pool_size
from cluster.storage import AlreadyExists, Store
from cluster.traffic import traffic

ANYWHERE = Ask()
MAX_STARTS = 3
MAX_LOST = 10  # starts whose node was lost; a row that takes all memory may end its node as well
READERS = 16  # threads that read done-records: in object storage each waits for an answer
MAX_ISOLATIONS = 3  # starts of `isolate`, which can lose its worker too: to the memory monitor, or with its node
Record = dict[str, Any]


class Task(Protocol):
    """What is done to one unit: writes the unit's files, returns its JSON-able record. An error that it raises is told
    with its traceback, or, where it has an attribute `remedy`, with that: what a user can do about it, as it is no bug.
    """

    def __call__(self, number: int, work: Any, /) -> Record: ...


class UnitFailed(RuntimeError):
    """A unit raised or kept killing its workers; the message says which and why."""


@dataclass
class _Runner:
    """One Ray Data call on one unit: count the start, do the work, leave the done-record."""

    store: Store
    folder: str
    token: str  # of this run: starts in earlier, interrupted runs do not count
    task: Task
    basis: str
    gpus: float = 0  # that the process holds

    def __call__(self, batch: pa.Table) -> pa.Table:
        number = int(batch["number"][0].as_py())
        began, cpu, moved = time.perf_counter(), _cpu_seconds(), traffic()
        try:
            record = self._run(number, orjson.loads(batch["work"][0].as_py()))
        except Exception as error:  # noqa: BLE001  the driver raises it; Ray would wrap it beyond recognition
            remedy = getattr(error, "remedy", None)
            failure = (
                [f"{error}; {remedy}", ""] if remedy else [f"{type(error).__name__}: {error}", traceback.format_exc()]
            )
            return pa.table({"number": [number], "record": [b""], "failure": [orjson.dumps(failure)]})
        record["made_from"] = made_from(self.basis, batch["work"][0].as_py())
        seconds, moved = time.perf_counter() - began, traffic().since(moved)
        record |= {"seconds": round(seconds, 4), "cpu_seconds": round(_cpu_seconds() - cpu, 4)}
        record |= {"gpu_seconds": round(seconds * self.gpus, 4), "node": this_node()}
        record |= {"read_bytes": moved.read, "written_bytes": moved.written, "shuffled_bytes": moved.shuffled}
        line = orjson.dumps(record)
        self.store.write(done_key(self.folder, number), line)
        return pa.table({"number": [number], "record": [line], "failure": [b""]})

    def _run(self, number: int, work: Any) -> Record:
        starts = self._starts(number)
        if starts.own <= MAX_STARTS and starts.lost <= MAX_LOST:
            return self.task(number, work)
        isolate = getattr(self.task, "isolate", None)
        if isolate is None or starts.own > MAX_STARTS + MAX_ISOLATIONS or starts.lost > MAX_LOST + MAX_ISOLATIONS:
            lost = f", and lost its node {starts.lost} times" if starts.lost else ""
            raise UnitFailed(f"it ended its worker {starts.own - 1} times{lost}")
        record: Record = isolate(number, work)
        return record

    def _starts(self, number: int) -> _Starts:
        """Leave the mark of this start and count those of this run."""
        nodes: list[str] = []
        while True:
            mark = f"{self.folder}/_starts/{self.token}/{number:06d}-{len(nodes) + 1}"
            own = f"{_node_id()} {secrets.token_hex(4)}"
            try:
                self.store.write(mark, own.encode(), if_absent=True)
            except AlreadyExists:  # by this very call, too, where its answer was lost
                if (found := self.store.read(mark).decode()) != own:
                    nodes.append(found.split()[0])
                    continue
            break
        alive = living_nodes() if nodes else set()
        lost = sum(node not in alive for node in nodes)
        return _Starts(1 + len(nodes) - lost, lost)


class _Starts(NamedTuple):
    """How often a unit was started: with nodes that live, this one included, so that it may be to blame for the ends of
    the others; and with nodes that are gone, as spot machines go."""

    own: int
    lost: int


def _cpu_seconds() -> float:
    """Of this process, and of its children that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def _node_id() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def living_nodes() -> set[str]:
    """Ray's ids of the nodes that the head takes for alive."""
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def peak_rss_bytes() -> int:
    """The most memory this worker process has held so far. Not `ru_maxrss`: that starts with its parent's."""
    status = Path("/proc/self/status").read_text("ascii", "replace")
    return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0]) * 1024


@functools.cache
def this_node() -> str:
    """The address of this machine in the cluster."""
    import ray.util

    return str(ray.util.get_node_ip_address())


def made_from(basis: str, work: bytes) -> str:
    """Names what a unit's outputs were made from: its work, and what the work only refers to."""
    return hashlib.sha256(basis.encode() + b"\0" + work).hexdigest()[:16]


def done_key(folder: str, number: int) -> str:
    return f"{folder}/_done/{number:06d}.json"


def run_units(
    store: Store,
    folder: str,
    works: Sequence[Any],
    task: Task,
    label: str,
    on_done: Callable[[Record], None] = lambda _: None,
    basis: str = "",
    ask: Ask = ANYWHERE,
) -> list[Record]:
    """Do `works` (JSON-able, one a unit) with `task`; the records in unit order. `label` names it in Ray's dashboard.

    `basis` identifies what the works refer to without containing it. Records of other work or another basis, left
    by a run over other units, do not count. `on_done` is called with each record as it comes, those of an earlier run
    first. `ask` is what each process needs; one that needs a GPU lives on for many units, with what it has loaded.
    Raises UnitFailed.
    """
    records: dict[int, Record] = {}
    done = [stored.key for stored in store.list(f"{folder}/_done")]
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(store.read, done))
    for key, line in zip(done, found, strict=True):
        number = int(key.rsplit("/", 1)[1].removesuffix(".json"))
        record = orjson.loads(line)
        if number < len(works) and record["made_from"] == made_from(basis, orjson.dumps(works[number])):
            records[number] = record
            on_done(record)
    missing = [n for n in range(len(works)) if n not in records]
    if missing:
        runner = _Runner(store, folder, secrets.token_hex(4), task, basis, ask.gpus)
        for number, record in _on_ray(missing, works, runner, label, placed(ask)):
            records[number] = record
            on_done(record)
    return [records[n] for n in range(len(works))]


def _on_ray(missing: list[int], works: Sequence[Any], runner: _Runner, label: str, ask: Ask) -> Any:
    import ray.data
    from ray.data.exceptions import ExecutionTimeoutError
    from ray.exceptions import RayError

    rows = [{"number": n, "work": orjson.dumps(works[n])} for n in missing]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    process, options = _process(runner, label, ask, len(rows))
    dataset = dataset.map_batches(process, batch_size=1, batch_format="pyarrow", zero_copy_batch=True, **options)
    dataset.set_name(label.split("[")[0])
    try:
        for row in dataset.iter_rows():
            if row["failure"]:
                message, told = orjson.loads(row["failure"])
                failed = UnitFailed(f"{label}: unit {row['number']}: {message}")
                if told:
                    failed.add_note(told)
                raise failed
            yield int(row["number"]), orjson.loads(row["record"])
    except (RayError, ExecutionTimeoutError) as error:
        raise UnitFailed(f"{label}: {type(error).__name__}: {error}") from error


def _process(runner: _Runner, label: str, ask: Ask, units: int) -> tuple[Any, dict[str, Any]]:
    """What runs units for `map_batches`, under the name of `label`, and the options that place it.

    GPU units run in actors: Ray ends a task's worker that had a GPU, which would load its model again for every unit.
    Ray starts an actor that died again, wherever there is room, and its unit with it. The pool is of a fixed size,
    because one that grows by itself stays at one actor where an autoscaler brings the nodes (Ray issue 59144), and an
    actor is given one unit at a time, so that none waits behind a long one.
    """
    from ray.data import ActorPoolStrategy, TaskPoolStrategy

    options: dict[str, Any] = {"memory": ask.memory} if ask.memory else {}
    options |= {"num_cpus": ask.cpus} if ask.cpus != ANYWHERE.cpus else {}  # Ray warns of CPUs named beside GPUs
    options |= {"label_selector": dict(ask.labels)} if ask.labels else {}
    if not ask.gpus:

        def unit(batch: pa.Table) -> pa.Table:
            return runner(batch)

        unit.__name__ = unit.__qualname__ = label
        return unit, options | ({"compute": TaskPoolStrategy(size=ask.most)} if ask.most else {})

    class Unit:
        def __call__(self, batch: pa.Table) -> pa.Table:
            return runner(batch)

    Unit.__name__ = Unit.__qualname__ = label
    pool = ActorPoolStrategy(size=pool_size(ask, units), max_tasks_in_flight_per_actor=1)
    return Unit, options | {"num_gpus": ask.gpus, "compute": pool}
