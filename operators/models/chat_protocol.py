"""OpenAI's chat protocol: how JSON of a schema is asked for, what is kept of an answer, and a trivial question."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import BaseModel

TRIVIAL = "Say yes, in JSON."  # in the place of all texts, where an input was refused or failed
MOST_TOKENS = 1 << 40  # that a server can say it counted


def response_format(schema: type[BaseModel]) -> dict[str, Any]:
    """The field of a request for JSON of that schema, in strict mode."""
    described = {"name": schema.__name__, "strict": True, "schema": strict(schema)}
    return {"type": "json_schema", "json_schema": described}


def in_words(schema: type[BaseModel]) -> str:
    """The same for servers that know no schemas, to be added to a prompt."""
    return f"\n\nAnswer with nothing but JSON of this schema: {orjson.dumps(strict(schema)).decode()}"


@functools.lru_cache(maxsize=64)
def strict(schema: type[BaseModel]) -> Any:
    """The JSON schema as OpenAI's strict mode wants it: every property required, no others, no defaults. Without titles
    and docstrings, which are not for models: small ones answer with them."""
    return _closed(schema.model_json_schema())


def _closed(node: Any) -> Any:
    if isinstance(node, list):
        return [_closed(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    named = ("properties", "$defs")  # whose keys are names
    found = {
        key: {name: _closed(inner) for name, inner in value.items()} if key in named else _closed(value)
        for key, value in node.items()
        if key not in ("default", "title")
    }
    if "properties" in found:
        found.pop("description", None)
        found |= {"additionalProperties": False, "required": list(found["properties"])}
    return found


def is_answer(body: Any) -> bool:
    """Whether a server answered; some report errors of those behind them with status 200."""
    return isinstance(body, dict) and isinstance(body.get("choices"), list)


def kept(body: Mapping[str, Any]) -> bytes:
    """What is kept of a server's answer."""
    choice = _mapping(next(iter(body["choices"]), None))
    message, usage, finish = _mapping(choice.get("message")), _mapping(body.get("usage")), choice.get("finish_reason")
    content, refusal = message.get("content"), message.get("refusal")
    filtered = "content_filter" if finish == "content_filter" else None
    return orjson.dumps(
        {
            "content": content if isinstance(content, str) else None,
            "refused": refusal if isinstance(refusal, str) and refusal else filtered,
            "cut_off": finish == "length",
            "prompt_tokens": _count(usage.get("prompt_tokens")),
            "completion_tokens": _count(usage.get("completion_tokens")),
        }
    )


def kept_refusal(problem: str) -> bytes:
    """Of an input that the server refused with its status."""
    return orjson.dumps(
        {"content": None, "refused": problem, "cut_off": False, "prompt_tokens": 0, "completion_tokens": 0}
    )


def whole(raw: bytes) -> Mapping[str, Any] | None:
    """What was kept; None where a loss of power left nothing of it that can be read."""
    try:
        return _mapping(orjson.loads(raw)) or None
    except orjson.JSONDecodeError:
        return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < MOST_TOKENS else 0
