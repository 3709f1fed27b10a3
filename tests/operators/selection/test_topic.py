from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.phases import run_in_memory
from operators.selection.topic import Topic
from tests.operators.dedup.rows import SAMPLE, Repartitioned, documents, word

OFFERS = """
buy now and save|free shipping on all orders|limited time offer|order today|satisfaction guaranteed|50% off everything
best prices online|money back guarantee|click here to shop|call our sales team|exclusive discount code|new arrivals
lowest price in town|while stocks last|sign up for deals|win a free gift|clearance sale ends soon|shop the sale
special offer for customers|pay in easy instalments|buy one get one free|cheap flights and hotels|hot deals
""".replace("\n", "|").strip("|")


def adverts(count: int, seed: int) -> list[str]:
    lot = random.Random(seed)
    return [". ".join(lot.sample(OFFERS.split("|"), 9)) for _ in range(count)]


def topics(operator: Any, units: Sequence[pa.Table]) -> dict[str, tuple[str, float]]:
    """id -> (topic, score) of the documents that have one."""
    found = run_in_memory(operator, units)
    ids = {(unit << 32) + row: i for unit, t in enumerate(units) for row, i in enumerate(t["id"].to_pylist())}
    return {ids[row["doc"]]: (row["topic"], row["topic_score"]) for row in found.to_pylist()}


def of_sources(*sources: str) -> tuple[pa.Table, dict[str, str]]:
    """Documents of these sources of the sample, and the source of each."""
    rows = pq.read_table(SAMPLE).filter(pa.compute.is_in(pq.read_table(SAMPLE)["source"], pa.array(sources)))
    texts, ids, of = (rows[name].to_pylist() for name in ("text", "id", "source"))
    return documents([{"id": i, "text": t} for i, t in zip(ids, texts, strict=True)]), dict(zip(ids, of, strict=True))


def seed_file(folder: Path, *lines: str) -> str:
    path = folder / "seed.txt"
    path.write_text("\n".join(lines), "utf-8")
    return str(path)


def test_documents_of_one_kind_come_together() -> None:
    docs, source = of_sources(
        "licence:debian", "html:libreoffice-help-de", "html:sqlite3-doc", "html:libreoffice-help-ru"
    )
    found = topics(Topic(clusters=16), [docs])
    assert len(found) == len(docs)
    together: dict[str, Counter[str]] = {}
    for i, (topic, _) in found.items():
        together.setdefault(topic, Counter())[source[i]] += 1
    purity = sum(sources.most_common(1)[0][1] for sources in together.values()) / len(docs)
    assert purity > 0.9
    assert sum(sources.most_common(1)[0][0] == "html:sqlite3-doc" for sources in together.values()) > 1


def test_clusters_are_called_by_their_words() -> None:
    lot = random.Random(1)
    every = [word(k) for k in range(1000, 1009)]  # what all documents have
    rows = []
    for topic in (["engine", "wheel", "brake"], ["violin", "cello", "flute"]):
        rows += [{"text": " ".join(topic + every + lot.sample([word(k) for k in range(500)], 5))} for _ in range(60)]
    rows += [{"text": "自動車の部品、自動車の部品"}] * 40
    found = topics(Topic(clusters=40), [documents([{**row, "id": f"d{k:03}"} for k, row in enumerate(rows)])])
    names = Counter(name for name, _ in found.values())
    first = {found[f"d{k:03}"][0].split("-")[0] for k in range(60)}
    assert first <= {"brake", "engine", "wheel", *(word(k) for k in range(500))}
    assert {found[f"d{k}"][0] for k in range(120, 160)} == {"の部-動車-品自"}
    assert sum(names.values()) == 160


def test_equal_names_are_numbered() -> None:
    """Three clusters that only a column of embeddings tells apart, the largest first."""
    rows = [{"text": "one same text"} for _ in range(9)]
    embeddings = [[1.0, 0.0, 0.0]] * 2 + [[0.0, 1.0, 0.0]] * 4 + [[0.0, 0.0, 1.0]] * 3
    docs = documents(rows).append_column("e", pa.array(embeddings))
    found = topics(Topic(clusters=9, column="e"), [docs])
    expected = ["one-same-text-3"] * 2 + ["one-same-text"] * 4 + ["one-same-text-2"] * 3
    assert [found[f"r{k}"][0] for k in range(9)] == expected
    assert {score for _, score in found.values()} == {1.0}


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([], {}),
        ([{"text": None}, {"text": ""}, {"text": "..."}], {}),
        ([{"text": "a b c"}], {"r0": ("unnamed", 1.0)}),  # no word of three letters
        ([{"text": "one word"}, {"text": ""}], {"r0": ("one-word", 1.0)}),
        ([{"text": "wort " * 9000}, {"text": "\0"}], {"r0": ("wort", 1.0)}),
    ],
)
def test_small_corpora(rows: list[dict[str, Any]], found: dict[str, tuple[str, float]]) -> None:
    assert topics(Topic(), [documents(rows)]) == found


def test_examples_name_what_is_like_them(tmp_path: Path) -> None:
    """60 adverts made of other sentences of the same offers than the 5 examples, among 280 documents."""
    docs, _ = of_sources("html:sqlite3-doc", "html:libreoffice-help-en-us", "html:python3.11-doc", "licence:debian")
    adverted = documents([{"id": f"ad{k:02}", "text": text} for k, text in enumerate(adverts(60, 1))])
    seeds = {"advertising": seed_file(tmp_path, *adverts(5, 2), "", "...")}
    found = topics(Topic(clusters=16, seeds=seeds), [docs, adverted])
    caught = [i for i, (topic, _) in found.items() if topic == "advertising"]
    true = sum(i.startswith("ad") for i in caught)
    assert true / 60 > 0.95
    assert true == len(caught)
    assert "advertising" not in {topic for topic, _ in topics(Topic(clusters=16, seeds=seeds), [docs]).values()}
    most = documents([{"id": f"ad{k:04}", "text": text} for k, text in enumerate(adverts(3 * len(docs), 3))])
    many = topics(Topic(clusters=16, seeds=seeds), [docs, most])
    assert {topic for i, (topic, _) in many.items() if i.startswith("ad")} == {"advertising"}
    assert "advertising" not in {topic for i, (topic, _) in many.items() if not i.startswith("ad")}
    alone = topics(Topic(seeds=seeds), [most])
    assert {topic for topic, _ in alone.values()} == {"advertising"}
    assert len(alone) == len(most)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"clusters": 1}, r"(?s)clusters.*input_value=1"),
        ({"dimensions": 100}, r"(?s)dimensions.*input_value=100"),
        ({"min_seed_score": 2}, r"(?s)min_seed_score.*input_value=2"),
        ({"column": "e", "dimensions": 512}, "dimensions: 512 has no effect with column"),
        ({"seeds": {"ads": "nowhere.txt"}}, "no such file: nowhere.txt"),
        ({"names": {}}, "names"),
    ],
)
def test_bad_parameters(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        Topic(**fields)


def test_the_least_score_of_a_seed(tmp_path: Path) -> None:
    seeds = {"ads": seed_file(tmp_path, "one two three")}
    docs = documents([{"text": "one two three"}, {"text": "one four five six seven eight nine ten"}])
    near = topics(Topic(seeds=seeds, min_seed_score=0.9), [docs])
    assert near == {"r0": ("ads", 1.0), "r1": ("eight-five-four", 1.0)}
    assert topics(Topic(seeds=seeds, min_seed_score=0.0), [docs])["r1"][0] == "ads"


def test_bad_examples(tmp_path: Path) -> None:
    path = seed_file(tmp_path, "...", "")
    with pytest.raises(pydantic.ValidationError, match=r"seed.txt has no line with a word"):
        Topic(seeds={"ads": path})
    Path(path).write_bytes(b"\xff\xfe")
    with pytest.raises(pydantic.ValidationError, match=r"seed.txt is not UTF-8"):
        Topic(seeds={"ads": path})
    Path(path).write_text("good", "utf-8")
    with pytest.raises(pydantic.ValidationError, match="seeds: the texts of ads cannot be compared with column"):
        Topic(seeds={"ads": path}, column="e")


@given(
    st.integers(0, 2**32),
    st.lists(st.integers(0, 60), max_size=5),
    st.permutations(range(6)),
    st.lists(st.integers(1, 5), min_size=3, max_size=3),
    st.sampled_from([2, 5, 64]),
    st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_layout_does_not_matter(
    seed: int, cuts: list[int], order: list[int], partitions: list[int], clusters: int, own: bool
) -> None:
    random_ = np.random.default_rng(seed)
    rows = [
        {"id": f"d{k}", "text": " ".join(word(j) for j in random_.integers(0, 12, random_.integers(0, 9)))}
        for k in random_.permutation(60).tolist()
    ]
    embeddings = [random_.integers(-2, 3, 3).tolist() if random_.random() < 0.9 else None for _ in rows]
    table = documents(rows).append_column("e", pa.array(embeddings, pa.list_(pa.float32())))
    bounds = sorted({0, 60, *cuts})
    units = [table.slice(a, b - a) for a, b in zip(bounds, bounds[1:], strict=False)]
    operator = Topic(clusters=clusters, column="e" if own else None)
    expected = topics(operator, [table])
    assert topics(Repartitioned(operator, partitions), [units[k] for k in order if k < len(units)]) == expected


def test_what_it_says_of_itself() -> None:
    assert (Topic().needs, Topic(column="e").needs) == (("text",), ("text", "e"))
    assert (Topic().adds, Topic().measures) == (("topic", "topic_score"), ("topic_score",))
    found = run_in_memory(Topic(), [documents([{"text": "one word"}])])
    assert found.schema.field("topic_score").type == pa.float32()
    assert found.schema.field("topic").type == pa.string()
