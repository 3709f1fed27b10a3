"""Shards for the readers to open, written by the product in its own environment: none of them can be installed there.

    python -m tests.readers.make_shards FOLDER

makes a folder for each mode of packing and width of tokens, with the shards and `case.json`, which says what is in
them. A token tells its document and its place there, so that a reader's test sees what became of the order.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from cluster import mds
from cluster.shards import write_shard
from operators.tokens.pack import Pack, flat_tokens
from tests.cluster.shard_cases import EOS, PAD, by_format, table, tokenizer

SEQ_LEN = 32
PLACES = 64  # more than a document has tokens
FIRST = {"uint16": 2, "int32": 100_000}
PACKS = {
    "documents": Pack(),
    "concat_chunk": Pack(layout="windows", mode="concat_chunk", seq_len=SEQ_LEN),
    "best_fit": Pack(layout="windows", mode="best_fit", seq_len=SEQ_LEN),
    "icp_fit": Pack(layout="windows", mode="icp_fit", seq_len=SEQ_LEN),
    "decompose": Pack(layout="windows", mode="decompose", seq_len=SEQ_LEN, min_len=4),
}
FORMATS = ["megatron", "datatrove", "olmo", "mds"]


def make(folder: Path, mode: str, dtype: str) -> None:
    lengths = [SEQ_LEN + 9 if k % 20 == 0 else k * 7 % 13 + 1 for k in range(400)]  # without the ends
    lists = [[FIRST[dtype] + k * PLACES + at for at in range(length)] for k, length in enumerate(lengths)]
    docs = table(lists, dtype=dtype)
    about = tokenizer(dtype) | {"vocab_size": FIRST[dtype] + len(lists) * PLACES}
    pack = PACKS[mode]
    links = np.random.default_rng(6).random(len(lists))  # of each document to the one before it
    packed = pack(*flat_tokens(docs["input_ids"]), PAD, links)
    records = write_shard(folder, "train-00000", docs, FORMATS, about, None if mode == "documents" else packed)
    for record in by_format(records)["mds"].sidecars:
        (folder / record.path).with_name(mds.INDEX).write_bytes(
            mds.merge_indexes([(folder / record.path).read_bytes()])
        )
    case = {
        "mode": mode,
        "dtype": dtype,
        "first": FIRST[dtype],
        "vocab_size": about["vocab_size"],
        "eos": EOS,
        "pad": PAD,
        "paths": {record.format: str(folder / record.path) for record in records},
        "documents": docs["input_ids"].to_pylist(),
        "sequences": [part.tolist() for part in np.split(packed.tokens, packed.offsets[1:-1])],
        "pieces": packed.pieces.to_pylist(),
    }
    (folder / "case.json").write_text(json.dumps(case))


if __name__ == "__main__":
    for each in PACKS:
        for width in FIRST:
            make(Path(sys.argv[1], f"{each}-{width}"), each, width)
