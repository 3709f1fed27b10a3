"""Against a real server (benchmarks/chat_server.py) whose models are in paraphrases.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pyarrow as pa
import pydantic
import pytest

from benchmarks.chat_server import ChatServer, chat_server
from operators.apply import Step, apply
from operators.document import identity
from operators.models import answers
from operators.models.answers import InMemory, keep_answers_in
from operators.models.chat import PROVENANCE
from operators.models.http import ServerError
from operators.text.rewrite import Rewrite
from operators.text.rewrite_prompts import STYLES, prompt
from tests.operators.text.paraphrases import GERMAN, OTHER, SOURCE, swapped

MODELS = "tests.operators.text.paraphrases"
MODEL = {"endpoint": "http://host:8000/v1", "model": "m", "max_tokens": 1100}
FIRST, SECOND = SOURCE.split("\n\n")


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with chat_server(f"{MODELS}:as_told") as running:
        yield running


@pytest.fixture(autouse=True)
def empty_answers() -> Iterator[InMemory]:
    """A store of answers for each test."""
    before, kept = answers.answers(), InMemory()
    keep_answers_in(kept)
    yield kept
    keep_answers_in(before)


def rewriting(server: ChatServer, **fields: Any) -> Rewrite:
    return Rewrite(model=MODEL | {"endpoint": server.url}, **({"style": "wiki"} | fields))  # type: ignore[arg-type]


def table(*texts: str | None, kind: pa.DataType | None = None) -> pa.Table:
    return pa.table({"id": [f"d{k}" for k in range(len(texts))], "text": pa.array(texts, kind or pa.large_string())})


def told(word: str) -> str:
    """A document that has the model do this."""
    return f"{SOURCE} {word}"


def test_a_document_is_replaced_and_says_by_what(server: ChatServer) -> None:
    found = rewriting(server, keep_original=True)(table(SOURCE)).drop_columns(["scratch/asked"])
    [row] = found.to_pylist()
    made_by = row.pop("rewrite_from")
    assert row == {
        "id": "d0",
        "text": swapped(SOURCE),
        "rewritten": True,
        "rewrite_fallback": None,
        "source_text": SOURCE,
    }
    assert made_by["model"] == "m"
    assert len(made_by["template"]) == 16
    assert [name in answers.answers().kept for name in made_by["answers"]] == [True]  # type: ignore[attr-defined]
    assert found["text"].type == pa.large_string()
    assert found["rewrite_from"].type == PROVENANCE
    asked = server.bodies()[-1]
    assert asked["messages"] == [{"role": "user", "content": prompt(STYLES["wiki"], SOURCE)}]


REASONS = [
    ("COPIES", "copied", 1.0, 0.5),
    ("FORGETS", "no_end_marker", None, None),
    ("CHATTERS", "no_start_marker", None, None),
    ("GERMAN", "language_changed", None, None),
    ("WANDERS", "unrelated", 0.0, 0.2),
    ("STAMMERS", "repetitive", 0.913, 0.3),
    ("SHORTENS", "too_short", 0.0163, 0.3),
    ("EMPTY", "too_short", 0.0, 0.3),
    ("LENGTHENS", "too_long", 4.5447, 3.0),
    ("MARKS", "more_markers", None, None),
    ("APOLOGISES", "refused", None, None),
    ("REFUSES", "refused", None, None),
]
WORDS = [word for word, *_ in REASONS]


def test_the_original_stays_where_a_rule_is_broken(server: ChatServer) -> None:
    operator = rewriting(server, keep_original=True)
    docs = table(*(told(word) for word, *_ in REASONS), "", " \n…", None, SOURCE)
    found = operator(docs)
    reasons = [reason for _, reason, *_ in REASONS] + ["no_words"] * 3 + [None]
    assert found["rewrite_fallback"].to_pylist() == reasons
    assert found["rewritten"].to_pylist() == [reason is None for reason in reasons]
    assert found["text"].to_pylist()[:-1] == docs["text"].to_pylist()[:-1]
    assert found["rewrite_from"].is_valid().to_pylist() == found["source_text"].is_valid().to_pylist()
    assert found["rewrite_from"].is_valid().to_pylist() == found["rewritten"].to_pylist()
    assert "drop_reason" not in found.column_names
    counted = operator.counted(found)
    tokens = {name: counted.pop(name) for name in ("prompt_tokens", "completion_tokens")}  # type: ignore[attr-defined]
    assert min(tokens.values()) > 1000
    assert counted == {
        "calls": len(REASONS) + 1,
        "cached": 0,
        "rewritten": 1,
        "kept_no_words": 3,
        "kept_refused": 2,
        "kept_too_short": 2,
        **{f"kept_{reason}": 1 for _, reason, *_ in REASONS if reason not in ("refused", "too_short")},
    }


def test_documents_may_be_dropped_instead(server: ChatServer) -> None:
    operator = rewriting(server, on_violation="drop")
    applied = apply([Step("rewrite", operator)], table(*(told(word) for word, *_ in REASONS), None, SOURCE))
    assert applied.kept["id"].to_pylist() == [f"d{len(REASONS) + 1}"]
    rows = applied.dropped.select(["drop_reason", "drop_value", "drop_threshold"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        *((f"rewrite/{reason}", value, bound) for _, reason, value, bound in REASONS),
        ("rewrite/no_words", None, None),
    ]
    assert applied.dropped["drop_detail"].drop_null().to_pylist() == ["en to de"]
    assert applied.dropped["text"].to_pylist()[0] == told("COPIES")
    assert not [name for name in applied.counts[0].counted if name.startswith("kept_")]


def test_asking_again_makes_no_call_whatever_the_bounds(server: ChatServer) -> None:
    docs = table(*(told(word) for word, *_ in REASONS), SOURCE)
    operator = rewriting(server)
    first = operator(docs)
    before = server.told()["requests"]
    again = operator(docs)
    assert again.drop_columns(["scratch/asked"]) == first.drop_columns(["scratch/asked"])
    assert operator.counted(again)["calls"] == 0
    assert operator.counted(again)["cached"] == docs.num_rows
    lenient = rewriting(server, max_copied=1.0, min_shared=0.0, max_words=200)(docs)
    assert lenient["rewritten"].to_pylist() == [word in ("COPIES", "WANDERS", "") for word in (*WORDS, "")]
    assert server.told()["requests"] == before
    rewriting(server, style="easy")(docs.slice(0, 1))
    assert server.told()["requests"] == before + 1


def test_long_documents_go_in_chunks_and_keep_their_paragraphs(server: ChatServer) -> None:
    text = f"\n{FIRST}\n\n{SECOND}\n\n\n{OTHER}\n"
    [row] = rewriting(server, max_words=115)(table(text)).to_pylist()
    assert row["text"] == f"\n{swapped(FIRST)}\n\n{swapped(SECOND)}\n\n\n{swapped(OTHER)}\n"
    assert len(set(row["rewrite_from"]["answers"])) == 3


@pytest.mark.parametrize(
    ("share", "text"), [(0.33, None), (0.34, f"{swapped(FIRST)}\n\n{SECOND} COPIES\n\n{swapped(OTHER)}")]
)
def test_chunks_that_break_a_rule(server: ChatServer, share: float, text: str | None) -> None:
    whole = f"{FIRST}\n\n{SECOND} COPIES\n\n{OTHER}"
    operator = rewriting(server, max_words=115, max_violations=share, keep_original=True)
    [row] = operator(table(whole)).to_pylist()
    assert row["text"] == (text or whole)
    assert row["rewrite_fallback"] == (None if text else "copied")
    assert row["source_text"] == (whole if text else None)
    assert row["scratch/asked"]["calls"] == (3 if text else 2)  # nothing more once it is known to stay
    if text:
        assert len(row["rewrite_from"]["answers"]) == 2


@pytest.mark.parametrize(("share", "calls"), [(0.0, 1), (0.24, 1), (0.25, 2), (0.5, 3), (0.75, 4), (1.0, 4)])
def test_a_document_that_has_failed_costs_no_more(server: ChatServer, share: float, calls: int) -> None:
    docs = table("\n\n".join(f"{FIRST} COPIES {k}" for k in range(4)))
    [row] = rewriting(server, max_words=115, max_violations=share)(docs).to_pylist()
    assert (row["rewrite_fallback"], row["scratch/asked"]["calls"]) == ("copied", calls)


@pytest.mark.parametrize("mark", ["<end>", "EDITED:"])
def test_a_text_that_holds_a_mark_is_not_asked_about(server: ChatServer, mark: str) -> None:
    html = f"{SOURCE} Close each block with {mark}, then go on."
    operator = rewriting(server, max_words=130, max_violations=0.5)
    alone, inside, most = operator(table(html, f"{html}\n\n{OTHER}", f"{html}\n\n{html}\n\n{OTHER}")).to_pylist()
    assert (alone["text"], alone["rewrite_fallback"], alone["scratch/asked"]["calls"]) == (html, "has_marks", 0)
    assert (inside["text"], inside["scratch/asked"]["calls"]) == (f"{html}\n\n{swapped(OTHER)}", 1)
    assert (most["rewritten"], most["rewrite_fallback"], most["scratch/asked"]["calls"]) == (False, "has_marks", 0)


def test_no_request_is_long_and_what_has_no_words_is_not_asked_about(server: ChatServer) -> None:
    before = len(server.bodies())
    line = "=" * 10_000
    [row] = rewriting(server, max_violations=1.0)(table(f"{OTHER}\n{line}\n{'x' * 10_000}\n{SOURCE}")).to_pylist()
    asked = [body["messages"][0]["content"] for body in server.bodies()[before:]]
    assert row["text"].startswith(swapped(OTHER))
    assert row["text"].endswith(swapped(SOURCE))
    assert line in row["text"]
    assert 4 <= len(asked) <= 6
    assert max(map(len, asked)) < 225 * 16 + 1500


def test_a_document_of_which_nothing_is_new_is_not_rewritten(server: ChatServer) -> None:
    [row] = rewriting(server, max_violations=1.0)(table(told("COPIES"))).to_pylist()
    assert (row["rewritten"], row["rewrite_fallback"]) == (False, "copied")


def test_characters_are_accounted_for_in_texts_that_grow_and_shrink(server: ChatServer) -> None:
    docs = table(SOURCE, GERMAN, told("COPIES"), None)
    applied = apply([Step("rewrite", rewriting(server))], docs)
    [count] = applied.counts
    assert count.chars_in == sum(len(text or "") for text in docs["text"].to_pylist())
    assert count.chars_out == sum(len(text or "") for text in applied.kept["text"].to_pylist())
    assert (count.rows_in, count.created, count.dropped) == (4, 0, {})
    assert "scratch/asked" not in applied.kept.column_names


def test_cuts_of_the_table_do_not_matter(server: ChatServer) -> None:
    docs = table(SOURCE, None, told("WANDERS"), GERMAN)
    operator = rewriting(server)
    whole = operator(docs).drop_columns(["scratch/asked"])
    parts = [operator(docs.slice(0, 1)), operator(docs.slice(1))]
    assert pa.concat_tables(parts).drop_columns(["scratch/asked"]).equals(whole)
    assert operator(docs.slice(0, 0)).num_rows == 0
    assert operator(table(None, "")).schema.equals(operator(docs).schema)
    assert operator(table(SOURCE, kind=pa.string()))["text"].type == pa.large_string()


def test_instructions_of_ones_own_are_asked(server: ChatServer) -> None:
    operator = rewriting(server, style=None, instructions="Make a sonnet of it.")
    assert operator(table(OTHER))["rewritten"].to_pylist() == [True]
    assert server.bodies()[-1]["messages"][0]["content"] == prompt("Make a sonnet of it.", OTHER)


def test_a_server_that_is_gone_fails_the_unit(server: ChatServer) -> None:
    model = MODEL | {"endpoint": "http://127.0.0.1:9/v1", "tries": 2, "pause": 0}
    with pytest.raises(ServerError, match=r"127\.0\.0\.1:9"):
        Rewrite(model=model, style="wiki")(table(SOURCE))  # type: ignore[arg-type]


def test_it_says_what_it_adds(server: ChatServer) -> None:
    operator = rewriting(server)
    assert (operator.name, operator.needs, operator.gpu) == ("rewrite", ("text",), False)
    assert operator.adds == ("rewritten", "rewrite_fallback", "rewrite_from")
    assert rewriting(server, keep_original=True).adds == (*operator.adds, "source_text")
    assert "127.0.0.1" not in str(identity(operator))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"style": None}, "style: name one of easy, wiki, hard, qa, or give instructions, and not both"),
        (
            {"instructions": "Say it again."},
            "style: name one of easy, wiki, hard, qa, or give instructions, and not both",
        ),
        ({"style": "medium"}, "Input should be 'easy', 'wiki', 'hard' or 'qa'"),
        ({"style": None, "instructions": ""}, "at least 1 character"),
        ({"min_ratio": 4}, "min_ratio: 4 is more than max_ratio, 3"),
        ({"min_ratio": 0}, "greater than 0"),
        ({"on_violation": "fail"}, "Input should be 'keep' or 'drop'"),
        (
            {"model": {"endpoint": "http://host/v1", "model": "m"}},
            r"model.max_tokens: 512 is no room for 3 \(max_ratio\) times 225 words \(max_words\), which take 1013 ",
        ),
        ({"max_words": 300}, r"model.max_tokens: 1100 is no room .* 300 words .* take 1350"),
        ({"max_ratio": 3.5}, r"model.max_tokens: 1100 is no room for 3.5 .* take 1182"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=problem):
        Rewrite(**({"model": MODEL, "style": "wiki"} | fields))


def test_recipes() -> None:
    said = {"model": MODEL | {"options": {"b": 1}}, "style": "qa"}
    adapter: pydantic.TypeAdapter[Rewrite] = pydantic.TypeAdapter(Rewrite)
    operator = adapter.validate_json(orjson.dumps(said), strict=True)
    assert operator == Rewrite(**said)  # type: ignore[arg-type]
    assert hash(operator) == hash(Rewrite(**said))  # type: ignore[arg-type]
