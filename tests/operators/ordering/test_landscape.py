"""The picture of a path: which documents are in it, whatever tables they came in, and that neighbours are near."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.ordering import vectors
from operators.ordering.landscape import RUN, RUNS, SAMPLE, SCHEMA, SIDE, landscape, sampled
from operators.ordering.vectors import Vectors, on_grid

LISTS = pa.table({"vector": vectors.packed(np.zeros((1, 32), np.int16))})


def corpus(documents: int) -> tuple[Vectors, pa.Table]:
    """Vectors by number, slowly turning along the path, and the path."""
    rng = np.random.default_rng(3)
    topics = rng.normal(size=(documents // 20 + 2, 32))
    along = topics[np.arange(documents) // 20] + 0.3 * rng.normal(size=(documents, 32))
    numbers = rng.permutation(documents)
    found = np.empty((documents, 32), np.int16)
    found[numbers] = on_grid(along)
    ranks = pa.array(np.arange(documents, dtype=np.uint64))
    return found, pa.table({"number": pa.array(numbers, pa.uint32()), "rank": ranks})


def drawn(found: Vectors, path: pa.Table, rows: int = 1 << 30) -> pa.Table:
    """The picture, with everything in tables of `rows` rows."""
    table = pa.table({"vector": vectors.packed(found)})
    in_order, by_number = ([one.slice(at, rows) for at in range(0, max(1, len(one)), rows)] for one in (path, table))
    [picture] = landscape(in_order, by_number, LISTS, [len(path)])
    return picture


@given(st.integers(0, 20_000))
def test_sample_is_spread_over_the_path(documents: int) -> None:
    ranks, contexts = sampled(documents)
    assert (np.diff(ranks) > 0).all()
    assert len(ranks) <= min(documents, SAMPLE + RUNS * RUN)
    if documents:
        assert ranks[0] == 0
        assert ranks[-1] < documents
        assert np.diff([*ranks, documents]).max() <= -(-documents // SAMPLE)
    runs = [ranks[contexts == run] for run in range(contexts.max(initial=-1) + 1)]
    assert len(runs) == (0 if not documents else max(1, min(RUNS, documents // 48)))
    for run in runs:
        assert len(run) == min(RUN, documents)
        assert (np.diff(run) == 1).all()


def test_documents_of_a_run_are_near() -> None:
    found, path = corpus(4000)
    picture = drawn(found, path)
    assert picture.schema == SCHEMA
    assert SAMPLE < len(picture) <= SAMPLE + RUNS * RUN
    places = np.column_stack([picture["x"].to_numpy(), picture["y"].to_numpy()])
    assert places.min() == 0
    assert places.max() == SIDE
    assert (places == np.rint(places)).all()
    apart = np.abs(np.diff(places[::7], axis=0)).sum(axis=1).mean()  # of a document and the next but six: another topic
    context = picture["context"].to_numpy()
    within = [np.abs(np.diff(places[context == run], axis=0)).sum(axis=1).mean() for run in range(RUNS)]
    assert np.median(within) < apart / 4


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_pictures_do_not_depend_on_tables(rows: int) -> None:
    found, path = corpus(300)
    assert drawn(found, path, rows) == drawn(found, path)


def test_vectors_are_those_of_the_documents_on_the_path() -> None:
    found, path = corpus(300)
    numbers = path["number"].to_numpy()
    in_order = path.set_column(0, "number", pa.array(np.arange(300), pa.uint32()))
    assert drawn(found, path) == drawn(found[numbers], in_order)


def test_documents_without_a_vector_are_not_in_the_picture() -> None:
    found, path = corpus(300)
    without = path["number"].to_numpy()[40:90]
    found[without] = 0
    ranks = drawn(found, path)["rank"].to_pylist()
    assert ranks == [*range(40), *range(90, 300)]


@pytest.mark.parametrize("documents", [0, 1, 2, 13])
def test_few_documents(documents: int) -> None:
    picture = drawn(*corpus(documents))
    assert picture["rank"].to_pylist() == list(range(documents))
    assert picture["context"].to_pylist() == [*[0] * 12, -1][:documents]
    nothing = np.zeros((documents, 32), np.int16)
    assert len(drawn(nothing, corpus(documents)[1])) == 0
