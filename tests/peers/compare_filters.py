"""Ours beside what datatrove_filters.py wrote: rows that differ in decision or first reason, by filter and words.

.venv/bin/python -m tests.peers.compare_filters TEXTS OUT.npz
"""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from operators.text.c4 import C4
from operators.text.fineweb import FineWeb
from operators.text.gopher_quality import GopherQuality
from operators.text.gopher_repetition import GopherRepetition
from tests.operators.text import peer_data, test_c4, test_fineweb, test_gopher_quality, test_gopher_repetition

FILTERS: tuple[tuple[Any, dict[str, str]], ...] = (
    (GopherQuality, test_gopher_quality.DATATROVE),
    (GopherRepetition, test_gopher_repetition.DATATROVE),
    (FineWeb, test_fineweb.DATATROVE),
)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def report(name: str, words: str, result: pa.Table, told: Any, names: dict[str, str]) -> None:
    raised = np.char.startswith(told, "raised")
    names = names | {reason: reason for reason in np.unique(told[raised])}
    rows = [row for row in peer_data.disagreements(result, told, names) if not raised[row[0]]]
    alike = peer_data.kept_alike(result, told)
    say(f"{name:18s} {words:32s} {len(told) - len(rows):,} of {len(told):,} rows equal, decisions {alike:.2%} alike")
    for place, ours, theirs in rows[:20] if "beside" not in words else ():
        say(f"    row {place}: ours {ours}, datatrove {theirs}")
    if raised.any():
        say(f"    datatrove raises on {raised.sum()} rows, the first is {np.flatnonzero(raised)[0]}")


def main() -> None:
    texts, path = sys.argv[1:]
    docs = pq.read_table(texts, columns=["text"])
    with np.load(path, allow_pickle=False) as file:
        told = dict(file)
    spans = peer_data.spacy_words(told)
    for kind, names in FILTERS:
        operator = kind(mode="datatrove")
        report(kind.name, "str.split", operator(docs), told[f"{kind.name}_split"], names)
        report(kind.name, "spaCy's own", operator.judge(docs, spans), told[f"{kind.name}_spacy"], names)
        for words in ("words", "whitespace"):
            result = kind(mode="datatrove", words=words)(docs)
            report(kind.name, f"{words}, beside spaCy's", result, told[f"{kind.name}_spacy"], names)
    result = C4(mode="datatrove").judge(docs, told["c4_sentences"].astype(np.int64))
    report("c4", "spaCy's own sentences", result, told["c4_spacy"], test_c4.REASONS)
    kept = np.flatnonzero(told["c4_spacy"] == "")
    hashes = [hashlib.sha256(result["text"][int(i)].as_py().encode()).digest()[:8] for i in kept]
    same = sum(a == b.tobytes() for a, b in zip(hashes, told["c4_text"][kept], strict=True))
    say(f"{'':18s} the text kept is equal on {same:,} of {len(kept):,} rows")
    report("c4", "sentences of ours", C4(mode="datatrove")(docs), told["c4_spacy"], test_c4.REASONS)


if __name__ == "__main__":
    main()
