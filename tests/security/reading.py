"""Reads the files it is given, in a process of bounded memory, and prints what became of them as JSON.

`python -m tests.security.reading MEBIBYTES FILE ...`: the address space that may be added to the one at the start.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import Counter
from pathlib import Path

from cluster.units import peak_rss_bytes
from operators.read.reader import read
from operators.read.span import Fields
from tests.operators.read.archives import opened, whole


def main(mebibytes: int, files: list[str]) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (mebibytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for file in files:
        documents, reasons, began = 0, Counter[str](), time.process_time()
        for batch in read(whole(Path(file)), opened, Fields()):
            documents += batch.docs.num_rows
            reasons.update(batch.quarantined["reason"].to_pylist())
        told = {"file": Path(file).name, "documents": documents, "reasons": reasons}
        told |= {"cpu": round(time.process_time() - began, 2)}
        told |= {"peak_mib": peak_rss_bytes() >> 20}
        print(json.dumps(told), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
