from __future__ import annotations

import importlib.metadata
import importlib.util
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import pydantic
import pytest

from operators.dedup.semantic import SemanticDedup
from operators.models import faiss

HUSK = ModuleSpec("faiss", None)


def there(monkeypatch: pytest.MonkeyPatch, distributions: list[str], spec: object) -> None:
    def version(name: str) -> str:
        if name not in distributions:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.15.1"

    fake = SimpleNamespace(version=version, PackageNotFoundError=importlib.metadata.PackageNotFoundError)
    monkeypatch.setattr(importlib, "metadata", fake)
    monkeypatch.setattr(importlib, "util", SimpleNamespace(find_spec=lambda name: spec))


@pytest.mark.parametrize(
    ("distributions", "spec", "message"),
    [
        ([], None, r"FAISS is not installed: install corpusmill\[cpu\] .* corpusmill\[gpu\]"),
        ([], HUSK, "FAISS is not installed"),  # a folder that an uninstall left
        (["faiss-cpu"], None, "FAISS is not installed"),
        (["faiss-cpu", "faiss-gpu"], ModuleSpec("faiss", None, origin="x"), "faiss-cpu and faiss-gpu are both"),
        (["faiss-gpu-cuvs", "faiss-gpu"], None, "pip uninstall faiss-gpu faiss-gpu-cuvs`, then install corpusmill"),
    ],
)
def test_what_is_wrong(monkeypatch: pytest.MonkeyPatch, distributions: list[str], spec: object, message: str) -> None:
    there(monkeypatch, distributions, spec)
    with pytest.raises(ValueError, match=message):
        faiss.check()
    with pytest.raises(pydantic.ValidationError, match=message):
        SemanticDedup()


@pytest.mark.parametrize("distributions", [["faiss-cpu"], ["faiss-gpu"], []])  # none: built by hand, or conda's
def test_one_is_right(monkeypatch: pytest.MonkeyPatch, distributions: list[str]) -> None:
    there(monkeypatch, distributions, ModuleSpec("faiss", None, origin="faiss/__init__.py"))
    faiss.check()


def test_the_library_is_single_threaded() -> None:
    library = faiss.library()
    assert library.omp_get_max_threads() == 1
    assert library.IndexFlatIP(4).d == 4
