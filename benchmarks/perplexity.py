"""Perplexity beside KenLM's wheel (kenlm-ex) on one core: MB/s of text, and how far the scores are apart.

    python -m benchmarks.perplexity [CORPUS.parquet]      # default: the committed sample; needs a column text

A model of order 5 is trained on every second text; all are scored. KenLM is given what the pipeline around it would
have to make first: the lines in normal form as Python strings, which is not timed. Times are CPU seconds, the best of
three; quote the ratios.
"""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "workflows" / "sample" / "sample.parquet"


def best(work: Callable[[], Any], times: int = 3) -> tuple[float, Any]:
    """CPU seconds, and what came of it."""
    seconds, result = [], None
    for _ in range(times):
        begun = time.process_time()
        result = work()
        seconds.append(time.process_time() - begun)
    return min(seconds), result


def lines_of(texts: Any) -> list[list[str]]:
    """The lines of each text in normal form, tokens with a space between."""
    from operators.text.language_model_tokens import END, LONG, counted, hashes

    table = counted(texts)
    words = dict(zip(table["key"].to_pylist(), table["word"].to_pylist(), strict=True)) | {int(LONG): "<long>"}
    found = hashes(texts)
    documents = []
    for begin, end in zip(found.offsets, found.offsets[1:], strict=False):
        lines: list[list[str]] = [[]]
        for key in found.hash[begin:end].tolist():
            if key == int(END):
                lines.append([])
            else:
                lines[-1].append(words[key])
        documents.append([" ".join(line) for line in lines[:-1]])
    return documents


@contextlib.contextmanager
def silent() -> Any:
    """Without the progress bar that KenLM writes."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def main() -> None:
    sys.path.insert(0, str(ROOT))
    import kenlm
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from operators.models.arpa import Evaluator
    from operators.text.language_model_estimate import train

    corpus = sys.argv[1] if len(sys.argv) > 1 else str(SAMPLE)
    texts = pq.read_table(corpus, columns=["text"])["text"].combine_chunks().cast(pa.large_string())
    half = texts.take(pa.array(np.arange(0, len(texts), 2)))
    size = texts.nbytes / 1e6
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.arpa")
        train(half.slice(0, 10), path)  # compiles
        seconds, _ = best(lambda: train(half, path), 1)
        print(f"train        {half.nbytes / 1e6 / seconds:8.1f} MB/s   {path.stat().st_size / 1e6:.1f} MB of model")
        Evaluator(path.read_bytes()).log_probs(texts)  # compiles
        loading, model = best(lambda: Evaluator(path.read_bytes()))
        with silent():
            kenlm_loading, peer = best(lambda: kenlm.Model(str(path)))
        print(f"load         {loading:8.2f} s      kenlm {kenlm_loading:.2f} s")
        ours, (logs, tokens) = best(lambda: model.log_probs(texts))
        documents = lines_of(texts)
        theirs, scores = best(lambda: [sum(map(peer.score, lines)) for lines in documents])
        rates = f"{len(texts) / ours:,.0f} documents/s, {tokens.sum() / ours / 1e6:.1f} M tokens/s"
        print(f"score        {size / ours:8.1f} MB/s   {rates}")
        print(f"kenlm.score  {size / theirs:8.1f} MB/s   x{theirs / ours:.1f}")
        apart = np.abs(logs - scores) / np.maximum(tokens, 1)
        print(f"log10 p a token at most {apart.max():.1e} apart in {len(texts)} documents")


if __name__ == "__main__":
    main()
