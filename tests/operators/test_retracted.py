"""Leaving out retracted documents: by whole ids, whatever their hashes, and lists of ids as people bring them."""

from __future__ import annotations

import hashlib
import io
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.apply import Step, apply
from operators.document import Pinned
from operators.hashes import xxh3_64
from operators.retracted import IdFile, Ids, Retracted, parse_ids

TYPES = [pa.string(), pa.large_string(), pa.string_view()]
ID = st.text(st.characters(codec="utf-8"), max_size=3)


@settings(max_examples=100, deadline=None)
@given(st.lists(ID, max_size=20), st.lists(ID | st.none(), max_size=40), st.sampled_from(TYPES), st.integers(1, 9))
def test_the_set_has_what_was_put_into_it_and_nothing_else(
    ids: list[str], asked: list[str | None], kind: pa.DataType, rows: int
) -> None:
    column = pa.chunked_array([asked[at : at + rows] for at in range(0, len(asked), rows)], kind)
    found = Ids(pa.array(ids, pa.string())).has(column)
    assert found.tolist() == [one in ids for one in asked]


def test_an_id_whose_hash_is_that_of_a_retracted_one_stays() -> None:
    ids = Ids(pa.array(["a", "b", "c"]))
    ids._hashes[:] = xxh3_64(pa.array(["twin"]))[0]
    assert ids.has(pa.array(["twin"])).tolist() == [False]
    ids._hashes[:] = xxh3_64(pa.array(["b"]))[0]  # all three share a hash; only one is the id
    assert ids.has(pa.array(["b", "twin"])).tolist() == [True, False]


@settings(max_examples=50, deadline=None)
@given(st.lists(ID, min_size=1, max_size=20), st.randoms())
def test_the_same_set_is_the_same_file_however_it_came(ids: list[str], order: random.Random) -> None:
    other = [*ids, *ids[:3]]
    order.shuffle(other)
    made = Ids(pa.array(ids, pa.string())).to_bytes()
    assert Ids(pa.chunked_array([other[:4], other[4:]], pa.large_string())).to_bytes() == made
    assert pa.ipc.open_file(pa.BufferReader(made)).read_all()["id"].to_pylist() == sorted(set(ids), key=str.encode)


@pytest.fixture
def operator(tmp_path: Path) -> Retracted:
    data = Ids(pa.array(["b", "x"])).to_bytes()
    (tmp_path / "ids").write_bytes(data)
    return Retracted().with_artefact(str(tmp_path / "ids"), hashlib.sha256(data).hexdigest())


def test_a_retracted_document_is_dropped_as_a_tombstone_and_others_stay_as_they_are(operator: Retracted) -> None:
    docs = pa.table({"id": ["a", "b", "bb"], "text": ["one", "two", "three"]})
    result = apply([Step("retracted", operator)], docs)
    assert result.kept.to_pylist() == [{"id": "a", "text": "one"}, {"id": "bb", "text": "three"}]
    assert result.dropped.select(["id", "drop_reason", "drop_value"]).to_pylist() == [
        {"id": "b", "drop_reason": "retracted/tombstone", "drop_value": None}
    ]


def test_a_file_that_is_not_the_one_that_was_named_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ids").write_bytes(Ids(pa.array(["a"])).to_bytes())
    with pytest.raises(ValueError, match="sha256"):
        IdFile(Pinned(str(tmp_path / "ids"), "0" * 64)).load()


def test_without_its_file_it_drops_nothing_silently() -> None:
    with pytest.raises(ValueError, match="retracted"):
        Retracted()(pa.table({"id": ["a"]}))


def parquet(**columns: pa.Array) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "ids"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"a\r\n\r\nb", ["a", "b"]),
        ("\ufeffa\nü\n".encode(), ["a", "ü"]),
        (b" a b \n", [" a b "]),
        ("a\u2028b\x0bc\n".encode(), ["a\u2028b\x0bc"]),
        *[(parquet(id=pa.array(["a", "b\nc"], kind), n=pa.array([1, 2])), ["a", "b\nc"]) for kind in TYPES],
    ],
)
def test_a_list_of_ids_is_read_as_it_stands(data: bytes, ids: list[str]) -> None:
    assert parse_ids(data).to_pylist() == ids


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "no ids"),
        (b"\n\r\n", "no ids"),
        (b"a\nb\ncaf\xe9\n", "line 3 is not UTF-8"),
        (b"PAR1 not really", "not a Parquet file"),
        (parquet(doc=pa.array(["a"])), "no column `id`; there are: doc"),
        (parquet(id=pa.array([1])), "column `id` is int64"),
        (parquet(id=pa.array(["a", None])), "null in 1 of 2 rows"),
        (parquet(id=pa.array([], pa.string())), "no ids"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused_with_the_reason(data: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_ids(data)
