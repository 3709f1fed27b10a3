"""docs/security.md names controls and tests that exist, for every threat."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
THREATS = 24
ROWS = re.findall(r"^\| (\d+) \|(.*)\|$", (ROOT / "docs/security.md").read_text("utf-8"), re.MULTILINE)


def functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_all_threats_are_there_in_order() -> None:
    assert [int(number) for number, _ in ROWS] == list(range(1, THREATS + 1))


@pytest.mark.parametrize(("number", "row"), ROWS, ids=[number for number, _ in ROWS])
def test_controls_and_tests_of_a_threat_exist(number: str, row: str) -> None:
    _, _, controls, tests, _ = row.split("|")
    files = re.findall(r"`([^`]+)`", controls)
    assert files
    assert not [file for file in files if not (ROOT / file).is_file()]
    named = [test.split("::") for test in re.findall(r"`([^`]+::[^`]+)`", tests)]
    assert named
    assert not [(file, name) for file, name in named if name not in functions(file)]
