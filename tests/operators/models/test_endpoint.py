from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import orjson
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.models import http
from operators.models.endpoint import Endpoint, _vectors
from operators.models.http import Refused, ServerError
from tests.operators.models.model_server import DIMENSIONS, ModelServer, model_server

TEXTS = [f"a text {'a' * (k % 7)}{'b' * (k % 3)}" for k in range(50)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    monkeypatch.setattr(http, "PAUSE", 0.001)
    with model_server() as running:
        yield running


def endpoint(server: ModelServer, **settings: object) -> Endpoint:
    return Endpoint(endpoint=server.address, model="m", **settings)  # type: ignore[arg-type]


def expected(server: ModelServer, texts: list[str]) -> np.ndarray:
    rows = np.array([server.embed(text) for text in texts], np.float64)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def test_batches_come_back_in_order(server: ModelServer) -> None:
    embedder = endpoint(server, batch=7, options={"truncate_prompt_tokens": 512, "tags": ["a"]}).load()
    assert embedder.dimensions == DIMENSIONS
    assert (embedder.embed(TEXTS) == expected(server, TEXTS)).all()
    first, *rest = server.requests
    own = {"path": "/v1/embeddings", "model": "m", "encoding_format": "float", "truncate_prompt_tokens": 512}
    own |= {"tags": ["a"]}
    assert first == own | {"input": ["text"]}
    assert sorted(len(request["input"]) for request in rest) == [1] + [7] * 7
    assert embedder.embed([]).shape == (0, DIMENSIONS)


def test_requests_at_a_time_are_bounded(server: ModelServer) -> None:
    gate = threading.Barrier(3, timeout=20)

    def slow(text: str) -> list[float]:
        if text != "text":
            gate.wait()  # passes only if three come at a time
        return [1.0, len(text)]

    server.embed = slow
    endpoint(server, batch=1, concurrency=3).load().embed(TEXTS[:12])
    assert server.most_busy == 3


def test_a_text_that_is_refused_has_none(server: ModelServer) -> None:
    def embed(text: str) -> list[float]:
        if len(text) > 100:
            raise ValueError("too long")
        return [1.0, len(text)]

    server.embed = embed
    texts = ["x" * (200 if k in (3, 4, 17) else k + 1) for k in range(20)]
    found = endpoint(server, batch=8).load().embed(texts)
    assert np.flatnonzero(~found.any(axis=1)).tolist() == [3, 4, 17]
    rest = [k for k in range(20) if k not in (3, 4, 17)]
    assert (found[rest] == expected(server, [texts[k] for k in rest])).all()


def test_a_server_that_refuses_everything_is_an_error(server: ModelServer) -> None:
    def embed(text: str) -> list[float]:
        raise ValueError("unknown option truncate")

    server.embed = embed
    with pytest.raises(Refused, match=f"{server.address}/embeddings: status 400: .*unknown option"):
        endpoint(server).load()


@pytest.mark.parametrize("status", [400, 403])
def test_a_server_that_refuses_everything_from_now_on_is_an_error(server: ModelServer, status: int) -> None:
    embedder = endpoint(server, batch=4).load()
    server.faults = [(status, {}, b"budget exceeded")] * 100
    with pytest.raises(Refused, match=f"status {status}: budget exceeded"):
        embedder.embed(TEXTS[:4])
    assert [request["input"] for request in server.requests[1:]] == [TEXTS[:4], TEXTS[:2], TEXTS[:1], ["text"]]


def test_an_outage_in_the_middle_is_an_error_and_no_null(server: ModelServer) -> None:
    embedder = endpoint(server, batch=5, concurrency=2).load()
    server.faults = [(503, {}, b"down")] * 100
    with pytest.raises(ServerError, match="6 times in a row: status 503: down"):
        embedder.embed(TEXTS)
    assert len(server.requests) <= 1 + 4 * http.TRIES  # the rest is not asked for
    server.faults = [(500, {}, b"once"), (429, {}, b"twice")]
    assert (embedder.embed(TEXTS) == expected(server, TEXTS)).all()


def test_one_that_stalls_is_asked_again(server: ModelServer) -> None:
    embedder = endpoint(server, timeout=0.3).load()
    server.faults = [lambda handler: time.sleep(0.6)]
    assert (embedder.embed(TEXTS[:3]) == expected(server, TEXTS[:3])).all()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ([], "no list `data`"),
        ({"data": {"embedding": [1]}}, "no list `data`"),
        ({"data": [[1.0, 2.0]]}, "no list `data` of objects"),
        ({"data": []}, "0 embeddings for 1 texts"),
        ({"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1]}]}, "2 embeddings for 1 texts"),
        ({"data": [{"index": 1, "embedding": [1.0]}]}, "`index`"),
        ({"data": [{"index": False, "embedding": [1.0]}]}, "`index`"),
        ({"data": [{"embedding": [1.0]}]}, "`index`"),
        ({"data": [{"index": 0, "embedding": []}]}, "no list of as many numbers"),
        ({"data": [{"index": 0}]}, "no list of as many numbers"),
        ({"data": [{"index": 0, "embedding": "AAAA"}]}, "no list of as many numbers"),
        ({"data": [{"index": 0, "embedding": [[1.0]]}]}, "no number"),
        ({"data": [{"index": 0, "embedding": [1.0, None]}]}, "no number"),
        ({"data": [{"index": 0, "embedding": [1.0, "2"]}]}, "no number"),
        ({"data": [{"index": 0, "embedding": [1.0, True]}]}, "no number"),
        ({"data": [{"index": 0, "embedding": [1.0, 2.0, 3.0]}]}, "3 dimensions, earlier ones 4"),
    ],
)
def test_an_answer_of_another_shape_is_an_error(server: ModelServer, answer: object, problem: str) -> None:
    embedder = endpoint(server).load()
    server.faults = [(200, {}, orjson.dumps(answer))]
    with pytest.raises(ServerError, match=problem) as told:
        embedder.embed(["a text"])
    assert f"{server.address}/embeddings, model 'm'" in str(told.value)


def test_indices_must_be_each_once(server: ModelServer) -> None:
    embedder = endpoint(server).load()
    twice = [{"index": 0, "embedding": [1.0] * DIMENSIONS}] * 2
    server.faults = [(200, {}, orjson.dumps({"data": twice}))]
    with pytest.raises(ServerError, match="0 to 1, each once"):
        embedder.embed(["a", "b"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["data", "index", "embedding"]), inner),
    max_leaves=12,
)


@given(JSON, st.integers(1, 2))
@settings(max_examples=300, deadline=None)
def test_no_answer_breaks_the_reading(answer: object, texts: int) -> None:
    try:
        found = _vectors(answer, texts)
    except ValueError:
        return
    assert found.shape[0] == texts
    assert found.dtype == np.float64


def test_zeros_and_large_numbers(server: ModelServer) -> None:
    server.embed = lambda text: {"zero": [0, 0], "large": [1e300, 1e300]}.get(text, [3, 4])
    found = endpoint(server).load().embed(["zero", "large", "else"])
    assert found.tolist() == [[0, 0], [np.float16(0.5**0.5)] * 2, [np.float16(0.6), np.float16(0.8)]]


@pytest.mark.parametrize("number", ["1e400", "1" + "0" * 400])
def test_numbers_that_no_float_holds(server: ModelServer, number: str) -> None:
    embedder = endpoint(server).load()
    server.faults = [(200, {}, f'{{"data": [{{"index": 0, "embedding": [{number}, 1, 1, 1]}}]}}'.encode())] * http.TRIES
    with pytest.raises(ServerError, match="the answer is no JSON"):
        embedder.embed(["a text"])


def test_the_key(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    made = endpoint(server, key_env="EMBEDDING_KEY")
    monkeypatch.delenv("EMBEDDING_KEY", raising=False)
    with pytest.raises(ValueError, match="EMBEDDING_KEY is not set"):
        made.load()
    monkeypatch.setenv("EMBEDDING_KEY", "sk-0815")
    made.load()
    assert server.headers[-1]["authorization"] == "Bearer sk-0815"
    assert "sk-0815" not in repr(made)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"endpoint": "ftp://host"}, "endpoint: 'ftp://host' is no address"),
        ({"endpoint": "http://user:secret@host"}, "endpoint: the address holds a user or password"),
        ({"model": ""}, "model"),
        ({"key_env": "sk-secret"}, "key_env: must be the name of an environment variable"),
        ({"key_env": "secret0815"}, "key_env: must be the name"),
        ({"batch": 0}, "batch"),
        ({"concurrency": 0}, "concurrency"),
        ({"timeout": 0}, "timeout"),
        ({"max_chars": 0}, "max_chars"),
        ({"options": {"input": "x"}}, "'input' is not to be set here"),
        ({"options": {"api_key": "x"}}, "options: 'api_key' looks like a secret"),
        ({"options": {"x": b"1"}}, "must be values that JSON can write"),
    ],
)
def test_parameters_that_are_wrong(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=problem):
        Endpoint(**({"endpoint": "http://host/v1", "model": "m"} | settings))  # type: ignore[arg-type]
