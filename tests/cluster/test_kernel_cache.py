"""A compiled kernel is found again by the same code in another folder, and not by other code."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numba
import pytest

KERNEL = """
import numba

@numba.njit(cache=True)
def doubled(x):
    return {factor} * x
"""


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))


def kernel_in(folder: Path, factor: int = 2) -> Any:
    file = folder / "kernels.py"
    file.parent.mkdir(parents=True)
    file.write_text(KERNEL.format(factor=factor))
    spec = importlib.util.spec_from_file_location("kernels", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.doubled


def misses(kernel: Any) -> int:
    return sum(kernel.stats.cache_misses.values())


def test_the_same_code_in_another_folder_is_not_compiled_again(tmp_path: Path) -> None:
    first = kernel_in(tmp_path / "one" / "operators" / "text")
    assert (first(4), misses(first)) == (8, 1)
    again = kernel_in(tmp_path / "two" / "operators" / "text")
    assert (again(4), misses(again)) == (8, 0)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["operators_text"]


def test_other_code_in_the_same_place_is_compiled(tmp_path: Path) -> None:
    first = kernel_in(tmp_path / "one" / "operators")
    assert first(4) == 8
    other = kernel_in(tmp_path / "two" / "operators", factor=3)
    assert (other(4), misses(other)) == (12, 1)


def test_code_that_is_not_ours_goes_by_its_path(tmp_path: Path) -> None:
    for name in ("one", "two"):
        kernel = kernel_in(tmp_path / name / "theirs")
        assert (kernel(4), misses(kernel)) == (8, 1)
