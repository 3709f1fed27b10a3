"""Regenerate tests/data/peers/datatrove_minhash.npz: datatrove 0.10's MinHash signatures of every row of the sample.

    make .venv-peers/.installed
    .venv-peers/bin/python tests/peers/datatrove_minhash.py

The file holds 8 bytes of BLAKE2b of each signature (0 where a document has none), with words from str.split and, as
shipped, from spaCy's blank English pipeline; the signatures with str.split of every 87th document in full; and what
becomes of every character, as 8 bytes of BLAKE2b of the normal form of each 4,096 in some surroundings.

    .venv-peers/bin/python tests/peers/datatrove_minhash.py ../shared/data/text/*.parquet

compares the signatures of other documents (column `text`) with ours instead, and names those that differ.
"""

import hashlib
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.utils.text import simplify_text
from datatrove.utils.word_tokenizers import SpaCyTokenizer

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "workflows" / "sample" / "sample.parquet"
EVERY = 87
BLOCK = 4096
OURS = """
import hashlib, sys
import pyarrow.parquet as pq
from operators.dedup.datatrove import family, sign
signatures, counts = sign(pq.read_table(sys.argv[1], columns=["text"])["text"], family(1, 112), 5)
for signature, count in zip(signatures, counts):
    sys.stdout.buffer.write(hashlib.blake2b(signature.tobytes(), digest_size=8).digest() if count else bytes(8))
"""


def signatures(texts: list[str]) -> list[list[int]]:
    """The 112 values of each text, bucket after bucket; none for a text without a shingle."""
    with tempfile.TemporaryDirectory() as folder:
        step = MinhashDedupSignature(folder, MinhashConfig())
        shingles = [step.get_shingles(text) for text in texts]
        return [sum(step.get_signature(found), []) if found.size else [] for found in shingles]


def digests(found: list[list[int]]) -> np.ndarray:
    raw = (hashlib.blake2b(np.array(s, "<u8").tobytes(), digest_size=8).digest() if s else bytes(8) for s in found)
    return np.frombuffer(b"".join(raw), "<u8")


def characters() -> np.ndarray:
    """Surroundings: in a word, between digits, and in the places that decide whether a sigma is final."""
    raw = b""
    for first in range(0, 0x110000, BLOCK):
        block = [chr(k) for k in range(first, first + BLOCK) if not 0xD800 <= k < 0xE000]
        text = simplify_text("\n".join(f"a{c}b 1{c}2\n{c}Σ\nΑ{c}Σ\nΑΣ{c}" for c in block))
        raw += hashlib.blake2b(" ".join(text.split()).encode(), digest_size=8).digest()
    return np.frombuffer(raw, "<u8")


def texts_of(path: Path) -> list[str]:
    return pq.read_table(path, columns=["text"])["text"].to_pylist()


def compare(path: Path) -> None:
    command = [ROOT / ".venv" / "bin" / "python", "-c", OURS, path.resolve()]
    ours = np.frombuffer(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout, "<u8")
    theirs = digests(signatures(texts_of(path)))
    different = np.flatnonzero(ours != theirs)
    signed = np.count_nonzero(theirs)
    sys.stdout.write(f"{path}: {len(theirs)} documents, {signed} signed, {len(different)} differ {different[:20]}\n")


def main() -> None:
    texts = texts_of(SAMPLE)
    paths = [Path(path) for path in sys.argv[1:]]
    shipped = None if paths else digests(signatures(texts))
    SpaCyTokenizer.word_tokenize = lambda self, text: text.split()
    for path in paths:
        compare(path)
    if paths:
        return
    found = signatures(texts)
    rows = np.array([k for k in range(0, len(texts), EVERY) if found[k]], np.int32)
    full = np.array([found[k] for k in rows], np.uint64)
    split = digests(found)
    sys.stdout.write(f"{np.count_nonzero(split)} of {len(texts)} signed, {np.mean(split == shipped):.1%} as shipped\n")
    file = ROOT / "tests" / "data" / "peers" / "datatrove_minhash.npz"
    version = np.array(unicodedata.unidata_version)
    peer = {"split": split, "spacy": shipped, "rows": rows, "signatures": full}
    np.savez_compressed(file, characters=characters(), unicode=version, **peer)


if __name__ == "__main__":
    main()
