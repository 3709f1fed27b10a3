"""How work is timed: by the processor, on a machine that others use as well."""

from __future__ import annotations

import time
from collections.abc import Callable


def seconds(work: Callable[[], object], rounds: int = 3) -> float:
    """CPU seconds of the process, the least of `rounds` after a first run, which compiles or loads what it needs."""
    work()
    taken = []
    for _ in range(rounds):
        begun = time.process_time()
        work()
        taken.append(time.process_time() - begun)
    return min(taken)
