"""A build with an operator that adds rows, and one that only adds columns: every law holds, every row is explained."""

from __future__ import annotations

from pathlib import Path

import orjson
import pyarrow.parquet as pq

from cluster.storage import open_store
from tests.operators.text.test_segmenting import essay
from workflows.build import build, newest_build, prepare
from workflows.explain import why
from workflows.verify import verify

WORKFLOW = """
from operators.dedup.exact import ExactDedup
from operators.dedup.unique_id import UniqueId
from operators.selection.topic import Topic
from operators.text.coherence import Coherence
from operators.text.segmenting import Segment
from operators.tokens.tokenizer import Tokenizer
from workflows.stage import Stage, TokenStage


def segmented(params):
    read = Stage("read", None, (params.use(Segment), params.use(Coherence)))
    unique = Stage("dedup", read, (UniqueId(), params.use(ExactDedup), params.use(Topic)))
    return TokenStage("tokens", unique, (params.use(Tokenizer),))
"""
RECIPE = """
workflow: {folder}/segmented_workflow.py:segmented
inputs: [{folder}/documents.jsonl]
output: {folder}/out
params:
  topic: {{clusters: 5}}
  tokenizer: {{vocab: 300}}
"""


def test_a_build_accounts_for_rows_that_it_made(tmp_path: Path, ray_session: None) -> None:
    whole = [essay(topic, 4) for topic in range(4)]
    texts = [*whole, whole[0] + whole[1], whole[2] + essay(4), ""]  # of the parts only the last is no duplicate
    lines = [orjson.dumps({"id": f"d{n}", "text": text}) for n, text in enumerate(texts)]
    (tmp_path / "documents.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "segmented_workflow.py").write_text(WORKFLOW)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(folder=tmp_path))
    result = build(prepare(tmp_path / "recipe.yaml"))

    read, unique, _ = result["stages"]
    assert (read["rows_in"], read["created"], read["kept"]) == (7, 4, 9)
    assert read["dropped"] == {"segment/split": 2}
    assert unique["dropped"] == {"exact_dedup/duplicate": 3}
    store = open_store(str(tmp_path / "out"))
    assert [what for what, error in verify(store) if error] == []
    manifest = newest_build(store)
    made = sum(len(text) for text in texts[4:6])
    characters = manifest["stages"][0]["characters"]
    assert (characters["created"], characters["dropped"], characters["cut"]) == (made, made, 0)

    parent, child = why(store, [manifest], "d5"), why(store, [manifest], "d5/1")
    assert (parent["fate"], parent["operator"], parent["reason"]) == ("dropped", "segment", "split")
    assert parent["threshold"] == 0.07
    assert child["fate"] == "kept"
    assert why(store, [manifest], "d5/0")["duplicate_of"] == "d2"
    (kept,) = manifest["stages"][1]["files"]["kept"]
    topics = dict(
        zip(*(pq.read_table(tmp_path / "out" / kept["path"])[c].to_pylist() for c in ("id", "topic")), strict=True)
    )
    assert set(topics) == {"d0", "d1", "d2", "d3", "d5/1", "d6"}
    assert topics["d6"] is None
    assert len(set(topics.values())) == 6
    report = Path(tmp_path / "out" / "builds" / manifest["build_id"] / "report.html").read_text("utf-8")
    assert "created by splitting" in report
