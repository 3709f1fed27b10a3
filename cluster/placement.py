"""Where processes run: what one of them asks of a node, and whether the cluster has, or may start, such a node.

All that a process asks for must be on one node: two nodes with a CPU each run no process that needs two.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cluster.session import started_here

HEAD = "node:__internal_head__"  # a resource that only the head node has
UNTOLD = 8  # GPU processes at once, unless `most` says how many, where nobody tells how far an autoscaler goes
LOOK_SECONDS = 60.0


class Unsatisfiable(RuntimeError):
    """No node that the cluster has, or that its autoscaler starts, can run a process."""


@dataclass(frozen=True)
class Ask:
    """What one process needs: CPUs and GPUs, `memory` bytes that Ray sets aside (0: none), and the labels of its node
    as Ray selects by them (`v`, `!v`, `in(v,w)`, `!in(v,w)`). `most` processes run at once; None: as many as fit."""

    cpus: float = 1
    gpus: float = 0
    memory: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    most: int | None = None

    @property
    def resources(self) -> dict[str, float]:
        """By Ray's names, without what is not needed."""
        needed = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory}
        return {name: amount for name, amount in needed.items() if amount}

    def __str__(self) -> str:
        return _told(self.resources, self.labels)


@dataclass(frozen=True)
class Machine:
    """A node, or with a `kind` the nodes of that type that an autoscaler starts, `count` at most. Labels that are None,
    and memory that is not named, are what nobody tells before the node is there."""

    resources: Mapping[str, float]
    labels: Mapping[str, str] | None = field(default_factory=dict)
    kind: str = ""
    count: int = 1

    def room(self, ask: Ask) -> int:
        """How many processes run on one such node when it is empty."""
        if self.labels is not None and not selects(ask.labels, self.labels):
            return 0
        has = self.resources
        needed = {name: n for name, n in ask.resources.items() if name in has or not (self.kind and name == "memory")}
        return min((int(has.get(name, 0) / amount + 1e-9) for name, amount in needed.items()), default=1)


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels satisfies every condition, by Ray's rules: without a label it satisfies what
    the label must not be."""
    for key, condition in selector.items():
        positive = condition.removeprefix("!")
        listed = re.fullmatch(r"in\((.*)\)", positive)
        values = [value.strip() for value in listed[1].split(",")] if listed else [positive]
        if (labels.get(key) in values) == condition.startswith("!"):
            return False
    return True


def check(wanted: Mapping[str, Ask], nodes: Sequence[Machine], startable: Sequence[Machine] | None) -> list[str]:
    """What is waited for, a line each; nothing where every ask (by who asks) fits a node that is there.

    `startable` are the types of nodes that an autoscaler starts; None: there is one that does not tell. Raises
    Unsatisfiable.
    """
    waits = []
    for who, ask in wanted.items():
        if any(node.room(ask) for node in nodes):
            continue
        kinds = [one.kind for one in startable or () if one.room(ask)]
        if not kinds and startable is not None:
            offered = f"nodes: {_listed(nodes, ask)}"
            if startable:
                offered += f"; the autoscaler starts: {_listed(startable, ask)}"
            raise Unsatisfiable(f"{who}: no node has {ask}; {offered}")
        start = f"to start {' or '.join(kinds)}" if kinds else "to start one, if it can"
        waits.append(f"{who}: no node with {ask} yet: waiting for the autoscaler {start}")
    return waits


def preflight(wanted: Mapping[str, Ask]) -> list[str]:
    """The same for the open session, which need not be open where nobody asks."""
    wanted = {who: placed(ask) for who, ask in wanted.items()}
    there = nodes() if wanted else []
    if all(any(node.room(ask) for node in there) for ask in wanted.values()):
        return []
    return check(wanted, there, startable())


def placed(ask: Ask) -> Ask:
    """The ask in the open session: where Ray was started for this process there is one node, and labels say nothing."""
    return replace(ask, labels={}) if ask.labels and started_here() else ask


def pool_size(ask: Ask, units: int) -> int:
    """How many processes to hold for `units` units: as many as nodes have room for, or an autoscaler makes room for."""
    most = min(units, ask.most or units)
    room = sum(node.room(ask) for node in nodes())
    if room < most:
        kinds = startable()
        more = (ask.most or UNTOLD) if kinds is None else sum(one.room(ask) * one.count for one in kinds)
        room = max(room, more)
    return max(1, min(most, room))


def nodes() -> list[Machine]:
    """The living nodes of the open session."""
    import ray

    return [Machine(node["Resources"], node["Labels"]) for node in ray.nodes() if node["Alive"]]


def on_each_node(ask: Ask, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """What the function returns on every node that such a process may run on, by address. Left out are nodes that are
    lost meanwhile or take longer than LOOK_SECONDS, and a Ray that was started for this process: that is here."""
    import ray
    from ray.exceptions import RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if started_here():
        return {}
    run = ray.remote(num_cpus=0)(function)
    asked = {}
    for node in ray.nodes():
        if node["Alive"] and Machine(node["Resources"], node["Labels"]).room(ask):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[run.options(scheduling_strategy=there).remote(*arguments)] = node["NodeManagerAddress"]
    answered = ray.wait([*asked], num_returns=len(asked), timeout=LOOK_SECONDS)[0] if asked else []
    found = {}
    for answer in answered:
        try:
            found[asked[answer]] = ray.get(answer)
        except RayTaskError:
            raise
        except RayError:
            continue
    return found


def startable() -> list[Machine] | None:
    """The types of nodes that the cluster's autoscaler starts: none without one, None where it does not tell.

    No autoscaler of Ray 2.60 reports its types. The launcher's runs on the head node with a file that has them, which
    is read there; that of KubeRay runs beside it.
    """
    import ray
    from ray.autoscaler.v2.utils import is_autoscaler_v2

    reported = ray._private.state.state.get_cluster_config()
    if reported and reported.node_group_configs:
        groups = [(group, group.max_count) for group in reported.node_group_configs if group.max_count]
        return [Machine(dict(g.resources), None, g.name, most if most > 0 else 1 << 20) for g, most in groups]
    if not is_autoscaler_v2(fetch_from_server=True) and not _launches():
        return []
    read = ray.remote(num_cpus=0, resources={HEAD: 0.001}, max_retries=3)(configured)
    try:
        return ray.get(read.remote(), timeout=LOOK_SECONDS)  # type: ignore[no-any-return]
    except ray.exceptions.GetTimeoutError:
        return None


def _launches() -> bool:
    """Whether the autoscaler (v1) does: that of a cluster which was started by hand has a type for every node."""
    import orjson
    from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
    from ray.experimental.internal_kv import _internal_kv_get

    deadline = time.monotonic() + LOOK_SECONDS
    while True:  # one that was just started has told nothing yet
        status = orjson.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or b"{}")
        report = status.get("autoscaler_report") or {}
        if report or time.monotonic() > deadline:
            break
        time.sleep(1)
    kinds = [*(report.get("node_type_mapping") or {}).values(), *(report.get("active_nodes") or {})]
    return any(not re.fullmatch(r"node_[0-9a-f]{56}", kind) for kind in kinds)


def configured() -> list[Machine] | None:
    """Runs on the head node: the node types of this cluster's autoscaler, None where none of the launcher's runs."""
    import ray
    from ruamel.yaml import YAML

    address = ray.get_runtime_context().gcs_address
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:  # it has ended, or is another user's
            continue
        told = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
        if "--autoscaling-config" in told and told.get("--gcs-address") == address:
            file = Path(os.path.expanduser(told["--autoscaling-config"]))
            return launcher_types(YAML(typ="safe").load(file.read_text("utf-8"))) if file.exists() else None
    return None


def launcher_types(config: Mapping[str, Any]) -> list[Machine]:
    """The types of worker nodes in a file of Ray's cluster launcher."""
    most = int(config.get("max_workers", 0))
    found = []
    for kind, one in config["available_node_types"].items():
        count = min(most, int(one.get("max_workers", 0 if kind == config.get("head_node_type") else most)))
        if count > 0:
            found.append(Machine(one.get("resources", {}), one.get("labels", {}), kind, count))
    return found


def _told(resources: Mapping[str, float], labels: Mapping[str, str]) -> str:
    told = [f"{amount:g} {name}" for name, amount in resources.items() if name != "memory"]
    if "memory" in resources:
        told.append(f"{resources['memory'] / 1e9:.1f} GB of memory")
    if labels:
        told.append(f"labels {{{', '.join(f'{key}: {value}' for key, value in labels.items())}}}")
    return ", ".join(told) or "no CPU"


def _listed(machines: Sequence[Machine], ask: Ask) -> str:
    """What they offer of what is asked for, alike ones together."""
    offers = Counter(_offer(one, ask) for one in machines)
    return ", ".join(f"{n} x {told}" if n > 1 else told for told, n in sorted(offers.items())) or "none"


def _offer(machine: Machine, ask: Ask) -> str:
    resources = {name: machine.resources[name] for name in ask.resources if machine.resources.get(name)}
    labels = {key: machine.labels[key] for key in ask.labels if key in machine.labels} if machine.labels else {}
    return f"{machine.kind} {{{_told(resources, labels)}}}".strip()
