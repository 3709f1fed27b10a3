"""Language identification with lid.176.ftz: fastText's own binding, line by line, and ours, on one core.

    .venv/bin/python benchmarks/language.py [CORPUS.parquet …]      # default: the committed sample; needs column text
    python -m venv .venv-peers-language && .venv-peers-language/bin/pip install fasttext-predict pycld2

Two more beside them where the second line was run: fasttext-predict, which is fastText without training, with the same
model; and pycld2 (CLD2), another model, which sees the whole text. Times are CPU seconds, the least of three rounds in
which all take turns; MB are those of the text that is looked at. Quote the ratios, not the figures.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "workflows" / "sample" / "sample.parquet"
PEERS = ROOT / ".venv-peers-language" / "bin" / "python"
ROWS = 4000  # of each file
ROUNDS = 3
PEER = """
import json, sys, time
name, model, path, cap = sys.argv[1:]
texts = [t[: int(cap) or None] for t in json.load(open(path))]
if name == "fasttext-predict":
    import fasttext
    predict = fasttext.load_model(model).f.predict
    call = lambda text: predict(text.replace("\\n", " ") + "\\n", 1, 0.0, "strict")
else:
    import pycld2
    def call(text):
        try:
            pycld2.detect(text)
        except pycld2.error:  # what it takes for no UTF-8
            pass
call("Warm up.")
begun = time.process_time()
for text in texts:
    call(text)
print(json.dumps(time.process_time() - begun))
"""


def seconds(call: Callable[[], object]) -> float:
    begun = time.process_time()
    call()
    return time.process_time() - begun


def measure(corpus: str, cap: int | None) -> None:
    import fasttext
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from operators.document import loaded
    from operators.models.fasttext import LID_176, FastText

    column = pq.read_table(corpus, columns=["text"])["text"].slice(0, ROWS).combine_chunks()
    seen = pc.utf8_slice_codeunits(column, 0, cap) if cap else column
    size = pc.sum(pc.binary_length(seen)).as_py() / 1e6
    model, stock = loaded(FastText()), fasttext.load_model(LID_176.path).f.predict
    model.best(["compiles, or loads what was compiled before"])

    def line_by_line() -> None:
        for text in pc.replace_substring(pc.utf8_slice_codeunits(column, 0, cap), "\n", " ").to_pylist():
            stock(text + "\n", 1, 0.0, "strict")

    calls: dict[str, Callable[[], float]] = {
        "fasttext-community": lambda: seconds(line_by_line),
        "ours": lambda: seconds(lambda: model.best(column, cap)),
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json") as texts:
        json.dump(column.to_pylist(), texts)
        texts.flush()

        def peer(name: str) -> float:
            command = [str(PEERS), "-c", PEER, name, LID_176.path, texts.name, str(cap or 0)]
            return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

        if PEERS.exists():
            calls["fasttext-predict"] = lambda: peer("fasttext-predict")
            if not cap:
                calls["pycld2"] = lambda: peer("pycld2")
        least = dict.fromkeys(calls, float("inf"))
        for _ in range(ROUNDS):
            for name, call in calls.items():
                least[name] = min(least[name], call())
    print(f"{len(column):,} documents, {f'first {cap:,} characters' if cap else 'whole text'}, {size:.1f} MB")
    for name, taken in sorted(least.items(), key=lambda item: -item[1]):
        ratio = least["fasttext-community"] / taken
        print(f"  {name:20s} {len(column) / taken:8,.0f} documents/s {size / taken:7.1f} MB/s   x{ratio:.1f}")


def main() -> None:
    sys.path.insert(0, str(ROOT))
    for corpus in sys.argv[1:] or [str(SAMPLE)]:
        for cap in (2000, None):
            measure(corpus, cap)


if __name__ == "__main__":
    main()
