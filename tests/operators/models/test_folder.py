from __future__ import annotations

import shutil
from pathlib import Path

import pydantic
import pytest

from operators.document import Pinned, identity
from operators.models.folder import ModelFolder, PinnedFolder

FILES = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"weights"}


def folder(at: Path, **changes: bytes | None) -> Path:
    at.mkdir()
    for name, data in (FILES | {name.replace("__", "."): data for name, data in changes.items()}).items():
        if data is not None:
            (at / name).write_bytes(data)
    return at


def pin(path: Path) -> PinnedFolder:
    found: PinnedFolder = pydantic.TypeAdapter(ModelFolder).validate_python(str(path))
    return found


def test_identity_is_content_and_no_path(tmp_path: Path) -> None:
    one, other = pin(folder(tmp_path / "a")), pin(folder(tmp_path / "b", README__md=b"not read"))
    assert isinstance(one, Pinned)
    assert (one.path, one.sha256) == (str(tmp_path / "a"), other.sha256)
    assert identity(one) == identity(other) == {"sha256": one.sha256}
    assert one.check() == tmp_path / "a"


@pytest.mark.parametrize("name", list(FILES))
def test_every_file_that_is_read_counts(tmp_path: Path, name: str) -> None:
    one = pin(folder(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / name).write_bytes(b'{"x": 1}')
    assert pin(tmp_path / "b").sha256 != one.sha256
    (tmp_path / "a" / name).write_bytes(b'{"x": 1}')
    with pytest.raises(ValueError, match=f"{tmp_path / 'a'}: sha256 is .*, the recipe was validated with"):
        one.check()


def test_weights_in_parts(tmp_path: Path) -> None:
    parts = {f"model-0000{k}-of-00002__safetensors": bytes([k]) for k in (1, 2)}
    one = pin(folder(tmp_path / "a", model__safetensors=None, model__safetensors__index__json=b"{}", **parts))
    (tmp_path / "a" / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match="sha256 is"):
        one.check()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"config__json": None}, "has no config.json"),
        ({"tokenizer__json": None}, "has no tokenizer.json"),
        ({"model__safetensors": None}, "has no weights"),
        ({"model__safetensors": None, "pytorch_model__bin": b"\x80"}, "pickled ones are not read"),
        ({"config__json": b"[]"}, "config.json is no JSON object"),
        ({"config__json": b"{"}, "config.json: "),
        ({"config__json": b'{"auto_map": {"AutoModel": "code.Model"}}'}, "names code of its own"),
    ],
)
def test_folders_that_are_none(tmp_path: Path, changes: dict[str, bytes | None], problem: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=problem):
        pin(folder(tmp_path / "a", **changes))


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(pydantic.ValidationError, match="no such folder"):
        pin(tmp_path / "a")


def test_a_pin_that_is_read_back(tmp_path: Path) -> None:
    one = pin(folder(tmp_path / "a"))
    adapter: pydantic.TypeAdapter[PinnedFolder] = pydantic.TypeAdapter(ModelFolder)
    assert adapter.validate_json(adapter.dump_json(one)) == one
    assert adapter.validate_python(one) is one or adapter.validate_python(one) == one
