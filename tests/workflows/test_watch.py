"""What is told of a build while it runs and when it ends: its record in the store, and what Ray exports of it."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
import ray

from cluster.storage import open_store
from tests.workflows.corpora import recipe
from tests.workflows.test_cli import corpusmill
from workflows import watch
from workflows.build import build, prepare
from workflows.gates import GateRefused
from workflows.gc import gc
from workflows.running import running
from workflows.show_status import lines_of
from workflows.stage import Progress

ROWS = 120
EXPORTED = re.compile(r"^ray_corpusmill_(\w+)\{(.*)\} (\S+)$", re.MULTILINE)
EXPORT_SECONDS = 120  # Ray exports every 10 s; a loaded machine is late


@pytest.fixture
def small(tmp_path: Path, sample: Path) -> Path:
    """A recipe over few documents, most of which the first operator of `clean` drops."""
    pq.write_table(pq.read_table(sample / "sample.parquet").slice(0, ROWS), tmp_path / "in.parquet", row_group_size=30)
    params: dict[str, Any] = {"language": {"keep": ["de"], "min_score": 0.3}}
    params |= dict.fromkeys(("gopher_repetition", "gopher_quality", "c4", "fineweb"), "off")
    workers = {"unit_bytes": 20_000}
    return recipe(tmp_path / "r.yaml", [str(tmp_path / "in.parquet")], tmp_path / "out", params=params, workers=workers)


class Stops(Progress):
    """Waits until the record of the running build says so, once, then fails as Ctrl-C does."""

    def __init__(self, out: Path, seen: Callable[[dict[str, Any]], bool]) -> None:
        self.out, self.seen = out, seen
        self.record: dict[str, Any] = {}

    def unit(self, record: dict[str, Any]) -> None:
        deadline = time.monotonic() + EXPORT_SECONDS
        while time.monotonic() < deadline:
            for path in (self.out / "_running").glob("*.json"):
                self.record = orjson.loads(path.read_bytes())
            if self.record and self.seen(self.record):
                raise KeyboardInterrupt
            if self.record.get("stage") == "read":  # go on to the next stage
                return
            time.sleep(0.02)
        raise AssertionError(f"the record never came so far: {self.record}")


def exported(build_id: str, enough: Callable[[dict[tuple[str, ...], float]], bool]) -> dict[tuple[str, ...], float]:
    """The figures of a build as Prometheus scrapes them, by name and tags: (stage, pass or operator, reason)."""
    deadline = time.monotonic() + EXPORT_SECONDS
    while True:
        found: dict[tuple[str, ...], float] = {}
        for node in ray.nodes():
            url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(url, timeout=EXPORT_SECONDS) as answer:
                text = answer.read().decode()
            for name, labels, number in EXPORTED.findall(text):
                tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
                if tags["build"] == build_id:
                    keys = (tags[key] for key in ("stage", "pass", "operator", "reason", "outcome") if key in tags)
                    found[name, *keys] = float(number)
        if enough(found) or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def test_an_interrupted_build_leaves_word_and_the_next_run_tells_all_figures_once(
    small: Path, tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "TELL_SECONDS", 0.02)
    monkeypatch.setattr(watch, "WRITE_SECONDS", 0.02)
    stops = Stops(tmp_path / "out", lambda record: record["stage"] == "clean")
    with pytest.raises(KeyboardInterrupt):
        build(prepare(small, until="clean", progress=stops))
    assert (stops.record["pass"], stops.record["units"]) == ("rows", 4)
    assert stops.record["stages"][0]["kept"] == ROWS
    assert stops.record["job"] == ray.get_runtime_context().get_job_id()
    store = open_store(str(tmp_path / "out"))
    [left] = running(store, None)
    assert (left["state"], left["stage"], left["failed"]) == ("failed", "clean", "KeyboardInterrupt: ")
    assert "failed in clean rows, " in lines_of(left)[0]
    assert corpusmill("status", tmp_path / "out", "--json").json["running"][0]["build_id"] == left["build_id"]

    result = build(prepare(small, until="clean"))
    assert running(store, None) == []
    assert result["build_id"] == left["build_id"]
    figures = exported(result["build_id"], lambda found: found.get(("build_running",)) == 0)
    read, clean = result["stages"]
    assert figures["stage_rows_in", "read"] == read["rows_in"] == ROWS  # cached: told from its manifest
    assert figures["stage_rows_kept", "clean"] == clean["kept"]
    assert (figures["pass_units", "clean", "rows"], figures["pass_units_done", "clean", "rows"]) == (4, 4)
    for operator in clean["operators"]:
        assert figures["operator_rows_in", "clean", operator["name"]] == operator["rows_in"]
    dropped = {f"{key[2]}/{key[3]}": n for key, n in figures.items() if key[0] == "operator_rows_dropped"}
    assert dropped == clean["dropped"]
    assert sum(dropped.values()) > ROWS / 2
    assert figures["pass_read_bytes", "clean", "rows"] > 0
    assert figures["pass_cpu_seconds", "clean", "rows"] > 0
    assert time.time() - 120 < figures["build_progress_timestamp_seconds",] < time.time()
    ended = {key[1]: n for key, n in figures.items() if key[0] == "builds_total"}
    assert ended == {"interrupted": 1, "done": 1}


def test_a_refused_build_says_why_until_it_is_built_or_collected(
    small: Path, tmp_path: Path, ray_session: None
) -> None:
    store = open_store(str(tmp_path / "out"))
    text = small.read_text()
    small.write_text(text + "gates: {max_drop: {language: 0.01}}\n")
    for _ in range(2):  # the second run has nothing to do but to be refused again
        with pytest.raises(GateRefused):
            build(prepare(small, until="clean"))
        [left] = running(store, None)
        assert left["failed"].startswith("GateRefused: ")
    assert running(store, committed="9999") == []  # a later commit makes it history
    gc(store, grace=3600)
    assert len(running(store, None)) == 1
    gc(store, grace=-3600)
    assert running(store, None) == []


def test_a_store_that_takes_no_record_is_told_once_and_the_build_is_none_the_worse(
    small: Path, tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watch, "TELL_SECONDS", 0.01)
    monkeypatch.setattr(watch, "WRITE_SECONDS", 0.01)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "_running").write_text("a file, where a folder has to be")
    result = build(prepare(small, until="clean"))
    assert [stage["name"] for stage in result["stages"]] == ["read", "clean"]
    assert capfd.readouterr().err.count("cannot follow this build") == 1
