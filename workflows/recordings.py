"""What commands that listen to recordings have in common: which these are, and the one file that they write."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.inputs import list_inputs
from operators.models.weights import needs
from operators.read.span import format_of, is_audio
from workflows.recipe import RecipeError


def recordings(patterns: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(name below its pattern, place) of each recording. Raises RecipeError where there is none."""
    found = False
    for pattern in patterns:
        try:
            files = list_inputs(pattern)
        except OSError as error:
            raise RecipeError(f"{pattern}: {error}") from error
        for file in files:
            kind = format_of(file.rel)
            if kind is not None and is_audio(kind):
                found = True
                yield file.rel, file.url
    if not found:
        raise RecipeError(f"{' '.join(patterns)}: no recording in there")


def check_arguments(command: str, output: Path, what: str, others: Mapping[str, bool]) -> None:
    """Raises RecipeError for an output that cannot be `what`, such as "a codebook ends in .npz", for the first of the
    other arguments, as messages tell them, that is not good, and where the extra is missing."""
    good = {
        f"--output {output}: the name of {what}": output.suffix == f".{what.rpartition('.')[2]}",
        f"--output {output}: no such folder: {output.parent}": output.parent.is_dir(),
        f"--output {output}: a folder": not output.is_dir(),
        **others,
    }
    for told, holds in good.items():
        if not holds:
            raise RecipeError(told)
    try:
        needs("av", "soxr")
    except ValueError as error:
        raise RecipeError(f"{command} {error}") from error


def published(output: Path, write: Callable[[Path], None]) -> dict[str, Any]:
    """Have the file written beside and put in place; what it is."""
    part = output.with_name(f".{output.name}.part")
    write(part)
    part.replace(output)
    data = output.read_bytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
