"""The inputs of a build: what the recipe's paths name now, and whether the workflow can take it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster.inputs import InputObject, list_inputs
from cluster.storage import is_unicode
from operators.dedup.exact import ExactDedup
from operators.dedup.semantic import SemanticDedup
from operators.dedup.unique_id import UniqueId
from operators.document import SCHEMA, Splitter
from operators.ordering.vectors import holds_vectors
from operators.read.rows import INTERNAL
from operators.read.span import ReadError, format_of, is_audio
from workflows.map_stage import input_columns
from workflows.recipe import Recipe, RecipeError
from workflows.stage import Job, Stage


def snapshot(recipe: Recipe, recordings: bool = False) -> tuple[tuple[dict[str, Any], ...], tuple[str, ...]]:
    """The inputs as they are now, each file once, and the files that were passed over for their kind: all but
    `recordings`, or those."""
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
            if kind is None or is_audio(kind) != recordings:
                if len(listed) == 1:
                    told = f"is of no kind that can be read by workflow {recipe.workflow}"
                    raise RecipeError(f"inputs.{number}: {item.url} {told}")
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
        raise RecipeError(f"inputs: none of {len(ignored)} files is of a kind that can be read by {recipe.workflow}")
    return tuple(sorted(found.values(), key=lambda item: (item["rel"], item["url"]))), tuple(ignored)


def _inside(url: str, output: str) -> bool:
    if url.startswith("s3://") or output.startswith("s3://"):
        return url.startswith(f"{output.rstrip('/')}/")
    return Path(url).resolve().is_relative_to(Path(output).resolve())


def _reads_text(operator: Any) -> bool:
    """Whether it cannot do without: those that compare ids or embeddings use texts only to choose between equals."""
    indifferent = isinstance(operator, UniqueId) or (
        isinstance(operator, SemanticDedup) and operator.column is not None
    )
    return "text" in operator.needs and not indifferent


def check_columns(stage: Stage, job: Job) -> None:
    """Every column an operator needs must come from the schema, an operator before it, or the input itself; and none
    may write over a column of the input or of another operator."""
    pages = next((item for item in job.inputs if item["format"] in ("warc", "html")), None)
    steps = [step for one in stage.chain() for step in one.steps]
    needed = {column for step in steps for column in step.operator.needs}
    if pages is not None and "payload" not in needed:
        raise RecipeError(f"inputs: {pages['url']} holds pages, and no operator extracts their text (use extract)")
    if job.recipe.fields.text is False and (reads := [step.name for step in steps if _reads_text(step.operator)]):
        raise RecipeError(f"params.{reads[0]}: it reads texts, and with fields.text: false there are none")
    known = {*SCHEMA.names, "chars"}
    from_input: dict[str, pa.DataType] | None = None
    makers: dict[str, str] = {}
    for name, operator in steps:
        missing = sorted(set(operator.needs) - known)
        own = [column for column in operator.adds if column not in INTERNAL]  # those pass through under another name
        vectors = [name for name in getattr(operator, "embeddings", ()) if name not in makers]
        if (missing or own or vectors) and from_input is None:
            try:
                from_input = input_columns(job)
            except ReadError as error:
                raise RecipeError(f"inputs: {error}") from error
        if unknown := [column for column in missing if column not in (from_input or ())]:
            have = ", ".join(sorted(known | (from_input or {}).keys()))
            raise RecipeError(f"params.{name}: no column {unknown[0]!r}; there are: {have}")
        for column, kind in ((c, (from_input or {}).get(c, pa.null())) for c in vectors):
            if not (holds_vectors(kind) or pa.types.is_null(kind)):
                raise RecipeError(
                    f"params.{name}: column {column!r} is of type {kind}: embeddings are lists of numbers"
                )
        for column in own:
            if column in (from_input or ()):
                raise RecipeError(f"params.{name}: the input has a column {column!r} already: rename one")
            if column in makers:
                raise RecipeError(f"params.{name}: {makers[column]} adds a column {column!r} already: rename one")
            makers[column] = name
        known |= set(operator.adds)
    splits = [step.name for step in steps if isinstance(step.operator, Splitter)]
    by_url = [step.name for step in steps if isinstance(step.operator, ExactDedup) and step.operator.field == "url"]
    if splits and by_url:
        told = f"documents that {splits[0]} cuts share a URL, and all parts but one would go: use one of the two"
        raise RecipeError(f"params.{by_url[0]}: {told}")
