"""Of all tries the best is kept, never just the last, and the first that is accepted ends them."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from operators.caption.best import Judged, Kept, best_of
from operators.caption.lint import Rejected


class Try(NamedTuple):
    score: float | None  # none: rejected
    accepted: bool


TRIES = st.lists(st.builds(Try, st.none() | st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans()), max_size=8)


def tried(tries: list[Try]) -> tuple[Kept[int], list[int], list[int]]:
    """What is kept, and the tries that were written and judged."""
    written: list[int] = []
    judged: list[int] = []

    def write(attempt: int) -> int | Rejected:
        written.append(attempt)
        return attempt if tries[attempt].score is not None else Rejected(f"rejected_{attempt}")

    def judge(attempt: int) -> Judged:
        judged.append(attempt)
        score = tries[attempt].score
        assert score is not None
        return Judged(score, tries[attempt].accepted)

    return best_of(write, judge, len(tries)), written, judged


@given(TRIES)
def test_the_best_is_kept(tries: list[Try]) -> None:
    kept, written, judged = tried(tries)
    accepted = [k for k, one in enumerate(tries) if one.score is not None and one.accepted]
    last = accepted[0] if accepted else len(tries) - 1
    assert written == list(range(last + 1))  # no try after the first that is accepted
    assert kept.attempts == last + 1
    assert judged == [k for k in written if tries[k].score is not None]
    if accepted:
        assert kept.best == (accepted[0], Judged(tries[accepted[0]].score or 0, accepted=True))
    elif judged:
        scores = [tries[k].score or 0 for k in judged]
        assert kept.best == (judged[scores.index(max(scores))], Judged(max(scores), accepted=False))
    else:
        assert kept.best is None
    rejected = [k for k in written if tries[k].score is None]
    assert (kept.rejected and kept.rejected.reason) == (f"rejected_{rejected[-1]}" if rejected else None)


def test_nothing_follows_what_is_final() -> None:
    written: list[int] = []

    def write(attempt: int) -> int | Rejected:
        written.append(attempt)
        return Rejected("no_facts", 0, 1, final=True) if attempt else attempt

    kept = best_of(write, lambda _: Judged(0.5, accepted=False), 5)
    assert (kept.attempts, written, kept.best) == (2, [0, 1], (0, Judged(0.5, accepted=False)))


def test_not_the_last() -> None:
    kept, _, _ = tried([Try(0.25, accepted=False), Try(1.0, accepted=False), Try(0.5, accepted=False)])
    assert kept.best is not None
    assert kept.best[0] == 1
