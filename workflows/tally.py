"""What the units of a build have come to so far, added up from their records as these arrive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.metrics import Value
from cluster.units import Record

MOST_REASONS = 20  # of an operator that are told apart; a user's operator may make up any number
OTHER = "other"
COSTS = ("seconds", "cpu_seconds", "gpu_seconds", "read_bytes", "written_bytes", "shuffled_bytes")  # of a unit's record


@dataclass
class OperatorTally:
    """One operator of a stage."""

    rows_in: int = 0
    created: int = 0
    seconds: float = 0.0
    dropped: Counter[str] = field(default_factory=Counter)  # by reason, without the operator's name
    counted: Counter[str] = field(default_factory=Counter)

    @property
    def kept(self) -> int:
        return self.rows_in + self.created - self.dropped.total()


@dataclass
class PassTally:
    """One pass over the data."""

    units: int
    done: int = 0
    costs: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COSTS, 0.0))


@dataclass
class StageTally:
    """One stage: its passes and its operators, in their order."""

    rows_in: int = 0
    kept: int = 0
    tokens: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)  # by reason
    operators: dict[str, OperatorTally] = field(default_factory=dict)
    passes: dict[str, PassTally] = field(default_factory=dict)

    @classmethod
    def of(cls, operators: Iterable[str]) -> StageTally:
        return cls(operators={name: OperatorTally() for name in operators})

    def begin(self, name: str, units: int) -> None:
        self.passes[name] = PassTally(units)

    def unit(self, name: str, record: Record) -> None:
        """Add the record of a unit of that pass."""
        one = self.passes[name]
        one.done += 1
        for cost in COSTS:
            one.costs[cost] += record[cost]
        operator, phase, _ = name.partition("/")
        if phase and operator in self.operators:  # a pass of a global one
            self.operators[operator].seconds += record["seconds"]
        self.rows(record)

    def rows(self, record: Mapping[str, Any]) -> None:
        """Add the rows of a unit's record, if it has any, or of a finished stage's manifest."""
        self.rows_in += record.get("rows_in", 0)
        self.kept += record.get("kept", 0)
        self.tokens += record.get("tokens") or 0
        add_bounded(self.quarantined, record.get("quarantine_reasons", {}))
        for operator in record.get("operators", ()):
            name = operator["name"]
            one = self.operators[name]
            one.rows_in += operator["rows_in"]
            one.created += operator["created"]
            one.seconds += operator["seconds"]
            add_bounded(one.dropped, {reason.removeprefix(f"{name}/"): n for reason, n in operator["dropped"].items()})
            one.counted.update(operator.get("counted", {}))

    def told(self, name: str) -> dict[str, Any]:
        """As the record of a running build has it."""
        operators: list[dict[str, Any]] = [
            {"name": operator, "rows_in": one.rows_in, "kept": one.kept, "dropped": dict(one.dropped)}
            for operator, one in self.operators.items()
        ]
        dropped = {f"{one['name']}/{reason}": n for one in operators for reason, n in one["dropped"].items()}
        return {
            "name": name,
            "rows_in": self.rows_in,
            "kept": self.kept,
            "dropped": dropped,
            "quarantined": self.quarantined.total(),
            "tokens": self.tokens,
            "operators": operators,
        }

    def values(self, stage: str) -> Iterator[Value]:
        """As metrics."""
        yield "stage_rows_in", (stage,), self.rows_in
        yield "stage_rows_kept", (stage,), self.kept
        yield "stage_tokens", (stage,), self.tokens
        for reason, n in self.quarantined.items():
            yield "stage_rows_quarantined", (stage, reason), n
        for name, one in self.passes.items():
            yield "pass_units", (stage, name), one.units
            yield "pass_units_done", (stage, name), one.done
            for cost, spent in one.costs.items():
                yield f"pass_{cost}", (stage, name), spent
        for name, operator in self.operators.items():
            yield "operator_rows_in", (stage, name), operator.rows_in
            yield "operator_rows_kept", (stage, name), operator.kept
            yield "operator_seconds", (stage, name), operator.seconds
            for reason, n in operator.dropped.items():
                yield "operator_rows_dropped", (stage, name, reason), n
            for what, n in operator.counted.items():
                yield "operator_counted", (stage, name, what), n


def add_bounded(total: Counter[str], counts: Mapping[str, int]) -> None:
    """Add counts by reason, as OTHER those of reasons that come after the first MOST_REASONS."""
    for reason, n in counts.items():
        known = reason in total or len(total.keys() - {OTHER}) < MOST_REASONS
        total[reason if known else OTHER] += n
