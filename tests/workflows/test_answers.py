"""Answers of model servers in a store: there for whoever comes next, and no more calls than a budget has."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.storage import Store, open_store
from operators.models.answers import InMemory, OverBudget, answers
from workflows.answers import StoredAnswers, keep_answers
from workflows.gc import gc
from workflows.stage import discard

KEY = "ab" * 32
STAGE = "stages/one-0123456789abcdef"


def stored(folder: Path, stage: str = STAGE) -> StoredAnswers:
    return StoredAnswers(open_store(str(folder)), stage)


def calls(budget: StoredAnswers | InMemory, most: int, tries: int, who: str = "model") -> int:
    """How many of so many tries the budget lets pass."""
    passed = 0
    for _ in range(tries):
        try:
            budget.claim(who, most)
        except OverBudget:
            break
        passed += 1
    return passed


def test_an_answer_is_there_for_other_workers_and_stages(tmp_path: Path) -> None:
    keep_answers(open_store(str(tmp_path)), STAGE)
    assert answers().get(KEY) is None
    answers().put(KEY, b"said")
    assert stored(tmp_path, "stages/other-2").get(KEY) == b"said"


@pytest.mark.parametrize("in_memory", [False, True])
def test_the_first_answer_counts_unless_it_is_damaged(in_memory: bool, tmp_path: Path) -> None:
    kept = InMemory() if in_memory else stored(tmp_path)
    assert kept.put(KEY, b"first") == b"first"
    assert kept.put(KEY, b"second") == b"first" == kept.get(KEY)
    assert kept.put(KEY, b"third", replace=True) == b"third" == kept.get(KEY)


@pytest.mark.parametrize("most", [0, 1, 15, 53])
def test_workers_share_a_budget_use_all_of_it_and_no_more(tmp_path: Path, most: int) -> None:
    workers = [stored(tmp_path) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        passed = list(pool.map(lambda number: calls(workers[number % 4], most, most + 1), range(8)))
    assert sum(passed) == most
    with pytest.raises(OverBudget, match=f"max_calls: all {most} calls"):
        stored(tmp_path).claim("model", most)


def test_a_larger_budget_goes_on_where_the_smaller_one_ended(tmp_path: Path) -> None:
    assert calls(stored(tmp_path), 10, 100) == 10
    assert calls(stored(tmp_path), 30, 100) == 20
    assert calls(stored(tmp_path), 30, 100, "another model") == 30
    assert calls(stored(tmp_path, "stages/other-2"), 10, 100) == 10


def test_a_forced_run_has_no_new_budget(tmp_path: Path) -> None:
    store: Store = open_store(str(tmp_path))
    assert calls(stored(tmp_path), 10, 7) == 7
    discard(store, STAGE)
    assert calls(stored(tmp_path), 10, 100) == 3


def test_gc_forgets_answers_only_if_told_to(tmp_path: Path) -> None:
    kept = stored(tmp_path)
    kept.put(KEY, b"said")
    os.utime(next((tmp_path / "answers").rglob(KEY)), (0, 0))
    (tmp_path / STAGE).mkdir(parents=True)
    (tmp_path / STAGE / "used").write_text("")
    gc(open_store(str(tmp_path)), 3600)
    assert kept.get(KEY) == b"said"
    told = gc(open_store(str(tmp_path)), 3600, answers=True)
    assert told["deleted"] == [{"what": "answers of model servers", "objects": 1, "bytes": 4}]
    assert kept.get(KEY) is None
