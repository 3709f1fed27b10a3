"""The text workflow with every operator on, also those that a recipe has to name."""

from __future__ import annotations

import tempfile
from typing import Any

from workflows.recipe import Params, load_workflow, recipe_schema
from workflows.stage import TokenStage


def text_workflow(**params: Any) -> TokenStage:
    """Its last stage; `params` are what a recipe would say of operators beyond that they are on."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as items:  # read when the operator is made, and kept
        items.write('{"question": "eight words are enough for an item here"}')
        items.flush()
        needed = {"decontaminate": {"sets": {"exam": items.name}}}
        names = recipe_schema("text")["properties"]["params"]["properties"]
        last = load_workflow("text")(Params(dict.fromkeys(names, "on") | needed | params))
    assert isinstance(last, TokenStage)
    return last
