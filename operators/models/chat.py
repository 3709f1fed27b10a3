"""Questions to a language model, or an audio language model, behind OpenAI's chat protocol: vLLM, Ray Serve, llama.cpp
and others.

An answer is asked for once. It is kept under a hash of all that it depends on (answers.py) before anybody looks at it,
so one that is of no use is not paid for again either. What a server does to an input becomes a reason, `Unanswered`;
what it does to all of them is an error, which loses nothing. To tell these apart, each input that is refused or fails
is held against a trivial one of the same shape; and where inputs fail one after the other, that one tells nothing.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import threading
import wave
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pydantic
from numpy.typing import NDArray
from pydantic import BaseModel, Field, model_validator

from operators.document import SCRATCH_COLUMN, identity, parameters
from operators.models.answers import answers
from operators.models.chat_protocol import TRIVIAL, in_words, is_answer, kept, kept_refusal, response_format, whole
from operators.models.endpoint import Options, check_options, fields_of
from operators.models.http import PAUSE, TOLD, TRIES, Failing, Refused, Server, ServerError, check_server
from operators.speech.codec import decode, decode_at
from operators.speech.frames import to_int16

T = TypeVar("T")
R = TypeVar("R")

RATE = 16_000  # samples a second of what is sent
LIMITS = ("max_tokens", "max_completion_tokens")
OWN_FIELDS = ("model", "messages", "temperature", "top_p", *LIMITS, "seed", "response_format", "n", "stream")
SERVER_ERRORS_IN_A_ROW = 20  # inputs; more are no fault of theirs
TOKEN_BYTES = 256  # of JSON, at most
FENCED = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL)
PROVENANCE = pa.struct([("model", pa.string()), ("template", pa.string()), ("answers", pa.list_(pa.string()))])
ASKED = pa.struct(
    [
        ("calls", pa.int32()),  # answered by the server
        ("cached", pa.int32()),  # answered from what was kept
        ("prompt_tokens", pa.int64()),  # of calls
        ("completion_tokens", pa.int64()),
    ]
)
ASKED_COLUMN = f"{SCRATCH_COLUMN}asked"


class Sound(NamedTuple):
    """Audio in a message."""

    data: bytes  # a WAV file: RATE, 16 bits, mono
    digest: str  # hex hash of the samples: what enters the key in place of the bytes


class Turn(NamedTuple):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: tuple[str | Sound, ...]


class Answer(NamedTuple):
    """What a model said."""

    text: str  # stripped
    value: Any  # an object of the schema, where one was asked for
    key: str  # its name among the answers kept, 64 hex digits
    cached: bool
    prompt_tokens: int  # as the server says, 0 where it does not
    completion_tokens: int


class Unanswered(ValueError):
    """There is no answer to this input. `reason`: refused, malformed (not of the schema, or nothing), cut_off (by
    max_tokens, and not of the schema), server_error (this input fails while others do not). `answer`: the useless one,
    to be counted; none where the server gave none."""

    def __init__(self, reason: str, detail: str, answer: Answer | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.answer = reason, answer


@parameters
class Chat:
    """`endpoint`: the address that `/chat/completions` is appended to. `model`: its name there. `key_env`: the
    environment variable, on every machine that works, that holds the key. `options`: further fields of each request.
    `structured`: how JSON of a schema is asked for. `limit`: what the server calls `max_tokens`."""

    PLACEMENT: ClassVar[frozenset[str]] = frozenset(
        ("endpoint", "key_env", "concurrency", "timeout", "tries", "pause", "requests_per_minute", "max_calls")
    )
    endpoint: str
    model: Annotated[str, Field(min_length=1)]
    key_env: str | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] | None = 1.0  # null where the server takes none, as of the seed
    max_tokens: Annotated[int, Field(ge=1, le=1 << 17)] = 512
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    seed: Annotated[int, Field(ge=0, lt=1 << 31)] | None = 0
    structured: Literal["json_schema", "json_object", "prompt"] = "json_schema"
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 16  # requests at a time, of each worker
    timeout: Annotated[float, Field(gt=0, le=3600)] = 120.0  # seconds of a try
    tries: Annotated[int, Field(ge=1, le=100)] = TRIES
    pause: Annotated[float, Field(ge=0, le=60)] = PAUSE  # seconds before the second try, then twice as many
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None  # of each worker
    max_calls: Annotated[int, Field(ge=0)] | None = None  # of the stage, by all its workers
    options: Options = ()

    @model_validator(mode="before")
    @classmethod
    def _is_no_name(cls, given: Any) -> Any:
        if isinstance(given, str):
            raise ValueError("must be {endpoint: URL, model: NAME}")
        return given

    @model_validator(mode="after")
    def _holds_no_secret(self) -> Self:
        check_server(self.endpoint, self.key_env)
        check_options(self.options, OWN_FIELDS)
        return self

    def load(self) -> Asker:
        """Raises NoKey for a key that is not set; asks nothing yet."""
        return Asker(self)


class Asker:
    """The open server; several threads may use it at a time."""

    def __init__(self, chat: Chat) -> None:
        self._chat, self._options = chat, fields_of(chat.options)
        self._name = _hash(identity(chat))[:16]  # that calls are counted under
        self._client = Server(
            address=chat.endpoint,
            key_env=chat.key_env,
            timeout=chat.timeout,
            connections=chat.concurrency,
            tries=chat.tries,
            pause=chat.pause,
            per_minute=chat.requests_per_minute,
        ).connect()
        self._room = threading.BoundedSemaphore(chat.concurrency)
        self._failed: set[str] = set()  # inputs since the last answer

    def ask(
        self, turns: Sequence[Turn], template: str, schema: type[BaseModel] | None = None, attempt: int = 0
    ) -> Answer:
        """The answer to `turns`, made from templates of that hash (`template_of`); another `attempt` is another answer,
        by another seed. Raises Unanswered for what is wrong with this input, ServerError for what is with the server,
        OverBudget."""
        fields = self._fields(schema, attempt)
        if schema is not None and self._chat.structured != "json_schema":
            turns = [*turns[:-1], turns[-1]._replace(content=(*turns[-1].content, in_words(schema)))]
        request = fields | {"messages": [_message(turn, _digest) for turn in turns]}
        key = _hash({"request": request, "template": template, "attempt": attempt})
        with _alone(key):
            found = answers().get(key)
            said = None if found is None else whole(found)
            cached = said is not None
            if said is None:
                said = orjson.loads(answers().put(key, self._said(turns, fields), replace=found is not None))
        if said["refused"] is None:
            self._failed.clear()
        return _judged(said, key, cached, schema)

    def each(self, ask: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """`ask` of each item, `concurrency` at a time, in order. After an error no further one is begun, and it is
        raised once those that were have ended."""
        pool = ThreadPoolExecutor(self._chat.concurrency)
        try:
            begun = [pool.submit(ask, item) for item in items]
            wait(begun, return_when=FIRST_EXCEPTION)
        finally:
            pool.shutdown(cancel_futures=True)
        for future in begun:
            if not future.cancelled() and (error := future.exception()) is not None:
                raise error
        return [future.result() for future in begun]

    def _fields(self, schema: type[BaseModel] | None, attempt: int) -> dict[str, Any]:
        """Of the request, but for its messages."""
        chat = self._chat
        own: dict[str, Any] = {
            "model": chat.model,
            "temperature": chat.temperature,
            chat.limit: chat.max_tokens,
        }
        if chat.top_p is not None:
            own["top_p"] = chat.top_p
        if chat.seed is not None:
            own["seed"] = chat.seed + attempt
        if schema is not None and chat.structured == "json_schema":
            own["response_format"] = response_format(schema)
        elif schema is not None and chat.structured == "json_object":
            own["response_format"] = {"type": "json_object"}
        return self._options | own

    def _said(self, turns: Sequence[Turn], fields: dict[str, Any]) -> bytes:
        """What the server says to this, as it is kept."""
        trivial = [Turn(t.role, tuple(QUIET if isinstance(c, Sound) else TRIVIAL for c in t.content)) for t in turns]
        with self._room:
            if self._chat.max_calls is not None:
                answers().claim(self._name, self._chat.max_calls)
            once_more = False
            while True:
                try:
                    return kept(self._post(turns, fields))
                except Refused as error:
                    self._post(trivial, fields)  # which raises where everything is refused
                    return kept_refusal(str(error).partition(": ")[2])
                except Failing as error:
                    if once_more:
                        raise self._failing(turns, error) from None
                    self._post(trivial, fields)  # which raises where nothing is answered
                    once_more = True

    def _failing(self, turns: Sequence[Turn], error: Failing) -> Exception:
        """What it means that an input failed where the trivial one did not."""
        self._failed.add(_hash([_message(turn, _digest) for turn in turns]))
        if len(self._failed) <= SERVER_ERRORS_IN_A_ROW:
            return Unanswered("server_error", str(error))
        told = (
            f"{len(self._failed)} inputs in a row failed where a trivial one did not, as of a server that has too much"
        )
        return ServerError(f"{told} to do (`concurrency`, `timeout`): {error}")

    def _post(self, turns: Sequence[Turn], fields: dict[str, Any]) -> Any:
        body = fields | {"messages": [_message(turn, _encoded) for turn in turns]}
        most = (1 << 20) + TOKEN_BYTES * self._chat.max_tokens
        return self._client.post("chat/completions", body, most, is_answer)


def template_of(*texts: str) -> str:
    """The name of the prompt templates that turns were made from: 16 hex digits of their hash."""
    return _hash(texts)[:16]


def sound_of(payload: bytes) -> Sound:
    """A clip, as FLAC or MP3 (codec.py), as it is sent. Raises ValueError. The digest is of the samples as stored, as
    those that are resampled differ in their last bits between machines."""
    digest = hashlib.sha256(to_int16(decode(payload)).tobytes()).hexdigest()
    return Sound(_wav(to_int16(decode_at(payload, RATE))), digest)


def asked_column(answered: Sequence[Sequence[Answer]]) -> pa.Array:
    """The column ASKED_COLUMN: what was asked for each row. Tokens are of the calls that were made."""
    rows = [
        {
            "calls": sum(not answer.cached for answer in row),
            "cached": sum(answer.cached for answer in row),
            "prompt_tokens": sum(answer.prompt_tokens for answer in row if not answer.cached),
            "completion_tokens": sum(answer.completion_tokens for answer in row if not answer.cached),
        }
        for row in answered
    ]
    return pa.array(rows, ASKED)


def counted_of(marked: pa.Table) -> dict[str, int]:
    """The sums of ASKED_COLUMN, for `Operator.counted`; nothing where no server was asked."""
    if ASKED_COLUMN not in marked.column_names:
        return {}
    asked = marked[ASKED_COLUMN]
    return {field.name: pc.sum(pc.struct_field(asked, field.name)).as_py() or 0 for field in ASKED}


def _wav(samples: NDArray[np.int16]) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE)
        writer.writeframes(samples.tobytes())
    return file.getvalue()


QUIET = Sound(_wav(np.zeros(RATE, np.int16)), "quiet")  # stands for any sound


def _encoded(sound: Sound) -> dict[str, Any]:
    """JSON already: for texts, orjson reserves eight times their length, in case that all of it must be escaped."""
    return {"data": orjson.Fragment(b'"' + base64.b64encode(sound.data) + b'"'), "format": "wav"}


def _digest(sound: Sound) -> dict[str, Any]:
    return {"digest": sound.digest}


def _message(turn: Turn, audio: Callable[[Sound], dict[str, Any]]) -> dict[str, Any]:
    """A turn as servers take it; those of text alone as a string, which more of them do."""
    texts = [part for part in turn.content if isinstance(part, str)]
    if len(texts) == len(turn.content):
        return {"role": turn.role, "content": "".join(texts)}
    parts = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "input_audio", "input_audio": audio(part)}
        for part in turn.content
    ]
    return {"role": turn.role, "content": parts}


def _hash(value: Any) -> str:
    """Of its canonical JSON."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


_asking: dict[str, tuple[threading.Lock, int]] = {}  # of each key: a lock, and how many hold it or wait for it
_counting = threading.Lock()


@contextmanager
def _alone(key: str) -> Iterator[None]:
    """One thread of the process at a time for each key."""
    with _counting:
        lock, others = _asking.get(key, (threading.Lock(), 0))
        _asking[key] = lock, others + 1
    try:
        with lock:
            yield
    finally:
        with _counting:
            lock, others = _asking.pop(key)
            if others > 1:
                _asking[key] = lock, others - 1


def _judged(said: Mapping[str, Any], key: str, cached: bool, schema: type[BaseModel] | None) -> Answer:
    """Whether what was kept is an answer; the same whether it has just come or not."""
    text = (said["content"] or "").strip()
    answer = Answer(text, None, key, cached, said["prompt_tokens"], said["completion_tokens"])
    if said["refused"] is not None:
        raise Unanswered("refused", " ".join(said["refused"].split())[:TOLD], answer)
    if said["content"] is None:
        raise Unanswered("malformed", "the answer has no content", answer)
    if schema is None:
        return answer
    fenced = FENCED.fullmatch(text)
    try:
        return answer._replace(value=schema.model_validate_json(fenced[1] if fenced else text))
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or schema.__name__
        raise Unanswered("cut_off" if said["cut_off"] else "malformed", f"{where}: {first['msg']}", answer) from None
