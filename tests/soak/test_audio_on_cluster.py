"""Speech and captions on a cluster of three nodes, inputs and output in object storage: the shards of a laptop's build
of the same demo, also where a node is lost on the way."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from cluster.local_cluster import LocalCluster
from cluster.seaweed import Endpoint
from cluster.storage import open_store
from tests.conftest import BUCKET
from tests.soak.nodes import COMMAND, start, three_nodes, wait_for_units
from tests.workflows.corpora import hashes
from workflows.demo import DEMOS, corpusmill, write_recipe

ROOT = f"s3://{BUCKET}"
PATIENCE = 900.0
MANY_UNITS = "workers: {unit_bytes: 400000}\n"  # so that there are some left when the node is lost
pytestmark = pytest.mark.timeout(2400)


@pytest.fixture(scope="module")
def cluster(seaweed: Endpoint) -> Iterator[LocalCluster]:
    with three_nodes(seaweed) as found:
        yield found


@pytest.mark.parametrize(("what", "loses_at"), [("speech", None), ("captions", "listen")])
def test_a_cluster_makes_the_shards_of_a_laptop(
    what: str, loses_at: str | None, cluster: LocalCluster, tmp_path: Path, say: list[str]
) -> None:
    """`loses_at`: the stage in whose middle a node is killed."""
    shown = DEMOS[what]
    shown.lay_out(tmp_path / shown.input)
    for command in shown.before:
        corpusmill(*(word.replace("{input}", str(tmp_path / shown.input)) for word in command))
    inputs = open_store(f"{ROOT}/{shown.input}")
    for path in (path for path in (tmp_path / shown.input).rglob("*") if path.is_file()):
        inputs.write(path.relative_to(tmp_path / shown.input).as_posix(), path.read_bytes())
    recipe = tmp_path / "recipe.yaml"

    write_recipe(recipe, ROOT, shown)
    recipe.write_text(recipe.read_text("utf-8") + MANY_UNITS, "utf-8")
    began = time.monotonic()
    process = start(cluster, "submit", recipe, "--json")
    if loses_at:
        wait_for_units(process, f"{ROOT}/{shown.prefix}", loses_at, PATIENCE)
        cluster.kill(1)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err.decode()
    on_cluster = orjson.loads(out)
    took = time.monotonic() - began

    write_recipe(recipe, str(tmp_path), shown)
    began = time.monotonic()
    ran = subprocess.run([COMMAND, "build", recipe, "--json"], capture_output=True, timeout=PATIENCE)
    assert ran.returncode == 0, ran.stderr.decode()
    here = orjson.loads(ran.stdout)
    say.append(f"{what}: {took:.0f} s, embedded {time.monotonic() - began:.0f} s, {len(hashes(here))} shards")
    assert len(hashes(here)) >= 3
    assert hashes(on_cluster) == hashes(here)
    assert [stage["dropped"] for stage in on_cluster["stages"]] == [stage["dropped"] for stage in here["stages"]]
