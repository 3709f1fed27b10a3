"""Planted items leave no key, and texts without one stay as they are: against the rules in plain Python, written from
their description, character by character."""

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
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.dedup import evaluation
from operators.dedup.decontaminate import ROUNDS, Decontaminate
from operators.phases import DOCUMENTS, Phase, run_in_memory, with_doc
from tests.operators.dedup.rows import Repartitioned, documents, sample_texts, word
from workflows.recipe import ParameterError, Params

Key = tuple[str, ...]

ITEMS = [
    "Natalia sold 48 clips to her friends in April, and then she sold half as many in May of that year.",
    "Which of the following rivers is the longest one?",  # nine words
    "Was it the house of the old man by the sea that the storm took away during the night of the feast?",
    "Où est née la dernière impératrice du vieux pays, d'après ce que disent les livres de la bibliothèque?",
    "小明有三十六个苹果,他给了妹妹一半,又买了十二个,请问他现在有多少个苹果?",
    "Το παιδί είδε τον σκύλο στους δρόμους της πόλης χθες",  # ten words, final sigmas
]
HAN = "\u3400-\u4dbf\u4e00-\u9fff"


def words_of(text: str) -> list[tuple[str, int, int]]:
    """Words with the characters at which they start and end: lower case, no accents, nothing invisible, Han one by
    one."""
    bare, places = [], []
    for place, char in enumerate(text):
        for one in unicodedata.normalize("NFD", char.lower()):
            if unicodedata.category(one) not in ("Mn", "Cf"):
                bare.append("σ" if one == "ς" else one)
                places.append(place)
    places.append(len(text))
    found = re.finditer(rf"([{HAN}])|[^\W_{HAN}]+", "".join(bare))
    return [(m[0], places[m.start()], places[m.end() - 1] + 1 if m[1] else places[m.end()]) for m in found]


def keys_of(item: str, ngram: int = 13, shortest: int = 8) -> set[Key]:
    words = [word for word, _, _ in words_of(item)]
    if shortest <= len(words) < ngram:
        return {tuple(words)}
    return {tuple(words[k : k + ngram]) for k in range(len(words) - ngram + 1)}


def keys_in(text: str, keys: set[Key]) -> list[tuple[Key, int, int]]:
    words = words_of(text)
    return [
        (run, words[k][1], words[k + n - 1][2])
        for n in {len(key) for key in keys}
        for k in range(len(words) - n + 1)
        if (run := tuple(word for word, _, _ in words[k : k + n])) in keys
    ]


def expected(operator: Decontaminate, keys: set[Key], texts: Sequence[str]) -> list[tuple[str | None, str | None]]:
    """(text that is left, reason), None where a text goes."""
    counts = Counter(key for text in texts for key, _, _ in keys_in(text, keys))
    most = operator.max_occurrences or 10**9
    outcomes: list[tuple[str | None, str | None]] = []
    for text in texts:
        here = {key for key, _, _ in keys_in(text, keys)}
        left = list(range(len(text)))  # characters
        while hits := keys_in("".join(text[k] for k in left), {k for k in keys if counts[k] < most or k not in here}):
            if not here - {key for key in here if counts[key] >= most}:
                break  # none that is rare: a host without a plant
            gone = set()
            for _, start, end in hits:
                first, last = left[start] - operator.margin, left[end - 1] + 1 + operator.margin
                while first > 0 and text[first - 1] not in ".!?\n。":
                    first -= 1
                while last < len(text) and text[last] not in ".!?\n。":
                    last += 1
                gone.update(range(first, last + 1))
            left = [k for k in left if k not in gone]
            runs = np.split(np.array(left, int), np.flatnonzero(np.diff(left) > 1) + 1)
            left = [int(k) for run in runs if len(run) >= operator.min_piece for k in run]
        pieces = int(bool(left)) + int((np.diff(left) > 1).sum())
        reason = "contaminated" if text and not left else "shredded" if pieces > operator.max_pieces else None
        outcomes.append((None if reason else "".join(text[k] for k in left), reason))
    return outcomes


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


def in_units(table: pa.Table, bounds: Sequence[int]) -> list[pa.Table]:
    """The table cut at `bounds`, last unit first."""
    ends = sorted({0, table.num_rows, *(min(b, table.num_rows) for b in bounds)})
    return [table.slice(a, b - a) for a, b in zip(ends, ends[1:], strict=False)][::-1] or [table]


def host(random: np.random.Generator, sentences: int) -> str:
    """Sentences of made-up words in several scripts, one in four on a line of its own."""
    parts = []
    for _ in range(sentences):
        made = " ".join(word(int(k)) for k in random.integers(0, 400, int(random.integers(4, 16))))
        kind = int(random.integers(8))
        if kind == 0:
            made = "".join(chr(0x4E00 + int(k)) for k in random.integers(0, 400, 12)) + "。"
        elif kind == 1:
            made = f"😀 {made} ñandú e\u0301 Ωmega"
        parts.append(made.capitalize() + str(random.choice([". ", "! ", "? ", ".\n"])))
    return "".join(parts)


def disguised(item: str, random: np.random.Generator) -> str:
    """Re-cased, re-punctuated, without accents, with accents apart, split over lines, with marks nobody sees."""
    kind = int(random.integers(7))
    if kind == 1:
        return item.upper()
    if kind == 2:
        return re.sub(r"\W+", lambda m: str(random.choice([" ", ", ", " - ", "\n", "… ", "_"])), item)
    if kind == 3:
        return "".join(c for c in unicodedata.normalize("NFD", item) if unicodedata.category(c) != "Mn")
    if kind == 4:
        return unicodedata.normalize("NFD", item).title()
    if kind == 5:
        return re.sub(r"\B", "\u00ad", item)
    return re.sub(r"[ ,]", "\n  ", item) if kind == 6 else item


@given(
    st.integers(0, 2**32),
    st.lists(st.integers(0, 12), max_size=3),
    st.lists(st.integers(1, 4), min_size=2, max_size=2),
    st.sampled_from([(200, 200), (0, 1), (30, 80)]),
    st.sampled_from([None, 10, 3]),
)
@settings(max_examples=20, deadline=None)
def test_no_key_is_left_and_nothing_else_changes(
    exam: str, seed: int, bounds: list[int], partitions: list[int], sizes: tuple[int, int], most: int | None
) -> None:
    random = np.random.default_rng(seed)
    margin, shortest = sizes
    rows, planted = [], set()
    for k in range(12):
        parts = [host(random, int(random.integers(0, 25))) for _ in range(int(random.integers(1, 4)))]
        if random.integers(2):
            for _ in range(int(random.integers(1, 3))):
                one = disguised(str(random.choice(ITEMS)), random)
                parts.insert(int(random.integers(len(parts) + 1)), f" {one} ")
            planted.add(f"h{k:02}")
        rows.append({"id": f"h{k:02}", "text": "".join(parts)})
    table = documents(rows)
    operator = Decontaminate(sets={"exam": exam}, max_occurrences=most, margin=margin, min_piece=shortest)
    found = outcome(operator, [table])
    assert set(found) == planted if most is None else set(found) <= planted
    texts = [row["text"] for row in rows]
    for row, (left, reason) in zip(rows, expected(operator, KEYS, texts), strict=True):
        assert found.get(row["id"], (row["text"], None, "exam")) == (left, reason, "exam")
        assert left is None or most or not keys_in(left, KEYS)
    assert outcome(Repartitioned(operator, partitions), in_units(table, bounds)) == found


LETTERS = st.text("ab", min_size=1, max_size=1)


@given(
    st.lists(st.lists(LETTERS, min_size=1, max_size=7), min_size=1, max_size=4),
    st.lists(st.lists(st.sampled_from(["a", "A", "b", "c", "a.", "b.", "Á!", "中"]), max_size=40), max_size=8),
    st.tuples(st.integers(2, 5), st.integers(0, 3)),
    st.tuples(st.integers(0, 6), st.integers(0, 9), st.integers(1, 3), st.sampled_from([None, 2, 5])),
    st.lists(st.integers(0, 8), max_size=3),
    st.lists(st.integers(1, 4), min_size=2, max_size=2),
)
@settings(max_examples=60, deadline=None)
def test_few_words_that_make_keys_everywhere(
    tmp_path_factory: pytest.TempPathFactory,
    items: list[list[str]],
    texts: list[list[str]],
    sizes: tuple[int, int],
    limits: tuple[int, int, int, int | None],
    bounds: list[int],
    partitions: list[int],
) -> None:
    ngram, less = sizes
    shortest = max(2, ngram - less)
    lines = [" ".join(words) for words in items]
    keys = {key for line in lines for key in keys_of(line, ngram, shortest)}
    if not keys:
        return
    path = write(tmp_path_factory.mktemp("few") / "few.jsonl", [{"q": line} for line in lines])
    margin, min_piece, max_pieces, most = limits
    operator = Decontaminate(
        sets={"exam": path},
        ngram=ngram,
        min_ngram=shortest,
        margin=margin,
        min_piece=min_piece,
        max_pieces=max_pieces,
        max_occurrences=most,
    )
    rows = [{"id": f"r{k}", "text": " ".join(words)} for k, words in enumerate(texts)]
    table = documents(rows)
    found = outcome(operator, [table])
    for row, (left, reason) in zip(rows, expected(operator, keys, [row["text"] for row in rows]), strict=True):
        was = (row["text"], None, None)
        assert found.get(row["id"], was)[:2] == (left, reason), (lines, row)
    assert outcome(Repartitioned(operator, partitions), in_units(table, bounds)) == found


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


@pytest.mark.parametrize(("copies", "gone"), [(9, True), (10, False)])
@pytest.mark.parametrize("documents_of", [1, 3, 10])
def test_what_occurs_often_is_an_ordinary_phrase(exam: str, copies: int, gone: bool, documents_of: int) -> None:
    """Occurrences count, in however many documents and units they are."""
    random = np.random.default_rng(1)
    texts = [f"{host(random, 40)}{ITEMS[0]} {host(random, 40)}" for _ in range(copies)]
    rows = [{"text": "".join(texts[k::documents_of])} for k in range(min(copies, documents_of))]
    operator = Decontaminate(sets={"exam": exam}, max_pieces=20)
    for bounds in ([], [1], [2, 5]):
        assert len(outcome(operator, in_units(documents(rows), bounds))) == gone * len(rows)


def test_what_is_ordinary_in_one_unit_costs_one_row_a_key(exam: str) -> None:
    docs = with_doc(documents([{"text": ITEMS[0]}] * 50 + [{"text": ITEMS[1]}] * 9), 0)
    phase = Decontaminate(sets={"exam": exam}).phases(59)[0]
    assert isinstance(phase, Phase)
    rows = phase.maps[DOCUMENTS](docs)
    assert rows.num_rows == len(keys_of(ITEMS[0])) + 9
    assert sum(rows["count"].to_pylist()) == 50 * len(keys_of(ITEMS[0])) + 9


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
    assert Counter(key for key, _, _ in keys_in(rare["both"][0] or "", KEYS)) == Counter(keys_of(ITEMS[1]))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ITEMS[0], "contaminated"),
        (ITEMS[1], "contaminated"),  # no longer than the item it equals
        (f"😀\0{ITEMS[4]}", "contaminated"),
        (ITEMS[5].upper(), "contaminated"),  # whose capitals have one sigma
        (f"So. {ITEMS[1]}", "contaminated"),
        ("Which of the following rivers is the longest", None),  # a word is missing
        ("Natalia sold 49 clips to her friends in April, and then she sold half", None),  # another number
        ("", None),
        (" \n\0\u00ad😀", None),
        (None, None),
    ],
)
def test_who_goes(exam: str, text: str | None, reason: str | None) -> None:
    found = outcome(Decontaminate(sets={"exam": exam}), [documents([{"text": text}])])
    assert found.get("r0", (None, None))[1] == reason


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (
            "Die Straße hieß früher große Straße, weiß der weise Fuß",
            "DIE STRASSE HIESS FRÜHER GROSSE STRASSE, WEISS DER WEISE FUSS",
        ),
        (
            "Die Straße hieß früher große Straße, weiß der weise Fuß",
            "die straße hieß früher große straße weiß der weise fuß",
        ),
        (
            unicodedata.normalize("NFD", "가나다 라마바 사아자 차카타 파하거 너더러 머버서 어저처"),
            "가나다 라마바 사아자 차카타 파하거 너더러 머버서 어저처",
        ),
        ("Işık ılık ılık akan ırmağın kıyısında hızla kısıldı", "IŞIK ILIK ILIK AKAN IRMAĞIN KIYISINDA HIZLA KISILDI"),
    ],
)
def test_letters_that_change_with_case_or_composition(tmp_path: Path, item: str, text: str) -> None:
    operator = Decontaminate(sets={"exam": write(tmp_path / "exam.jsonl", [{"q": item}])})
    assert outcome(operator, [documents([{"text": text}])])["r0"][1] == "contaminated"


@pytest.mark.parametrize(("depth", "reason"), [(ROUNDS - 1, None), (ROUNDS + 20, "contaminated")])
def test_items_around_items(tmp_path: Path, depth: int, reason: str | None) -> None:
    """Each cut joins the halves of the next item. Who nests more than anyone would by chance has nothing left."""
    items = [[word(100 * k + n) for n in range(13)] for k in range(depth)]
    operator = Decontaminate(
        sets={"exam": write(tmp_path / "exam.jsonl", [{"q": " ".join(one)} for one in items])}, margin=0, min_piece=0
    )
    inside = [" ".join(one[:6]) + "." for one in items[1:]], [" ".join(one[6:]) + "." for one in items[1:]][::-1]
    text = f"So. {' '.join(inside[0])} {' '.join(items[0])}. {' '.join(inside[1])} End."
    left, found, _ = outcome(operator, [documents([{"text": text}])])["r0"]
    assert (left, found) == (None if reason else "So. End.", reason)


def test_cuts_have_margins_and_end_with_sentences(exam: str) -> None:
    text = f"First. Second one. Third {ITEMS[0]} Fourth is here. Fifth. Sixth\nSeventh."
    for margin, left in (
        (0, "First. Second one. Fourth is here. Fifth. Sixth\nSeventh."),
        (8, "First. Fifth. Sixth\nSeventh."),
    ):
        operator = Decontaminate(sets={"exam": exam}, margin=margin, min_piece=0)
        assert outcome(operator, [documents([{"text": text}])])["r0"][0] == left
    for min_piece, left in (
        (17, "First. Second one. Fourth is here. Fifth. Sixth\nSeventh."),
        (19, " Fourth is here. Fifth. Sixth\nSeventh."),
    ):
        operator = Decontaminate(sets={"exam": exam}, margin=0, min_piece=min_piece)
        assert outcome(operator, [documents([{"text": text}])])["r0"][0] == left


def test_drop_and_shredded(exam: str) -> None:
    random = np.random.default_rng(4)
    text = "".join(f"{host(random, 60)}{ITEMS[k % 4]} " for k in range(12)) + host(random, 60)
    docs = [documents([{"text": text}])]
    assert outcome(Decontaminate(sets={"exam": exam}, action="drop"), docs)["r0"][1] == "contaminated"
    [verdict] = run_in_memory(Decontaminate(sets={"exam": exam}), docs).to_pylist()
    assert (verdict["drop_reason"], verdict["drop_value"], verdict["drop_threshold"]) == ("shredded", 13.0, 10.0)
    assert outcome(Decontaminate(sets={"exam": exam}, max_pieces=13), docs)["r0"][1] is None


def test_frames_one_after_another_are_read_to_the_end(tmp_path: Path) -> None:
    for name, packed in (("a.jsonl.zst", zstandard.ZstdCompressor().compress), ("a.jsonl.gz", gzip.compress)):
        (tmp_path / name).write_bytes(b"".join(packed(orjson.dumps({"q": item}) + b"\n") for item in ITEMS))
        operator = Decontaminate(sets={"exam": str(tmp_path / name)})
        assert len(outcome(operator, [documents([{"text": item} for item in ITEMS])])) == len(ITEMS)


def damaged(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_files_that_cannot_be_read_are_bad_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = b"".join(orjson.dumps({"q": f"{item} {k}"}) + b"\n" for k in range(99) for item in ITEMS)
    zipped, squeezed = bytearray(gzip.compress(lines)), zstandard.ZstdCompressor().compress(lines)
    long = pa.table({"q": pa.array(["long " * 500] * 2000).dictionary_encode()})
    pq.write_table(long, tmp_path / "long.parquet")
    pq.write_table(pa.table({"q": ITEMS}), tmp_path / "q.parquet")
    assert (tmp_path / "long.parquet").stat().st_size < 100_000
    monkeypatch.setattr(evaluation, "MOST_BYTES", 100_000)
    for path, fields, message in (
        (damaged(tmp_path / "cut.jsonl.zst", squeezed[:-9]), [], "cannot be decompressed"),
        (damaged(tmp_path / "cut.jsonl.gz", zipped[:-9]), [], "cannot be decompressed"),
        (damaged(tmp_path / "bad.jsonl.gz", zipped[:30] + b"\xff" * 99 + zipped[129:]), [], "cannot be decompressed"),
        (damaged(tmp_path / "none.jsonl.zst", lines), [], "cannot be decompressed"),
        (damaged(tmp_path / "bomb.jsonl.gz", gzip.compress(lines * 9)), [], "more than 100000 bytes"),
        (tmp_path / "long.parquet", [], "more than 100000 bytes"),
        (damaged(tmp_path / "half.parquet", (tmp_path / "q.parquet").read_bytes()[:-99]), [], "not a Parquet file"),
        (tmp_path / "q.parquet", ["q", "answer"], "no item has a field 'answer'"),
    ):
        with pytest.raises(ParameterError, match=f"(?s)sets.*exam: .*{path.name}: {message}"):
            Params({"decontaminate": {"sets": {"exam": {"path": str(path), "fields": fields}}}}).use(Decontaminate)
    with (tmp_path / "huge.jsonl").open("wb") as huge:
        huge.truncate(1 << 40)  # sparse: who reads it dies
    with pytest.raises(ParameterError, match="huge.jsonl: more than"):
        Params({"decontaminate": {"sets": {"exam": str(tmp_path / "huge.jsonl")}}}).use(Decontaminate)


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
        ([{"q": ITEMS[0]}, b"", b"not json"], {}, r"sets.*exam: .*exam.jsonl: line 3 is no JSON"),
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
        ({"sets": {"a,b": exam}}, "sets.a,b"),  # details are names with commas between
        ({"sets": {"exam": exam}, "max_occurrences": 1}, "max_occurrences"),
        ({"sets": {"exam": exam}, "min_ngram": 14}, "min_ngram: 14 is more than ngram: 13"),
        ({"sets": {"exam": exam}, "action": "cut"}, "action"),
    ):
        with pytest.raises(pydantic.ValidationError, match=message):
            Decontaminate(**fields)
