"""The builds that run now, or that ended badly since the last commit, by the records that their drivers keep."""

from __future__ import annotations

import datetime
import time
from typing import Any

import orjson

from cluster.storage import Missing, Store
from workflows.watch import ALIVE_SECONDS, RUNNING

STALLED_SECONDS = 15 * 60  # without progress; the alert of the same name says so too
GONE_SECONDS = 3 * ALIVE_SECONDS  # without a word from the driver


def running(store: Store, committed: str | None) -> list[dict[str, Any]]:
    """Their records, the one that began last first, each with `state` (running, stalled, gone or failed),
    `idle_seconds` since its last progress and `eta_seconds` of its pass. Builds that failed before the time `committed`
    are history."""
    now = time.time()
    found = []
    for stored in store.list(RUNNING):
        try:
            record = orjson.loads(store.read(stored.key))
        except Missing:
            continue  # it was done between the listing and now
        record |= {"idle_seconds": max(0, round(now - _seconds(record["progressed"])))}
        record |= {"state": _state(record, now), "eta_seconds": _eta(record)}
        if record["state"] in ("running", "stalled") or committed is None or record["updated"] > committed:
            found.append(record)
    return sorted(found, key=lambda record: str(record["started"]), reverse=True)


def is_live(record: dict[str, Any]) -> bool:
    """Whether its driver may still go on."""
    return record["state"] in ("running", "stalled")


def _state(record: dict[str, Any], now: float) -> str:
    if "failed" in record:
        return "failed"
    if now - _seconds(record["updated"]) > GONE_SECONDS:
        return "gone"
    return "stalled" if record["idle_seconds"] > STALLED_SECONDS else "running"


def _eta(record: dict[str, Any]) -> int | None:
    """Of the pass that runs: how many there will be is not known."""
    left = record["units"] - record["units_done"]
    return round(left / record["units_per_second"]) if record["units_per_second"] else None


def _seconds(time: str) -> float:
    return datetime.datetime.fromisoformat(time).timestamp()
