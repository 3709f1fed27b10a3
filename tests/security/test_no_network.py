"""What test_whole_run.py relies on where the kernel allows no namespace."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.security.offline import refusing

CONNECTING = "import socket; socket.socket().connect(('192.0.2.1', 80))"


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
