"""Near-duplicate detection beside its peers, on one core, in one run: seconds, ratios, recall and precision.

    python -m benchmarks.dedup [FOLDER OR FILE.parquet] [--documents 6000]

Every tool takes 112 hash functions, 14 bands of 8 and shingles of 5 words; each peer runs in an environment of its own
(`make bench` makes them) on the same core. Times are CPU seconds, the least of three runs, or of as many as fit into 20
seconds; MB are 10^6 bytes of UTF-8. Where a tool has no other way the whole signs twice (gaoya's `query`).

The documents, where there are more than asked for: three quarters are drawn from pairs that loose banding finds (42
bands of 3), the rest from all others, so that there are many near-duplicates of every degree. The truth is the exact
Jaccard similarity of the shingles of those pairs, of words in our normal form, which is also datatrove's for scripts
with spaces; others cut words otherwise, which costs them recall and is not a fault of theirs.

- recall at J: of pairs of at least that similarity, those of which not both are kept;
- precision: of the documents removed, those with a similarity of 0.7 or more to any other, and to one that is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.scaling import _rows as synthetic_rows
from operators.dedup.components import connect, forest, links
from operators.dedup.minhash import BANDS, ROWS, MinHashDedup
from operators.dedup.signature import family, hash_bands, shingle_sets, sign
from operators.dedup.similarity import _jaccard
from operators.phases import run_in_memory

ROOT = Path(__file__).parents[1]
LOOSE = (42, 3)
NEIGHBOURS = 64
SEED = 7
SYNTHETIC = 714_286  # documents of 14 rows
PEERS = {
    "datasketch": "bench-sketches",
    "datasketch_xxh32": "bench-sketches",
    "rensa": "bench-sketches",
    "gaoya": "bench-sketches",
    "text_dedup": "bench-text-dedup",
    "data_juicer": "bench-data-juicer",
    "datatrove": "peers",
    "datatrove_spacy": "peers",
}
NAMES = {"datatrove": "datatrove (str.split)", "datatrove_spacy": "datatrove (as shipped)"}
Pairs = NDArray[np.int64]


def read(path: str) -> pa.Table:
    files = sorted(Path(path).glob("*.parquet")) if Path(path).is_dir() else [Path(path)]
    table = pa.concat_tables([pq.read_table(file, columns=["id", "text"]) for file in files])
    return table.set_column(1, "text", table["text"].cast(pa.large_string()))


def loose_pairs(texts: pa.ChunkedArray) -> Pairs:
    """Pairs that share a loose band: each document with up to NEIGHBOURS before it in its group."""
    bands, rows = LOOSE
    signatures, counts = sign(texts, family(SEED, bands * rows), 5, 8)
    keys = hash_bands(signatures, bands, rows)
    found: list[Pairs] = []
    for band in range(bands):
        column = np.where(counts > 0, keys[:, band], np.arange(len(keys), dtype=np.uint64))
        order = np.argsort(column, kind="stable")
        same = column[order[1:]] == column[order[:-1]]
        starts = np.append(0, np.flatnonzero(~same) + 1)
        place = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
        before = np.minimum(place, NEIGHBOURS)
        right = np.repeat(np.arange(len(order)), before)
        left = right - 1 - (np.arange(len(right)) - np.repeat(np.cumsum(before) - before, before))
        low, high = np.minimum(order[left], order[right]), np.maximum(order[left], order[right])
        found.append(np.unique(low * len(keys) + high))
    pairs = np.unique(np.concatenate(found))
    return np.stack((pairs // len(keys), pairs % len(keys)), axis=1)


def exact_jaccard(texts: pa.ChunkedArray, pairs: Pairs) -> NDArray[np.float64]:
    lists = shingle_sets(texts, 5, 8)
    left, right = np.ascontiguousarray(pairs.T)
    return np.asarray(_jaccard(lists.values.to_numpy(), lists.offsets.to_numpy(), left, right), np.float64)


def chosen(table: pa.Table, documents: int) -> pa.Table:
    """`documents` of the table, three quarters of them from loose pairs."""
    if table.num_rows <= documents:
        return table
    random = np.random.default_rng(SEED)
    pairs = loose_pairs(table["text"])
    paired = random.permutation(pairs).ravel()
    _, at = np.unique(paired, return_index=True)
    near = paired[np.sort(at)][: documents * 3 // 4]
    rest = np.setdiff1d(np.arange(table.num_rows), near)
    rows = np.concatenate((near, random.choice(rest, documents - len(near), replace=False)))
    return table.take(pa.array(random.permutation(rows))).combine_chunks()


def cpu_seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    taken = []
    while len(taken) < repeats and sum(taken) < 20:
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def peer(tool: str, path: Path) -> dict[str, Any] | None:
    """What a peer answers; None where its environment is missing."""
    environment = f".venv-{PEERS.get(tool, 'bench-sketches')}"
    python = ROOT / environment / "bin" / "python"
    if not python.exists():
        print(f"{tool}: not installed: make {environment}/.installed")
        return None
    script = ROOT / "benchmarks" / "peers" / "near_duplicates.py"
    done = subprocess.run([python, script, tool, path], stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


class Truth:
    """Similarities of the pairs that may be near-duplicates, and what a tool's removals are worth by them."""

    def __init__(self, texts: pa.ChunkedArray) -> None:
        self.pairs = loose_pairs(texts)
        self.similarity = exact_jaccard(texts, self.pairs)
        self.count = len(texts)

    def judge(self, removed: Sequence[int]) -> list[float]:
        gone = np.zeros(self.count, bool)
        gone[list(removed)] = True
        recall = []
        for least in (0.7, 0.8, 0.9):
            near = self.pairs[self.similarity >= least]
            recall.append(float(gone[near].any(axis=1).mean()) if len(near) else 1.0)
        near = self.pairs[self.similarity >= 0.7]
        any_near, near_kept = np.zeros(self.count, bool), np.zeros(self.count, bool)
        any_near[near.ravel()] = True
        for a, b in ((0, 1), (1, 0)):
            near_kept[near[~gone[near[:, b]], a]] = True
        share = [float(which[gone].mean()) if gone.any() else 1.0 for which in (any_near, near_kept)]
        return [*recall, *share]


def signatures(table: pa.Table, megabytes: float, answers: dict[str, dict[str, Any]]) -> None:
    column, hashes = table["text"], family(1, BANDS * ROWS)
    sign(column.slice(0, 10), hashes, 5, 8)
    ours = cpu_seconds(lambda: sign(column, hashes, 5, 8))
    print(f"\nSignatures\n{'':26} {'CPU s':>9} {'MB/s':>9} {'ours is':>9}")
    for name, seconds in {"corpusmill": ours, **{name: a["sign"] for name, a in answers.items()}}.items():
        print(f"{NAMES.get(name, name):26} {seconds:9.3f} {megabytes / seconds:9.1f} {seconds / ours:8.1f}x")


def whole(table: pa.Table, megabytes: float, answers: dict[str, dict[str, Any]]) -> None:
    truth = Truth(table["text"])
    variants = {
        "corpusmill": MinHashDedup(),
        "corpusmill, estimated": MinHashDedup(verify="estimated"),
        "corpusmill, estimated .75": MinHashDedup(verify="estimated", min_similarity=0.75),
        "corpusmill, exact": MinHashDedup(verify="exact"),
        "corpusmill, datatrove": MinHashDedup(mode="datatrove"),
    }
    rows: dict[str, tuple[float, list[int]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "documents.parquet")
        pq.write_table(table, path)
        for name, operator in variants.items():

            def run(operator: MinHashDedup = operator) -> pa.Table:
                docs = pq.read_table(path)
                docs = docs.append_column("priority", pa.nulls(docs.num_rows, pa.int32()))
                return run_in_memory(operator, [docs])

            verdicts = run()
            gone = verdicts.filter(pc.is_valid(verdicts["drop_reason"]))["doc"].to_pylist()
            rows[name] = cpu_seconds(run), gone
    ours = rows["corpusmill"][0]
    rows |= {NAMES.get(name, name): (answer["whole"], answer["removed"]) for name, answer in answers.items()}
    print(f"\nWhole deduplication, ours with reading Parquet; {int((truth.similarity >= 0.7).sum())} pairs of J >= .7")
    heads = ("CPU s", "MB/s", "ours is", "removed", "r .7", "r .8", "r .9", "p any", "p kept")
    print(f"{'':26} {' '.join(f'{head:>8}' for head in heads)}")
    for name, (seconds, gone) in rows.items():
        judged = " ".join(f"{value:8.4f}" for value in truth.judge(gone))
        times = f"{seconds:8.3f} {megabytes / seconds:8.1f} {seconds / ours:7.1f}x"
        print(f"{name:26} {times} {len(gone):8} {judged}")


def error(texts: pa.ChunkedArray) -> None:
    """Of estimates of similarity, on up to 400 pairs of each tenth."""
    pairs = loose_pairs(texts)
    random = np.random.default_rng(SEED)
    pairs = random.permutation(pairs)[:200_000]
    exact = exact_jaccard(texts, pairs)
    tenth = np.minimum((exact * 10).astype(int), 9)
    drawn = np.concatenate([np.flatnonzero(tenth == k)[:400] for k in range(10)])
    a, b = pairs[drawn].T
    errors = []
    print(f"\nMean error of estimated similarity, 112 hash functions, {len(drawn)} pairs, 4 seeds")
    for seed in range(1, 5):
        signed, _ = sign(texts, family(seed, BANDS * ROWS), 5, 8)
        errors.append(np.abs((signed[a] == signed[b]).mean(axis=1) - exact[drawn]).mean())
    print(f"{'corpusmill':26} {np.mean(errors):9.4f}")
    places, numbers = np.unique(pairs[drawn], return_inverse=True)
    given = {"texts": texts.take(pa.array(places)).to_pylist(), "pairs": numbers.reshape(-1, 2).tolist()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pairs.json")
        path.write_text(json.dumps(given), "utf-8")
        if answer := peer("error", path):
            print(f"{'datasketch':26} {answer['error']:9.4f}   by its own words, {answer['pairs']} pairs")


def grouping() -> None:
    """Band rows to components."""
    keys = synthetic_rows(0, SYNTHETIC, BANDS)
    docs = np.repeat(np.arange(SYNTHETIC, dtype=np.uint64), BANDS)
    rows = keys.ravel()

    def ours() -> int:
        left, right = forest(*links(rows, docs))
        tables = list(connect([pa.table({"left": left, "right": right})], [SYNTHETIC], 1 << 30))
        found = pa.concat_tables(tables)
        return SYNTHETIC - found.num_rows + len(pc.unique(found["root"]))

    groups = ours()
    seconds = cpu_seconds(ours)
    print(f"\nGrouping and components, {len(rows):,} band rows\n{'':26} {'CPU s':>9} {'ours is':>9}")
    print(f"{'corpusmill':26} {seconds:9.3f} {1:8.1f}x")
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder, "rows.npz"), keys=rows, docs=docs)
        if answer := peer("components", Path(folder, "rows.npz")):
            for name, (taken, found) in answer.items():
                assert found == groups, name
                print(f"{name:26} {taken:9.3f} {taken / seconds:8.1f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="?", default=str(ROOT / "workflows" / "sample" / "sample.parquet"))
    parser.add_argument("--documents", type=int, default=6000)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    everything = read(arguments.corpus)
    table = chosen(everything, arguments.documents)
    megabytes = pc.sum(pc.binary_length(table["text"])).as_py() / 1e6
    print(f"{table.num_rows} documents of {everything.num_rows}, {megabytes:.1f} MB; 14 x 8, shingles of 5 words")
    answers: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "documents.jsonl")
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in table["text"].to_pylist()), "utf-8")
        for tool in PEERS:
            if answer := peer(tool, path):
                answers[tool] = answer
    versions = {
        f"{NAMES.get(tool, tool).split(' ')[0].removesuffix('_xxh32')} {a['version']}": 1 for tool, a in answers.items()
    }
    print(", ".join(versions))
    signatures(table, megabytes, answers)
    whole(table, megabytes, answers)
    error(everything["text"])
    grouping()
    if everything.num_rows > table.num_rows:
        megabytes = pc.sum(pc.binary_length(everything["text"])).as_py() / 1e6
        print(f"\nAll {everything.num_rows} documents, {megabytes:.1f} MB")
        signatures(everything, megabytes, {})
        whole(everything, megabytes, {})


if __name__ == "__main__":
    main()
