"""Near-duplicate detection beside its peers: signatures alone, and the whole deduplication, on one core.

    taskset -c 0 python -m benchmarks.minhash CORPUS.parquet [--documents 1000]

CORPUS is a Parquet file with columns `id` and `text`. Times are CPU seconds of the process, the best of three, after
a first run that compiles; MB are 10^6 bytes of UTF-8. Every tool takes 112 hash functions, 14 bands of 8, shingles of
5 words. datatrove's signatures take part where it is installed, with words split at white space: its default, spaCy,
is far slower.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasketch import MinHash, MinHashLSH

from operators.dedup.minhash import MinHashDedup
from operators.dedup.signature import family, sign
from operators.phases import run_in_memory

BANDS, ROWS, SHINGLE = 14, 8, 5


def read(path: str, documents: int) -> pa.Table:
    batch = next(pq.ParquetFile(path).iter_batches(documents, columns=["id", "text"]))
    table = pa.Table.from_batches([batch])
    texts = table["text"].combine_chunks().cast(pa.large_string())
    return pa.table({"id": table["id"], "text": texts, "priority": pa.nulls(len(texts), pa.int32())})


def cpu_seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    """The best of `repeats`."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def datasketch_signatures(texts: list[str]) -> list[MinHash]:
    sketches = []
    for text in texts:
        words = text.lower().split()
        grams = {" ".join(words[k : k + SHINGLE]).encode() for k in range(len(words) - SHINGLE + 1)}
        sketch = MinHash(num_perm=BANDS * ROWS)
        sketch.update_batch(grams)
        sketches.append(sketch)
    return sketches


def datasketch_removed(texts: list[str]) -> int:
    """Signatures, the LSH index, and a union-find in Python over its answers; the number of documents removed."""
    lsh = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    parent = list(range(len(texts)))

    def top(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for k, sketch in enumerate(datasketch_signatures(texts)):
        if sketch.is_empty():
            continue
        for other in lsh.query(sketch):
            parent[top(k)] = top(other)
        lsh.insert(k, sketch)
    return sum(top(k) != k for k in range(len(texts)))


def datatrove_signatures(texts: list[str]) -> list[Any]:
    """datatrove's own normaliser, shingles and hash, and the expression of its `get_signature`.

    Shingles are encoded first, as xxhash 4 demands.
    """
    from datatrove.utils.hashing import HashConfig, create_hash_func
    from datatrove.utils.text import TextNormConfig, ngrams, simplify_text

    hash_function, form = create_hash_func(HashConfig(precision=64)), TextNormConfig()
    prime = np.uint64((1 << 61) - 1)
    random = np.random.RandomState(1)
    factor, shift = (random.randint(1, int(prime), (1, BANDS * ROWS), np.uint64) for _ in range(2))
    signatures = []
    for text in texts:
        grams = ngrams(simplify_text(text, form).split(), SHINGLE)
        shingles = np.fromiter((hash_function(" ".join(gram).encode()) for gram in grams), np.uint64).reshape(-1, 1)
        if len(shingles):
            signatures.append(np.min((shingles * factor + shift) % prime, axis=0))
    return signatures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--documents", type=int, default=1000)
    arguments = parser.parse_args()
    table = read(arguments.corpus, arguments.documents)
    texts: list[str] = table["text"].to_pylist()
    megabytes = pc.sum(pc.binary_length(table["text"])).as_py() / 1e6
    column, hashes = table["text"].combine_chunks(), family(1, BANDS * ROWS)
    operator = MinHashDedup(bands=BANDS, rows=ROWS, shingle=SHINGLE)

    def removed() -> int:
        verdict = run_in_memory(operator, [table])
        return int(pc.sum(pc.is_valid(verdict["drop_reason"])).as_py() or 0)

    print(f"{table.num_rows} documents, {megabytes:.1f} MB; {BANDS} x {ROWS}, shingles of {SHINGLE} words")
    ours_removed, peer_removed = removed(), datasketch_removed(texts)
    signing = {
        "corpusmill signatures": cpu_seconds(lambda: sign(column, hashes, SHINGLE, 8)),
        "datasketch signatures": cpu_seconds(lambda: datasketch_signatures(texts), 1),
    }
    if importlib.util.find_spec("datatrove"):
        signing["datatrove signatures"] = cpu_seconds(lambda: datatrove_signatures(texts), 1)
    whole = {
        f"corpusmill whole ({ours_removed} removed)": cpu_seconds(removed),
        f"datasketch whole ({peer_removed} removed)": cpu_seconds(lambda: datasketch_removed(texts), 1),
    }
    print(f"{'':38} {'seconds':>9} {'MB/s':>8} {'documents/s':>12} {'ratio':>7}")
    for group in (signing, whole):
        ours = next(iter(group.values()))
        for name, seconds in group.items():
            rates = f"{megabytes / seconds:8.1f} {table.num_rows / seconds:12.0f} {seconds / ours:7.1f}"
            print(f"{name:38} {seconds:9.4f} {rates}")


if __name__ == "__main__":
    main()
