"""Planted items leave no key, and texts without one stay as they are: against a finder in plain Python."""

from __future__ import annotations

import gzip
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.dedup.decontaminate import Decontaminate
from operators.phases import run_in_memory
from tests.operators.dedup.rows import Repartitioned, documents, sample_texts, word
from workflows.recipe import ParameterError, Params

ITEMS = [
    "Natalia sold 48 clips to her friends in April, and then she sold half as many in May of that year.",
    "Which of the following rivers is the longest one?",  # nine words
    "Was it the house of the old man by the sea that the storm took away during the night of the feast?",
    "Où est née la dernière impératrice du vieux pays, d'après ce que disent les livres de la bibliothèque?",
]


def words_of(text: str) -> list[str]:
    bare = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    return re.findall(r"[^\W_]+", bare)


def keys_of(text: str, ngram: int = 13, shortest: int = 8) -> set[tuple[str, ...]]:
    words = words_of(text)
    if shortest <= len(words) < ngram:
        return {tuple(words)}
    return {tuple(words[k : k + ngram]) for k in range(len(words) - ngram + 1)}


def keys_in(text: str, keys: set[tuple[str, ...]]) -> list[tuple[str, ...]]:
    words = words_of(text)
    return [
        run
        for n in {len(key) for key in keys}
        for k in range(len(words) - n + 1)
        if (run := tuple(words[k : k + n])) in keys
    ]


KEYS = {key for item in ITEMS for key in keys_of(item)}


def write(path: Path, rows: Sequence[Any]) -> str:
    data = b"\n".join(orjson.dumps(row) for row in rows) + b"\n"
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("sets") / "exam.jsonl", [{"question": item, "n": 1} for item in ITEMS])


def outcome(operator: Any, units: Sequence[pa.Table]) -> dict[str, tuple[str | None, str | None, str | None]]:
    """id -> (text that is left, reason, detail), of the documents with a verdict."""
    found = {}
    for row in run_in_memory(operator, units).to_pylist():
        one = units[row["doc"] >> 32].slice(row["doc"] & 0xFFFFFFFF, 1).to_pylist()[0]
        assert one["id"] not in found
        data, at, kept, cuts = one["text"].encode(), 0, b"", row["cuts"] or []
        assert cuts == sorted(set(cuts))
        for start, end in zip(cuts[::2], cuts[1::2], strict=True):
            kept, at = kept + data[at:start], end
        left = None if row["drop_reason"] else (kept + data[at:]).decode()
        found[one["id"]] = (left, row["drop_reason"], row["drop_detail"])
    return found


def host(random: np.random.Generator, sentences: int) -> str:
    """Sentences of made-up words, one in four on a line of its own."""
    parts = []
    for _ in range(sentences):
        made = " ".join(word(int(k)) for k in random.integers(0, 400, int(random.integers(4, 16))))
        parts.append(made.capitalize() + str(random.choice([". ", "! ", "? ", ".\n"])))
    return "".join(parts)


def disguised(item: str, random: np.random.Generator) -> str:
    """Re-cased, re-punctuated, without accents, split over lines."""
    kind = int(random.integers(5))
    if kind == 1:
        return item.upper()
    if kind == 2:
        return re.sub(r"\W+", lambda m: str(random.choice([" ", ", ", " - ", "\n", "… "])), item)
    if kind == 3:
        return "".join(c for c in unicodedata.normalize("NFD", item) if unicodedata.category(c) != "Mn")
    return item.replace(" ", "\n  ") if kind == 4 else item


@given(
    st.integers(0, 2**32),
    st.lists(st.integers(0, 12), max_size=3),
    st.lists(st.integers(1, 4), min_size=2, max_size=2),
    st.sampled_from([(200, 200), (0, 1), (30, 80)]),
)
@settings(max_examples=40, deadline=None)
def test_no_key_is_left_and_nothing_else_changes(
    exam: str, seed: int, bounds: list[int], partitions: list[int], sizes: tuple[int, int]
) -> None:
    random = np.random.default_rng(seed)
    margin, shortest = sizes
    rows, planted = [], set()
    for k in range(12):
        parts = [host(random, int(random.integers(0, 25))) for _ in range(int(random.integers(1, 4)))]
        if random.integers(2):
            for _ in range(int(random.integers(1, 3))):
                parts.insert(
                    int(random.integers(len(parts) + 1)), " " + disguised(str(random.choice(ITEMS)), random) + " "
                )
            planted.add(f"h{k:02}")
        rows.append({"id": f"h{k:02}", "text": "".join(parts)})
    table = documents(rows)
    operator = Decontaminate(sets={"exam": exam}, max_occurrences=None, margin=margin, min_piece=shortest)
    found = outcome(operator, [table])
    assert set(found) == planted
    for row in rows:
        left, reason, detail = found.get(row["id"], (row["text"], None, "exam"))
        assert detail == "exam"
        assert left is None or not keys_in(left, KEYS)
        assert (left is None) == (reason is not None)
        assert reason in (None, "contaminated", "shredded")
    ends = sorted({0, table.num_rows, *bounds})
    units = [table.slice(a, b - a) for a, b in zip(ends, ends[1:], strict=False)][::-1]
    assert outcome(Repartitioned(operator, partitions), units) == found


def test_real_texts(exam: str) -> None:
    """Planted in the middle: what is left is the text but a stretch around the item."""
    texts = [t for t in sample_texts("en", 200) if len(t) > 4000][:12]
    rows = [{"id": f"r{k:02}", "text": t} for k, t in enumerate(texts)]
    for k in range(0, 12, 2):
        text = rows[k]["text"]
        at = text.find(" ", len(text) // 2)
        rows[k]["text"] = f"{text[:at]} {ITEMS[k % 4]} {text[at:]}"
    found = outcome(Decontaminate(sets={"exam": exam}), [documents(rows)])
    assert set(found) == {f"r{k:02}" for k in range(0, 12, 2)}
    for k in range(0, 12, 2):
        left, reason, _ = found[f"r{k:02}"]
        if reason is None:
            assert left is not None
            assert len(left) > len(texts[k]) / 2
            assert not keys_in(left, KEYS)


@pytest.mark.parametrize(("copies", "left"), [(9, 0), (10, 10)])
def test_what_occurs_often_is_an_ordinary_phrase(exam: str, copies: int, left: int) -> None:
    random = np.random.default_rng(1)
    texts = [f"{host(random, 40)}{ITEMS[0]} {host(random, 40)}" for _ in range(copies)]
    found = outcome(Decontaminate(sets={"exam": exam}), [documents([{"text": t} for t in texts])])
    assert len(found) == copies - left


def test_a_common_key_beside_a_rare_one_stays_and_a_seam_makes_no_new_one(exam: str) -> None:
    """Half an item, a whole one, the other half: cutting the whole one joins the halves."""
    halves = ITEMS[2].split(" ")
    text = f"{' '.join(halves[:11])} {ITEMS[0]} {' '.join(halves[11:])} " + " ".join(word(k) for k in range(200))
    operator = Decontaminate(sets={"exam": exam}, max_occurrences=None, margin=0, min_piece=1)
    # no sentence ends near: without them a cut would take the halves with it
    text = text.replace(".", "").replace("?", "").replace("\n", " ")
    words = " ".join(word(k) for k in range(300, 400))
    found = outcome(operator, [documents([{"text": f"{words}. {text}"}])])
    left, reason, _ = found["r0"]
    assert reason is not None or not keys_in(left or "", KEYS)
    many = [{"text": f"{words}. {ITEMS[1]} {words}"} for _ in range(10)]
    both = {"id": "both", "text": f"{host(np.random.default_rng(2), 60)}{ITEMS[1]} {words}. {words}. {ITEMS[0]}"}
    rare = outcome(Decontaminate(sets={"exam": exam}), [documents([*many, both])])
    assert set(rare) == {"both"}
    assert Counter(keys_in(rare["both"][0] or "", KEYS)) == Counter(keys_of(ITEMS[1]))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ITEMS[0], "contaminated"),
        (ITEMS[1], "contaminated"),  # no longer than the item it equals
        (f"So. {ITEMS[1]}", "contaminated"),
        ("Which of the following rivers is the longest", None),  # a word is missing
        ("Natalia sold 49 clips to her friends in April, and then she sold half", None),  # another number
        ("", None),
        (None, None),
    ],
)
def test_who_goes(exam: str, text: str | None, reason: str | None) -> None:
    found = outcome(Decontaminate(sets={"exam": exam}), [documents([{"text": text}])])
    assert found.get("r0", (None, None))[1] == reason


def test_drop_and_shredded(exam: str) -> None:
    random = np.random.default_rng(4)
    text = "".join(f"{host(random, 60)}{ITEMS[k % 4]} " for k in range(12)) + host(random, 60)
    docs = [documents([{"text": text}])]
    assert outcome(Decontaminate(sets={"exam": exam}, action="drop"), docs)["r0"][1] == "contaminated"
    [verdict] = run_in_memory(Decontaminate(sets={"exam": exam}), docs).to_pylist()
    assert (verdict["drop_reason"], verdict["drop_value"], verdict["drop_threshold"]) == ("shredded", 13.0, 10.0)
    assert outcome(Decontaminate(sets={"exam": exam}, max_pieces=13), docs)["r0"][1] is None


def test_sets_in_all_forms_and_who_is_named(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl.gz", [{"q": ITEMS[0], "choices": ["short", ITEMS[2]]}, {"q": "x"}])
    pq.write_table(pa.table({"id": [1, 2], "question": [ITEMS[0], ITEMS[1]]}), tmp_path / "b.parquet")
    sets = {"b": {"path": str(tmp_path / "b.parquet"), "fields": ["question"]}, "a": first}
    step = Params({"decontaminate": {"sets": sets, "action": "drop"}}).use(Decontaminate)
    assert step is not None
    rows = [{"text": f"{ITEMS[k]} And so on."} for k in range(4)]
    found = outcome(step.operator, [documents(rows)])
    assert {i: detail for i, (_, _, detail) in found.items()} == {"r0": "a,b", "r1": "b", "r2": "a"}


@pytest.mark.parametrize(
    ("rows", "fields", "message"),
    [
        ([{"q": ITEMS[0]}, b"not json"], {}, r"sets.*exam: .*line 2 is no JSON"),
        ([{"q": ITEMS[0]}, [1]], {}, "line 2 is no JSON object"),
        ([{"q": "too short"}], {}, "no item of at least 8 words, of 1"),
        ([{"q": ITEMS[0]}], {"fields": ["question"]}, "no item has a field 'question'"),
    ],
)
def test_bad_sets_are_refused_before_any_work(tmp_path: Path, rows: list[Any], fields: Any, message: str) -> None:
    path = tmp_path / "exam.jsonl"
    path.write_bytes(b"\n".join(row if isinstance(row, bytes) else orjson.dumps(row) for row in rows))
    with pytest.raises(ParameterError, match=message):
        Params({"decontaminate": {"sets": {"exam": {"path": str(path), **fields}}}}).use(Decontaminate)


def test_bad_parameters(exam: str, tmp_path: Path) -> None:
    for fields, message in (
        ({"sets": {"exam": str(tmp_path / "none.jsonl")}}, "no such file"),
        ({"sets": {}}, "sets"),
        ({"sets": {"exam": exam}, "min_ngram": 14}, "min_ngram: 14 is more than ngram: 13"),
        ({"sets": {"exam": exam}, "action": "cut"}, "action"),
    ):
        with pytest.raises(pydantic.ValidationError, match=message):
            Decontaminate(**fields)
