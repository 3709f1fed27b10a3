"""Embeddings from a server that speaks as OpenAI's API does: vLLM, Text Embeddings Inference, llama.cpp and others.

Texts go in batches, several at a time. Where a server refuses a batch, its halves are asked for, down to the text that
is to blame: that one has no embedding. A server that refuses everything would so turn an error of the recipe, or a
spent budget, into nulls, so one word is asked for first, and again before a text is held to be to blame.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import orjson
import pydantic
from numpy.typing import NDArray
from pydantic import Field, model_validator

from operators.document import parameters
from operators.models.embedding import Embeddings, unit
from operators.models.http import Refused, Server, ServerError, check_server

PROBE = "text"
NUMBER_BYTES = 32  # of JSON, at most
MOST_DIMENSIONS = 16_384
OWN_FIELDS = ("model", "input", "encoding_format")
SECRETS = ("key", "token", "secret", "authorization", "password", "credentials")  # ends of names
NO_SECRET = "prompt_cache_key"  # of OpenAI


def _options(value: object) -> object:
    """A hashable form of the mapping in a recipe: names, and values as canonical JSON."""
    if isinstance(value, tuple):
        return value  # it is one already
    if not isinstance(value, dict):
        raise ValueError("must be a mapping of fields to values")
    try:
        told = {name: json.dumps(of, sort_keys=True, allow_nan=False) for name, of in value.items()}
    except (TypeError, ValueError) as error:
        raise ValueError(f"must be values that JSON can write: {error}") from None
    return tuple(sorted(told.items(), key=str))


Options = Annotated[
    tuple[tuple[str, str], ...],
    pydantic.BeforeValidator(_options, json_schema_input_type=dict[str, pydantic.JsonValue]),
]


def fields_of(options: Options) -> dict[str, Any]:
    """The fields of a request that they mean."""
    return {name: orjson.loads(value) for name, value in options}


def check_options(options: Options, own: Collection[str]) -> None:
    """Raises ValueError, which repeats no value, for names that are not to be set here, and for those of secrets. To be
    called as http.check_server is."""
    for name, _ in options:
        if name in own:
            raise ValueError(f"options: {name!r} is not to be set here")
        if name.lower().endswith(SECRETS) and name != NO_SECRET:
            raise ValueError(f"options: {name!r} looks like a secret: put it into an environment variable (key_env)")


@parameters
class Endpoint:
    """`endpoint`: the address that `/embeddings` is appended to. `model`: its name there. `key_env`: the environment
    variable, on every machine that works, that holds the key. `options`: further fields of each request."""

    PLACEMENT: ClassVar[frozenset[str]] = frozenset({"key_env", "batch", "concurrency", "timeout"})
    endpoint: str
    model: Annotated[str, Field(min_length=1)]
    key_env: str | None = None
    max_chars: Annotated[int, Field(ge=1)] = 8192  # of a text, sent
    batch: Annotated[int, Field(ge=1, le=4096)] = 32  # texts in a request
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8  # requests at a time, of each worker
    timeout: Annotated[float, Field(gt=0, le=3600)] = 120.0  # seconds of a request
    options: Options = ()

    @model_validator(mode="after")
    def _holds_no_secret(self) -> Self:
        check_server(self.endpoint, self.key_env)
        check_options(self.options, OWN_FIELDS)
        return self

    def load(self) -> EndpointEmbedder:
        """Raises ServerError where the server does not give one word's embedding, ValueError for a key not set."""
        return EndpointEmbedder(self)


class EndpointEmbedder:
    """The open server (see embedding.Embedder)."""

    def __init__(self, endpoint: Endpoint) -> None:
        server = Server(endpoint.endpoint, endpoint.key_env, endpoint.timeout, endpoint.concurrency)
        self._endpoint, self._client = endpoint, server.connect()
        self.max_chars, self.dimensions = endpoint.max_chars, 0
        self.dimensions = self._asked([PROBE]).shape[1]

    def embed(self, texts: Sequence[str]) -> Embeddings:
        size = self._endpoint.batch
        batches = [list(texts[k : k + size]) for k in range(0, len(texts), size)]
        pool = ThreadPoolExecutor(self._endpoint.concurrency)
        try:
            found = list(pool.map(self._embedded, batches))
        finally:
            pool.shutdown(cancel_futures=True)  # after an error nobody needs the rest
        return np.concatenate([np.zeros((0, self.dimensions), np.float16), *found])

    def _embedded(self, texts: list[str]) -> Embeddings:
        try:
            return unit(self._asked(texts))
        except Refused:
            if len(texts) == 1:
                self._asked([PROBE])  # which raises where everything is refused
                return np.zeros((1, self.dimensions), np.float16)
        half = len(texts) // 2
        return np.concatenate([self._embedded(texts[:half]), self._embedded(texts[half:])])

    def _asked(self, texts: list[str]) -> NDArray[np.float64]:
        own = {"model": self._endpoint.model, "input": texts, "encoding_format": "float"}
        most = (1 << 20) + len(texts) * (self.dimensions or MOST_DIMENSIONS) * NUMBER_BYTES
        answer = self._client.post("embeddings", fields_of(self._endpoint.options) | own, most)
        problem = f"{self._endpoint.endpoint.rstrip('/')}/embeddings, model {self._endpoint.model!r}: "
        try:
            found = _vectors(answer, len(texts))
        except ValueError as error:
            raise ServerError(problem + str(error)) from None
        if self.dimensions and found.shape[1] != self.dimensions:
            raise ServerError(f"{problem}an embedding has {found.shape[1]} dimensions, earlier ones {self.dimensions}")
        return found


def _vectors(answer: Any, texts: int) -> NDArray[np.float64]:
    """The numbers of an answer, [texts, dimensions], in the order of the texts. Raises ValueError for any other."""
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise ValueError("the answer has no list `data` of objects")
    if len(data) != texts:
        raise ValueError(f"the answer has {len(data)} embeddings for {texts} texts")
    by_index = {item.get("index"): item.get("embedding") for item in data if type(item.get("index")) is int}
    if sorted(by_index) != list(range(texts)):
        raise ValueError(f"`index` of the embeddings is not 0 to {texts - 1}, each once")
    rows = [by_index[k] for k in range(texts)]
    if not all(isinstance(row, list) and len(row) == len(rows[0]) > 0 for row in rows):
        raise ValueError("an embedding is no list of as many numbers as the others")
    if not all(type(number) in (float, int) for row in rows for number in row):
        raise ValueError("an embedding holds something that is no number")  # NaN is null in JSON
    return np.array(rows, np.float64)
