"""FAISS on a GPU gives the neighbours that the CPU finds. Run where `faiss-gpu` and a GPU are: `make test-gpu`."""

from __future__ import annotations

import numpy as np
import pytest

from operators.models.faiss import gpu_knn, gpus
from operators.ordering import neighbours
from operators.ordering.neighbours import WEIGHTS, _FetchingJoin, _Join, nearest_neighbours
from operators.ordering.vectors import Vectors, on_grid, squares

pytestmark = pytest.mark.skipif(gpus() == 0, reason="FAISS finds no GPU in this process, or was built without")


def clustered(rows: int, dimensions: int) -> Vectors:
    random = np.random.default_rng(rows + dimensions)
    centres = random.normal(size=(50, dimensions))
    found = on_grid(centres[random.integers(0, 50, rows)] + 0.8 * random.normal(size=(rows, dimensions)))
    found[100:400] = found[100]  # equal ones, more than are fetched
    found[random.integers(0, rows, 20)] = 0
    return found


@pytest.mark.parametrize(("rows", "dimensions"), [(30, 8), (5000, 64), (20_000, 256), (6000, 1024)])
@pytest.mark.parametrize("k", [1, 10, 64])
def test_as_on_the_cpu(rows: int, dimensions: int, k: int) -> None:
    found = clustered(max(rows, 500), dimensions)[:rows]
    lengths, whole = squares(found), slice(0, rows)
    answers = []
    for join in (_Join(found, lengths, WEIGHTS), _FetchingJoin(found, lengths, WEIGHTS, gpu_knn())):
        near, weights = np.full((rows, k), -1, np.int64), np.zeros((rows, k), np.uint16)
        join(whole, [whole], near, weights)
        answers.append((near, weights))
    assert np.array_equal(answers[0][0], answers[1][0])
    assert np.array_equal(answers[0][1], answers[1][1])


def test_lists_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    found = clustered(9000, 96)
    lists, probed = np.arange(9000) // 450, (np.arange(20)[:, None] + np.arange(6)) % 20
    on_gpu = nearest_neighbours(found, lists, probed, 10)
    monkeypatch.setattr(neighbours, "GPU_NUMBERS", 96 * 700)
    in_blocks = nearest_neighbours(found, lists, probed, 10)
    monkeypatch.setattr(neighbours, "gpus", lambda: 0)
    on_cpu = nearest_neighbours(found, lists, probed, 10)
    for each in (on_gpu, in_blocks):
        assert np.array_equal(each[0], on_cpu[0])
        assert np.array_equal(each[1], on_cpu[1])


def test_products_are_whole_numbers() -> None:
    """Nothing is rounded to fewer digits, as TF32 would."""
    found = clustered(2000, 512)
    reals = found.astype(np.float32)
    products, rows = gpu_knn()(reals[:64], reals, 20, neighbours.INNER_PRODUCT)
    exact = np.einsum("qd,qkd->qk", found[:64].astype(np.int64), found[rows].astype(np.int64))
    assert np.array_equal(products, exact)
