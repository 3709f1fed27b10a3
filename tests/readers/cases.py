"""What the tests of all readers share: the shards, and what is in them. Nothing of the product is imported here."""

from __future__ import annotations

import json
import re
import subprocess
from itertools import groupby, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = ROOT / ".venv" / "bin" / "python"
SEQ_LEN, PLACES = 32, 64  # as in make_shards.py
WINDOWS = ("concat_chunk", "best_fit", "icp_fit")  # modes whose sequences all have SEQ_LEN tokens
NEIGHBOURS = {"icp_fit": 0.5, "best_fit": 0}  # the least share of documents that follow the one before; else all


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    subprocess.run([PRODUCT, "-m", "tests.readers.make_shards", folder], check=True, cwd=ROOT)
    return folder


@pytest.fixture(params=["uint16", "int32"])
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def case_of(made: Path, mode: str, dtype: str) -> SimpleNamespace:
    case = SimpleNamespace(**json.loads((made / f"{mode}-{dtype}" / "case.json").read_text()))
    case.folder = made / f"{mode}-{dtype}"
    case.flat = [token for sequence in case.sequences for token in sequence]
    return case


def run_snippet(name: str, path: str) -> dict[str, Any]:
    """What a snippet of the documentation leaves behind, where it finds one shard."""
    snippets = re.findall(r"```python snippet=(\w+)\n(.*?)```", (ROOT / "docs" / "shards.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {"shards": lambda corpus, kind: [path]}
    exec(dict(snippets)[name], names)
    return names


def documents_in(case: SimpleNamespace, window: list[int]) -> list[int]:
    """The documents that a window has tokens of, one after the other."""
    documents = [(token - case.first) // PLACES for token in window if token >= case.first]
    return [document for document, _ in groupby(documents)]


def assert_neighbours(case: SimpleNamespace, windows: list[list[int]]) -> None:
    """Within the windows, documents follow each other as they were given."""
    steps = [b - a for window in windows for a, b in pairwise(documents_in(case, window))]
    follow = sum(step == 1 for step in steps) / len(steps)
    assert follow == 1 if case.mode == "concat_chunk" else follow > NEIGHBOURS[case.mode]
