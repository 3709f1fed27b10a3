"""What it costs to compare new band rows with those that earlier builds remember.

    python -m benchmarks.history [--new 1000000] [OLD ...]

Writes indexes of five builds with OLD rows in all (key and document, as minhash_dedup keeps them), then looks up the
keys of NEW rows, one in ten of which is there, in partitions as a build would take them. Prints seconds by the clock
and CPU seconds of the look-up (files are in the page cache), beside those of grouping the new rows alone, the bytes of
the index and the number of rows found.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time

import numpy as np
import pyarrow as pa

from cluster.index import look_up, write_index
from cluster.storage import open_store
from operators.dedup.components import forest, links
from operators.phases import MEMORY, partition_of
from workflows.global_stage import HISTORY_SHARE

BUILDS = 5
SHARED = 0.1
STEP = 20_000_000  # rows written at a time


def measure(old: int, new: int) -> None:
    random = np.random.default_rng(old)
    fresh = random.integers(0, 2**64, new, dtype=np.uint64)
    with tempfile.TemporaryDirectory(prefix="history-") as folder:
        store = open_store(folder)
        entries = []
        for build in range(BUILDS):
            for at in range(0, old // BUILDS, STEP):
                count = min(STEP, old // BUILDS - at)
                keys = random.integers(0, 2**64, count, dtype=np.uint64)
                shared = int(new * SHARED) // BUILDS
                keys[: min(shared, count)] = fresh[build * shared : build * shared + min(shared, count)]
                docs = random.integers(2**63, 2**64, count, dtype=np.uint64)
                entries += write_index(store, f"{build}/{at}", pa.table({"key": keys, "doc": docs}))
        size = sum(entry["bytes"] for entry in entries)
        partitions = max(1, -(-size * HISTORY_SHARE // MEMORY))
        part = partition_of(fresh, partitions)
        clock, cpu, found = time.perf_counter(), time.process_time(), 0
        for p in range(partitions):
            found += sum(table.num_rows for table in look_up(store, entries, np.unique(fresh[part == p])))
        clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
        alone = time.process_time()
        forest(*links(fresh, np.arange(new, dtype=np.uint64)))
        alone = time.process_time() - alone
        print(
            f"{old:>13,} {new:>11,} {size / 1e9:8.2f}GB {partitions:>6} {clock:8.2f} {cpu:8.2f} {alone:8.2f} "
            f"{found:>10,}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", nargs="*", type=int, default=[1_000_000, 10_000_000, 100_000_000])
    parser.add_argument("--new", type=int, default=1_000_000)
    arguments = parser.parse_args()
    forest(*links(np.arange(9, dtype=np.uint64), np.arange(9, dtype=np.uint64)))  # compiles
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    heads = ("old rows", "new rows", "index", "parts", "seconds", "CPU s", "alone", "found")
    print("{:>13} {:>11} {:>10} {:>6} {:>8} {:>8} {:>8} {:>10}".format(*heads))
    for old in arguments.old:
        measure(old, arguments.new)


if __name__ == "__main__":
    main()
