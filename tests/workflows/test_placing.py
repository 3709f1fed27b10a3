"""What stages ask of the cluster: told by the recipe's fields, before any work, and not by stages that are done."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cluster.placement import Ask
from cluster.storage import open_store
from cluster.tables import TableWriter
from operators.apply import Step
from operators.dedup.exact import ExactDedup
from operators.document import SCHEMA, loaded
from operators.models import weights
from operators.ordering.order import Order
from operators.read.span import Fields
from operators.speech.snr import Snr
from operators.speech.transcribe import Transcribe
from workflows.map_stage import MapTask
from workflows.placing import Unfit, check_placement, lacking, uses_gpu
from workflows.recipe import Recipe, RecipeError
from workflows.stage import Job, Stage, folder_of

READ = Stage("read", None, ())
ORDER = Stage("order", READ, (Order(),))


def job(folder: Path, **workers: Any) -> Job:
    return Job(open_store(str(folder)), Recipe(inputs=["a"], output="o", workers=workers), ())


@pytest.mark.parametrize(
    ("workers", "cpu", "gpu"),
    [
        ({}, Ask(), Ask()),
        ({"processes": 3, "reserve_bytes": 1 << 30}, *[Ask(memory=1 << 30, most=3)] * 2),
        ({"gpus": 0.5, "labels": {"pool": "a"}}, Ask(labels={"pool": "a"}), Ask(gpus=0.5)),
        ({"gpus": 1, "gpu_labels": {"pool": "!a"}}, Ask(), Ask(gpus=1, labels={"pool": "!a"})),
        ({"labels": {"pool": "a"}}, *[Ask(labels={"pool": "a"})] * 2),  # without GPUs all run on CPUs
    ],
)
def test_what_workers_ask(workers: dict[str, Any], cpu: Ask, gpu: Ask) -> None:
    asks = Recipe(inputs=["a"], output="o", workers=workers).workers
    assert (asks.ask(), asks.ask(gpu=True)) == (cpu, gpu)


@pytest.mark.parametrize(
    ("workers", "told"),
    [
        ({"processes": 0}, "processes"),
        ({"reserve_bytes": 10}, "reserve_bytes"),
        ({"labels": {"a b": "c"}}, "'a b' is no label"),
        ({"labels": {"a/b/c": "c"}}, "'a/b/c' is no label"),
        ({"labels": {"a": ""}}, "a: '' is none of value, !value"),
        ({"labels": {"a": "not(b)"}}, r"a: 'not\(b\)' is none of"),
        ({"gpu_labels": {"a": "b"}}, r"gpu_labels: \{'a': 'b'\} say nothing while gpus is 0"),
    ],
)
def test_wrong_workers(workers: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Recipe(inputs=["a"], output="o", workers=workers)


@pytest.mark.parametrize("value", ["v", "!v", "in(a, b-1)", "!in(a,b)", "A.b_c-9"])
def test_selectors_that_ray_takes_too(value: str) -> None:
    from ray._private.label_utils import validate_label_selector

    for key in ("pool", "corpusmill/pool", "ray.io/market-type"):
        assert validate_label_selector({key: value}) is None
        assert Recipe(inputs=["a"], output="o", workers={"labels": {key: value}}).workers.labels == {key: value}


def test_stages_that_can_use_a_gpu() -> None:
    assert uses_gpu(ORDER)
    assert not uses_gpu(READ)
    assert not uses_gpu(Stage("dedup", READ, (ExactDedup(),)))


def test_only_a_stage_that_will_run_is_refused(tmp_path: Path, ray_session: None) -> None:
    one = job(tmp_path, gpus=2)
    with pytest.raises(RecipeError, match=r"^stage order: workers\.gpus 2: no node has 1 CPU, 2 GPU; nodes: \{2 CPU\}"):
        check_placement(ORDER, one)
    check_placement(READ, one)
    for stage, basis in ((READ, ""), (ORDER, "4f53cda18c2baa0c")):
        one.store.write(
            f"{folder_of(stage, one)}/manifest.json", b'{"basis": "%s", "files": {"kept": []}}' % basis.encode()
        )
    check_placement(ORDER, one)
    with pytest.raises(RecipeError, match="stage order"):
        check_placement(ORDER, one, force="read")


def test_memory_is_asked_of_every_stage_and_labels_not_of_an_embedded_ray(tmp_path: Path, ray_session: None) -> None:
    check_placement(ORDER, job(tmp_path, labels={"pool": "x"}))  # of one node labels say nothing
    with pytest.raises(
        RecipeError, match=r"^stages read, order: workers\.reserve_bytes 1000000000000000: no node has 1 CPU, 1000"
    ):
        check_placement(ORDER, job(tmp_path, reserve_bytes=10**15))


def test_a_machine_without_the_weights_is_told_what_brings_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_session: None
) -> None:
    steps = (Step("snr", Snr()), Step("heard", Transcribe()))
    assert lacking(steps) is None
    monkeypatch.setenv(weights.FOLDER, str(tmp_path / "models"))
    weights.find.cache_clear()
    loaded.cache_clear()
    told = rf"params\.heard: no weights {tmp_path}/models/whisper-base/\S+: `make install-speech`, or `python -m "
    assert re.match(told, str(lacking(steps)))
    assert lacking(steps[:1]) is None
    store = open_store(str(tmp_path))
    with TableWriter(store, "above", 0) as table:
        table.write(pa.Table.from_pylist([{"id": "a"}], SCHEMA))
    task = MapTask(store, "transcribe", steps[1:], False, Fields(), False)
    with pytest.raises(Unfit, match=rf"^{told}.*, on node [\d.]+$"):
        task(0, table.entries[0])
