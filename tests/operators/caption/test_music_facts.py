from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.caption.facts import KINDS
from operators.caption.music_facts import LEAST, TAGS, Tag, music_facts
from operators.models.musicnn import MSD, MTT

NAMES = [*(f"mtt/{tag}" for tag in MTT), *(f"msd/{tag}" for tag in MSD)]
PROBABILITIES = st.fixed_dictionaries({name: st.floats(0, 1) for name in NAMES})


def test_tags_and_facts_exist() -> None:
    for one in TAGS:
        assert one.tag in NAMES
        assert one.value in KINDS[one.kind]
        assert 0 < one.claim < one.must < 1
    assert len({one.tag for one in TAGS}) == len(TAGS)


@given(PROBABILITIES)
def test_each_fact_once_and_none_that_is_unlikely(tags: dict[str, float]) -> None:
    found = music_facts(tags)
    assert len({(fact.kind, fact.value) for fact in found}) == len(found)
    assert all(LEAST <= fact.score <= 1 for fact in found)


@pytest.mark.parametrize("one", TAGS, ids=lambda one: one.tag)
def test_scores_at_the_thresholds(one: Tag) -> None:
    nothing = dict.fromkeys(NAMES, 0.0)
    for probability, score in ((one.claim, 0.5), (one.must, 0.8), (1.0, 1.0)):
        (fact,) = music_facts({**nothing, one.tag: probability})
        assert (fact.kind, fact.value, fact.score) == (one.kind, one.value, pytest.approx(score))
    assert not music_facts(nothing)


def test_the_surer_of_two_tags_counts() -> None:
    tags = dict.fromkeys(NAMES, 0.0) | {"mtt/rock": 0.2, "msd/rock": 0.6}
    (fact,) = music_facts(tags)
    assert (fact.value, fact.score) == ("rock", pytest.approx(0.8))
