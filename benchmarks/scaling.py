"""Near-duplicate detection at sizes that no text here has: band rows without texts, through the store and Ray.

    python -m benchmarks.scaling [DOCUMENTS ...] [--memory BYTES]

Each document has 14 band rows, made from its number alone: one in four documents is a near copy of an earlier one,
drawn from all before it, and shares each band with it with a probability of 0.8; copies of copies make chains. About
35% of the rows then are in buckets of two or more. After the signatures all runs as in a build: rows to partitions,
links, the fold, keepers, verdicts over files, and the index for later builds.

Prints, for each size, seconds by the clock and of processor time of all units, bytes that went through exchanges, the
peak memory of any process, and for the largest size every pass. CPU time includes making the rows.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pyarrow as pa

from benchmarks.timing import show_passes
from cluster.session import cpus, prepare_environment, session
from cluster.storage import open_store
from cluster.tables import TableWriter
from operators.dedup.minhash import BANDS, MinHashDedup
from operators.document import parameters
from workflows.global_stage import run_global_stage
from workflows.recipe import Recipe
from workflows.stage import Job, Stage, check_conservation

SIZES = [71_429, 357_143, 714_286, 3_571_429, 10_000_000]  # 1, 5, 10, 50 and 140 million rows
UNIT = 250_000  # documents a file
MIX = np.uint64(0x9E3779B97F4A7C15)


@numba.njit(inline="always")
def _hash(x: Any) -> Any:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@numba.njit(nogil=True, cache=True)
def _rows(first: Any, count: Any, bands: Any) -> Any:
    """The band keys of documents `first` to `first + count`: a copy has those of its source, but for one in five."""
    keys = np.empty((count, bands), np.uint64)
    for k in range(count):
        for band in range(bands):
            n = np.uint64(first + k)
            while n > 0:
                lot = _hash(n * MIX)
                if lot & np.uint64(3) or _hash(lot + np.uint64(band)) % np.uint64(5) == 0:
                    break
                n = (lot >> np.uint64(2)) % n
            keys[k, band] = _hash((n * np.uint64(64) + np.uint64(band)) * MIX)
    return keys


@parameters
class Synthetic(MinHashDedup):
    """minhash_dedup with made-up band rows."""

    unit: int = UNIT

    def _bands(self, docs: pa.Table) -> pa.Table:
        doc = docs["doc"].to_numpy()
        first = int(doc[0] >> np.uint64(32)) * self.unit
        keys = _rows(first, len(doc), self.bands)
        return pa.table({"key": keys.ravel(), "doc": np.repeat(doc, self.bands)})


def run(folder: Path, documents: int, memory: int) -> Mapping[str, Any]:
    """The stage's manifest, with the seconds it took."""
    stage = Stage("dedup", Stage("read", None, ()), (Synthetic(scope="build"),))
    item = {"rel": "none", "version": "1", "source": None, "priority": 0, "weight": 1.0}
    recipe = Recipe(inputs=["none"], output="none", workers={"memory_bytes": memory})
    job = Job(open_store(str(folder)), recipe, (item,))
    entries = []
    for number, first in enumerate(range(0, documents, UNIT)):
        rows = min(UNIT, documents - first)
        columns: dict[str, Any] = {"id": pa.array([f"{n:012d}" for n in range(first, first + rows)])}
        columns |= {"text": pa.array([""] * rows, pa.large_string()), "priority": pa.nulls(rows, pa.int32())}
        columns["chars"] = np.zeros(rows, np.int64)
        with TableWriter(job.store, "above", number) as out:
            out.write(pa.table(columns))
        entries += out.entries
    began = time.perf_counter()
    manifest = run_global_stage(stage, job, {"name": "read", "kept": documents, "files": {"kept": entries}})
    check_conservation(manifest)
    return manifest | {"wall": time.perf_counter() - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", nargs="*", type=int, default=SIZES)
    parser.add_argument("--memory", type=int, default=4 << 30, help="workers.memory_bytes")
    arguments = parser.parse_args()
    prepare_environment()
    with session():
        print(f"{cpus()} CPUs, workers.memory_bytes {arguments.memory / 1e9:.2f} GB")
        heads = ("documents", "band rows", "seconds", "CPU s", "exchanged", "peak", "dropped")
        print(" ".join(f"{head:>12}" for head in heads))
        run(Path(tempfile.mkdtemp()), 1000, arguments.memory)  # compiles
        for documents in arguments.documents:
            with tempfile.TemporaryDirectory(prefix="scaling-") as folder:
                manifest = run(Path(folder), documents, arguments.memory)
            exchanged = sum(one["bytes"] for one in manifest["passes"])
            figures = (
                f"{documents:,}",
                f"{documents * BANDS:,}",
                f"{manifest['wall']:.1f}",
                f"{manifest['cpu_seconds']:.1f}",
                f"{exchanged / 1e9:.2f} GB",
                f"{manifest['peak_rss_bytes'] / 1e9:.2f} GB",
                f"{sum(manifest['dropped'].values()):,}",
            )
            print(" ".join(f"{figure:>12}" for figure in figures), flush=True)
        show_passes(manifest["passes"])


if __name__ == "__main__":
    main()
