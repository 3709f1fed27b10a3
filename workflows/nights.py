"""What a scheduler is to do now. Decided from the last entry of the schedule's log and the time, and nothing else.

One nightly build takes all that is new, so nights that got no build of their own need one, not several: the newest
that is due is run, and the others are coalesced into it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cluster.schedule_state import Outcome, Run, Span
from workflows.cron import Times
from workflows.recipe import RecipeError

RESUMED = ("interrupted", "lost")  # taken up at once, the others after a wait
LONGEST_WAIT = timedelta(hours=6)  # between attempts
DOUBLINGS = 20  # more would be longer than a timedelta can be


@dataclass(frozen=True)
class Rules:
    """When nights start, and what becomes of late and of failed ones."""

    jitter: timedelta
    grace: timedelta
    catch_up: bool
    retries: int
    retry_wait: timedelta
    seed: str = ""

    def check(self, times: Times, now: datetime) -> None:
        """Raises RecipeError where nights could change places."""
        if (gap := times.gap(now)) < self.jitter:
            raise RecipeError(f"--jitter: {self.jitter} is more than the {gap} between two nights")

    def start(self, night: datetime) -> datetime:
        """A night's time with its jitter: the same whoever asks, so that two schedulers and a restart agree."""
        drawn = int.from_bytes(hashlib.sha256(f"{self.seed} {night.isoformat()}".encode()).digest()[:8])
        return night + self.jitter * (drawn / 2**64)

    def wait(self, failures: int) -> timedelta:
        """Before the next attempt: twice as long each time."""
        if self.retry_wait >= LONGEST_WAIT:
            return self.retry_wait
        return min(self.retry_wait * (1 << min(failures - 1, DOUBLINGS)), LONGEST_WAIT)

    def again(self, outcome: Outcome, failures: int) -> bool:
        """Whether a night that has failed so often is tried again."""
        if outcome == "lost":  # no fault of the night's, unless it is lost again and again
            return failures <= self.retries + 1
        return outcome == "interrupted" or (outcome in ("failed", "timeout") and failures <= self.retries)


@dataclass(frozen=True)
class Start:
    night: datetime
    attempt: int = 1
    failures: int = 0
    coalesced: Span | None = None
    missed: Span | None = None


@dataclass(frozen=True)
class Miss:
    """Nights that nobody runs any more: the next one takes what they would have."""

    missed: Span


@dataclass(frozen=True)
class Wait:
    until: datetime


@dataclass(frozen=True)
class Busy:
    """An attempt is running, or its scheduler died."""

    run: Run


Action = Start | Miss | Wait | Busy


def decide(last: Run | None, since: datetime, times: Times, rules: Rules, now: datetime) -> Action:
    """What to do now, where the schedule began at `since`."""
    if last is not None and last.running:
        return Busy(last)
    settled = max(since, last.claim.night) if last else since
    due = [night for night in times.between(settled, now) if rules.start(night) <= now]
    end = last.end if last else None
    failures = 0  # in a row, so that nights that come before all retries are made do not hide them
    if last is not None and end is not None:
        counted = last.claim.failures + (end.outcome != "interrupted")
        if rules.again(end.outcome, counted):
            failures = counted
            at = end.ended if end.outcome in RESUMED else end.ended + rules.wait(failures)
            if not due and at > now:
                return Wait(min(at, _next(settled, times, rules, now)))
            if not due:
                return Start(last.claim.night, last.claim.attempt + 1, failures)
    if not due:
        return Wait(_next(settled, times, rules, now))
    free = end.ended if end else since
    late = now - max(rules.start(due[-1]), free)
    if late > rules.grace and not rules.catch_up and not (end and end.outcome in RESUMED):
        return Miss(_span(due))
    blocked = [night for night in due[:-1] if rules.start(night) <= free]
    missed = [night for night in due if rules.start(night) > free and (night != due[-1] or late > rules.grace)]
    return Start(
        due[-1],
        failures=failures,
        coalesced=_span(blocked) if blocked else None,
        missed=_span(missed) if missed else None,
    )


def _next(settled: datetime, times: Times, rules: Rules, now: datetime) -> datetime:
    """When the next night after `settled` starts."""
    return next(starts(times, rules, now, settled))


def starts(times: Times, rules: Rules, now: datetime, settled: datetime | None = None) -> Iterator[datetime]:
    """When nights start from now on: with the one whose time has come and whose jitter has not passed."""
    begun = now - rules.jitter
    night = max(settled, begun) if settled else begun
    while True:
        night = times.after(night)
        if (start := rules.start(night)) > now:
            yield start


def _span(nights: Sequence[datetime]) -> Span:
    return Span(nights=len(nights), first=nights[0], last=nights[-1])
