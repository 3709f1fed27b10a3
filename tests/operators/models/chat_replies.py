"""What the model of test_chat.py says, in the server's process."""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import orjson

from benchmarks.chat_server import Status

KEY = "sk-3b1f9c0d"
MANY = threading.Barrier(64, timeout=60)
COUNT = itertools.count()
SPENT = itertools.count()
CAME: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)


def obey(body: dict[str, Any]) -> str | dict[str, Any]:
    """Does what the first line of the last message says, or else repeats it."""
    if body["model"] == "takes nothing":
        raise Status(400, '{"error": "unknown field"}')
    if body["model"] == "down":
        raise Status(503, "no worker")
    if body["model"] == "spent after this" and next(SPENT):
        raise Status(400, '{"error": "budget exceeded"}')
    content = body["messages"][-1]["content"]
    first = content if isinstance(content, str) else content[0].get("text", "")
    command, _, rest = first.partition("\n\nAnswer with")[0].partition(":")
    match command:
        case "say":
            return rest
        case "body":
            raise Status(200, rest)
        case "loop":
            raise Status(200, "again and " * 200_000)
        case "message":
            return orjson.loads(rest)  # type: ignore[no-any-return]
        case "status":
            sent = content if isinstance(content, str) else content[1]["input_audio"]["data"]
            status, _, times = rest.partition(" but ")  # "429 but 3": at the third time
            if times and next(CAME[rest]) >= int(times) - 1:
                return "heard at last"
            raise Status(int(status), f"with key {KEY} you sent {sent}", Location="http://127.0.0.1:9/v1")
        case _:
            return f" heard {first} \n"


def json(body: dict[str, Any]) -> str:
    """An object of test_chat.Words."""
    return orjson.dumps({"about": body["messages"][-1]["content"], "count": 1}).decode()


def together(body: dict[str, Any]) -> str:
    """Answers 64 at a time, no fewer."""
    MANY.wait()
    return "heard"


def sixty(body: dict[str, Any]) -> str:
    """Answers but for the next eight after the first sixty."""
    if 60 <= next(COUNT) < 68:
        time.sleep(3600)
    return "heard"
