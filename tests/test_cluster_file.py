"""`ray_cluster.yaml` is what Ray accepts, keeps its ports closed, and installs the versions of the lock."""

from __future__ import annotations

import copy
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
from ray.autoscaler._private.util import prepare_config, validate_config
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent


@pytest.fixture
def cluster() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe", pure=True).load((ROOT / "ray_cluster.yaml").read_text("utf-8"))
    return loaded


def test_ray_accepts_the_file(cluster: dict[str, Any]) -> None:
    validate_config(prepare_config(copy.deepcopy(cluster)))
    schema = Path(ray.__path__[0], "autoscaler/ray-schema.json")
    jsonschema.validate(cluster, json.loads(schema.read_text("utf-8")))


def test_ray_would_refuse_a_misspelt_key(cluster: dict[str, Any]) -> None:
    cluster["available_node_types"]["head"]["resuorces"] = {}
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(cluster))


def test_every_node_asks_for_the_token_and_the_dashboard_stays_on_loopback(cluster: dict[str, Any]) -> None:
    starts = [c for c in cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"] if "ray start" in c]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]


def test_the_images_have_the_ray_of_the_lock(cluster: dict[str, Any]) -> None:
    assert f"ray:{importlib.metadata.version('ray')}-" in cluster["docker"]["image"]
