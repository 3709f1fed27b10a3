"""Ordering at sizes that no embeddings here have: made-up vectors, through the command line.

    python -m benchmarks.order_scaling [DOCUMENTS ...] [--dimensions 256] [--method greedy_edge]

The vectors are a mixture: one centre for every fifty documents on average, sizes as uneven as topics are (Zipf), and
noise of the length of a centre, so that neighbours in the same cluster are alike and those of other clusters hardly.
Each size is one `corpusmill order --no-text`: read, ids made unique, neighbours, path, Parquet in order.

Prints, for each size, seconds by the clock, of processor time of the order stage, bytes exchanged, the peak memory of
any process, recall and mean similarity along the path; for the largest size every pass.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.timing import show_passes
from cluster.storage import open_store
from workflows.corpus import newest_build

SIZES = [100_000, 300_000, 1_000_000]
FILE = 100_000  # documents a file
PER_CENTRE = 50


def lay_out(folder: Path, documents: int, dimensions: int) -> None:
    """Write the vectors as Parquet, ids scrambled so that they say nothing of clusters."""
    rng = np.random.default_rng(7)
    centres = rng.standard_normal((documents // PER_CENTRE, dimensions), np.float32)
    share = 1 / (np.arange(len(centres)) + 10)
    for number, first in enumerate(range(0, documents, FILE)):
        rows = min(FILE, documents - first)
        vectors = centres[rng.choice(len(centres), rows, p=share / share.sum())]
        vectors = vectors + rng.standard_normal((rows, dimensions), np.float32)
        column = pa.FixedSizeListArray.from_arrays(vectors.astype(np.float16).ravel(), dimensions)
        ids = pa.array([f"{n * 2654435761 % (1 << 32):010d}" for n in range(first, first + rows)])
        pq.write_table(pa.table({"id": ids, "vector": column}), folder / f"{number:05d}.parquet")


def run(documents: int, dimensions: int, method: str) -> Mapping[str, Any]:
    """The build's manifest, with the seconds it took."""
    with tempfile.TemporaryDirectory(prefix="order-") as name:
        folder = Path(name)
        (folder / "in").mkdir()
        lay_out(folder / "in", documents, dimensions)
        began = time.perf_counter()
        command = [
            str(Path(sys.executable).with_name("corpusmill")),
            "order",
            str(folder / "in"),
            "-o",
            str(folder / "out"),
        ]
        command += ["--no-text", "--column", "vector", "--method", method]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wall = time.perf_counter() - began
        return newest_build(open_store(str(folder / "out"))) | {"wall": wall}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", nargs="*", type=int, default=SIZES)
    parser.add_argument("--dimensions", type=int, default=256)
    parser.add_argument("--method", default="greedy_edge")
    arguments = parser.parse_args()
    heads = ("documents", "seconds", "order s", "CPU s", "exchanged", "peak", "recall", "adjacent", "random")
    print(" ".join(f"{head:>10}" for head in heads))
    for documents in arguments.documents:
        manifest = run(documents, arguments.dimensions, arguments.method)
        stage = next(stage for stage in manifest["stages"] if stage["name"] == "order")
        told = stage["operators"][0]["summary"]
        figures = (
            f"{documents:,}",
            f"{manifest['wall']:.0f}",
            f"{stage['seconds']:.0f}",
            f"{stage['cpu_seconds']:.0f}",
            f"{sum(one['bytes'] for one in stage['passes']) / 1e9:.2f} GB",
            f"{max(s['peak_rss_bytes'] for s in manifest['stages']) / 1e9:.2f} GB",
            *(f"{told[name]:.3f}" for name in ("recall", "adjacent", "random")),
        )
        print(" ".join(f"{figure:>10}" for figure in figures), flush=True)
    show_passes(stage["passes"])


if __name__ == "__main__":
    main()
