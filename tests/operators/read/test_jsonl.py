"""JSON Lines: bad lines one by one, broken streams, cuts."""

from __future__ import annotations

import random
import tracemalloc
import zlib
from pathlib import Path

import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.read import jsonl
from operators.read.reader import cut
from operators.read.span import Fields, ReadError, fallback_id
from tests.operators.read.archives import everything, gz, opened, rows, same_when_cut, whole


def write(folder: Path, data: bytes, name: str = "x.jsonl") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def line(**values: object) -> bytes:
    return orjson.dumps(values) + b"\n"


GOOD = line(id="g", text="good")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"text": "a\xff"}\n', "invalid_utf8"),
        (b'{"text": "a\\ud800"}\n', "lone_surrogate"),
        (b'{"text": "a\\u0000"}\n', "nul"),
        (b'{"text": "a"\n', "bad_json"),
        (b'{"text": NaN}\n', "bad_json"),
        (b'{"text": ' + b"[" * 5000 + b"]" * 5000 + b"}\n", "bad_json"),
        (b'{"text": "a", "deep": ' + b"[" * 500 + b"]" * 500 + b"}\n", "too_nested"),
        (b"[1]\n", "not_an_object"),
        (b"7\n", "not_an_object"),
        (b"{}\n", "no_text"),
        (b'{"text": null}\n', "no_text"),
        (b'{"text": 7}\n', "no_text"),
    ],
)
def test_a_bad_line_costs_one_line(tmp_path: Path, bad: bytes, reason: str) -> None:
    path = write(tmp_path, GOOD + b"\n \r\n" + bad + GOOD)
    assert rows(whole(path)) == (["g", "g"], [(len(GOOD) + 4, reason)])
    for target in (1, 7, 50):
        same_when_cut(path, target)


def test_too_long_a_line_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with path.open("wb") as file:
        file.write(GOOD)
        for _ in range(70):
            file.write(b"x" * (1 << 20))
        file.write(b"\n" + GOOD)
    engine = zlib.compressobj(1, zlib.DEFLATED, 31)
    zipped = write(tmp_path, engine.compress(GOOD), "x.jsonl.gz")
    with zipped.open("ab") as file:
        for _ in range(300):
            file.write(engine.compress(b"x" * (1 << 20)))
        file.write(engine.flush())
    assert rows(whole(path)) == (["g", "g"], [(len(GOOD), "line_too_long")])
    tracemalloc.start()
    assert rows(whole(zipped)) == (["g"], [(len(GOOD), "line_too_long")])
    assert tracemalloc.get_traced_memory()[1] < 150 << 20
    tracemalloc.stop()


def test_long_line_across_spans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "LIMIT", 100)
    path = write(tmp_path, GOOD + line(text="y" * 1000) + GOOD)
    assert rows(whole(path)) == (["g", "g"], [(len(GOOD), "line_too_long")])
    for target in (1, 13, 300):
        same_when_cut(path, target)


def test_mapped_and_passed_columns(tmp_path: Path) -> None:
    data = line(doc_id=5, body="a", link="u", ts=20260101, n=1.5, tags=["x", 1], text="mine", user_text="too", key="k")
    data += line(doc_id="", body="b") + line(doc_id="c", body="c", n=None, key=True)
    docs, bad = everything(whole(write(tmp_path, data)), Fields(text="body", id="doc_id", url="link", date="ts"))
    assert [(b["reason"], b["offset"]) for b in bad.to_pylist()] == [("no_id", data.index(b'{"doc_id":""'))]
    first, second = docs.to_pylist()
    assert {k: first[k] for k in ("id", "text", "url", "date")} == {
        "id": "5",
        "text": "a",
        "url": "u",
        "date": "20260101",
    }
    passed = {"n": "1.5", "tags": '["x",1]', "user_text": "mine", "user_user_text": "too", "user_key": "k"}
    assert {k: first[k] for k in passed} == passed
    assert (second["id"], second["n"], second["user_key"]) == ("c", None, "true")


def test_source_priority_and_weight_come_from_the_row_where_the_recipe_is_silent(tmp_path: Path) -> None:
    data = line(text="a", source="s", priority=3, weight=2) + line(text="b", source=1, priority=2**40, weight="w")
    docs, _ = everything(whole(write(tmp_path, data)))
    assert docs.select(["source", "priority", "weight"]).to_pylist() == [
        {"source": "s", "priority": 3, "weight": 2.0},
        {"source": None, "priority": 0, "weight": 1.0},
    ]
    assert docs["user_weight"].to_pylist() == [None, "w"]


def test_ids_are_places_in_the_decoded_file(tmp_path: Path) -> None:
    data = line(text="a") + line(text="b")
    for name, packed in (("x.jsonl", data), ("x.ndjson.gz", gz(data)), ("x.json.zst", zstandard.compress(data))):
        ids, _ = rows(whole(write(tmp_path, packed, name)))
        assert ids == [fallback_id(name, 0), fallback_id(name, len(line(text="a")))]


MANY = b"".join(line(id=str(i), text=random.Random(i).randbytes(300).hex()) for i in range(2000))


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.jsonl.zst"])
@pytest.mark.parametrize("damage", ["truncated", "corrupt", "trailing"])
def test_lines_before_a_break_count(tmp_path: Path, name: str, damage: str) -> None:
    packed = gz(MANY) if name.endswith("gz") else zstandard.ZstdCompressor(write_checksum=True).compress(MANY)
    half = len(packed) // 2
    hurt = {
        "truncated": packed[:half],
        "corrupt": packed[:half] + bytes(300) + packed[half + 300 :],
        "trailing": packed + b"garbage",
    }[damage]
    kept, bad = rows(whole(write(tmp_path, hurt, name)))
    assert kept == [str(i) for i in range(len(kept))]
    assert len(kept) == 2000 if damage == "trailing" else 600 < len(kept) < 1200
    reasons = [reason for _, reason in bad]
    assert reasons[-1] == "truncated_stream"
    assert set(reasons[:-1]) <= {"bad_json", "invalid_utf8"}  # what deflate made of it before it noticed
    assert MANY[: bad[0][0]].count(b"\n") == len(kept)


def test_several_members_and_frames(tmp_path: Path) -> None:
    assert rows(whole(write(tmp_path, gz(GOOD) + gz(GOOD), "x.jsonl.gz"))) == (["g", "g"], [])
    two = zstandard.compress(GOOD) + zstandard.compress(GOOD)
    assert rows(whole(write(tmp_path, two, "x.jsonl.zst"))) == (["g", "g"], [])


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.jsonl.zst"])
def test_what_is_not_compressed_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, GOOD, name)
    with pytest.raises(ReadError, match="does not start like that"):
        cut(whole(path), opened, 10, Fields())
    assert rows(whole(path)) == ([], [(0, "unreadable_file")])
    assert rows(whole(write(tmp_path, b"", name))) == ([], [])


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([GOOD, GOOD[:-1], b"\n", b"\r\n", b'{"text":"t"}\n']))),
    st.integers(1, 60),
)
def test_cutting_changes_nothing(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], target: int) -> None:
    same_when_cut(write(tmp_path_factory.mktemp("j"), b"".join(parts)), target)
