"""`ray_cluster.yaml` is what Ray accepts, keeps its ports closed, and installs the versions of the lock."""

from __future__ import annotations

import copy
import importlib.metadata
import ipaddress
import json
import os
import subprocess
import sys
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


def test_the_token_that_ray_start_needs_gets_to_every_node(cluster: dict[str, Any]) -> None:
    """The launcher copies what is mounted to the head, and from there to the workers."""
    assert cluster["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    assert "auth_token" not in " ".join(cluster["rsync_exclude"])


def test_ray_start_does_not_run_without_a_token(cluster: dict[str, Any], tmp_path: Path) -> None:
    """The head's own command as far as it says anything about this: no cluster starts that nobody has to ask."""
    command = cluster["head_start_ray_commands"][-1].split("ray start")[0].split(";")[-1]
    settings = dict(setting.split("=") for setting in command.split())
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    ran = subprocess.run(
        [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--port=0", f"--temp-dir={tmp_path}"],
        env=environment | settings | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,  # only if it does start; Ray's reaper ends what it left then
    )
    assert ran.returncode != 0
    assert "no authentication token was found" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_only_ssh_comes_in_and_from_ones_own_network(cluster: dict[str, Any]) -> None:
    for rule in cluster["provider"]["security_group"]["IpPermissions"]:
        assert (rule["FromPort"], rule["ToPort"]) == (22, 22)
        assert all(ipaddress.ip_network(source["CidrIp"]).is_private for source in rule["IpRanges"])


def test_the_images_have_the_ray_of_the_lock(cluster: dict[str, Any]) -> None:
    assert f"ray:{importlib.metadata.version('ray')}-" in cluster["docker"]["image"]
