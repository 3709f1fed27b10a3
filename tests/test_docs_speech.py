"""docs/speech.md says of operators and parameters what the code says, and its recipes are good."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from tests.test_docs_operators import documented, page, written
from workflows.recipe import Params, load_recipe, recipe_schema
from workflows.speech import speech

ELSEWHERE = ("tokenizer", "pack")  # in docs/operators.md


def operators() -> dict[str, Any]:
    found: dict[str, Any] = recipe_schema("speech")["properties"]["params"]["properties"]
    return {name: schema for name, schema in found.items() if name not in ELSEWHERE}


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.+)$", page("speech.md"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def parameters() -> Iterator[tuple[str, str, str]]:
    for name, schema in operators().items():
        for parameter, described in schema["anyOf"][0]["properties"].items():
            yield name, parameter, written(described.get("default"))


def test_every_operator_has_a_section_in_the_order_of_the_workflow() -> None:
    assert [heading for heading in sections() if heading in operators()] == list(operators())


@pytest.mark.parametrize(("operator", "parameter", "default"), parameters(), ids=lambda value: str(value)[:24])
def test_every_parameter_is_there_with_its_default(operator: str, parameter: str, default: str) -> None:
    assert documented(sections()[operator].split("| reason |")[0]).get(parameter) == default


def test_no_parameter_is_there_that_is_not() -> None:
    for name, schema in operators().items():
        told = documented(sections()[name].split("| reason |")[0])
        assert set(told) == set(schema["anyOf"][0]["properties"]), name


def recipes() -> list[str]:
    found: list[str] = re.findall(r"```yaml\n(workflow: speech.*?)```", page("speech.md"), re.DOTALL)
    return found


def test_its_recipes_are_of_the_schema() -> None:
    check = Draft202012Validator(recipe_schema("speech"))
    for text in recipes():
        assert [error.message for error in check.iter_errors(YAML(typ="safe").load(text))] == []


@pytest.mark.parametrize("number", range(1, len(recipes())))  # the first names models that nobody has here
def test_its_recipes_are_good(number: int, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(recipes()[number].replace("hf:tokenizer.json", "train:bpe"))
    recipe, _ = load_recipe(tmp_path / "recipe.yaml")
    params = Params(recipe.params)
    assert speech(params).name == "tokens"
    params.check_all_used()
