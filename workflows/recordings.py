"""The recordings that arguments of commands name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cluster.inputs import list_inputs
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
