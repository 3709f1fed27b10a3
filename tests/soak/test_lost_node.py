"""A build that is submitted to a cluster, loses a node and gets another makes the bytes of a build on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from cluster.local_cluster import LocalCluster
from cluster.seaweed import Endpoint
from cluster.storage import open_store
from tests.soak.nodes import start, three_nodes, wait_for_units
from tests.workflows.corpora import hashes, lay_out, recipe
from workflows.build import build, prepare

PATIENCE = 240.0
FEW_AT_A_TIME = {"unit_bytes": 120_000}  # so that there are units left when the node is lost


@pytest.fixture(scope="module")
def cluster(seaweed: Endpoint) -> Iterator[LocalCluster]:
    with three_nodes(seaweed) as found:
        yield found


@pytest.fixture(scope="module")
def inputs(seaweed: object, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the small corpus lies in object storage."""
    folder = tmp_path_factory.mktemp("in")
    lay_out(folder, sample)
    store = open_store("s3://corpora/cluster-in")
    for path in folder.iterdir():
        store.write(path.name, path.read_bytes())
    return store.url


def test_a_lost_and_a_new_node_do_not_change_the_shards(
    cluster: LocalCluster, inputs: str, s3: str, tmp_path: Path, ray_session: None
) -> None:
    on_cluster = recipe(tmp_path / "web.yaml", [inputs], f"{s3}/cluster", workers=FEW_AT_A_TIME)
    process = start(cluster, "submit", on_cluster, "--json")
    wait_for_units(process, f"{s3}/cluster", "clean", PATIENCE)
    cluster.kill(1)
    cluster.add()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err.decode()
    assert b"clean" in err  # the job's own lines come through
    result = orjson.loads(out)
    here = recipe(tmp_path / "here.yaml", [inputs], f"{s3}/here", workers=FEW_AT_A_TIME)
    embedded = build(prepare(here))
    assert result["log_number"] == 1
    assert result["build_id"] == embedded["build_id"]
    assert hashes(result) == hashes(embedded)
    assert [stage["dropped"] for stage in result["stages"]] == [stage["dropped"] for stage in embedded["stages"]]
