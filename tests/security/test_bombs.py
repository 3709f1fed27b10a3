"""Small files that decode to much, and files that lie: what comes of them, in bounded memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from operators.read.span import Fields
from tests.operators.read.archives import rows, whole
from tests.security.bombs import PARQUET, STREAMS

ADDED_MIB = 3072  # address space that reading may add
MOST_RSS_MIB = 1280
SHORTEST_FUZZ = 400
DOCUMENTS = {"twice.txt.gz": 0, "lies.warc": 2, "encodings.warc.gz": 1, "member.warc.gz": 2, "page.html.gz": 0}
KEPT_ROWS = {"rows.parquet": 1_000, "prefixes.parquet": 1_023}  # those of the first gibibyte


def run(module: str, *arguments: object) -> str:
    """Standard output of a module of these tests in its own process, which must end well."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.security.{module}", *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the reader made of each file."""
    folder = tmp_path_factory.mktemp("bombs")
    for name, (make, _) in {**PARQUET, **STREAMS}.items():
        make(folder / name)
    lines = run("reading", ADDED_MIB, *sorted(folder.iterdir())).splitlines()
    return {found["file"]: found for found in map(json.loads, lines)}


@pytest.mark.parametrize("name", PARQUET)
def test_a_parquet_file_that_grows_is_cut_off_where_it_does(told: dict[str, Any], name: str) -> None:
    assert told[name]["reasons"] == {PARQUET[name][1]: 1}
    assert told[name]["documents"] <= KEPT_ROWS.get(name, 0)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_grows_or_lies_costs_what_it_is_and_no_neighbour(told: dict[str, Any], name: str) -> None:
    assert told[name]["reasons"] == {STREAMS[name][1]: 1}
    good = DOCUMENTS.get(name, 1 if "jsonl" in name else 0)
    assert told[name]["documents"] == good


def test_memory_stays_bounded_over_all_of_them(told: dict[str, Any]) -> None:
    assert max(found["peak_mib"] for found in told.values()) < MOST_RSS_MIB


def test_damaged_parquet_gives_rows_or_reasons_and_never_ends_the_process(tmp_path: Path) -> None:
    """Seeded; `CORPUSMILL_FUZZ` is the number of files."""
    count = max(SHORTEST_FUZZ, int(os.environ.get("CORPUSMILL_FUZZ", "0")))
    found = json.loads(run("fuzzing", 1, count, tmp_path))
    assert found.pop("peak_mib") < MOST_RSS_MIB
    assert found["rows"] > 0
    assert found["refused"] > 0
    assert found["bad_row_group"] > 0
    assert set(found) <= {"rows", "refused", "bad_row_group", "too_large", "unsafe_type", "invalid_utf8", "nul"} | {
        "no_text",
        "unreadable_file",
    }


def test_a_line_with_too_many_keys_costs_that_line(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    keys = b", ".join(b'"k%d": 1' % n for n in range(1001))
    path.write_bytes(b'{"id": "a", "text": "t"}\n{"text": "t", ' + keys + b'}\n{"id": "b", "text": "t"}\n')
    assert rows(whole(path)) == (["a", "b"], [(25, "too_large")])


def test_lines_whose_keys_never_repeat_are_refused_before_they_become_columns(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    lines = [b'{"text": "t", ' + b", ".join(b'"k%d_%d": 1' % (n, k) for k in range(900)) + b"}" for n in range(5)]
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(ValueError, match=r"keys\.jsonl: more than 4096 different keys"):
        rows(whole(path), Fields())
