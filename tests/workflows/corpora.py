"""A small corpus with every kind of fault, for end-to-end tests: what goes in and what must come of it."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
from ruamel.yaml import YAML

ROWS = 500


def lay_out(folder: Path, sample: Path) -> None:
    """Pages with a truncated last record, documents, and planted lines: copies, near copies, and broken ones."""
    folder.mkdir(parents=True, exist_ok=True)
    documents = pq.read_table(sample / "sample.parquet").slice(0, ROWS)
    pq.write_table(documents, folder / "documents.parquet", row_group_size=100)
    (folder / "pages.warc.gz").write_bytes((sample / "sample.warc.gz").read_bytes()[:-200])
    long = [t for t in documents["text"].to_pylist() if len(t.split()) > 300][:5]
    lines = [orjson.dumps({"id": f"z-exact-{n}", "text": text}) for n, text in enumerate(long)]
    lines += [orjson.dumps({"id": f"z-near-{n}", "text": text[: -len(text) // 50]}) for n, text in enumerate(long)]
    lines += [orjson.dumps({"id": "short", "text": "Too short to keep."}), orjson.dumps({"id": "nul", "text": "a\0b"})]
    lines += [b'{"id": "broken", "text": "no end', b'{"id": "latin", "text": "caf\xe9"}']
    lines += [orjson.dumps({"id": "eos", "text": "<|endoftext|> " + long[0][:2000] + " <|endoftext|>"})]
    (folder / "planted.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    (folder / "more.jsonl.gz").write_bytes(
        gzip.compress(b'{"id": "gz", "text": "One line in a gzip file."}\n', mtime=0)
    )


def recipe(path: Path, inputs: list[Any], output: Path, **changes: Any) -> Path:
    """A recipe for that corpus; `changes` replace its keys, those of `params` one by one."""
    params: dict[str, Any] = {
        "language": {"min_score": 0.3},
        "gopher_quality": {"min_stop_words": 0, "min_words": 20},
        "c4": "off",
        "tokenizer": {"name": "train:bpe", "vocab": 2000},
    } | changes.pop("params", {})
    body = {
        "workflow": "text",
        "inputs": inputs,
        "output": str(output),
        "params": params,
        "shards": {"formats": ["megatron", "tokens_parquet", "parquet"], "tokens_per_shard": 100_000},
        "splits": {"validation": 0.1},
        "workers": {"unit_bytes": 300_000},
    } | changes
    with path.open("w") as file:
        YAML().dump(body, file)
    return path


def hashes(result: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, sha256) of all shards, without the build they belong to."""
    return sorted((shard["path"].split("/shards/")[1], shard["sha256"]) for shard in result["shards"])
