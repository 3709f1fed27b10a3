"""No text takes more than its length in time: eight times the text takes about eight times as long, not 64."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from operators.document import SCHEMA, with_columns
from operators.models.chat import Answer
from operators.phases import GlobalOperator, run_in_memory
from operators.text.chunks import chunks, words
from operators.text.rewrite import Rewrite
from operators.tokens.tokenizer import Tokenizer
from tests.every_operator import text_workflow

LONG = 250_000
TIMES = 8
MOST_RATIO = 30  # between the 8 of a linear operator and the 64 of a quadratic one
FLOOR = 0.02  # seconds of processor time, below which clocks say nothing
DISTINCT = " ".join(f"w{n}" for n in np.random.default_rng(1).permutation(LONG // 7))

TEXTS: dict[str, str] = {
    "one letter": "a",
    "blanks": " ",
    "line breaks": "\n",
    "short words": "a ",
    "brackets": "{[(<",
    "accents": "e\u0301",
    "accents alone": "\u0301",
    "no spaces": "水",
    "thai": "\u0e01",
    "jamo": "\u1100\u1161",
    "joiners": "\U0001f468\u200d",
    "quotes": "'\"",
    "dots": "a. ",
    "ellipses": "...\n",
    "entities": "&amp;&lt;",
    "mojibake": "Ã©â€™",
    "percents": "http://x/%41",
    "slashes": "/a",
    "labels": "a.",
    "bullets": "\u2022 a\n",
    "braces and words": "lorem ipsum {",
}


def documents(text: str) -> pa.Table:
    given = {"id": ["a"], "text": [text], "url": ["http://example.org/" + text]}
    table = pa.table({f.name: pa.array(given.get(f.name, [None]), f.type) for f in SCHEMA}, schema=SCHEMA)
    added = {
        "chars": [len(text)],
        "doc": np.array([1], np.uint64),
        "tokens": [1],
        "language": ["en"],
        "language_score": [0.9],
    }
    return with_columns(table, {name: pa.array(value) for name, value in added.items()})


def twice(operator: GlobalOperator, docs: pa.Table) -> pa.Table:
    """All phases over the document and a copy of it."""
    docs = docs.drop_columns(["doc"])
    scored = {name: pa.array([0.5]) for name in operator.needs if name not in docs.column_names}  # by other operators
    docs = with_columns(docs, scored)
    copy = with_columns(docs, {"id": pa.array(["b"])})
    return run_in_memory(operator, [pa.concat_tables([docs, copy])])


def copied(operator: Rewrite, docs: pa.Table) -> None:
    """What is done to a text around asking, of a model that repeats it."""
    text = docs["text"][0].as_py()
    parts = chunks(text, operator.max_words) if words([text])[0] else []
    operator.judged(parts, [Answer(f"EDITED: {part} <end>", None, "", False, 0, 0) for part in parts])


def calls() -> dict[str, Callable[[pa.Table], Any]]:
    """What is done to each document, by the name of the operator."""
    patterns = {"patterns": [r"(\w+\s?)*$", "(a+)+$"], "words": ["zzz"], "soft_words": ["yyy"]}
    last = text_workflow(url_filter=patterns)
    found: dict[str, Callable[[pa.Table], Any]] = {}
    for name, operator in (step for stage in last.chain() for step in stage.steps):
        if isinstance(operator, GlobalOperator):
            found[name] = functools.partial(twice, operator)
        elif isinstance(operator, Rewrite):
            found[name] = functools.partial(copied, operator)
        elif not isinstance(operator, Tokenizer):
            found[name] = operator
    return found


CALLS = calls()


def seconds(call: Callable[[pa.Table], Any], text: str) -> float:
    """Processor time of a call."""
    docs = documents(text)
    began = time.process_time()
    call(docs)
    return time.process_time() - began


def check(call: Callable[[pa.Table], Any], text: str) -> None:
    """Up to twice: another process on the same core costs time, too."""
    told = ""
    for _ in range(2):
        long = seconds(call, text)
        if long < MOST_RATIO * FLOOR:
            return
        short = seconds(call, text[: len(text) // TIMES])
        if long < MOST_RATIO * short:
            return
        told += f"{short:.3f} s, then {long:.3f} s; "
    pytest.fail(f"{text[:10]!r}: {told}")


def texts() -> list[str]:
    return [unit * (LONG // len(unit.encode())) for unit in TEXTS.values()]


@pytest.mark.parametrize("name", CALLS)
def test_time_is_linear_in_the_text(name: str) -> None:
    CALLS[name](documents("warm"))
    for text in [*texts(), DISTINCT]:
        check(CALLS[name], text)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    import hashlib

    fresh = Tokenizer(vocab=400)
    data = fresh.fit(pa.chunked_array([pa.array(["a small text to learn from, a small one"] * 20, pa.large_string())]))
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_bytes(data)
    return fresh.with_artefact(str(path), hashlib.sha256(data).hexdigest())


def test_time_of_tokenizing_is_linear_in_the_text(trained: Tokenizer) -> None:
    for text in [*texts(), DISTINCT]:
        check(trained, text)
