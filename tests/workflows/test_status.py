"""What `log` and `status` say of a corpus."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cluster import commit
from cluster.storage import open_store
from tests.workflows.test_cli import corpusmill
from tests.workflows.test_gc import DAY, Published, leave_behind, published
from workflows.corpus import visible_builds
from workflows.gc import gc
from workflows.retract import retract
from workflows.status import history, status

__all__ = ["published"]  # a fixture


def test_the_log_newest_first_with_what_readers_saw(published: Published, tmp_path: Path) -> None:
    out = published.copy(tmp_path)
    store = open_store(str(out))
    [shown] = visible_builds(store, commit.head(store))
    retract(store, pq.read_table(out / shown["stages"][-1]["files"]["kept"][0]["path"])["id"][:1])
    lines = history(store)
    assert [(line["number"], line["op"]) for line in lines] == [
        (4, "retract"),
        (3, "build"),
        (2, "build"),
        (1, "build"),
    ]
    assert [line["retracted"] for line in lines] == [1, 0, 0, 0]
    assert lines[0]["documents"] == lines[1]["documents"] - 1 == shown["documents"] - 1
    assert lines[0]["tokens"] < lines[1]["tokens"] == shown["tokens"]
    assert lines[0]["visible"] == [lines[0]["build"]] == [shown["build_id"]]
    gc(store, DAY, keep=1)
    assert [line["documents"] for line in history(store)] == [lines[0]["documents"], None, None, None]


def test_status_adds_up_what_readers_see_and_tells_what_is_unfinished(published: Published, tmp_path: Path) -> None:
    out = published.copy(tmp_path)
    store = open_store(str(out))
    [shown] = visible_builds(store, commit.head(store))
    [read] = [path.name for path in out.glob("stages/read-*")]
    left = leave_behind(out, read, "read-" + "f" * 16, 3600)
    next((left / "_done").iterdir()).unlink()
    os.utime(left, None)
    found = status(store)
    assert (found["head"]["number"], found["head"]["build"]) == (3, shown["build_id"])
    [build] = found["builds"]
    assert found["totals"] == {key: build[key] for key in ("documents", "tokens", "shards", "bytes")}
    assert (build["documents"], build["shards"]) == (shown["documents"], len(shown["shards"]))
    on_disk = sum(path.stat().st_size for path in (out / "builds" / shown["build_id"] / "shards").rglob("*.*"))
    assert 0 < build["bytes"] <= on_disk
    [stage] = found["unfinished"]
    assert stage["stage"] == left.name
    assert stage["units_done"] == stage["units"] - 1
    assert 3500 < stage["idle_seconds"] < 7200
    assert found["waiting"]["stages"] == 0


def test_status_tells_what_waits_for_gc(published: Published, tmp_path: Path) -> None:
    out = published.copy(tmp_path)
    store = open_store(str(out))
    (out / "_log" / "OLDEST").write_text("3")
    waiting = status(store)["waiting"]
    assert waiting["stages"] == 3
    assert waiting["bytes"] > 0
    gc(store, DAY)
    assert status(store)["waiting"] == {"stages": 0, "objects": 0, "bytes": 0}


def test_log_and_status_in_words(published: Published, tmp_path: Path) -> None:
    out = published.copy(tmp_path)
    lines = corpusmill("log", out).out.splitlines()
    assert lines[0].split() == ["entry", "op", "when", "build", "builds", "documents", "tokens", "retracted"]
    assert [line.split()[0] for line in lines[1:]] == ["3", "2", "1"]
    assert corpusmill("log", out, "--json").json == history(open_store(str(out)))
    leave_behind(out, next(out.glob("stages/dedup-*")).name, "dedup-" + "f" * 16, 60)
    told = corpusmill("status", out)
    assert told.out.startswith("entry 3, build, ")
    assert "unfinished: dedup-ffffffffffffffff, " in told.out
    assert corpusmill("status", out, "--json").json["totals"] == status(open_store(str(out)))["totals"]


@pytest.mark.parametrize("command", ["log", "status"])
def test_where_there_is_no_corpus_they_end_with_2(tmp_path: Path, command: str) -> None:
    assert corpusmill(command, tmp_path / "out").code == 2
    assert not (tmp_path / "out").exists()
