"""Regenerate tests/data/peers/datatrove_filters.npz: what datatrove 0.10 decides on every row of the sample.

    uv venv .venv-peers && uv pip install --python .venv-peers/bin/python -r tests/peers/requirements-peers.txt
    .venv-peers/bin/python tests/peers/datatrove_filters.py

Each filter runs twice: as shipped (words from spaCy's blank English pipeline) and with words from str.split. The
file holds the reasons ("" = kept), spaCy's word boundaries in bytes, and for C4 the sentences that datatrove counted
and a hash of the text it kept.
"""

import hashlib
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
from datatrove.utils.text import split_into_parts
from datatrove.utils.word_tokenizers import SpaCyTokenizer, load_word_tokenizer

DATA = Path(__file__).parents[1] / "data"
SAMPLE = Path(__file__).parents[2] / "workflows" / "sample" / "sample.parquet"
FILTERS = {
    "gopher_quality": GopherQualityFilter,
    "gopher_repetition": GopherRepetitionFilter,
    "fineweb": FineWebQualityFilter,
}


def reasons(texts: list[str], judge: Callable[[Document], bool | tuple[bool, str]]) -> np.ndarray:
    answers = [judge(Document(text=text, id="0")) for text in texts]
    return np.array(["" if answer is True else answer[1] for answer in answers])


def word_spans(texts: list[str]) -> dict[str, np.ndarray]:
    """spaCy's words as bytes skipped before each and bytes in each, and how many words each text has."""
    tokenizer = load_word_tokenizer("en")
    counts, gaps, lengths = [], [], []
    for text in texts:
        words = tokenizer.word_tokenize(text)
        counts.append(len(words))
        at = 0
        for word in words:
            begin = text.index(word, at)
            gaps.append(len(text[at:begin].encode()))
            lengths.append(len(word.encode()))
            at = begin + len(word)
    return {
        "word_counts": np.array(counts, np.int32),
        "word_gaps": np.array(gaps, np.uint16),
        "word_lengths": np.array(lengths, np.uint16),
    }


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
        answer = judge.filter(document)
        rows["c4_spacy"].append("" if answer is True else answer[1])
        rows["c4_sentences"].append(sum(found))
        rows["c4_text"].append(int.from_bytes(hashlib.sha256(document.text.encode()).digest()[:8], "little"))
    c4_filters.split_into_sentences = split
    return {
        "c4_spacy": np.array(rows["c4_spacy"]),
        "c4_sentences": np.array(rows["c4_sentences"], np.int32),
        "c4_text": np.array(rows["c4_text"], np.uint64),
    }


def main() -> None:
    texts = pq.read_table(SAMPLE, columns=["text"])["text"].to_pylist()
    out = word_spans(texts) | c4(texts)
    for name, filter_class in FILTERS.items():
        out[f"{name}_spacy"] = reasons(texts, filter_class().filter)
    SpaCyTokenizer.word_tokenize = lambda self, text: text.split()
    split_into_parts.cache_clear()
    for name, filter_class in FILTERS.items():
        out[f"{name}_split"] = reasons(texts, filter_class().filter)
    (DATA / "peers").mkdir(exist_ok=True)
    np.savez_compressed(DATA / "peers" / "datatrove_filters.npz", **out)


if __name__ == "__main__":
    main()
