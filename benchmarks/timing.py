"""How work is timed: by the processor, on a machine that others use as well; and what passes of a stage cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def seconds(work: Callable[[], object], rounds: int = 3) -> float:
    """CPU seconds of the process, the least of `rounds` after a first run, which compiles or loads what it needs."""
    work()
    taken = []
    for _ in range(rounds):
        begun = time.process_time()
        work()
        taken.append(time.process_time() - begun)
    return min(taken)


def show_passes(passes: Iterable[Mapping[str, Any]]) -> None:
    """Print a line for each pass, as manifests have them."""
    for one in passes:
        print(
            f"  {one['name']:44} {one['units']:5} units {one['cpu_seconds']:8.1f} CPU s "
            f"{one['bytes'] / 1e9:7.2f} GB {one['peak_rss_bytes'] / 1e9:6.2f} GB peak"
        )
