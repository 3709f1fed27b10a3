"""Answers of model servers in a store: there for whoever comes next, and no more calls than a budget has."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.storage import open_store
from operators.models.answers import OverBudget, answers
from workflows.answers import BLOCK, StoredAnswers, keep_answers
from workflows.gc import gc

KEY = "ab" * 32


def stored(folder: Path, stage: str = "stages/one-1") -> StoredAnswers:
    return StoredAnswers(open_store(str(folder)), stage)


def calls(budget: StoredAnswers, most: int, tries: int) -> int:
    """How many of so many tries the budget lets pass."""
    passed = 0
    for _ in range(tries):
        try:
            budget.claim(most)
        except OverBudget:
            break
        passed += 1
    return passed


def test_an_answer_is_there_for_other_workers_and_stages(tmp_path: Path) -> None:
    assert stored(tmp_path).get(KEY) is None
    stored(tmp_path).put(KEY, b"said")
    assert stored(tmp_path, "stages/other-2").get(KEY) == b"said"


@pytest.mark.parametrize("most", [0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 5])
def test_workers_share_a_budget_and_do_not_exceed_it(tmp_path: Path, most: int) -> None:
    workers = [stored(tmp_path) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        passed = list(pool.map(lambda number: calls(workers[number % 4], most, 2 * BLOCK), range(8)))
    assert sum(passed) == most
    with pytest.raises(OverBudget, match=f"max_calls: this stage has made the {most} calls"):
        stored(tmp_path).claim(most)


def test_a_larger_budget_goes_on_where_the_smaller_one_ended(tmp_path: Path) -> None:
    assert calls(stored(tmp_path), BLOCK, 100) == BLOCK
    assert calls(stored(tmp_path), 3 * BLOCK, 100) == 2 * BLOCK
    assert calls(stored(tmp_path, "stages/other-2"), BLOCK, 100) == BLOCK


def test_what_a_worker_had_left_lasts_to_its_next_unit(tmp_path: Path) -> None:
    for _ in range(BLOCK):
        keep_answers(open_store(str(tmp_path)), "stages/one-1")
        answers().claim(BLOCK)
    with pytest.raises(OverBudget):
        answers().claim(BLOCK)


def test_gc_forgets_answers_only_if_told_to(tmp_path: Path) -> None:
    kept = stored(tmp_path)
    kept.put(KEY, b"said")
    os.utime(next((tmp_path / "answers").rglob(KEY)), (0, 0))
    (tmp_path / "stages" / "one-0123456789abcdef").mkdir(parents=True)
    (tmp_path / "stages" / "one-0123456789abcdef" / "used").write_text("")
    gc(open_store(str(tmp_path)), 3600)
    assert kept.get(KEY) == b"said"
    told = gc(open_store(str(tmp_path)), 3600, answers=True)
    assert told["deleted"] == [{"what": "answers of model servers", "objects": 1, "bytes": 4}]
    assert kept.get(KEY) is None
