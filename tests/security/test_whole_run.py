"""A whole run, from pages to shards in object storage and answers about them, on a machine without a network and in an
environment full of secrets."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest

from tests.security.canaries import ROOT, VALUES, leaks, seen_in


class Left(NamedTuple):
    """What commands left behind: their streams, and the folder that holds all files, Ray's session too."""

    out: bytes
    err: bytes
    folder: Path


@pytest.fixture(scope="module")
def left() -> Iterator[Left]:
    folder = Path(tempfile.mkdtemp(prefix="cm-", dir="/tmp"))  # a short path, as Ray's sockets need
    program = [sys.executable, "-m", "tests.security.offline", sys.executable, "-m", "tests.security.whole_run", folder]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    for given in ("in", "server"):  # a gzip file that is cut, and the files of who has to know the key
        shutil.rmtree(folder / given)
    yield Left(done.stdout, done.stderr, folder)
    shutil.rmtree(folder)


def test_a_build_report_why_and_verify_need_no_network(left: Left) -> None:
    assert left.err.startswith((b"offline: namespace", b"offline: hook"))
    result = orjson.loads(left.out[: left.out.index(b"\n}\n") + 3])
    assert result["committed"]
    assert result["documents"] > 100
    assert b'"fate": "kept"' in left.out
    assert b"checks passed" in left.out


def test_no_secret_of_the_environment_is_in_any_file_or_stream(left: Left) -> None:
    assert seen_in(left.out + left.err, VALUES) == []
    assert leaks(left.folder, VALUES) == []


def test_ray_s_own_files_were_looked_through(left: Left) -> None:
    """Logs and job records of the session that the build started."""
    names = {path.name for path in (left.folder / "tmp").rglob("*")}
    assert {"logs", "raylet.out", "gcs_server.out"} <= names
    assert any(path.suffix == ".parquet" for path in (left.folder / "stored" / "out").rglob("*"))
