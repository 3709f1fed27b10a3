"""The inputs of a build: what the recipe's paths name now, and whether the workflow can take it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from cluster.inputs import InputObject, list_inputs
from cluster.storage import is_unicode
from operators.document import SCHEMA
from operators.read.rows import INTERNAL
from operators.read.span import ReadError, format_of
from workflows.map_stage import input_columns
from workflows.recipe import Recipe, RecipeError
from workflows.stage import Job, Stage


def snapshot(recipe: Recipe) -> tuple[tuple[dict[str, Any], ...], tuple[str, ...]]:
    """The inputs as they are now, each file once, and the files that were passed over for their kind."""
    found: dict[str, dict[str, Any]] = {}
    ignored: list[str] = []
    places: dict[tuple[str | None, str], str] = {}
    own = False
    for number, given in enumerate(recipe.inputs):
        try:
            listed: list[InputObject] = list_inputs(given.path)
        except OSError as error:
            raise RecipeError(f"inputs.{number}: {error}") from error
        for item in listed:
            if _inside(item.url, recipe.output):
                own = True  # our own files, where the output lies in a folder of inputs
                continue
            if item.url in found:
                if found[item.url]["source"] != given.source:
                    raise RecipeError(f"inputs.{number}: {item.url} is among the inputs already, with another source")
                continue
            if not is_unicode(item.rel):
                raise RecipeError(f"inputs.{number}: {item.url!r}: its name is not UTF-8; rename it")
            kind = format_of(item.rel)
            if kind is None:
                if len(listed) == 1:
                    raise RecipeError(f"inputs.{number}: {item.url} is of no kind that can be read")
                ignored.append(item.url)
                continue
            other = places.setdefault((given.source, item.rel), item.url)
            if other != item.url:
                raise RecipeError(
                    f"inputs.{number}: {item.url} and {other} would give their documents the same ids: "
                    "name the `source` of one input, or take their common folder as one input"
                )
            carried = {"source": given.source, "priority": given.priority, "weight": given.weight}
            found[item.url] = dataclasses.asdict(item) | carried | {"format": kind}
    if not found and own:
        raise RecipeError(f"inputs: all that is there lies in the output {recipe.output}")
    if not found:
        raise RecipeError(f"inputs: none of {len(ignored)} files is of a kind that can be read")
    return tuple(sorted(found.values(), key=lambda item: (item["rel"], item["url"]))), tuple(ignored)


def _inside(url: str, output: str) -> bool:
    if url.startswith("s3://") or output.startswith("s3://"):
        return url.startswith(f"{output.rstrip('/')}/")
    return Path(url).resolve().is_relative_to(Path(output).resolve())


def check_columns(stage: Stage, job: Job) -> None:
    """Every column an operator needs must come from the schema, an operator before it, or the input itself."""
    pages = next((item for item in job.inputs if item["format"] in ("warc", "html")), None)
    needed = {column for one in stage.chain() for step in one.steps for column in step.operator.needs}
    if pages is not None and "payload" not in needed:
        raise RecipeError(f"inputs: {pages['url']} holds pages, and no operator extracts their text (use extract)")
    known = {*SCHEMA.names, "chars"}
    from_input: set[str] | None = None
    for one in stage.chain():
        for name, operator in one.steps:
            missing = sorted(set(operator.needs) - known)
            if missing and from_input is None:
                try:
                    from_input = input_columns(job)
                except ReadError as error:
                    raise RecipeError(f"inputs: {error}") from error
            if from_input is not None and (unknown := [c for c in missing if c not in from_input]):
                have = ", ".join(sorted(known | from_input))
                raise RecipeError(f"params.{name}: no column {unknown[0]!r}; there are: {have}")
            known |= set(operator.adds)
            _check_added(name, operator.adds, job)


def _check_added(name: str, adds: tuple[str, ...], job: Job) -> None:
    """Raises RecipeError where an operator would write over a column of the user's. Those that every corpus may get
    are passed through under another name (operators/read/rows.py)."""
    added = [column for column in adds if column not in INTERNAL]
    try:
        taken = [column for column in added if column in input_columns(job)] if added else []
    except ReadError as error:
        raise RecipeError(f"inputs: {error}") from error
    if taken:
        raise RecipeError(
            f"params.{name}: the input has a column {taken[0]!r} already: leave {name} out, or rename one"
        )
