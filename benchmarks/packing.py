"""Packing beside TRL's on one core, and what each mode costs documents on a path: padding, cuts, coherence.

    python -m benchmarks.packing [FOLDER OR FILE.parquet] [--documents 200000]

- speed: the whole of `Pack`, tokens and table of pieces included, and TRL's `_pack_bfd` with `split`, in an environment
  of its own (`make bench` makes it): documents of lognormal lengths as on the web (median 560, sigma 1.3; of tokens).
  The sequences of both hold the same numbers of tokens, which is checked. CPU seconds, the least of three. Then once
  more with documents and sequences a 16th as long, so that little is copied.
- plans: without tokens, ten times as many documents.
- modes: a corpus, ordered by `order` with lexical vectors, and by hashes of ids; a token is four bytes. Coherence: the
  mean, over documents with an earlier one in their sequence, of the largest cosine to such a one. Kept: the part of the
  similarity of consecutive documents of the path that is in one sequence. (Of decompose that is about rests alone.)
- shards: best fit of a million documents by shards of 100 million tokens, beside one plan for all.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from benchmarks.__main__ import SAMPLE
from benchmarks.dedup import ROOT, read
from benchmarks.timing import seconds
from operators.hashes import xxh3_64
from operators.ordering import lexical
from operators.ordering.order import Order
from operators.phases import run_in_memory
from operators.tokens.best_fit import histogram, plan
from operators.tokens.decompose import decompose
from operators.tokens.icp_fit import icp_fit
from operators.tokens.pack import Pack, Packed, best_fit, concat_chunk
from operators.tokens.pieces import cut

MODES: dict[str, Mapping[str, Any]] = {
    "concat_chunk": {},
    "best_fit": {"mode": "best_fit"},
    "icp_fit": {"mode": "icp_fit"},
    "decompose": {"mode": "decompose"},
}
LENGTHS = (2048, 8192)
SHARD = 100_000_000  # tokens
Integers = NDArray[np.int64]


def web_lengths(documents: int) -> Integers:
    random = np.random.default_rng(0)
    return np.clip(np.exp(random.normal(np.log(560), 1.3, documents)), 8, 400_000).astype(np.int64)


def offsets_of(lengths: Integers) -> Integers:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def packed_as(mode: str, seq_len: int, lengths: Integers, links: NDArray[Any] | None = None) -> Packed:
    tokens = np.zeros(lengths.sum(), np.int32)
    return Pack(layout="windows", seq_len=seq_len, **MODES[mode])(tokens, offsets_of(lengths), 0, links)


def trl(lengths: Integers, seq_len: int) -> dict[str, Any] | None:
    """What TRL answers; None where its environment is missing."""
    python = ROOT / ".venv-bench-trl" / "bin" / "python"
    if not python.exists():
        print("trl: not installed: make .venv-bench-trl/.installed")
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lengths.npy")
        np.save(path, lengths)
        script = ROOT / "benchmarks" / "peers" / "packing.py"
        done = subprocess.run([python, script, path, str(seq_len)], stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def speed(documents: int, shorter: int = 1) -> None:
    """With documents and sequences shorter by that factor, little is copied: what is left is the packing."""
    lengths = np.maximum(web_lengths(documents) // shorter, 1)
    links = np.random.default_rng(1).random(documents)
    tokens, offsets = np.zeros(lengths.sum(), np.int32), offsets_of(lengths)
    for seq_len in (length // shorter for length in LENGTHS):
        pieces = len(cut(lengths, seq_len).length)
        print(f"\nSpeed, {documents} documents, {lengths.sum() / 1e6:.0f} million tokens, sequences of {seq_len}")
        print(f"{'':18} {'CPU s':>8} {'pieces/s':>12} {'tokens/s':>14} {'padding':>9}")
        rows: dict[str, tuple[float, float]] = {}
        for mode, fields in MODES.items():
            pack = Pack(layout="windows", seq_len=seq_len, **fields)
            padding = pack(tokens, offsets, 0, links).padding / len(tokens)
            rows[mode] = seconds(lambda pack=pack: pack(tokens, offsets, 0, links)), padding  # type: ignore[misc]
        if answer := trl(lengths, seq_len):
            found = packed_as("best_fit", seq_len, lengths)
            used = np.bincount(
                found.pieces["sequence"], found.pieces["end"].to_numpy() - found.pieces["start"].to_numpy()
            )
            fills = Counter(used.astype(int).tolist())
            if answer["fills"] != [list(item) for item in sorted(fills.items())]:
                raise SystemExit("TRL's sequences hold other numbers of tokens")
            sequences = sum(fills.values())
            name = f"trl {answer['version']}"
            rows[name] = answer["seconds"], sequences * seq_len / lengths.sum() - 1
        for name, (taken, padding) in rows.items():
            print(
                f"{name:18} {taken:8.3f} {pieces / taken:12,.0f} {lengths.sum() / taken:14,.0f} {100 * padding:8.4f}%"
                + (f"   best_fit is {taken / rows['best_fit'][0]:.0f} times as fast" if name.startswith("trl") else "")
            )


def plans(documents: int) -> None:
    lengths = web_lengths(documents)
    links = np.random.default_rng(1).random(documents)
    for seq_len in LENGTHS:
        print(f"\nPlans, {documents} documents, sequences of {seq_len}\n{'':18} {'CPU s':>8} {'pieces/s':>12}")
        makes = {
            "concat_chunk": lambda n=seq_len: concat_chunk(lengths, n),
            "best_fit": lambda n=seq_len: best_fit(lengths, n),
            "icp_fit": lambda n=seq_len: icp_fit(lengths, links, n, 0.1),
            "decompose": lambda n=seq_len: decompose(lengths, 64, n),
        }
        for name, make in makes.items():
            pieces = len(make().sequence)
            taken = seconds(make)
            print(f"{name:18} {taken:8.3f} {pieces / taken:12,.0f}")


def coherence(packed: Packed, units: NDArray[np.float32]) -> float:
    """The mean of the largest cosine of each piece's document to an earlier one of its sequence."""
    sequence, document = packed.pieces["sequence"].to_numpy(), packed.pieces["document"].to_numpy()
    best: list[NDArray[np.float32]] = []
    for part in np.split(document, np.flatnonzero(np.diff(sequence)) + 1):
        if len(part) > 1:
            products = units[part] @ units[part].T
            products[np.triu_indices(len(part))] = -1
            best.append(products[1:].max(axis=1))
    return float(np.concatenate(best).mean()) if best else float("nan")


def modes(docs: pa.Table) -> None:
    ranks = run_in_memory(Order(), [docs]).sort_by("doc")
    sizes = pc.binary_length(docs["text"]).to_numpy().astype(np.int64) // 4 + 1
    vectors = lexical.embed(docs["text"], lexical.weights_of(lexical.frequencies(docs["text"])), 512).astype(np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1)
    path = np.argsort(ranks["order_rank"].to_numpy(), kind="stable")
    links = ranks["order_similarity"].to_numpy()[path]
    chance = np.argsort(xxh3_64(docs["id"]), kind="stable")
    print(f"\nModes, {len(docs)} documents, {sizes.sum() / 1e6:.1f} million tokens, along a path and by hashes")
    heads = ("sequences", "padding", "cut", "pieces", "of long", "kept", "coherence")
    for seq_len in LENGTHS:
        print(f"sequences of {seq_len}\n{'':22} {' '.join(f'{head:>9}' for head in heads)}")
        for mode in MODES:
            for name, order in (("path", path), ("hashes", chance)):
                lengths = sizes[order]
                packed = packed_as(mode, seq_len, lengths, links if name == "path" else None)
                costs = packed.costs
                pieces = np.bincount(packed.pieces["document"].to_numpy(), minlength=len(lengths))
                kept = costs["similarity_kept"] / costs["similarity"] if costs["similarity"] else float("nan")
                print(
                    f"{mode + ', ' + name:22} {len(packed.contexts):9} {100 * packed.padding / lengths.sum():8.3f}% "
                    f"{costs['documents_cut']:9} {pieces.sum():9} {pieces[lengths > seq_len].mean():9.2f} "
                    f"{kept:9.3f} {coherence(packed, vectors[order]):9.4f}"
                )


def shards(documents: int) -> None:
    lengths = web_lengths(documents)
    bounds = np.searchsorted(np.cumsum(lengths), np.arange(1, lengths.sum() // SHARD + 1) * SHARD)
    parts = np.split(lengths, bounds)
    print(f"\nBest fit of {documents} documents, all at once and in {len(parts)} shards")
    print(f"{'':18} {'sequences':>18} {'padding':>18}")
    for seq_len in LENGTHS:
        counts = [histogram(cut(part, seq_len).length, seq_len) for part in parts]
        whole = plan(np.sum(counts, axis=0)).bins
        by_shard = sum(plan(one).bins for one in counts)
        padding = [100 * (bins * seq_len / lengths.sum() - 1) for bins in (whole, by_shard)]
        print(f"{seq_len:<18} {whole:8} {by_shard:9} {padding[0]:8.4f}% {padding[1]:8.4f}%")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="?", default=str(SAMPLE))
    parser.add_argument("--documents", type=int, default=200_000, help="of the comparison of speed")
    asked = parser.parse_args()
    speed(asked.documents)
    speed(asked.documents, shorter=16)
    plans(asked.documents * 10)
    modes(read(asked.corpus))
    shards(1_000_000)


if __name__ == "__main__":
    main()
