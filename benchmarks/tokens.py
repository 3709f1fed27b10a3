"""The tokenizer stage's encoding beside the libraries themselves, on one core: MB/s of text, and whether ids agree.

    taskset -c 0 python -m benchmarks.tokens CORPUS.parquet [--megabytes 50]

A byte-level BPE of 32,000 tokens is trained on the corpus and read by all. `ours` is the whole operator, Arrow to
Arrow, with its checks; the libraries are given lists of strings. Times are CPU seconds of the process, the best of
three after a first run; MB are 10^6 bytes of UTF-8. tiktoken merges any two tokens that make a third, the others only
the pairs that were learned; where that gives other ids, it says in how many documents.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tiktoken
import tokenizers
from numpy.typing import NDArray

from benchmarks.timing import seconds
from operators.tokens.tokenizer import Tokenizer

GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
BATCH = 256  # texts a call


def as_tiktoken(trained: tokenizers.Tokenizer) -> tiktoken.Encoding:
    """The same vocabulary: ids of a trained tokenizer are in the order in which its merges were learned."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in visible]
    byte = {chr(b): b for b in visible} | {chr(256 + i): b for i, b in enumerate(hidden)}
    special = {t.content: i for i, t in trained.get_added_tokens_decoder().items()}
    ranks = {bytes(byte[c] for c in t): i for t, i in trained.get_vocab().items() if t not in special}
    return tiktoken.Encoding("trained", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens=special)


def operators(texts: pa.ChunkedArray) -> tuple[dict[str, Tokenizer], tokenizers.Tokenizer]:
    """Ours with both engines, and what they read."""
    data = Tokenizer().fit(texts.slice(0, 5000))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        ours = {
            "ours": Tokenizer().with_artefact(str(path), digest),
            "ours, engine: tokenizers": Tokenizer(engine="tokenizers").with_artefact(str(path), digest),
        }
    trained = tokenizers.Tokenizer.from_str(data.decode())
    trained.encode_special_tokens = True
    return ours, trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus")
    parser.add_argument("--megabytes", type=float, default=50.0, help="of text, at most")
    asked = parser.parse_args()
    table = pq.read_table(asked.corpus, columns=["id", "text"])
    table = table.filter(pc.greater(pc.fill_null(pc.binary_length(table["text"]), 0), 0))
    sizes = pc.binary_length(table["text"]).to_numpy()
    table = table.slice(0, int(np.searchsorted(np.cumsum(sizes), asked.megabytes * 1e6)) + 1)
    sizes = sizes[: table.num_rows]
    texts = table["text"].to_pylist()
    ours, trained = operators(table["text"])
    batches = [texts[at : at + BATCH] for at in range(0, len(texts), BATCH)]
    same = as_tiktoken(trained)

    def by_tokenizers() -> list[list[int]]:
        return [e.ids for batch in batches for e in trained.encode_batch_fast(batch, add_special_tokens=False)]

    def by_tiktoken() -> list[NDArray[np.uint32]]:
        return [same.encode_to_numpy(text, disallowed_special=()) for text in texts]

    right = by_tokenizers()
    print(f"{len(texts)} documents, {sizes.sum() / 1e6:.1f} MB, {sum(map(len, right)) / 1e6:.2f} million tokens\n")
    rows: list[tuple[str, Callable[[], object], int]] = []
    for name, operator in ours.items():
        made = operator(table)["input_ids"].to_pylist()
        differ = sum(a[:-1] != b for a, b in zip(made, right, strict=True))
        rows.append((f"{name} ({operator.describe()['engine']})", partial(operator, table), differ))
    rows.append(("tokenizers", by_tokenizers, 0))
    differ = sum(a.tolist() != b for a, b in zip(by_tiktoken(), right, strict=True))
    rows.append(("tiktoken", by_tiktoken, differ))
    for name, work, differ in rows:
        print(f"{name:40s} {sizes.sum() / 1e6 / seconds(work):6.1f} MB/s   other ids in {differ} documents")


if __name__ == "__main__":
    main()
