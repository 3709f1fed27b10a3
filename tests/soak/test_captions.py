"""Captions by a model server, built while workers and drivers are killed: the same shards, no answer paid for twice."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from ruamel.yaml import YAML

from benchmarks.chat_server import ChatServer, Faults, chat_server
from tests.soak.building import Built, Ground, ground, run_series
from workflows.captions_sample import CLIPS, lay_out

KILLS = [["driver"], ["worker"], ["driver", "driver"], ["worker", "driver", "worker"]]
CONCURRENCY, WORKERS = 8, 2


def lay_out_clips(folder: Path, _sample: Path) -> None:
    made = folder.with_name("made")
    lay_out(made, folder.with_name("truth"))
    shutil.move(made / CLIPS, folder)


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with chat_server("tests.workflows.captioning_model:reply", Faults(latency=0.3)) as found:
        yield found


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory, sample: Path, server: ChatServer) -> Iterator[Ground]:
    model = {"endpoint": server.url, "model": "tested", "concurrency": CONCURRENCY}

    def build_recipe(path: Path, inputs: str, output: str) -> Path:
        params = {
            "extract": {"model": {**model}},
            "compose": {"writer": {**model, "temperature": 0.7}},
            "questions": {"writer": {**model}},
            "tokenizer": {"name": "train:bpe", "vocab": 400},
        }
        body = {"workflow": "captions", "inputs": [inputs], "output": output, "params": params}
        with path.open("w") as file:
            YAML().dump(body | {"shards": {"formats": ["webdataset", "parquet"]}}, file)
        return path

    built = Built(("clip", "listen", "caption"), lay_out_clips, build_recipe)
    with ground(tmp_path_factory.mktemp("captions"), sample, built) as found:
        yield found


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("seed", "kinds"), list(enumerate(KILLS)))
def test_a_killed_build_has_the_same_shards_and_asks_only_what_was_under_way_again(
    seed: int, kinds: list[str], on: Ground, server: ChatServer, tally: Counter[Any]
) -> None:
    before = len(server.bodies())
    happened = run_series(on, "local", seed, kinds)
    asked = Counter(orjson.dumps(body, option=orjson.OPT_SORT_KEYS) for body in server.bodies()[before:])
    again = sum(asked.values()) - len(asked)
    print(seed, dict(happened), f"{len(asked)} questions, {again} asked again")  # noqa: T201  (figures for the docs)
    assert len(asked) > 100
    assert again <= CONCURRENCY * WORKERS * (happened["driver"] + happened["worker"])
    tally.update(happened)
    tally["captions"] += 1
