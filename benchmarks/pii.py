"""Personal data found and replaced, beside datatrove and Dolma, on one core: MB/s of text, and how much each finds.

    taskset -c 0 python -m benchmarks.pii CORPUS.parquet [--megabytes 50] [--peers FOLDER]

`ours` is the whole operator, Arrow to Arrow. The peers are given lists of strings and run from their own packages where
FOLDER, the site-packages of an environment that has them, is given: datatrove's PIIFormatter, which replaces e-mail and
IP addresses, and the expressions of Dolma's tagger pii_regex_v1, which only say where those and telephone numbers stand
(its rules on what is around a find are left out, so that its precision here is the least it has). Times are CPU seconds
of the process, the best of three after a first run; MB are 10^6 bytes of UTF-8.

The second table is of the labelled lines in tests/data/pii_lines.jsonl: precision and recall of each kind, a find
counting where it is the labelled text.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.timing import seconds
from operators.document import utf8
from operators.text.pii import Pii
from operators.text.pii_patterns import find
from operators.text.pii_tables import KINDS

LINES = Path(__file__).parent.parent / "tests" / "data" / "pii_lines.jsonl"
Finds = Iterator[tuple[str, str]]  # kind and text


def ours(text: str) -> Finds:
    data, offsets = utf8(pa.array([text], pa.large_string()))
    for start, end, kind in zip(*find(data, offsets, KINDS, True)[1:], strict=True):
        yield KINDS[kind], data[start:end].tobytes().decode()


def datatrove(folder: Path) -> tuple[Callable[[str], str], Callable[[str], Finds]]:
    """(what replaces, what finds) with its two regular expressions and its check of addresses."""
    sys.path.insert(0, str(folder))
    for name in ("", ".pipeline", ".pipeline.formatters", ".pipeline.formatters.base"):  # not its imports of the rest
        sys.modules["datatrove" + name] = types.ModuleType("datatrove" + name)
    sys.modules["datatrove.pipeline.formatters.base"].BaseFormatter = type("BaseFormatter", (), {})  # type: ignore[attr-defined]
    sys.modules["datatrove.pipeline.formatters"].__path__ = [str(folder / "datatrove/pipeline/formatters")]
    formatter = importlib.import_module("datatrove.pipeline.formatters.pii").PIIFormatter()

    def finds(text: str) -> Finds:
        for kind, replacer in (("email", formatter.emails_replacer), ("ip", formatter.ip_replacer)):
            for found in replacer.regex.finditer(text):
                if replacer.validator is None or replacer.validator(found[0]):
                    yield kind, found[0]

    return formatter.format, finds


def dolma(folder: Path) -> Callable[[str], Finds]:
    """Its expressions, read out of its source."""
    source = (folder / "dolma/taggers/pii.py").read_text("utf-8")
    patterns = {
        name.lower(): re.compile("".join(json.loads(part) for part in re.findall(r'"(?:[^"\\]|\\.)*"', body)))
        for name, body in re.findall(r"self\.(EMAIL|PHONE|IP): re\.compile\((.*?)\),\n", source, re.DOTALL)
    }

    def finds(text: str) -> Finds:
        for kind, pattern in patterns.items():
            for found in pattern.finditer(text):
                yield kind, found[1] if kind == "email" else found[0].strip()

    return finds


def scores(finds: Callable[[str], Finds]) -> dict[str, str]:
    right, found, wanted = Counter[str](), Counter[str](), Counter[str]()
    for line in map(json.loads, LINES.read_text("utf-8").replace("¦", "").splitlines()):
        labels = [tuple(label) for label in line["found"]]
        got = list(finds(line["text"]))
        wanted.update(kind for kind, _ in labels)
        found.update(kind for kind, _ in got)
        right.update(kind for kind, text in got if (kind, text) in labels)
    return {
        kind: f"{right[kind] / found[kind]:.2f} / {right[kind] / wanted[kind]:.2f}" if found[kind] else "–"
        for kind in KINDS
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus")
    parser.add_argument("--megabytes", type=float, default=50.0, help="of text, at most")
    parser.add_argument("--peers", type=Path, help="site-packages with datatrove 0.10 and dolma 1.2")
    asked = parser.parse_args()
    table = pq.read_table(asked.corpus, columns=["text"])
    sizes = pc.fill_null(pc.binary_length(table["text"]), 0).to_numpy()
    table = table.slice(0, int(np.searchsorted(np.cumsum(sizes), asked.megabytes * 1e6)) + 1)
    megabytes = pc.sum(pc.binary_length(table["text"])).as_py() / 1e6
    texts = [text or "" for text in table["text"].to_pylist()]
    rows: dict[str, tuple[Callable[[], object], Callable[[str], Finds]]] = {"ours": (lambda: Pii()(table), ours)}
    two = Pii(kinds=("email", "ip"))
    rows["ours, email and ip"] = (lambda: two(table), lambda text: (f for f in ours(text) if f[0] in two.kinds))
    if asked.peers:
        replaced, finds = datatrove(asked.peers)
        rows["datatrove"] = (lambda: [replaced(text) for text in texts], finds)
        tagged = dolma(asked.peers)
        rows["dolma"] = (lambda: [list(tagged(text)) for text in texts], tagged)
    print(f"{len(texts)} documents, {megabytes:.1f} MB\n")
    for name, (work, finds) in rows.items():
        counts = Counter(kind for text in texts for kind, _ in finds(text))
        print(f"{name:20s} {megabytes / seconds(work):7.1f} MB/s   {dict(counts.most_common())}")
    print("\nprecision / recall on the labelled lines")
    print(f"{'':20s} " + " ".join(f"{kind:>12s}" for kind in KINDS))
    for name, (_, finds) in rows.items():
        print(f"{name:20s} " + " ".join(f"{value:>12s}" for value in scores(finds).values()))


if __name__ == "__main__":
    main()
