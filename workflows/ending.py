"""How the process of a command ends.

A thread of Arrow that reads an object through Python lets go of it a moment after who asked has the bytes. Where the
interpreter is being taken apart just then, that aborts the process (apache/arrow#34314), though all was done. So it is
not: what was registered for the end has run, and the process ends as it is.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Callable

BUG, LOST_OUTPUT = 1, 120  # exit codes, as Python has them: of an exception, and of output that could not be written


def to_the_end(command: Callable[[], object]) -> None:
    """Run the command, the last of this process. Its exit code is that of the SystemExit that it raises, if any."""
    code = BUG

    def end() -> None:  # registered first, so run last
        logging.shutdown()
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:
            os._exit(code or LOST_OUTPUT)
        os._exit(code)

    atexit.register(end)
    try:
        command()
        code = 0
    except SystemExit as ended:
        code = exit_code(ended)
        raise


def exit_code(ended: SystemExit) -> int:
    """What the process says to who started it: a message is a failure."""
    return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
