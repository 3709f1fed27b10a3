"""docs/operators.md, shards.md and input.md say of parameters, reasons and formats what the code says."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from cluster import commit
from cluster.shards import write_shard
from cluster.storage import open_store
from operators.text.statistics import STATISTICS
from tests.cluster.shard_cases import table, tokenizer
from tests.every_operator import text_workflow
from workflows.corpus import save_build
from workflows.recipe import Format, recipe_schema

ROOT = Path(__file__).parent.parent
QUARANTINE_REASON = re.compile(
    r"""(?: Unfit\( | reason= | if\ cut\ else | _Bad\([^"]*,\ | rows\.bad\([^"]*,\ | why\[.*\]\ =\ | ,\ r,\ 1,\ )
        \s*"([a-z][a-z0-9_]+)" """,
    re.VERBOSE,
)
DROP_REASON = re.compile(r'(?:below|above|Rule)\(\s*"(\w+)"|\breason="(\w+)"|reason\[.*\] = "(\w+)"')


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text("utf-8")


@functools.cache
def operators_in_order() -> dict[str, Any]:
    """The operators of the workflow, by name, as it makes them where the recipe only says that they are on."""
    last = text_workflow()
    assert last.pack is not None
    steps = [*(step for stage in last.chain() for step in stage.steps), last.pack]
    return {step.name: step.operator for step in steps}


def sections() -> dict[str, str]:
    """The text of each section of docs/operators.md that is headed by an operator's name."""
    parts = re.split(r"^##? (.+)$", page("operators.md"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def documented(text: str) -> dict[str, str]:
    """First and second cells of the rows of tables whose first cell is one name in code style."""
    return dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", text, re.MULTILINE))


def parameters() -> Iterator[tuple[str, str, str]]:
    """(operator, parameter, its default as the page writes it)."""
    operators = operators_in_order()
    for name, schema in recipe_schema("text")["properties"]["params"]["properties"].items():
        for parameter, described in schema["anyOf"][0].get("properties", {}).items():
            if parameter in schema["anyOf"][0].get("required", ()):
                yield name, parameter, "required"
                continue
            default = described["default"] if "default" in described else getattr(operators[name], parameter)
            yield name, parameter, written(default)


def written(value: object) -> str:
    if value is None:
        return "unset"
    if isinstance(value, (list, tuple)):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


def test_every_operator_has_a_section_in_the_order_of_the_workflow() -> None:
    operators = operators_in_order()
    assert set(recipe_schema("text")["properties"]["params"]["properties"]) <= set(operators)
    assert [heading for heading in sections() if heading in operators] == list(operators)


@pytest.mark.parametrize(("operator", "parameter", "default"), parameters(), ids=lambda value: str(value)[:24])
def test_every_parameter_is_there_with_its_default(operator: str, parameter: str, default: str) -> None:
    kind = operators_in_order()[operator].name  # other uses of an operator only say where they differ
    own, usual = (documented(sections()[name].split("| reason |")[0]) for name in (operator, kind))
    assert (usual | own).get(parameter) == default


@pytest.mark.parametrize("name", operators_in_order())
def test_every_drop_reason_is_in_its_section(name: str) -> None:
    section = sections()[name] + sections()[operators_in_order()[name].name]
    source = Path(inspect.getfile(type(operators_in_order()[name]))).read_text("utf-8")
    reasons = {reason for found in DROP_REASON.findall(source) for reason in found if reason}
    reasons |= {parameter.removeprefix("max_") for parameter in documented(section) if parameter.endswith("gram")}
    assert not [reason for reason in reasons if f"`{reason}`" not in section]


@pytest.mark.parametrize("name", operators_in_order())
def test_every_mode_is_named_in_its_section(name: str) -> None:
    schema = recipe_schema("text")["properties"]["params"]["properties"].get(name, {"anyOf": [{}]})["anyOf"][0]
    modes = schema.get("properties", {}).get("mode", {}).get("enum", [])
    header = re.search(r"^\| \| (\w.*) \|$", sections()[name], re.MULTILINE)
    columns = [cell.strip() for cell in header[1].split("|")] if header and modes else []
    rows = [row for row in documented(sections()[name]) if row in modes]
    assert modes in (columns, rows)


def test_every_quarantine_reason_is_there_and_no_other() -> None:
    sources = [file.read_text("utf-8") for file in sorted((ROOT / "operators" / "read").glob("*.py"))]
    sources = [re.sub(r"\s*\n\s*", " ", source) for source in sources]
    reasons = {word for source in sources for word in QUARANTINE_REASON.findall(source)}
    table_of_reasons = page("input.md").split("## What becomes of bad data")[1].split("## ")[0]
    assert set(documented(table_of_reasons)) == reasons


def test_every_format_of_shards_is_there_and_no_other() -> None:
    table_of_formats = page("shards.md").split("## Formats")[1].split("## ")[0]
    assert set(documented(table_of_formats)) == set(get_args(Format))


def test_the_snippets_that_need_no_torch_find_and_read_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a corpus of one shard, with a log and a manifest as a build leaves them."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    docs = table([[k + 2] * k for k in range(1, 9)])
    store = open_store("corpora/web")
    folder = "builds/b1/shards"
    records = write_shard(Path("corpora/web", folder), "train-00000-00", docs, ["megatron"], tokenizer())
    shards = [{**dataclasses.asdict(record), "split": "train", "path": f"{folder}/{record.path}"} for record in records]
    _, digest = save_build(store, {"build_id": "b1", "stages": [], "shards": shards})
    commit.append(store, None, "build", {"b1": digest})
    snippets = dict(re.findall(r"```python snippet=(\w+)\n(.*?)```", page("shards.md"), re.DOTALL))
    names: dict[str, Any] = {}
    for snippet in ("manifest", "numpy", "datasets"):
        exec(snippets[snippet], names)
    assert np.array_equal(names["tokens"], docs["input_ids"].combine_chunks().flatten().to_numpy())
    assert names["text"]["id"][:] == docs["id"].to_pylist()


def test_every_statistic_is_there_with_its_meaning() -> None:
    listed = {name: meaning for name, meaning in documented(sections()["text_rules"]).items() if meaning}
    assert {name: listed.get(name) for name, _ in STATISTICS} == dict(STATISTICS)
