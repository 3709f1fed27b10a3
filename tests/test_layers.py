"""The layers: workflows stand on operators and cluster; those two know nothing of each other or of workflows."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {"operators": {"cluster", "workflows", "ray"}, "cluster": {"operators", "workflows"}}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_layer_imports_nothing_above_or_beside_it(layer: str) -> None:
    files = list((ROOT / layer).rglob("*.py"))
    assert files
    for path in files:
        assert not imports(path) & FORBIDDEN[layer], path


@pytest.mark.parametrize("layer", ["operators", "cluster", "workflows"])
def test_no_pickle_and_no_pandas(layer: str) -> None:
    for path in (ROOT / layer).rglob("*.py"):
        assert not imports(path) & {"pickle", "pandas", "joblib", "dill"}, path
