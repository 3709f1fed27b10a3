"""What the peers do, one at a time, in an environment of their own; benchmarks/dedup.py starts it and reads the answer.

    PYTHON near_duplicates.py TOOL DOCUMENTS.jsonl

Prints JSON: CPU seconds of the process and its children for signatures alone (`sign`), for the whole deduplication
(`whole`), and the places of the documents that it removed. Each takes 112 hash functions, 14 bands of 8, shingles of 5
words, and first a few documents to warm up. Times are the least of three, or of as many as fit into 20 seconds.
"""

import contextlib
import importlib.metadata
import json
import os
import sys
import tempfile
from collections import defaultdict

BANDS, ROWS, SHINGLE = 14, 8, 5
PERMUTATIONS = BANDS * ROWS
WARM = 20


def seconds(work, repeats=3):
    taken = []
    while len(taken) < repeats and sum(taken) < 20:
        start = sum(os.times()[:4])
        result = work()
        taken.append(sum(os.times()[:4]) - start)
    return min(taken), result


def grams(text):
    words = text.lower().split()
    return {" ".join(words[k : k + SHINGLE]) for k in range(len(words) - SHINGLE + 1)}


def removed(pairs, count):
    """All but the first of each connected group."""
    parent = list(range(count))

    def top(node):
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for a, b in pairs:
        a, b = top(a), top(b)
        parent[max(a, b)] = min(a, b)
    return [k for k in range(count) if top(k) != k]


def datasketch(texts, hashfunc=None, scheme=None):
    from datasketch import MinHash, MinHashLSH

    options = {"hashfunc": hashfunc} if hashfunc else {}

    def sign(texts):
        sketches = []
        for text in texts:
            sketch = MinHash(num_perm=PERMUTATIONS, scheme=scheme, **options)
            sketch.update_batch([gram.encode() for gram in grams(text)])
            sketches.append(sketch)
        return sketches

    def whole(texts):
        lsh = MinHashLSH(num_perm=PERMUTATIONS, params=(BANDS, ROWS))
        pairs = []
        for k, sketch in enumerate(sign(texts)):
            if not sketch.is_empty():
                pairs += [(k, other) for other in lsh.query(sketch)]
                lsh.insert(k, sketch)
        return removed(pairs, len(texts))

    return sign, whole


def datasketch_xxh32(texts):
    from xxhash import xxh32_intdigest

    return datasketch(texts, xxh32_intdigest, "affine32")


def rensa(texts):
    from rensa import RMinHash, RMinHashLSH

    def sign(texts):
        sketches = []
        for text in texts:
            sketch = RMinHash(num_perm=PERMUTATIONS, seed=1)
            sketch.update(list(grams(text)))
            sketches.append(sketch)
        return sketches

    def whole(texts):
        lsh = RMinHashLSH(threshold=0.72, num_perm=PERMUTATIONS, num_bands=BANDS)
        pairs = []
        for k, (text, sketch) in enumerate(zip(texts, sign(texts))):
            if len(text.split()) >= SHINGLE:
                pairs += [(k, other) for other in lsh.query(sketch)]
                lsh.insert(k, sketch)
        return removed(pairs, len(texts))

    return sign, whole


def gaoya(texts):
    from gaoya.minhash import MinHashStringIndex

    def index(texts):
        made = MinHashStringIndex(32, 0.7, BANDS, ROWS, None, "word", True, (SHINGLE, SHINGLE))
        for k, text in enumerate(texts):
            made.insert_document(k, text)
        return made

    def whole(texts):
        made = index(texts)
        pairs = [(k, other) for k, text in enumerate(texts) for other in made.query(text)]
        return removed(pairs, len(texts))

    return index, whole


def datatrove(texts, split=True):
    import datatrove.pipeline.dedup.minhash as minhash
    from datatrove.data import Document
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.utils.word_tokenizers import load_word_tokenizer

    if split:
        tokenizer = load_word_tokenizer("en")
        type(tokenizer).word_tokenize = lambda self, text: text.split()
    config = minhash.MinhashConfig(n_grams=SHINGLE, num_buckets=BANDS, hashes_per_bucket=ROWS)

    def sign(texts):
        with tempfile.TemporaryDirectory() as folder:
            step = minhash.MinhashDedupSignature(folder, config)
            return [step.get_signature(found) if len(found := step.get_shingles(t)) else None for t in texts]

    def whole(texts):
        with tempfile.TemporaryDirectory() as root:
            kept = []

            def documents(data, rank=0, world_size=1):
                yield from (Document(text=text, id=str(k)) for k, text in enumerate(texts))

            def keep(data, rank=0, world_size=1):
                for document in data:
                    kept.append(int(document.id))
                    yield document

            def run(name, *steps):
                LocalPipelineExecutor(list(steps), logging_dir=f"{root}/log-{name}", tasks=1, workers=1).run()

            run("1", documents, minhash.MinhashDedupSignature(f"{root}/sig", config))
            for bucket in (
                LocalPipelineExecutor(
                    [minhash.MinhashDedupBuckets(f"{root}/sig", f"{root}/buckets", config=config)],
                    logging_dir=f"{root}/log-2",
                    tasks=BANDS,
                    workers=1,
                ),
            ):
                bucket.run()
            run("3", minhash.MinhashDedupCluster(f"{root}/buckets", f"{root}/remove", config=config))
            run("4", documents, minhash.MinhashDedupFilter(f"{root}/remove"), keep)
            return sorted(set(range(len(texts))) - set(kept))

    return sign, whole


def datatrove_spacy(texts):
    return datatrove(texts, split=False)


def text_dedup(texts):
    """Its functions and tables; its command adds Hugging Face datasets around them."""
    import numpy as np
    from text_dedup.minhash import RNG, SIGNATURE_COLUMN, embed_func
    from text_dedup.utils import xxh3_32hash

    prime, most = np.uint64((1 << 61) - 1), np.uint32((1 << 32) - 1)
    permutations = tuple(RNG.randint(low, prime, size=(PERMUTATIONS,), dtype=np.uint64) for low in (1, 0))
    ranges = [(k * ROWS, (k + 1) * ROWS) for k in range(BANDS)]
    options = {"num_perm": PERMUTATIONS, "ngram_size": SHINGLE, "min_length": SHINGLE, "hashranges": ranges}
    options |= {"permutations": permutations, "hash_func": xxh3_32hash, "dtype": np.uint64}
    options |= {"max_hash": most, "modulo_prime": prime}

    def sign(texts):
        return [embed_func(text, k, **options)[SIGNATURE_COLUMN] for k, text in enumerate(texts)]

    def whole(texts):
        tables = [defaultdict(list) for _ in ranges]
        for k, bands in enumerate(sign(texts)):
            if len(texts[k].split()) >= SHINGLE:
                for table, band in zip(tables, bands):
                    table[band].append(k)
        groups = (group for table in tables for group in table.values())
        return removed([(group[0], other) for group in groups for other in group[1:]], len(texts))

    return sign, whole


def data_juicer(texts):
    """Its operator on a Hugging Face dataset in memory; all documents shorter than a shingle are alike to it."""
    import data_juicer.ops.deduplicator.document_minhash_deduplicator as minhash
    import datasets

    datasets.disable_caching()
    datasets.disable_progress_bars()

    def operator():
        sizes = {"num_permutations": PERMUTATIONS, "num_bands": BANDS, "num_rows_per_band": ROWS}
        return minhash.DocumentMinhashDeduplicator(window_size=SHINGLE, **sizes)

    def sign(texts):
        made = operator()
        return [made.compute_hash({made.text_key: text}) for text in texts]

    def whole(texts):
        made = operator()
        rows = datasets.Dataset.from_dict({made.text_key: texts, "place": list(range(len(texts)))})
        kept, _ = made.process(rows.map(made.compute_hash))
        return sorted(set(range(len(texts))) - set(kept["place"]))

    return sign, whole


def components(path):
    """CPU seconds to connect rows of (band, document)."""
    import numpy as np
    import polars as pl
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    data = np.load(path)
    keys, docs = data["keys"], data["docs"].astype(np.int64)
    count = int(docs.max()) + 1

    def connected(left, right):
        edges = (np.ones(len(left), np.int8), (left.to_numpy(), right.to_numpy()))
        return int(connected_components(coo_matrix(edges, shape=(count, count)), directed=False)[0])

    def by_group():
        frame = pl.DataFrame({"key": keys, "doc": docs})
        first = frame.group_by("key").agg(pl.col("doc").min().alias("first"), pl.len()).filter(pl.col("len") > 1)
        links = frame.join(first, on="key").filter(pl.col("doc") != pl.col("first"))
        return connected(links["first"], links["doc"])

    def by_sorting():
        rows = pl.DataFrame({"key": keys, "doc": docs}).sort("key")
        links = rows.with_columns(last=pl.col("doc").shift()).filter(pl.col("key") == pl.col("key").shift())
        return connected(links["last"], links["doc"])

    def dictionaries():
        buckets = defaultdict(list)
        for key, doc in zip(keys.tolist(), docs.tolist()):
            buckets[key].append(doc)
        return count - len(removed(((b[0], other) for b in buckets.values() for other in b[1:]), count))

    works = {"polars sort, scipy": by_sorting, "polars group_by, scipy": by_group, "dictionaries": dictionaries}
    return {name: seconds(work) for name, work in works.items()}


def error(path):
    """Mean error of datasketch's estimates, by the exact similarity of what it was given, over four seeds."""
    from datasketch import MinHash

    with open(path) as file:
        given = json.load(file)
    sets = [grams(text) for text in given["texts"]]
    pairs = [(a, b) for a, b in given["pairs"] if sets[a] and sets[b]]
    errors = []
    for seed in range(1, 5):
        sketches = []
        for one in sets:
            sketches.append(MinHash(num_perm=PERMUTATIONS, seed=seed))
            sketches[-1].update_batch([gram.encode() for gram in one])
        exact = (len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in pairs)
        errors += [abs(sketches[a].jaccard(sketches[b]) - j) for (a, b), j in zip(pairs, exact)]
    return {"error": sum(errors) / len(errors), "pairs": len(pairs)}


SIGNING = (datasketch, datasketch_xxh32, rensa, gaoya, text_dedup, data_juicer, datatrove, datatrove_spacy)
TOOLS = {f.__name__: f for f in SIGNING}
PACKAGES = {"datasketch_xxh32": "datasketch", "datatrove_spacy": "datatrove", "data_juicer": "py-data-juicer"}


def main():
    tool, path = sys.argv[1:]
    with open(os.devnull, "w") as quiet, contextlib.redirect_stderr(quiet):
        if tool in ("components", "error"):
            answer = {"components": components, "error": error}[tool](path)
        else:
            with open(path) as lines:
                texts = [json.loads(line)["text"] for line in lines]
            sign, whole = TOOLS[tool](texts)
            sign(texts[:WARM])
            answer = {"version": importlib.metadata.version(PACKAGES.get(tool, tool))}
            answer["sign"], _ = seconds(lambda: sign(texts))
            answer["whole"], answer["removed"] = seconds(lambda: whole(texts))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
