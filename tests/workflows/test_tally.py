"""What records add up to, whatever their order, and that labels stay few whatever reasons operators make up."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cluster.metrics import FIGURES
from workflows.tally import MOST_REASONS, OTHER, StageTally, add_bounded

COUNTS = st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 10**6), max_size=40)


COST = {
    "seconds": 2.0,
    "cpu_seconds": 1.0,
    "gpu_seconds": 0.0,
    "read_bytes": 0,
    "written_bytes": 0,
    "shuffled_bytes": 0,
}


def record(rows: int, dropped: dict[str, int], **more: Any) -> dict[str, Any]:
    """Of a unit: `rows` through the operator `c4`."""
    operator = {"name": "c4", "rows_in": rows, "created": 0, "seconds": 0.5, "counted": {"lines": 2}}
    operator["dropped"] = {f"c4/{reason}": n for reason, n in dropped.items()}
    gone = sum(dropped.values())
    return (
        COST
        | {
            "rows_in": rows,
            "kept": rows - gone,
            "quarantine_reasons": {"truncated": 1},
            "operators": [operator],
            "seconds": 1.0,
            "cpu_seconds": 0.75,
        }
        | more
    )


def test_a_stage_is_the_sum_of_its_records() -> None:
    tally = StageTally.of(["c4"])
    tally.begin("rows", 3)
    tally.unit("rows", record(10, {"lorem_ipsum": 3}, read_bytes=100, written_bytes=10))
    tally.unit("rows", record(5, {"lorem_ipsum": 1, "short": 1}, read_bytes=50, written_bytes=5))
    assert tally.told("clean") == {
        "name": "clean",
        "rows_in": 15,
        "kept": 10,
        "dropped": {"c4/lorem_ipsum": 4, "c4/short": 1},
        "quarantined": 2,
        "tokens": 0,
        "operators": [{"name": "c4", "rows_in": 15, "kept": 10, "dropped": {"lorem_ipsum": 4, "short": 1}}],
    }
    values = {(name, tags): number for name, tags, number in tally.values("clean")}
    assert values["pass_units", ("clean", "rows")] == 3
    assert values["pass_units_done", ("clean", "rows")] == 2
    assert values["pass_seconds", ("clean", "rows")] == 2.0
    assert values["pass_cpu_seconds", ("clean", "rows")] == 1.5
    assert values["pass_read_bytes", ("clean", "rows")] == 150
    assert values["pass_written_bytes", ("clean", "rows")] == 15
    assert values["stage_rows_quarantined", ("clean", "truncated")] == 2
    assert values["operator_rows_dropped", ("clean", "c4", "lorem_ipsum")] == 4
    assert values["operator_rows_kept", ("clean", "c4")] == 10
    assert values["operator_seconds", ("clean", "c4")] == 1.0
    assert values["operator_counted", ("clean", "c4", "lines")] == 4
    assert all(len(FIGURES[name].tags) == len(tags) for name, tags in values)


def test_passes_of_a_global_operator_are_its_time_and_others_are_nobody_s() -> None:
    tally = StageTally.of(["minhash_dedup"])
    for name in ("minhash_dedup/bands-from-documents", "minhash_dedup/route", "index", "index/files"):
        tally.begin(name, 1)
        tally.unit(name, COST | {"bytes": 5})
    assert tally.operators["minhash_dedup"].seconds == 4.0
    assert list(tally.operators) == ["minhash_dedup"]
    assert tally.told("dedup")["rows_in"] == 0


def test_shards_bring_tokens_and_a_finished_stage_its_manifest() -> None:
    tally = StageTally.of([])
    tally.begin("shards", 1)
    tally.unit("shards", COST | {"tokens": 300, "kept_documents": 4})
    assert tally.told("tokens")["tokens"] == 300
    cached = StageTally.of(["c4"])
    cached.rows(record(10, {"short": 4}) | {"tokens": None})
    assert cached.told("clean")["kept"] == 6


@given(st.lists(COUNTS, max_size=8))
def test_reasons_stay_few_and_none_is_lost(parts: list[dict[str, int]]) -> None:
    total: Counter[str] = Counter()
    for part in parts:
        add_bounded(total, part)
    assert total.total() == sum(sum(part.values()) for part in parts)
    assert len(total.keys() - {OTHER}) <= MOST_REASONS
