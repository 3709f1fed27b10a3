"""Parquet: columns, row groups, bombs, and types that must never be decoded."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.read import footer, parquet
from operators.read.reader import cut
from operators.read.span import Fields, ReadError, fallback_id
from tests.operators.read.archives import everything, opened, rows, same_when_cut, whole


def write(folder: Path, table: pa.Table, **options: object) -> Path:
    path = folder / "x.parquet"
    pq.write_table(table, path, **options)
    return path


def test_mapped_and_passed_columns(tmp_path: Path) -> None:
    table = pa.table(
        {
            "doc": pa.array([1, 2, None]),
            "body": pa.array(["a", "b", "c"]).dictionary_encode(),
            "ts": pa.array([0, 1, 2], pa.timestamp("s")),
            "text": ["x", "y", "z"],
            "nested": [[{"k": 1}], [], None],
            "source": pa.array(["s", None, "t"]).dictionary_encode(),
            "priority": pa.array([1, 2**40, 3]),
            "weight": ["heavy", "", ""],
            "drop_reason": ["q", "q", "q"],
        }
    )
    docs, bad = everything(whole(write(tmp_path, table)), Fields(text="body", id="doc", date="ts"))
    assert [(b["offset"], b["length"], b["reason"]) for b in bad.to_pylist()] == [(2, 1, "no_id")]
    assert docs["id"].to_pylist() == ["1", "2"]
    assert docs["text"].to_pylist() == ["a", "b"]
    assert docs["date"].to_pylist() == ["1970-01-01 00:00:00.000", "1970-01-01 00:00:01.000"]
    assert docs["source"].to_pylist() == ["s", None]
    assert docs["priority"].to_pylist() == [1, 0]
    assert docs["weight"].to_pylist() == [1.0, 1.0]
    assert docs["user_weight"].to_pylist() == ["heavy", ""]
    assert docs["user_text"].to_pylist() == ["x", "y"]
    assert docs["user_drop_reason"].to_pylist() == ["q", "q"]
    assert docs["nested"].to_pylist() == [[{"k": 1}], []]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (Fields(), r"no column 'text'; it has body, n"),
        (Fields(text="body", id="nr"), r"no column 'nr'"),
        (Fields(text="n"), r"column 'n' is int64, which cannot be read as text"),
    ],
)
def test_columns_that_do_not_fit_are_errors(tmp_path: Path, fields: Fields, message: str) -> None:
    path = write(tmp_path, pa.table({"body": ["a"], "n": [1]}))
    with pytest.raises(ReadError, match=message):
        cut(whole(path), opened, 10, fields)
    with pytest.raises(ReadError, match=message):
        everything(whole(path), fields)


def test_bad_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "LIMIT", 20)
    raw = pa.array([b"ok", b"\xff", None, b"n\0l", b"", b"l" * 21, b"ok"])
    text = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
    note = pa.array([b"", b"", b"", b"", b"", b"", b"\xc3"])
    notes = pa.ListArray.from_arrays(range(8), pa.Array.from_buffers(pa.string(), 7, note.buffers()))
    path = write(tmp_path, pa.table({"text": text, "notes": notes}))
    ids, bad = rows(whole(path))
    assert ids == [fallback_id("x.parquet", 0), fallback_id("x.parquet", 4)]
    assert bad == [(1, "invalid_utf8"), (2, "no_text"), (3, "nul"), (5, "too_large"), (6, "invalid_utf8")]


def test_a_broken_row_group_costs_its_rows(tmp_path: Path) -> None:
    table = pa.table({"id": [f"d{i}" for i in range(30)], "text": [f"text {i} " * 50 for i in range(30)]})
    path = write(
        tmp_path,
        table,
        row_group_size=10,
        compression="zstd",
        use_dictionary=False,
        write_page_checksum=True,
        write_statistics=False,
    )
    column = pq.ParquetFile(path).metadata.row_group(1).column(1)
    data = bytearray(path.read_bytes())
    middle = column.data_page_offset + column.total_compressed_size // 2
    data[middle : middle + 9] = b"corrupted"
    path.write_bytes(data)
    assert rows(whole(path)) == ([f"d{i}" for i in (*range(10), *range(20, 30))], [(10, "bad_row_group")])
    _, bad = everything(whole(path))
    assert bad["length"].to_pylist() == [10]
    assert same_when_cut(path, 1) == 3


def test_bombs_are_decoded_few_rows_at_a_time(tmp_path: Path) -> None:
    """20,000 rows of one text of 1 MB: 20 GB decoded. Only the first rows are asked for."""
    path = write(tmp_path, pa.table({"text": pa.array(["x" * (1 << 20)] * 400)}), compression="zstd")
    with path.open("rb") as file:
        first = next(footer.Footer(file).batches(0))
    assert first.nbytes <= 300 << 20
    docs, _ = next(iter(parquet.read_parquet(whole(path), path.open("rb"), Fields())))
    assert docs.nbytes < 40 << 20


class Pickled(pa.ExtensionType):
    """As harmful types are: anything that makes Arrow build it is recorded."""

    built = 0

    def __init__(self) -> None:
        super().__init__(pa.binary(), "evil.pickled_object")

    def __arrow_ext_serialize__(self) -> bytes:
        return b"canary"

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> Pickled:
        cls.built += 1
        return cls()


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("pad", ["", "a", "ab", "abc"])
def test_extension_types_are_never_built(tmp_path: Path, depth: int, pad: str) -> None:
    pa.register_extension_type(Pickled())
    try:
        evil = pa.ExtensionArray.from_storage(Pickled(), pa.array([b"x"]))
        for _ in range(depth):
            evil = pa.StructArray.from_arrays([evil], ["in"])
        path = write(tmp_path, pa.table({"text": ["t"], f"evil{pad}": evil}))
        Pickled.built = 0
        assert rows(whole(path)) == ([], [(0, "unsafe_type")])
        assert len(cut(whole(path), opened, 1, Fields())) == 1
        assert Pickled.built == 0
    finally:
        pa.unregister_extension_type("evil.pickled_object")


@pytest.mark.parametrize("data", [b"", b"PAR1", b"hello" * 20, b"PAR1" + bytes(20) + b"PAR1", b"\xff" * 30 + b"PAR1"])
def test_what_is_no_parquet_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(data)
    if not data:
        assert len(cut(whole(path), opened, 1, Fields())) == 1
        assert rows(whole(path)) == ([], [])
        return
    with pytest.raises(ReadError):
        cut(whole(path), opened, 1, Fields())
    assert rows(whole(path)) == ([], [(0, "unreadable_file")])


def test_empty_tables(tmp_path: Path) -> None:
    path = write(tmp_path, pa.table({"text": pa.array([], pa.string())}))
    assert rows(whole(path)) == ([], [])
    assert same_when_cut(path, 5) == 1


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=8)), max_size=40),
    st.integers(1, 15),
    st.integers(1, 400),
)
def test_cutting_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str | None], group: int, target: int
) -> None:
    table = pa.table({"text": pa.array(texts, pa.string()), "n": pa.array(range(len(texts)), pa.int32())})
    same_when_cut(write(tmp_path_factory.mktemp("p"), table, row_group_size=group), target)
