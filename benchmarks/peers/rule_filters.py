"""What a peer's rule filters cost, in an environment of its own; benchmarks/filters.py starts it, reads the answer.

    PYTHON rule_filters.py TOOL TEXTS.parquet

Prints JSON: the version, and the CPU seconds of each filter over all texts, one core, after a first text to warm up.
"""

import importlib.metadata
import json
import sys
import tempfile
import time

import pyarrow.parquet as pq


def seconds(judge, texts):
    judge("Warm up all that cuts words and sentences with this one. And with a second.\n")
    begun = time.process_time()
    for text in texts:
        judge(text)
    return time.process_time() - begun


def datatrove(texts, words=None):
    """As shipped: words and sentences from spaCy's blank English pipeline. `first three` are those that ask for words,
    one after the other on each text: datatrove then cuts it once."""
    from datatrove.data import Document
    from datatrove.pipeline import filters
    from datatrove.utils.text import split_into_parts
    from datatrove.utils.word_tokenizers import SpaCyTokenizer

    if words is not None:
        SpaCyTokenizer.word_tokenize = lambda self, text: words(text)
    judges = {
        "gopher_repetition": filters.GopherRepetitionFilter().filter,
        "gopher_quality": filters.GopherQualityFilter().filter,
        "fineweb": filters.FineWebQualityFilter().filter,
        "c4": filters.C4QualityFilter().filter,
    }

    def one(judge):
        split_into_parts.cache_clear()
        return seconds(lambda text: judge(Document(text=text, id="0")), texts)

    def three(document):
        for name in ("gopher_repetition", "gopher_quality", "fineweb"):
            judges[name](document)

    taken = {name: one(judge) for name, judge in judges.items()} | {"first three": one(three)}
    return taken | {"all four": taken["first three"] + taken["c4"]}


def datatrove_split(texts):
    """The same with words from str.split; C4 counts sentences with spaCy all the same."""
    return datatrove(texts, str.split)


def data_juicer(texts):
    """Statistics of each operator over batches of 1,000 texts, its default, words between white space. The list of
    stop words, which it would download, is Gopher's."""
    import data_juicer.ops.filter as ops
    from data_juicer.utils.constant import Fields

    folder = tempfile.mkdtemp()
    with open(f"{folder}/stopwords.json", "w") as file:
        json.dump({"en": ["the", "be", "to", "of", "and", "that", "have", "with"]}, file)

    kinds = (
        ops.WordRepetitionFilter,
        ops.CharacterRepetitionFilter,
        ops.WordsNumFilter,
        ops.StopWordsFilter,
        ops.AlphanumericFilter,
        ops.SpecialCharactersFilter,
        ops.AverageLineLengthFilter,
        ops.MaximumLineLengthFilter,
        ops.TextLengthFilter,
    )
    taken = {}
    for kind in kinds:
        op = kind(**({"stopwords_dir": folder} if kind is ops.StopWordsFilter else {}))
        if op.is_batched_op():
            batches = [{"text": texts[i : i + 1000]} for i in range(0, len(texts), 1000)]

            def judge(batch, op=op):
                return op.compute_stats_batched({**batch, Fields.stats: [{} for _ in batch["text"]]})

            judge({"text": texts[:1]})
        else:
            batches = texts

            def judge(text, op=op):
                return op.compute_stats_single({"text": text, Fields.stats: {}})

            judge("Warm up.")
        begun = time.process_time()
        for batch in batches:
            judge(batch)
        taken[kind.__name__.removesuffix("Filter")] = time.process_time() - begun
    return taken


def nemo_curator(texts):
    """score_document of the filters that the nemo mode of ours has rules for; 10 of all raise on an empty text."""
    from nemo_curator.stages.text.filters import heuristic
    from nemo_curator.stages.text.filters.heuristic import repetition

    quality = ("WordCount", "MeanWordLength", "SymbolsToWords", "Bullets", "Ellipsis", "WordsWithoutAlphabets")
    kinds = {name: getattr(heuristic, f"{name}Filter") for name in (*quality, "CommonEnglishWords")}
    kinds |= {
        name: getattr(repetition, f"{name}Filter")
        for name in ("RepeatedLines", "RepeatedParagraphs", "RepeatedLinesByChar", "RepeatedParagraphsByChar")
    }
    taken = {name: seconds(kind().score_document, texts) for name, kind in kinds.items()}
    taken["RepeatingTopNGrams, n = 2 to 4"] = sum(
        seconds(repetition.RepeatingTopNGramsFilter(n=n).score_document, texts) for n in (2, 3, 4)
    )
    taken["RepeatingDuplicateNGrams, n = 5 to 10"] = sum(
        seconds(repetition.RepeatingDuplicateNGramsFilter(n=n).score_document, texts) for n in range(5, 11)
    )
    return taken


TOOLS = {
    "datatrove": ("datatrove", datatrove),
    "datatrove_split": ("datatrove", datatrove_split),
    "data_juicer": ("py-data-juicer", data_juicer),
    "nemo_curator": ("nemo-curator", nemo_curator),
}


def main():
    tool, path = sys.argv[1:]
    package, measure = TOOLS[tool]
    texts = pq.read_table(path, columns=["text"])["text"].to_pylist()
    answer = {"version": importlib.metadata.version(package), "seconds": measure(texts)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
