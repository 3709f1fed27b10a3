"""A whole run, from pages to shards and answers about them, on a machine without a network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tests.security.canaries import ROOT
from tests.security.offline import refusing
from tests.workflows.corpora import lay_out, recipe

COMMAND = str(Path(sys.executable).with_name("corpusmill"))
PROGRAM = """
import subprocess, sys
command, recipe, out, known = sys.argv[1:]
for arguments in (["build", recipe, "--json"], ["report", out], ["why", out, known, "--json"], ["verify", out]):
    subprocess.run([command, *arguments], check=True)
"""
CONNECTING = "import socket; socket.socket().connect(('192.0.2.1', 80))"


def test_a_build_report_why_and_verify_need_no_network(tmp_path: Path, sample: Path) -> None:
    lay_out(tmp_path / "in", sample)
    made = recipe(tmp_path / "r.yaml", [str(tmp_path / "in")], tmp_path / "out")
    program = [sys.executable, "-c", PROGRAM, COMMAND, str(made), str(tmp_path / "out"), "eos"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.security.offline", *program], cwd=ROOT, capture_output=True, check=False
    )
    told = done.stderr.decode()
    assert done.returncode == 0, told[-3000:]
    assert told.startswith(("offline: namespace", "offline: hook"))
    end = done.stdout.index(b"\n}\n") + 3
    result = orjson.loads(done.stdout[:end])
    assert result["committed"]
    assert result["documents"] > 100
    assert b'"fate": "kept"' in done.stdout
    assert b"checks passed" in done.stdout


@pytest.mark.parametrize("nested", [False, True])
def test_where_no_namespace_is_allowed_the_hook_refuses_in_every_python_process(nested: bool) -> None:
    code = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {CONNECTING!r}]))"
    done = subprocess.run(
        [sys.executable, "-c", code if nested else CONNECTING],
        env=refusing(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "a connection to another machine: socket.connect 192.0.2.1" in done.stderr
