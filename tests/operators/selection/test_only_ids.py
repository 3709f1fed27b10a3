"""OnlyIds keeps what its lists name."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from operators.apply import Step, apply
from operators.selection.only_ids import OnlyIds
from workflows.recipe import Params

DOCS = pa.table({"id": ["a", "b", "c", "d"], "text": ["", "x", None, "y"]})


def test_it_keeps_what_text_and_parquet_lists_name(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("b\nzzz\n", "utf-8")
    pq.write_table(pa.table({"id": ["d"]}), tmp_path / "ids.parquet")
    only = OnlyIds(files=(str(tmp_path / "ids.txt"), str(tmp_path / "ids.parquet")))  # type: ignore[arg-type]
    found = apply([Step("only_ids", only)], DOCS)
    assert found.kept["id"].to_pylist() == ["b", "d"]
    assert set(found.dropped["drop_reason"].to_pylist()) == {"only_ids/not_listed"}


def test_a_list_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_bytes(b"\n\n")
    with pytest.raises(ValueError, match=r"ids.txt: no ids in it"):
        Params({"only_ids": {"files": [str(tmp_path / "ids.txt")]}}).use(OnlyIds)
    with pytest.raises(ValueError, match=r"no such file"):
        Params({"only_ids": {"files": [str(tmp_path / "none.txt")]}}).use(OnlyIds)
