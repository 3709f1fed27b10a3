"""What a person is told of builds that run, stall, fail or vanish."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
import typer
from typer.testing import CliRunner

from cluster.storage import open_store
from workflows import show_status
from workflows.running import running
from workflows.show_status import headline, lines_of, status


def ago(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(time.time() - seconds, datetime.UTC).isoformat(timespec="seconds")


def record(**changes: Any) -> dict[str, Any]:
    """Of a build that a driver told of just now."""
    operator = {"name": "c4", "rows_in": 4000, "kept": 1000, "dropped": {"short": 1, "lorem_ipsum": 2999}}
    stage = {"name": "clean", "rows_in": 4000, "kept": 1000, "dropped": {}, "quarantined": 7, "operators": [operator]}
    return {
        "build_id": "0bb91bfda09f20d3",
        "op": "nightly",
        "workflow": "text",
        "started": ago(100),
        "progressed": ago(4),
        "updated": ago(1),
        "stage": "clean",
        "pass": "rows",
        "units": 40,
        "units_done": 10,
        "units_per_second": 0.5,
        "rows_per_second": 1234.5,
        "stages": [stage],
        "host": "head",
        "job": "02000000",
        "dashboard": "http://127.0.0.1:8265/#/jobs/02000000",
    } | changes


def write(out: Path, **changes: Any) -> None:
    build = record(**changes)
    open_store(str(out)).write(f"_running/{build['build_id']}.json", orjson.dumps(build))


def one(out: Path, committed: str | None = None) -> dict[str, Any]:
    [build] = running(open_store(str(out)), committed)
    return build


def test_a_running_build_in_full(tmp_path: Path) -> None:
    write(tmp_path)
    told = lines_of(one(tmp_path))
    assert told[0] == (
        "build 0bb91bfda09f20d3 (nightly, text) on head: clean rows, 10 of 40 units, 1,234 rows/s, eta 60 s; "
        f"{one(tmp_path)['idle_seconds']} s since the last progress"
    )
    assert told[2].split() == ["clean", "c4", "4,000", "1,000", "3,000", "lorem_ipsum", "2,999,", "short", "1"]
    assert told[3].split() == ["clean", "(quarantined)", "7"]
    assert told[4].strip() == "http://127.0.0.1:8265/#/jobs/02000000"


@pytest.mark.parametrize(
    ("changes", "state", "said"),
    [
        ({"progressed": ago(1000)}, "stalled", "stalled, 1,"),
        ({"progressed": ago(1000), "updated": ago(900)}, "gone", "its driver ended without a word in clean rows"),
        ({"failed": "GateRefused: too few", "updated": ago(900)}, "failed", "units: GateRefused: too few"),
        ({"units_per_second": 0.0, "rows_per_second": 0.0}, "running", "10 of 40 units; "),
    ],
)
def test_states(tmp_path: Path, changes: dict[str, Any], state: str, said: str) -> None:
    write(tmp_path, **changes)
    build = one(tmp_path)
    assert build["state"] == state
    assert said in headline(build)


def test_what_ended_before_the_last_commit_is_history_and_what_runs_is_not(tmp_path: Path) -> None:
    write(tmp_path, failed="UnitFailed: x", updated=ago(500))
    assert one(tmp_path, ago(600))
    assert running(open_store(str(tmp_path)), ago(400)) == []
    write(tmp_path)
    assert one(tmp_path, ago(0))


def test_watch_follows_to_the_end_and_its_code_says_how_that_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = iter(range(2))

    def wait(seconds: float) -> None:
        """In place of a sleep: the second one lasts until the build has failed."""
        assert seconds == show_status.LINE_SECONDS
        if next(waits) == 1:
            write(tmp_path, failed="UnitFailed: clean[c4]: unit 3")

    monkeypatch.setattr(show_status, "sleep", wait)
    app = typer.Typer()
    app.command()(status)
    (tmp_path / "stages" / "read-0123456789abcdef" / "_done").mkdir(parents=True)
    (tmp_path / "stages" / "read-0123456789abcdef" / "_done" / "000000.json").write_text("{}")
    write(tmp_path)
    ended = CliRunner().invoke(app, [str(tmp_path), "--watch"])
    assert ended.exit_code == 1
    assert ended.output.count("10 of 40 units, 1,234 rows/s") == 1  # once for each writing
    assert "failed in clean rows, 10 of 40 units: UnitFailed: clean[c4]: unit 3" in ended.output
    again = CliRunner().invoke(app, [str(tmp_path), "--watch"])
    assert again.exit_code == 0  # nothing ran: nothing was followed
