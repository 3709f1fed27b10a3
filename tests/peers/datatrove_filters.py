"""What datatrove 0.10 decides on every row of the sample, or of other texts.

    make .venv-peers/.installed
    .venv-peers/bin/python tests/peers/datatrove_filters.py                # tests/data/peers/datatrove_filters.npz
    .venv-peers/bin/python tests/peers/datatrove_filters.py TEXTS OUT.npz  # a Parquet file or a folder of them
    .venv/bin/python -m tests.peers.compare_filters TEXTS OUT.npz          # ours beside it

Each filter runs twice: as shipped (words from spaCy's blank English pipeline) and with words from str.split. The file
holds the reasons ("" = kept), spaCy's word boundaries in bytes, and for C4 the sentences that datatrove counted and a
hash of the text it kept. A text on which datatrove raises has "raised" and the error's name for its reason.
"""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    c4_filters,
)
from datatrove.utils.text import split_into_parts, split_into_words
from datatrove.utils.word_tokenizers import SpaCyTokenizer

DATA = Path(__file__).parents[1] / "data"
SAMPLE = Path(__file__).parents[2] / "workflows" / "sample" / "sample.parquet"
FILTERS = {
    "gopher_quality": GopherQualityFilter,
    "gopher_repetition": GopherRepetitionFilter,
    "fineweb": FineWebQualityFilter,
}


def reason(judge: Callable[[Document], bool | tuple[bool, str]], document: Document) -> str:
    try:
        answer = judge(document)
    except Exception as error:  # noqa: BLE001  # whatever a peer raises is its answer
        return f"raised {type(error).__name__}"
    return "" if answer is True else answer[1]


def word_filters(texts: list[str], words: str) -> dict[str, np.ndarray]:
    """Reasons by filter, and where `words` is spacy its words: bytes skipped before each and bytes in each.

    All filters see a text before the next, so that datatrove, which remembers the last texts, cuts it once."""
    judges = {f"{name}_{words}": filter_class().filter for name, filter_class in FILTERS.items()}
    reasons: dict[str, list[str]] = {name: [] for name in judges}
    counts, gaps, lengths = [], [], []
    split_into_parts.cache_clear()
    for text in texts:
        for name, judge in judges.items():
            reasons[name].append(reason(judge, Document(text=text, id="0")))
        if words != "spacy":
            continue
        found = split_into_words(text) if not reasons[name][-1].startswith("raised") else []
        counts.append(len(found))
        at = 0
        for word in found:
            begin = text.index(word, at)
            gaps.append(len(text[at:begin].encode()))
            lengths.append(len(word.encode()))
            at = begin + len(word)
    out = {name: np.array(rows) for name, rows in reasons.items()}
    if words == "spacy":
        out["word_counts"] = np.array(counts, np.int32)
        out["word_gaps"], out["word_lengths"] = smallest(gaps), smallest(lengths)
    return out


def smallest(numbers: list[int]) -> np.ndarray:
    return np.array(numbers, np.uint16 if max(numbers, default=0) < 1 << 16 else np.uint32)


def c4(texts: list[str]) -> dict[str, np.ndarray]:
    """Reasons, sentences counted on the lines that C4 keeps, and the first 8 bytes of sha256 of the kept text."""
    split = c4_filters.split_into_sentences
    found: list[int] = []

    def counting(text: str, language: str) -> list[str]:
        sentences: list[str] = split(text, language)
        found.append(len(sentences))
        return sentences

    c4_filters.split_into_sentences = counting
    judge = C4QualityFilter()
    rows: dict[str, list[object]] = {"c4_spacy": [], "c4_sentences": [], "c4_text": []}
    for text in texts:
        found.clear()
        document = Document(text=text, id="0")
        rows["c4_spacy"].append(reason(judge.filter, document))
        rows["c4_sentences"].append(sum(found))
        rows["c4_text"].append(int.from_bytes(hashlib.sha256(document.text.encode()).digest()[:8], "little"))
    c4_filters.split_into_sentences = split
    return {
        "c4_spacy": np.array(rows["c4_spacy"]),
        "c4_sentences": np.array(rows["c4_sentences"], np.int32),
        "c4_text": np.array(rows["c4_text"], np.uint64),
    }


def main() -> None:
    given, out = sys.argv[1:] if len(sys.argv) > 1 else (SAMPLE, DATA / "peers" / "datatrove_filters.npz")
    texts = pq.read_table(given, columns=["text"])["text"].to_pylist()
    told = word_filters(texts, "spacy") | c4(texts)
    SpaCyTokenizer.word_tokenize = lambda self, text: text.split()
    told |= word_filters(texts, "split")
    Path(out).parent.mkdir(exist_ok=True)
    np.savez_compressed(out, **told)


if __name__ == "__main__":
    main()
