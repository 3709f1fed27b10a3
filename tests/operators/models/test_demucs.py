from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import pytest

from operators.document import Pinned
from operators.models.demucs import PACKAGES, Demucs


def pinned(path: Path) -> Pinned:
    return Pinned(str(path), hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else object())
    (path := tmp_path / "a.th").touch()
    for work in (Demucs(pinned(path)).check, Demucs(pinned(path)).load):
        with pytest.raises(ValueError, match=rf"extra corpusmill\[separation\], .* \(no package {package}\)"):
            work()


def test_a_file_that_is_no_checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    (path := tmp_path / "a.th").write_bytes(b"\x80\x04nothing")
    with pytest.raises(ValueError, match=r"a\.th: no checkpoint of PyTorch"):
        Demucs(pinned(path)).check()
