"""The text workflow with every operator on, also those that a recipe has to name."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from operators.models.fasttext import LID_176
from operators.text.language_model_estimate import train
from workflows.recipe import Params, load_workflow, recipe_schema
from workflows.stage import TokenStage

FOLDER = tempfile.TemporaryDirectory()  # there until the process ends
ITEMS = Path(FOLDER.name, "items.jsonl")
ITEMS.write_text('{"question": "eight words are enough for an item here"}', "utf-8")
IDS = Path(FOLDER.name, "ids.txt")
MODEL = train(pa.array(["a model of one line"], pa.large_string()), Path(FOLDER.name, "model.arpa"))
IDS.write_text("an id\n", "utf-8")


def text_workflow(**params: Any) -> TokenStage:
    """Its last stage; `params` are what a recipe would say of operators beyond that they are on."""
    needed = {
        "decontaminate": {"sets": {"exam": str(ITEMS)}},
        "embed": {"model": "minilm"},
        "only_ids": {"files": [str(IDS)]},
        "perplexity": {"models": {"*": str(MODEL)}},
        "quality": {"model": LID_176.path, "label": "en"},
        "rewrite": {"model": {"endpoint": "http://127.0.0.1:9/v1", "model": "m", "max_tokens": 2000}, "style": "wiki"},
        "preselect": {"model": LID_176.path, "label": "en"},
    }
    names = recipe_schema("text")["properties"]["params"]["properties"]
    last = load_workflow("text")(Params(dict.fromkeys(names, "on") | needed | params))
    assert isinstance(last, TokenStage)
    return last
