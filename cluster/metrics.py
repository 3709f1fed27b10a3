"""The figures of builds for Prometheus, which Ray exports beside its own under `ray_` and these names.

The driver sets them from done-records, of which it sees each once, whatever Ray retries. They are gauges because they
tell how far a build is: a driver that goes on after another one was killed tells the same figures again, and Ray
forgets those of a driver 20 s after its end, while it keeps counters for ever. What must be seen after the driver's
end, how that was, is a counter.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

from cluster.session import IN_JOB

PREFIX = "corpusmill_"


class Figure(NamedTuple):
    """One metric: what it tells, and its labels beside `build`."""

    told: str
    tags: tuple[str, ...] = ()


PASS, STAGE, OPERATOR = ("stage", "pass"), ("stage",), ("stage", "operator")
FIGURES = {
    "build_running": Figure("1 while a driver works on the build, 0 after", ("workflow", "op")),
    "build_progress_timestamp_seconds": Figure("when its last unit was done or its last pass began"),
    "pass_units": Figure("units of work in a pass over the data", PASS),
    "pass_units_done": Figure("those that are done", PASS),
    "pass_seconds": Figure("that units took, added up", PASS),
    "pass_cpu_seconds": Figure("of CPU that units took", PASS),
    "pass_gpu_seconds": Figure("of GPU that units held", PASS),
    "pass_read_bytes": Figure("that units read from inputs and store", PASS),
    "pass_written_bytes": Figure("that units wrote to the store", PASS),
    "pass_shuffled_bytes": Figure("of these, rows on their way from one pass to another", PASS),
    "stage_rows_in": Figure("rows that came into a stage", STAGE),
    "stage_rows_kept": Figure("rows that it passes on", STAGE),
    "stage_rows_quarantined": Figure("rows that could not be read or ended their process", ("stage", "reason")),
    "stage_tokens": Figure("tokens in shards", STAGE),
    "operator_rows_in": Figure("rows that came to an operator", OPERATOR),
    "operator_rows_kept": Figure("rows that it passes on", OPERATOR),
    "operator_rows_dropped": Figure("rows that it dropped", ("stage", "operator", "reason")),
    "operator_seconds": Figure("that it took", OPERATOR),
    "operator_counted": Figure("what it counts, as its documentation says", ("stage", "operator", "what")),
}
ENDED = "builds"
ENDED_TAGS = ("build", "workflow", "op", "outcome")  # done, failed, refused (by a gate), interrupted

Value = tuple[str, tuple[str, ...], float]
"""Of a figure: its name, its tags as FIGURES has them, the number."""


class Metrics:
    """The figures of one build. Needs an open session."""

    def __init__(self, build: str) -> None:
        from ray.util.metrics import Counter, Gauge

        self._build = build
        self._gauges = {
            name: Gauge(PREFIX + name, figure.told, tag_keys=("build", *figure.tags))
            for name, figure in FIGURES.items()
        }
        self._ended = Counter(PREFIX + ENDED, "builds that ended", tag_keys=ENDED_TAGS)

    def set(self, values: Iterable[Value]) -> None:
        """Ray sends them on within 10 s, and at the end of the session."""
        for name, tags, number in values:
            named = dict(zip(FIGURES[name].tags, map(_label, tags), strict=True))
            self._gauges[name].set(number, {"build": self._build, **named})

    def ended(self, workflow: str, op: str, outcome: str) -> None:
        """Count the build; once, at its end."""
        tags = (self._build, workflow, op, outcome)
        self._ended.inc(1, dict(zip(ENDED_TAGS, map(_label, tags), strict=True)))


def _label(text: str) -> str:
    """The text as Ray takes it: it refuses what is not ASCII."""
    return text.encode("ascii", "backslashreplace").decode()


def session_is_open() -> bool:
    """Whether this process has a Ray session; imports nothing to find out."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def driver() -> dict[str, str | None]:
    """Of the open session: `job`, the id that the Ray Jobs API knows this driver by, or Ray's own for a driver that
    was not submitted, and `dashboard`, the address of its page there, None where no dashboard runs."""
    import ray
    from ray._private.worker import get_dashboard_url  # there is no public way for a session opened elsewhere

    own = ray.get_runtime_context().get_job_id()
    submitted = json.loads(os.environ.get(IN_JOB, "{}")).get("metadata", {}).get("job_submission_id")
    found: Any = get_dashboard_url()
    return {"job": submitted or own, "dashboard": f"http://{found}/#/jobs/{own}" if found else None}
