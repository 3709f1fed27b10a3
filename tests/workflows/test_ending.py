"""How a command's process ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Arrow reads ahead in a thread of its own, which comes back from Python while the interpreter is being taken apart.
READING = """
import io, time
import pyarrow as pa, pyarrow.csv

class Slow(io.RawIOBase):
    reads = 0

    def readable(self):
        return True

    def readinto(self, buffer):
        self.reads += 1
        time.sleep(0.5 * (self.reads > 2))
        buffer[:] = b"1,2\\n" * (len(buffer) // 4) + b"\\n" * (len(buffer) % 4)
        return len(buffer)

def command():
    options = pa.csv.ReadOptions(block_size=1 << 12, column_names=["a", "b"])
    pa.csv.open_csv(Slow(), options).read_next_batch()
    print("done")
"""


def ended(code: str, program: str = "") -> subprocess.CompletedProcess[str]:
    program = f"{program}\n{code}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=100)


def test_a_thread_of_arrow_that_is_late_aborts_no_command() -> None:
    done = ended("from workflows.ending import to_the_end; to_the_end(command)", READING)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.parametrize(
    ("command", "code"),
    [("print", 0), ("sys.exit", 0), ("lambda: sys.exit(3)", 3), ("lambda: sys.exit('told')", 1), ("lambda: 1 / 0", 1)],
)
def test_codes_handlers_and_output_are_what_they_would_be(command: str, code: int) -> None:
    program = """
import atexit, sys
from workflows.ending import to_the_end
def last():
    sys.stdout.write("last")
def command():
    atexit.register(last)
    """
    done = ended(f"{program}({command})()\nto_the_end(command)")
    assert (done.returncode, done.stdout.strip()) == (code, "last")
    assert ("told" in done.stderr, "ZeroDivisionError" in done.stderr) == ("told" in command, "1 / 0" in command)


def test_output_that_cannot_be_written_is_a_failure() -> None:
    program = [sys.executable, "-c", "from workflows.ending import to_the_end; to_the_end(lambda: print('x'))"]
    with open("/dev/full", "w") as full:
        assert subprocess.run(program, stdout=full, stderr=subprocess.PIPE, check=False).returncode != 0
