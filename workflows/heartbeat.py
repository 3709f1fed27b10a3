"""The heartbeat of an attempt: as long as it changes, nobody else takes the night over."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from cluster.schedule_state import Beat, Claim, ScheduleState
from cluster.storage import StorageError
from workflows.clock import Clock

STEP_SECONDS = 0.5  # between looks at what runs
BEATS = 4  # in a lease
T = TypeVar("T")


class Heartbeat:
    """Of one attempt, from now on. `tell` is called with what the store says where it does not answer."""

    def __init__(self, state: ScheduleState, claim: Claim, clock: Clock, tell: Callable[..., None]) -> None:
        self._state, self._claim, self._clock, self._tell = state, claim, clock, tell
        self._began, self._sent = clock.monotonic(), 0
        self._every = claim.lease / BEATS

    @property
    def seconds(self) -> float:
        """How long it has been going on."""
        return self._clock.monotonic() - self._began

    def keep(self) -> bool:
        """Send one if it is time for it; False where the attempt was taken over."""
        passed = self.seconds
        if passed < self._sent * self._every:
            return True
        count, self._sent = self._sent, int(passed / self._every) + 1
        try:
            return self._state.beat(self._claim, Beat(count=count, at=self._clock.now()))
        except StorageError as error:
            self._tell("store", error=str(error), pause=self._every)
            return True  # as far as one can know

    def during(self, work: Callable[[], T]) -> T:
        """What `work` returns, which may take longer than a lease."""
        with ThreadPoolExecutor(1) as pool:
            doing = pool.submit(work)
            while not wait([doing], STEP_SECONDS).done:
                self.keep()
        return doing.result()
