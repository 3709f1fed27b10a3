"""Children end with all that they started: when they are killed, and when the process that started them is."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.child import kill_child, log_tail, session_members, start_child, write_private

# A child with a grandchild that has a process group of its own, as the workers of Ray have.
FAMILY = """
import os, time
if os.fork() == 0:
    os.setpgid(0, 0)
print(os.getpid(), flush=True)
time.sleep(600)
"""


def until_printed(log: Path, lines: int) -> list[int]:
    while len(pids := log.read_text("utf-8").split() if log.exists() else []) < lines:
        time.sleep(0.01)
    return [int(pid) for pid in pids]


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has taken away yet has, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_killing_a_child_kills_what_it_started_in_other_process_groups(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = start_child([sys.executable, "-c", FAMILY], tmp_path, {}, log)
    pids = until_printed(log, 2)
    assert len({os.getpgid(pid) for pid in pids}) == 2
    assert session_members(child.pid) == [pid for pid in pids if pid != child.pid]
    kill_child(child)
    assert all(gone(pid) for pid in pids)
    assert session_members(child.pid) == []
    kill_child(child)  # again: nothing to do


def test_a_child_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = "import sys, time; from pathlib import Path; from cluster.child import start_child\n"
    code += "here = Path(sys.argv[1]); sleep = 'import os, time; print(os.getpid(), flush=True); time.sleep(600)'\n"
    code += "start_child([sys.executable, '-c', sleep], here, {}, here / 'log'); time.sleep(600)"
    owner = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    (pid,) = until_printed(tmp_path / "log", 1)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    while not gone(pid):
        time.sleep(0.01)


def test_a_child_has_the_environment_and_folder_it_is_given_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "x")
    code = "import os; print(os.getcwd(), os.environ.get('SECRET'), os.environ['GIVEN'])"
    child = start_child([sys.executable, "-c", code], tmp_path, {"GIVEN": "y"}, tmp_path / "log")
    assert child.wait() == 0
    assert log_tail(tmp_path / "log").split() == [str(tmp_path), "None", "y"]


def test_what_is_private_is_so_also_where_a_file_was_that_is_not(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old", "utf-8")
    file.chmod(0o644)
    write_private(file, b"new")
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"new", 0o600)
