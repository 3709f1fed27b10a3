"""A model in a folder, as Hugging Face's libraries save it, pinned by the content of the files that are read.

Only formats that cannot run anything are read: JSON and safetensors. A folder whose model is pickled, or needs Python
of its own, is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar

import orjson
import pydantic

from operators.document import Pinned

NEEDED = ("config.json", "tokenizer.json")
WEIGHTS = "model*.safetensors"
PATTERNS = (*NEEDED, WEIGHTS, "model.safetensors.index.json")
POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}  # sentence-transformers' names
MODULES = {"Transformer", "Pooling", "Normalize"}  # of sentence-transformers, that are done here too


class PinnedFolder(Pinned):
    """As Pinned, for a folder: `sha256` is that of the names and hashes of its files that match `patterns`."""

    __slots__ = ()
    patterns: ClassVar[tuple[str, ...]] = PATTERNS

    @classmethod
    def pin(cls, folder: Path) -> PinnedFolder:
        """The folder as it is now."""
        return cls(str(folder.resolve()), _hash(folder, cls.patterns))

    def read(self) -> bytes:
        raise TypeError("a folder has no bytes: `check` it and read its files")

    @property
    def folder(self) -> Path:
        return Path(self.path)

    def check(self) -> Path:
        """The folder. Raises ValueError where the files have changed since they were pinned."""
        if (found := _hash(self.folder, self.patterns)) != self.sha256:
            raise ValueError(f"{self.path}: sha256 is {found}, the recipe was validated with {self.sha256}")
        return self.folder


def read_json(path: Path) -> Any:
    """Raises ValueError for what is no JSON."""
    try:
        return orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None


def configuration(folder: Path) -> dict[str, Any]:
    """What config.json says. Raises ValueError for what is no JSON object."""
    found = read_json(folder / "config.json")
    if not isinstance(found, dict):
        raise ValueError(f"{folder}: config.json is no JSON object")
    return found


def check_sentence_transformers(folder: Path, pooling: str) -> None:
    """Raises ValueError where a folder made for sentence-transformers asks for another pooling or further layers."""
    file = folder / "1_Pooling" / "config.json"
    said = read_json(file) if file.is_file() else None
    if isinstance(said, dict):
        modes = [name for name, on in said.items() if name.startswith("pooling_mode_") and on]
        modes = [POOLINGS.get(name, name) for name in modes] or [str(said.get("pooling_mode", pooling))]
        if modes != [pooling]:
            raise ValueError(f"pooling: {pooling!r}, but {file} says {' and '.join(modes)}")
    file = folder / "modules.json"
    modules = read_json(file) if file.is_file() else []
    types = [str(module.get("type")) for module in modules if isinstance(module, dict)]
    if others := sorted({kind.rpartition(".")[2] for kind in types} - MODULES):
        raise ValueError(f"path: {file} wants {' and '.join(others)}, which is not done here")


def _hash(folder: Path, patterns: tuple[str, ...]) -> str:
    total = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        with path.open("rb") as file:
            total.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def folder_with(value: str | Path, names: Iterable[str], told: str = "") -> Path:
    """The folder, which has files of those names. Raises ValueError, with what is `told` of one that lacks some."""
    folder = Path(value)
    if not folder.is_dir():
        raise ValueError(f"no such folder: {value}")
    for name in names:
        if not (folder / name).is_file():
            raise ValueError(f"{value}: has no {name}{told}")
    return folder


def _pin(value: object) -> object:
    if not isinstance(value, (str, Path)):
        return tuple(value) if isinstance(value, list) else value
    folder = folder_with(value, NEEDED)
    if not any(folder.glob(WEIGHTS)):
        raise ValueError(f"{value}: has no weights as {WEIGHTS}; pickled ones are not read")
    if "auto_map" in configuration(folder):
        raise ValueError(f"{value}: config.json names code of its own (auto_map), which is not run")
    return PinnedFolder.pin(folder)


ModelFolder = Annotated[PinnedFolder, pydantic.BeforeValidator(_pin, json_schema_input_type=str)]
"""Field type for a model's folder given by path in a recipe: it must be complete when the recipe is read."""
