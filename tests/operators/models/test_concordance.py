from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from operators.models.concordance import concordance

MODELS = 5
LOSSES = arrays(np.float64, (6, MODELS), elements=st.integers(1, 8).map(float))
SCORES = st.lists(st.integers(-50, 50), min_size=MODELS, max_size=MODELS, unique=True).map(
    lambda values: np.array(values, float)
)


@pytest.mark.parametrize(
    ("losses", "scores", "share"),
    [
        ([3, 2, 1], [0.1, 0.2, 0.3], 1.0),  # the better, the lower
        ([1, 2, 3], [0.1, 0.2, 0.3], 0.0),
        ([3, 1, 2], [0.1, 0.2, 0.3], 2 / 3),
        ([2, 2, 1], [0.1, 0.2, 0.3], 2 / 3),  # a tie is not concordant
        ([2, 2, 2], [0.1, 0.2, 0.3], 0.0),
        ([3, 2, 1], [0.1, 0.2, 0.2], 2 / 3),  # nor are models that the benchmark does not rank
        ([3, 2, float("nan")], [0.1, 0.2, 0.3], None),
        ([3, 2, float("inf")], [0.1, 0.2, 0.3], None),
    ],
)
def test_share(losses: list[float], scores: list[float], share: float | None) -> None:
    found = concordance(np.array([losses]), np.array(scores))[0]
    assert np.isnan(found) if share is None else found == pytest.approx(share)


@given(LOSSES, SCORES)
def test_any_monotone_transform_of_the_scores_changes_nothing(
    losses: NDArray[np.float64], scores: NDArray[np.float64]
) -> None:
    expected = concordance(losses, scores)
    for transformed in (3 * scores - 7, scores**3, np.exp(scores / 10), np.argsort(np.argsort(scores)).astype(float)):
        assert np.array_equal(concordance(losses, transformed), expected)


@given(LOSSES, SCORES, arrays(np.float64, (6, 1), elements=st.sampled_from([0.25, 0.5, 2.0, 1024.0])))
def test_scaling_the_losses_of_a_document_changes_nothing(
    losses: NDArray[np.float64], scores: NDArray[np.float64], factor: NDArray[np.float64]
) -> None:
    assert np.array_equal(concordance(losses * factor, scores), concordance(losses, scores))


@given(LOSSES, SCORES, st.permutations(range(MODELS)))
def test_the_order_of_the_models_does_not_matter(
    losses: NDArray[np.float64], scores: NDArray[np.float64], order: list[int]
) -> None:
    assert np.array_equal(concordance(losses[:, order], scores[order]), concordance(losses, scores))


@given(LOSSES, SCORES)
def test_reversing_the_ranks_turns_concordant_pairs_into_discordant_ones(
    losses: NDArray[np.float64], scores: NDArray[np.float64]
) -> None:
    pairs = MODELS * (MODELS - 1) / 2
    ties = sum(losses[:, i] == losses[:, j] for i in range(MODELS) for j in range(i))
    both = concordance(losses, scores) + concordance(losses, -scores)
    assert np.allclose(both, 1 - ties / pairs)
