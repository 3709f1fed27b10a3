"""What a cluster costs beside Ray on this machine: the same recipe embedded and submitted, on as many CPUs.

    python -m benchmarks.submitting CORPUS.parquet [--workers 2] [--rounds 2]

Builds a small and a large corpus (an eighth of the documents, and all) with `corpusmill build`, and with `corpusmill
submit` on a local cluster of a head and nodes of one CPU each, in turns; the least of the rounds counts. Each command
is timed from its start to its end, so starting Ray is in the one and packing, sending and following the job are in the
other. All have been run once before, so that kernels are compiled. The shards must be the same.

Prints seconds by the clock and of processor time, and of the difference what is fixed and what a gigabyte adds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
from ruamel.yaml import YAML

from cluster.local_cluster import LocalCluster

COMMAND = Path(sys.executable).with_name("corpusmill")


def run(arguments: list[str], recipe: dict[str, Any], folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """The result of one build into an empty output, with its seconds and the stages' processor time."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        path = Path(name, "recipe.yaml")
        with path.open("w") as file:
            YAML().dump(recipe | {"output": f"{name}/out"}, file)
        own = {key: value for key, value in os.environ.items() if key != "RAY_AUTH_TOKEN"} | environment
        began = time.perf_counter()
        done = subprocess.run([COMMAND, *arguments, path, "--json"], env=own, capture_output=True, check=False)
        seconds = time.perf_counter() - began
        if done.returncode:
            raise SystemExit(done.stderr.decode())
        result: dict[str, Any] = orjson.loads(done.stdout)
        manifest = orjson.loads(Path(name, "out", "builds", result["build_id"], "manifest.json").read_bytes())
        hashes = sorted(shard["sha256"] for shard in result["shards"])
        stages = sum(stage["seconds"] for stage in manifest["stages"])
        return {"seconds": seconds, "stages": stages, "cpu": manifest["cost"]["cpu_seconds"], "hashes": hashes}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    documents = pq.read_table(given.corpus)
    kinds = {"embedded": ["build"], "submitted": ["submit"]}
    print(f"{'MB':>8} {'':10} {'seconds':>8} {'in stages':>10} {'CPU s':>8}")
    differences = []
    with tempfile.TemporaryDirectory(prefix="submitting-") as name:
        folder = Path(name)
        with LocalCluster(folder / "cluster", 1 + given.workers) as cluster:
            for part in (8, 1):
                source = folder / f"part-{part}.parquet"
                pq.write_table(documents.slice(0, len(documents) // part), source, row_group_size=2000)
                size = documents.slice(0, len(documents) // part)["text"].nbytes / 1e6
                recipe = {"workflow": "text", "inputs": [str(source)], "workers": {"cpus": given.workers}}
                recipe |= {"params": {"tokenizer": {"name": "train:bpe", "vocab": 8000}}}
                best: dict[str, dict[str, Any]] = {}
                for number in range(given.rounds + (part == 8)):  # the first one compiles
                    for kind, arguments in kinds.items():
                        found = run(arguments, recipe, folder, cluster.environment())
                        if part == 8 and number == 0:
                            continue
                        if kind not in best or found["seconds"] < best[kind]["seconds"]:
                            best[kind] = found
                for kind, found in best.items():
                    print(f"{size:8.1f} {kind:10} {found['seconds']:8.1f} {found['stages']:10.1f} {found['cpu']:8.1f}")
                if best["embedded"]["hashes"] != best["submitted"]["hashes"]:
                    raise SystemExit("the shards differ")
                differences.append((size / 1000, best["submitted"]["seconds"] - best["embedded"]["seconds"]))
    (small, fixed), (large, whole) = differences
    slope = (whole - fixed) / (large - small)
    print(f"\nsubmitted less embedded: {fixed - slope * small:.1f} s fixed, {slope:.1f} s a GB")


if __name__ == "__main__":
    main()
