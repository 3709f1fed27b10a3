"""`ray_cluster.yaml` is what Ray accepts, keeps its ports closed, and installs the versions of the lock."""

from __future__ import annotations

import copy
import importlib.metadata
import ipaddress
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import ray
from ray._private.label_utils import validate_node_label_syntax
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start
from ruamel.yaml import YAML

from operators.models.weights import Group

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
    nodes = cluster["available_node_types"].values()
    images = [cluster["docker"]["image"], *(node["docker"]["worker_image"] for node in nodes if "docker" in node)]
    assert len(images) == 2
    assert all(image.startswith(f"rayproject/ray:{importlib.metadata.version('ray')}-py311-") for image in images)


def commands(cluster: dict[str, Any]) -> list[str]:
    """All that the launcher has a shell of a node run."""
    places = [cluster, *cluster["available_node_types"].values()]
    return [line for place in places for key, lines in place.items() if key.endswith("_commands") for line in lines]


def test_every_command_is_one_that_a_shell_can_read(cluster: dict[str, Any]) -> None:
    assert len(commands(cluster)) == 8
    for command in commands(cluster):
        ran = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
        assert (ran.returncode, ran.stderr) == (0, "")


def test_ray_start_knows_every_option_that_it_is_given(cluster: dict[str, Any]) -> None:
    """With the parser of `ray start` itself; nothing is started."""
    lines = [command.split("ray start ", 1)[1] for command in commands(cluster) if "ray start" in command]
    head, worker = (start.make_context("start", shlex.split(line)).params for line in lines)
    assert head["head"] is True
    assert (worker["head"], worker["address"]) == (False, "$RAY_HEAD_IP:6379")
    assert all(node["object_spilling_directory"] == "/mnt/nvme/spill" for node in (head, worker))


def test_labels_are_what_ray_takes_and_pools_are_told_apart(cluster: dict[str, Any]) -> None:
    labels = {name: node.get("labels", {}) for name, node in cluster["available_node_types"].items()}
    for given in labels.values():
        validate_node_label_syntax(given)
    assert labels == {
        "head": {},
        "cpu_worker": {"corpusmill/pool": "cpu"},
        "gpu_worker": {"corpusmill/pool": "gpu"},
    }


def test_the_head_runs_no_work(cluster: dict[str, Any]) -> None:
    assert cluster["available_node_types"][cluster["head_node_type"]]["resources"] == {"CPU": 0}


FAKES = {
    "sudo": 'exec "$@"',
    "mountpoint": "exit 1",
    "lsblk": 'printf "%b" "$DISKS"',
    "mdadm": 'echo "mdadm $*" >> "$SEEN"',
    "mkfs.ext4": 'echo "mkfs ${@: -1}" >> "$SEEN"',
    "mount": 'echo "mount $*" >> "$SEEN"',
    "mkdir": ":",
    "chmod": ":",
}


@pytest.mark.parametrize(
    ("disks", "seen"),
    [
        ("/dev/nvme0n1 Amazon Elastic Block Store\\n", []),
        (
            "/dev/nvme0n1 Amazon Elastic Block Store\\n/dev/nvme1n1 Amazon EC2 NVMe Instance Storage\\n",
            ["mkfs /dev/nvme1n1", "mount -o noatime /dev/nvme1n1 /mnt/nvme"],
        ),
        (
            "/dev/nvme1n1 Amazon EC2 NVMe Instance Storage\\n/dev/nvme2n1 Amazon EC2 NVMe Instance Storage\\n",
            [
                "mdadm --create /dev/md0 --run --level=0 --raid-devices=2 /dev/nvme1n1 /dev/nvme2n1",
                "mkfs /dev/md0",
                "mount -o noatime /dev/md0 /mnt/nvme",
            ],
        ),
    ],
    ids=["none", "one", "two"],
)
def test_the_instance_store_and_nothing_else_is_formatted(
    cluster: dict[str, Any], tmp_path: Path, disks: str, seen: list[str]
) -> None:
    """The command itself, run by a shell on a machine with these disks: the tools it calls only tell what they got."""
    for name, script in FAKES.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n", "utf-8")
        (tmp_path / name).chmod(0o755)
    log = tmp_path / "seen"
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "DISKS": disks, "SEEN": str(log)}
    (command,) = cluster["initialization_commands"]
    subprocess.run(["bash", "-c", command], env=environment, check=True, timeout=60)
    assert (log.read_text("utf-8").splitlines() if log.exists() else []) == seen


def test_what_is_spilled_to_is_mounted_in_the_container(cluster: dict[str, Any]) -> None:
    mounted = re.findall(r"-v (\S+):(\S+)", " ".join(cluster["docker"]["run_options"]))
    assert mounted == [("/mnt/nvme", "/mnt/nvme")]


def without_the_hash(cluster_file: str) -> dict[str, Any]:
    """The file with the commands for speech and captions, which it has as comments."""
    loaded: dict[str, Any] = YAML(typ="safe", pure=True).load(re.sub(r"(?m)^( *)# - ", r"\1- ", cluster_file))
    return loaded


def test_what_is_installed_is_hash_checked_but_for_the_extras_of_gpus() -> None:
    for command in commands(without_the_hash((ROOT / "ray_cluster.yaml").read_text("utf-8"))):
        for install in re.findall(r"pip install ([^&;]*)", command):
            ours = install.strip().endswith((" --no-deps --no-build-isolation .", " '.[encoder,gpu]'"))
            assert ours or "--require-hashes " in install
            assert all((ROOT / lock).is_file() for lock in re.findall(r"-r (\S+)", install))


def test_both_pools_can_have_what_speech_and_captions_need(cluster: dict[str, Any]) -> None:
    audio = without_the_hash((ROOT / "ray_cluster.yaml").read_text("utf-8"))
    validate_config(prepare_config(copy.deepcopy(audio)))
    gpus = audio["available_node_types"]["gpu_worker"]["worker_setup_commands"]
    added = audio["setup_commands"][len(cluster["setup_commands"]) :]
    assert added == gpus[-len(added) :]
    assert re.findall(r"-r requirements-(\w+)", added[0]) == list(get_args(Group))
    assert re.findall(r"python -m operators.models.weights (\w+)", added[1]) == list(get_args(Group))
