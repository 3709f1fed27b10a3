"""Inputs of sizes that crawls have: each is read and cleaned without a stall, every document accounted for."""

from __future__ import annotations

import os
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest

from cluster.storage import open_store
from tests.soak.building import COMMAND
from tests.soak.sizes import small_texts, write_warc
from tests.workflows.corpora import recipe
from workflows.stage import Manifest

FILES, OBJECTS, WARC_BYTES = 200_000, 20_000, 2_000_000_000
LOOK_SECONDS = 5.0
STALL_SECONDS = 900.0  # without one more finished unit
SENDERS = 16
SETTINGS: dict[str, Any] = {"workers": {}}


def built(path: Path, url: str, what: str, said: list[str]) -> list[Manifest]:
    """Build up to the stage `clean`; the manifests of the two stages. Says how long it took and what it needed."""
    store = open_store(url)
    began = moved = time.monotonic()
    done, longest, memory = 0, 0.0, 0
    with (path.parent / "told").open("wb") as told:
        process = subprocess.Popen([COMMAND, "build", path, "--until", "clean"], stdout=told, stderr=told)
        while True:
            try:
                process.wait(LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                now, memory = time.monotonic(), max(memory, _peak_bytes(process.pid))
                finished = sum("/_done/" in stored.key for stored in store.list("stages"))
                if finished != done:
                    done, longest, moved = finished, max(longest, now - moved), now
                if now - moved > STALL_SECONDS:
                    process.kill()
    seconds = time.monotonic() - began
    assert process.returncode == 0, (path.parent / "told").read_text()
    keys = [stored.key for stored in store.list("stages") if stored.key.endswith("/manifest.json")]
    read, clean = sorted((orjson.loads(store.read(key)) for key in keys), key=lambda m: m["name"], reverse=True)
    rates = ", ".join(
        f"{m['name']} {m['seconds']:.0f} s ({m['rows_in'] / m['seconds']:.0f} rows/s)" for m in (read, clean)
    )
    workers = max(read["peak_rss_bytes"], clean["peak_rss_bytes"])
    said.append(
        f"{what}: {seconds:.0f} s in all, {rates}, {read['units']} units, at most {longest:.0f} s between two of them, "
        f"memory of the driver {memory / 1e6:.0f} MB, of a worker {workers / 1e6:.0f} MB"
    )
    return [read, clean]


def _peak_bytes(pid: int) -> int:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except FileNotFoundError:
        return 0
    return int(found[1]) * 1024 if found else 0


@pytest.mark.timeout(7200)
def test_two_hundred_thousand_small_files(tmp_path: Path, sample: Path, say: list[str]) -> None:
    for name, content in small_texts(sample, FILES):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    url = str(tmp_path / "out")
    read, clean = built(
        recipe(tmp_path / "r.yaml", [str(tmp_path / "in")], url, **SETTINGS), url, f"{FILES} files", say
    )
    assert (read["rows_in"], read["quarantined"]) == (FILES, 0)
    assert clean["rows_in"] == read["kept"]


@pytest.mark.timeout(7200)
def test_twenty_thousand_objects(tmp_path: Path, sample: Path, s3: str, say: list[str]) -> None:
    store = open_store(f"{s3}/in")
    began = time.monotonic()
    with ThreadPoolExecutor(SENDERS) as pool:
        for _ in pool.map(lambda named: store.write(*named), small_texts(sample, OBJECTS)):
            pass
    say.append(f"{OBJECTS} objects: sent in {time.monotonic() - began:.0f} s")
    url = f"{s3}/out"
    read, clean = built(recipe(tmp_path / "r.yaml", [f"{s3}/in"], url, **SETTINGS), url, f"{OBJECTS} objects", say)
    assert (read["rows_in"], read["quarantined"]) == (OBJECTS, 0)
    assert clean["rows_in"] == read["kept"]


@pytest.mark.timeout(7200)
def test_a_warc_file_of_two_gigabytes(tmp_path: Path, sample: Path, say: list[str]) -> None:
    path = tmp_path / "pages.warc.gz"
    records = write_warc(path, sample, WARC_BYTES)
    url = str(tmp_path / "out")
    read, clean = built(recipe(tmp_path / "r.yaml", [str(path)], url, **SETTINGS), url, f"{records} pages", say)
    assert (read["rows_in"], read["quarantined"]) == (records, 0)
    assert clean["rows_in"] == read["kept"]
    os.remove(path)
