"""The rule filters beside datatrove's, on one core: MB/s of text and the ratio.

    .venv/bin/python benchmarks/filters.py             # ours, and datatrove's where .venv-peers exists

datatrove runs in its own environment (tests/peers/requirements-peers.txt), as shipped and with its tokenizer replaced
by str.split, on the first 200 rows of the sample. Times are CPU seconds; quote the ratios, not the figures.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "workflows" / "sample" / "sample.parquet"
PEER = """
import json, sys, time
import pyarrow.parquet as pq
from datatrove.data import Document
from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
from datatrove.utils.text import split_into_parts
from datatrove.utils.word_tokenizers import SpaCyTokenizer
texts = pq.read_table(sys.argv[1], columns=["text"])["text"].to_pylist()[:200]
size = sum(len(t.encode()) for t in texts) / 1e6
filters = dict(gopher_quality=GopherQualityFilter, gopher_repetition=GopherRepetitionFilter,
               fineweb=FineWebQualityFilter, c4=C4QualityFilter)
out = {}
for words in ("spaCy", "str.split"):
    if words == "str.split":
        SpaCyTokenizer.word_tokenize = lambda self, text: text.split()
    for name, cls in filters.items():
        judge = cls()
        judge.filter(Document(text="Warm up the tokenizer.", id="0"))
        split_into_parts.cache_clear()
        begun = time.process_time()
        for text in texts:
            judge.filter(Document(text=text, id="0"))
        out.setdefault(words, {})[name] = size / (time.process_time() - begun)
print(json.dumps(out))
"""


def ours() -> dict[str, float]:
    sys.path.insert(0, str(ROOT))
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from operators.text.c4 import C4
    from operators.text.fineweb import FineWeb
    from operators.text.gopher_quality import GopherQuality
    from operators.text.gopher_repetition import GopherRepetition

    docs = pq.read_table(SAMPLE, columns=["text"])
    size = pc.sum(pc.binary_length(docs["text"])).as_py() / 1e6
    speeds = {}
    for operator in (GopherQuality(), GopherRepetition(), FineWeb(), C4()):
        operator(docs)  # compiles, or loads what was compiled before
        seconds = []
        for _ in range(5):
            begun = time.process_time()
            operator(docs)
            seconds.append(time.process_time() - begun)
        speeds[operator.name] = size / min(seconds)
    return speeds


def main() -> None:
    speeds = ours()
    python = ROOT / ".venv-peers" / "bin" / "python"
    peer: dict[str, dict[str, float]] = {}
    if python.exists():
        done = subprocess.run([python, "-c", PEER, SAMPLE], check=True, capture_output=True, text=True)
        peer = json.loads(done.stdout)
    for name, speed in speeds.items():
        beside = "".join(f"   datatrove ({w}) {p[name]:6.2f} MB/s  x{speed / p[name]:.0f}" for w, p in peer.items())
        print(f"{name:20s} {speed:6.1f} MB/s{beside}")
    three = ("gopher_quality", "gopher_repetition", "fineweb")
    print(f"{'first three':20s} {1 / sum(1 / speeds[name] for name in three):6.1f} MB/s")


if __name__ == "__main__":
    main()
