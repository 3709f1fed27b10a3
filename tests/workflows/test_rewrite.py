"""A whole build whose documents a language model says again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.chat_server import chat_server
from cluster.storage import open_store
from tests.operators.text.paraphrases import EASY, GERMAN, HARD, OTHER, QA, SOURCE, WIKI, swapped
from tests.workflows.corpora import recipe
from workflows.build import build, prepare
from workflows.corpus import newest_build
from workflows.verify import verify

TEXTS = [SOURCE, GERMAN, OTHER, f"{EASY} COPIES", f"{WIKI} FORGETS", f"{HARD} REFUSES", f"{QA} WANDERS", SOURCE]
REASONS = {"d3": "copied", "d4": "no_end_marker", "d5": "refused", "d6": "unrelated"}
OFF = ("gopher_repetition", "gopher_quality", "fineweb", "minhash_dedup")


def rewrite_stage(folder: Path) -> dict[str, Any]:
    stages = newest_build(open_store(str(folder)))["stages"]
    found: dict[str, Any] = next(stage for stage in stages if stage["name"] == "rewrite")
    return found


def documents(folder: Path, result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    paths = [folder / shard["path"] for shard in result["shards"] if shard["format"] == "parquet"]
    return {row["id"]: row for row in pa.concat_tables(map(pq.read_table, paths)).to_pylist()}


def test_a_corpus_is_rewritten_and_no_answer_is_asked_for_twice(tmp_path: Path, ray_session: None) -> None:
    lines = [orjson.dumps({"id": f"d{k}", "text": text}) for k, text in enumerate(TEXTS)]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    out = tmp_path / "out"

    def built(force: str | None = None) -> dict[str, Any]:
        model = {"endpoint": server.url, "model": "m", "max_tokens": 1100}
        asked = {"model": model, "style": "hard", "keep_original": True}
        params = dict.fromkeys(OFF, "off") | {
            "rewrite": asked,
            "tokenizer": {"name": "train:bpe", "vocab": 300},
        }
        path = recipe(tmp_path / "r.yaml", [str(tmp_path / "in.jsonl")], out, params=params, splits={})
        return build(prepare(path), force=force)

    with chat_server("tests.operators.text.paraphrases:as_told") as server:
        found = documents(out, built())
        stage = rewrite_stage(out)
        assert server.told()["requests"] == 7  # the copy was gone before

        assert (stage["rows_in"], stage["kept"], stage["dropped"]) == (7, 7, {})
        counted = stage["operators"][0]["counted"]
        assert [counted[name] for name in ("calls", "cached", "rewritten")] == [7, 0, 3]
        assert {name: n for name, n in counted.items() if name.startswith("kept_")} == {
            f"kept_{reason}": 1 for reason in REASONS.values()
        }
        text = stage["characters"]
        assert text["in"] + text["created"] == text["kept"] + text["dropped"] + text["cut"]
        assert text["kept"] == sum(len(row["text"]) for row in found.values())

        for k, source in enumerate(TEXTS[:-1]):
            row, reason = found[f"d{k}"], REASONS.get(f"d{k}")
            assert row["rewrite_fallback"] == reason
            assert (row["text"], row["source_text"]) == ((source, None) if reason else (swapped(source), source))
            assert (row["rewrite_from"] is None) == (reason is not None)
            for name in (row["rewrite_from"] or {"answers": []})["answers"]:
                assert (out / "answers" / name[:2] / name).is_file()
        assert [error for _, error in verify(open_store(str(out))) if error] == []

        again = built(force="rewrite")
        assert [stage["cached"] for stage in again["stages"] if stage["name"] == "rewrite"] == [False]
        assert documents(out, again) == found
        assert server.told()["requests"] == 7
