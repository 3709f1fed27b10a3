"""`make bench`: every benchmark on one pinned core; the tables go to the screen and to `benchmarks/results`.

python -m benchmarks [CORPUS.parquet]      # default: the committed sample; needs columns id and text
"""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SAMPLE = HERE.parent / "workflows" / "sample" / "sample.parquet"


def machine() -> str:
    """The processor, as the results have to name it."""
    info = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    model = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), "unknown CPU")
    return f"{model}, one core, Python {platform.python_version()}, {datetime.date.today()}"


def main() -> None:
    corpus = sys.argv[1] if len(sys.argv) > 1 else str(SAMPLE)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    (HERE / "results").mkdir(exist_ok=True)
    for name, arguments in (
        ("filters", []),
        ("dedup", [corpus]),
        ("language", [corpus]),
        ("perplexity", [corpus]),
        ("pii", [corpus]),
        ("tokens", [corpus]),
        ("ordering", [corpus]),
        ("packing", [corpus]),
        ("speech", []),
        ("captions", []),
        ("storage", []),
    ):
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *arguments], stdout=subprocess.PIPE, text=True, check=True
        )
        text = f"{machine()}\n\n{done.stdout}"
        print(f"== {name} ==\n{text}")
        (HERE / "results" / f"{name}.txt").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
