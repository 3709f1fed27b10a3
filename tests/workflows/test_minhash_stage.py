"""MinHash deduplication through the engine: the same verdicts however documents lie. `make soak` kills a worker in
every pass of all operators."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from operators.dedup.minhash import MinHashDedup
from tests.operators.dedup.rows import Repartitioned, documents, sample_texts
from tests.soak.kills import run_stage


def units(count: int = 60) -> list[pa.Table]:
    """Real documents with copies and near copies, in three files."""
    texts = sample_texts("en", count)
    rows = [{"id": f"d{k:03}", "text": text, "priority": 0} for k, text in enumerate(texts)]
    rows += [{"id": f"c{k:03}", "text": text, "priority": k % 2} for k, text in enumerate(texts[::3])]
    rows += [{"id": f"n{k:03}", "text": text[: -len(text) // 50], "priority": 0} for k, text in enumerate(texts[::4])]
    return [documents(rows[k::3]) for k in range(3)]


@pytest.mark.usefixtures("ray_session")
def test_order_cut_and_partitions_do_not_matter(tmp_path: Path) -> None:
    """Other files, other order, other partitions: the same documents go, for the same reasons."""
    found = []
    whole = pa.concat_tables(units())
    for number, (parts, partitions) in enumerate([(1, [1]), (4, [3, 2, 4])]):
        cut = [whole.take(pa.array(range(k, whole.num_rows, parts))) for k in reversed(range(parts))]
        manifest = run_stage(tmp_path / str(number), cut, [Repartitioned(MinHashDedup(), partitions)])
        found.append((manifest["dropped"], manifest["kept"], manifest["characters"]))
    assert found[0] == found[1]
    assert found[0][0]
