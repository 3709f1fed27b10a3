"""The log: one winner per number, found again without trusting the hint."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import commit
from cluster.storage import open_store


def test_entries_follow_each_other(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    assert commit.head(store) is None
    first = commit.append(store, None, "build", {"a": "0" * 64})
    second = commit.append(store, first, "build", {"b": "1" * 64})
    assert (second.number, second.parent) == (2, 1)
    assert commit.head(store) == second


def test_the_second_to_take_a_number_loses(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    first = commit.append(store, None, "build", {"a": "0" * 64})
    with pytest.raises(commit.CommitLost, match="entry 1"):
        commit.append(store, None, "build", {"b": "1" * 64})
    assert commit.head(store) == first


@pytest.mark.parametrize("hint", [None, b"1"])
def test_the_head_is_found_with_a_stale_or_missing_hint(tmp_path: Path, hint: bytes | None) -> None:
    store = open_store(str(tmp_path))
    entry = None
    for name in "abc":
        entry = commit.append(store, entry, "build", {name: "0" * 64})
    store.delete([commit.LATEST])
    if hint is not None:
        store.write(commit.LATEST, hint)
    assert commit.head(store) == entry
