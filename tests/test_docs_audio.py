"""docs/speech.md and docs/captions.md say of operators what the code says, and their recipes are good."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from tests.test_docs_operators import documented, page, written
from workflows.recipe import Params, load_recipe, load_workflow, recipe_schema

ELSEWHERE = {  # in docs/operators.md, or in the other page
    "speech": ("tokenizer", "pack"),
    "captions": ("tokenizer", "pack", "standardise", "exact_dedup_audio"),
}
WORKFLOWS = tuple(ELSEWHERE)


def operators(workflow: str) -> dict[str, Any]:
    found: dict[str, Any] = recipe_schema(workflow)["properties"]["params"]["properties"]
    return {name: schema for name, schema in found.items() if name not in ELSEWHERE[workflow]}


def sections(workflow: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", page(f"{workflow}.md"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def parameters() -> Iterator[tuple[str, str, str, str]]:
    for workflow in WORKFLOWS:
        for name, schema in operators(workflow).items():
            for parameter, described in schema["anyOf"][0]["properties"].items():
                needed = parameter in schema["anyOf"][0].get("required", ())
                yield workflow, name, parameter, "required" if needed else written(described.get("default"))


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_every_operator_has_a_section_in_the_order_of_the_workflow(workflow: str) -> None:
    assert [heading for heading in sections(workflow) if heading in operators(workflow)] == list(operators(workflow))


@pytest.mark.parametrize(
    ("workflow", "operator", "parameter", "default"), parameters(), ids=lambda value: str(value)[:24]
)
def test_every_parameter_is_there_with_its_default(workflow: str, operator: str, parameter: str, default: str) -> None:
    assert documented(sections(workflow)[operator].split("| reason |")[0]).get(parameter) == default


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_no_parameter_is_there_that_is_not(workflow: str) -> None:
    for name, schema in operators(workflow).items():
        told = documented(sections(workflow)[name].split("| reason |")[0])
        assert set(told) == set(schema["anyOf"][0]["properties"]), name


def recipes(workflow: str) -> list[str]:
    found: list[str] = re.findall(rf"```yaml\n(workflow: {workflow}.*?)```", page(f"{workflow}.md"), re.DOTALL)
    return found


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_its_recipes_are_of_the_schema(workflow: str) -> None:
    check = Draft202012Validator(recipe_schema(workflow))
    assert recipes(workflow)
    for text in recipes(workflow):
        assert [error.message for error in check.iter_errors(YAML(typ="safe").load(text))] == []


@pytest.mark.parametrize(
    ("workflow", "number"),  # the first of each names files that nobody has here
    [(workflow, number) for workflow in WORKFLOWS for number in range(1, len(recipes(workflow)))],
)
def test_its_recipes_are_good(workflow: str, number: int, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(recipes(workflow)[number].replace("hf:tokenizer.json", "train:bpe"))
    recipe, _ = load_recipe(tmp_path / "recipe.yaml")
    params = Params(recipe.params)
    assert load_workflow(workflow)(params).name == "tokens"
    params.check_all_used()
