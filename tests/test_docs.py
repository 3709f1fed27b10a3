"""The documentation's examples run, and it names every command there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from typer.main import get_command

from workflows.cli import app

ROOT = Path(__file__).parent.parent


def blocks(page: str) -> dict[str, str]:
    """The code blocks of a page that say which file they are."""
    text = (ROOT / page).read_text("utf-8")
    return dict(re.findall(r"```\w+ file=(\S+)\n(.*?)```", text, re.S))


def test_the_worked_examples_files_are_named_where_they_are_shown_and_lie_side_by_side() -> None:
    page = (ROOT / "docs/adding-an-operator.md").read_text("utf-8")
    titles = re.findall(r"^## \d\. .*: `(\S+)`$", page, re.M)
    assert titles == list(blocks("docs/adding-an-operator.md"))
    assert not [name for name in titles if "/" in name]


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, code in blocks("docs/adding-an-operator.md").items():
        (tmp_path / name).write_text(code, "utf-8")
    lines = [{"id": "loud", "text": "BUY NOW"}, {"id": "quiet", "text": "A quiet text"}]
    (tmp_path / "documents.jsonl").write_bytes(b"\n".join(map(orjson.dumps, lines)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_the_worked_examples_own_test_passes(example: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shouting.py"]
    done = subprocess.run(command, cwd=example, capture_output=True, text=True, check=False)
    assert "5 passed" in done.stdout, done.stdout + done.stderr


def test_the_worked_example_builds_and_explains(example: Path, ray_session: None) -> None:
    from cluster.storage import open_store
    from workflows.build import build, newest_build, prepare
    from workflows.explain import why

    result = build(prepare("recipe.yaml"))
    assert result["committed"]
    assert [stage["dropped"] for stage in result["stages"]][1] == {"shouting/mostly_capitals": 1}
    store = open_store("corpus")
    answer = why(store, [newest_build(store)], "loud")
    assert (answer["operator"], answer["reason"], answer["value"]) == ("shouting", "mostly_capitals", 1.0)
    assert answer["threshold"] == 0.4


def test_readme_names_every_command() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    missing = [name for name in get_command(app).commands if f"corpusmill {name}" not in readme]  # type: ignore[attr-defined]
    assert not missing
