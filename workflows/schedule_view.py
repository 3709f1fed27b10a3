"""What a schedule has done and when it comes next, for `corpusmill schedule --show`."""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import Any

import orjson
import typer

from cluster.schedule_state import Run, ScheduleState
from workflows.cron import Times
from workflows.nights import Rules, starts

NIGHTS, TIMES = 10, 5


def view(state: ScheduleState, times: Times, rules: Rules, now: datetime) -> dict[str, Any]:
    """The next times, with their jitter, and the last entries of the schedule's log, the newest first."""
    return {
        "schedule": state.name,
        "cron": times.cron.text,
        "timezone": times.zone.key,
        "next": list(itertools.islice(starts(times, rules, now), TIMES)),
        "nights": [_night(state, run) for run in state.newest(NIGHTS)],
    }


def _night(state: ScheduleState, run: Run) -> dict[str, Any]:
    claim, end = run
    told = claim.model_dump(include={"night", "attempt", "started", "host", "coalesced", "missed"})
    if end is not None:
        return told | end.model_dump(exclude={"nonce"})
    if not claim.attempt:
        return told | {"outcome": "missed"}
    heard = state.heard(claim)
    return told | {"outcome": "running", "heard": heard.at if heard else claim.started}


def print_view(told: dict[str, Any], times: Times, json: bool) -> None:
    if json:
        typer.echo(orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z))
        return
    typer.echo(f"{told['schedule']}: {told['cron']} {told['timezone']}")
    for time in told["next"]:
        typer.echo(f"  next   {times.here(time)}")
    for night in told["nights"]:
        typer.echo(f"  night  {times.here(night['night'])}  {_result(night, times)}")


def _result(night: dict[str, Any], times: Times) -> str:
    parts = [f"#{night['attempt']} {night['outcome']}" if night["attempt"] else "not run"]
    if "heard" in night:
        parts.append(f"on {night['host']}, heard of {times.here(night['heard'])}")
    for key, text in (
        ("code", "exit code {}"),
        ("log_number", "entry {}"),
        ("documents", "{} documents"),
        ("seconds", "{:.0f} s"),
    ):
        if night.get(key) is not None:
            parts.append(text.format(night[key]))
    parts += [f"{night[key]['nights']} {key}" for key in ("coalesced", "missed") if night[key]]
    if night.get("said"):
        parts.append(night["said"].splitlines()[-1])
    return ", ".join(parts)
