from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.tokens.curriculum import curriculum, mixture, steps

LENGTHS = [64, 128, 256, 512, 1024]
bucket_counts = st.dictionaries(st.sampled_from(LENGTHS), st.integers(0, 300), max_size=5)


@given(bucket_counts, st.sampled_from([1024, 2048, 5120]), st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_every_sequence_is_used_once_in_batches_of_one_size(counts: dict[int, int], tokens: int, cycles: int) -> None:
    plan = json.loads(json.dumps(curriculum(counts, tokens, cycles)))
    used: dict[int, list[int]] = {length: [] for length in counts}
    for step in steps(plan):
        used[step.length] += range(step.first, step.first + step.sequences)
        last = step.first + step.sequences == counts[step.length]
        assert step.sequences * step.length == tokens or (last and 0 < step.sequences * step.length < tokens)
    assert used == {length: list(range(n)) for length, n in counts.items()}


@given(bucket_counts, st.integers(1, 9), st.permutations([1, 3, 8, 20, 50]))
@settings(max_examples=100, deadline=None)
def test_odds_hold_to_within_a_step(counts: dict[int, int], cycles: int, weights: list[int]) -> None:
    odds = dict(zip(LENGTHS, weights, strict=True))
    plan = curriculum(counts, 1024, cycles, odds)
    by_cycle: Counter[tuple[int, int]] = Counter()
    for phase in plan["phases"]:
        taking = [(b["odds"], n) for b, n in zip(plan["buckets"], phase["steps"], strict=True) if n]
        rates = [(n / odd, (n + 1) / odd) for odd, n in taking]
        assert max(low for low, _ in rates) <= min(high for _, high in rates) + 1e-9
        by_cycle.update({(phase["cycle"], i): n for i, n in enumerate(phase["steps"])})
    for i, bucket in enumerate(plan["buckets"]):
        shares = [by_cycle[cycle, i] for cycle in range(cycles)]
        assert sum(shares) == bucket["steps"]
        assert max(shares) - min(shares) <= 1


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_steps_of_a_phase_are_evenly_mixed(numbers: list[int]) -> None:
    buckets = [{"length": 1 << i, "sequences_a_step": 1, "sequences": n} for i, n in enumerate(numbers)]
    plan = {"buckets": buckets, "phases": [{"cycle": 0, "steps": numbers}]}
    taken: Counter[int] = Counter()
    for now, step in enumerate(steps(plan), 1):
        taken[step.length] += 1
        for i, n in enumerate(numbers):
            assert abs(taken[1 << i] - now * n / sum(numbers)) < 1
    assert sum(taken.values()) == sum(numbers)


def test_short_first_with_the_odds_of_the_paper() -> None:
    lengths = {1 << k: (1 << (13 - k)) * 64 for k in range(8, 14)}  # 64 steps each
    plan = curriculum(lengths, 8192, cycles=2)
    assert [bucket["odds"] for bucket in plan["buckets"]] == [32, 16, 8, 4, 2, 1]
    assert [bucket["sequences_a_step"] for bucket in plan["buckets"]] == [32, 16, 8, 4, 2, 1]
    assert [phase["steps"] for phase in plan["phases"] if phase["cycle"] == 0] == [
        [32, 16, 8, 4, 2, 1],
        [0, 16, 8, 4, 2, 1],
        [0, 0, 16, 8, 4, 2],
        [0, 0, 0, 16, 8, 4],
        [0, 0, 0, 0, 16, 8],
        [0, 0, 0, 0, 0, 16],
    ]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (({64: 1, 256: 1}, 192), "batch_tokens: 192"),
        (({64: 1}, 0), "batch_tokens: 0"),
        (({64: 1}, 64, 0), "cycles: 0"),
        (({64: 1}, 64, 1, {64: 0}), "odds"),
        (({64: 1}, 64, 1, {128: 1}), "odds"),
    ],
)
def test_bad_arguments(arguments: tuple[object, ...], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        curriculum(*arguments)  # type: ignore[arg-type]


def test_mixture() -> None:
    told = mixture({"web": (10, 900, 1.0), "books": (2, 100, 3.0), "none": (0, 0, 1.0), "off": (1, 200, 0.0)})
    assert [told[name]["share"] for name in told] == [0.75, 100 / 1200, 0, 200 / 1200]
    assert [told[name]["probability"] for name in told] == [0.75, 0.25, 0, 0]
    assert [told[name]["epochs"] for name in told] == [1, 3, 1, 0]
    assert mixture({}) == {}
    assert mixture({"web": (1, 5, 0.0)})["web"]["probability"] == 0
    with pytest.raises(ValueError, match="weight: -1"):
        mixture({"web": (1, 5, -1.0)})
