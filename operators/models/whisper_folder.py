"""A model of faster-whisper in a folder, as CTranslate2's converter makes it, pinned by the content of its files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

import pydantic

from operators.models.folder import PinnedFolder, folder_with

NEEDED = ("model.bin", "config.json", "tokenizer.json")  # without the last, faster-whisper would fetch one


class WhisperFolder(PinnedFolder):
    """A folder with a model of faster-whisper, pinned by its files."""

    __slots__ = ()
    patterns: ClassVar[tuple[str, ...]] = (*NEEDED, "vocabulary.*")


def _pin(value: object) -> object:
    if not isinstance(value, (str, Path)):
        return tuple(value) if isinstance(value, list) else value
    return WhisperFolder.pin(folder_with(value, NEEDED, "; it must be a model that CTranslate2's converter made"))


ModelFolder = Annotated[WhisperFolder, pydantic.BeforeValidator(_pin, json_schema_input_type=str)]
"""Field type for a model's folder given by path in a recipe: it must be complete when the recipe is read."""
