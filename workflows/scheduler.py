"""The loop of `corpusmill schedule`: decide, run a night, write down what came of it, tell and alert."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cluster.schedule_state import Claim, End, Outcome, Run, ScheduleState
from cluster.storage import StorageError
from workflows.alert import Alerts
from workflows.attempt import Result, Running, read_result
from workflows.clock import Clock, SystemClock
from workflows.cron import Times
from workflows.heartbeat import BEATS, STEP_SECONDS, Heartbeat
from workflows.nights import Busy, Miss, Rules, Start, Wait, decide

LONGEST_SLEEP = 60.0  # the clock may be set while we sleep
STORE_PAUSE = 15.0  # until the next try where the store does not answer
STUCK_SECONDS = 600.0  # of not knowing whether a job goes on, until somebody is told
OUTCOMES: dict[int, Outcome] = {2: "bad recipe", 3: "refused"}


@dataclass
class Scheduler:
    """Runs nights until it is stopped, or once.

    `begin` starts an attempt; `clear` ends what is left of one that went wrong, or returns False where it cannot tell;
    `tell` is called with an event and its fields. The times of nights are compared with this machine's clock, so
    schedulers whose clocks differ start a night that much earlier or later, and still once.
    """

    state: ScheduleState
    times: Times
    rules: Rules
    begin: Callable[[Claim], Running]
    tell: Callable[..., None]
    clear: Callable[[Claim], bool] = lambda _: True
    alerts: Alerts = field(default_factory=Alerts)
    about: dict[str, Any] = field(default_factory=dict)  # the same in every alert
    timeout: timedelta | None = None
    lease: float = 60.0
    once: bool = False
    until: datetime | None = None
    clock: Clock = field(default_factory=SystemClock)
    stopping: int = 0  # the signal that asks to end
    _sent: list[Future[None]] = field(default_factory=list)  # alerts
    _stuck: Claim | None = None  # that somebody was told of

    def stop(self, number: int, _frame: object = None) -> None:
        """Handle a signal: pass it on to the night that runs, and end."""
        self.stopping = number
        if isinstance(self.clock, SystemClock):
            self.clock.woken.set()

    def run(self) -> int:
        """The exit code of the last attempt where it runs once, else 0, or 130 after Ctrl-C."""
        terms, before = self.state.begin(self.times.cron.text, self.times.zone.key, self._since())
        if before is not None:
            self.tell("terms", was=f"{before.cron} {before.timezone}", now=f"{terms.cron} {terms.timezone}")
        # Alerts take their time, while heartbeats go on.
        with ThreadPoolExecutor(1) as self._sender:
            code = self._loop(terms.since)
        self._look_at_sent()
        return 130 if self.stopping == signal.SIGINT else code if self.once else 0

    def _since(self) -> datetime:
        """Of a new schedule. What is run once is started by something that comes a little after the time: the night
        that came last is its first, if that is not too long ago."""
        now = self.clock.now()
        lately = list(self.times.between(now - self.rules.grace, now)) if self.once else []
        return lately[-1] - timedelta(seconds=1) if lately else now

    def _loop(self, since: datetime) -> int:
        code, slept_until = 0, None
        while not self.stopping and not (self.until and self.clock.now() >= self.until):
            try:
                last = self.state.last()
                action = decide(last, since, self.times, self.rules, self.clock.now())
                if isinstance(action, Busy):
                    if not self._watch(action.run):
                        break
                elif isinstance(action, Wait):
                    if self.once and not self._retry_to_come(last):
                        break
                    if action.until != slept_until:
                        self.tell("waiting", until=action.until)
                    slept_until = action.until
                    self._sleep(action.until)
                elif isinstance(action, Miss):
                    self._miss(action, last)
                else:
                    code = self._attempt(action, last, code)
                    if self.once and not self._retry_to_come(self.state.last()):
                        break
            except StorageError as error:
                if self.once:
                    raise
                self.tell("store", error=str(error), pause=STORE_PAUSE)
                self.clock.sleep(STORE_PAUSE)
        return code

    def _retry_to_come(self, last: Run | None) -> bool:
        return bool(last and last.end and self.rules.again(last.end.outcome, last.claim.failures + 1))

    def _sleep(self, until: datetime) -> None:
        until = min(until, self.until or until)
        while not self.stopping and (left := (until - self.clock.now()).total_seconds()) > 0:
            self.clock.sleep(min(left, LONGEST_SLEEP))

    def _watch(self, run: Run) -> bool:
        """Wait for the end of somebody else's attempt, and end it where its heartbeat stays the same for its lease;
        False where there is nothing to wait for."""
        claim = run.claim
        self.tell("busy", night=claim.night, attempt=claim.attempt, host=claim.host)
        heard, since = self.state.heard(claim), self.clock.monotonic()
        while not self.stopping and not (self.until and self.clock.now() >= self.until):
            self.clock.sleep(min(claim.lease / BEATS, LONGEST_SLEEP))
            if self.state.run(claim.number).end is not None:
                return True
            if (beat := self.state.heard(claim)) != heard:
                if self.once:
                    return False
                heard, since = beat, self.clock.monotonic()
            elif self.clock.monotonic() - since >= claim.lease and self._cleared(claim, since):
                if self.state.end(claim, End(outcome="lost", ended=heard.at if heard else claim.started)):
                    self.tell("lost", night=claim.night, attempt=claim.attempt, host=claim.host)
                    if not self.rules.again("lost", claim.failures + 1):
                        self._alert("lost", claim)
                return True
        return False

    def _claim(self, action: Start | Miss, last: Run | None) -> Claim | None:
        """The next entry of the log; None where somebody else wrote it."""
        number = last.claim.number + 1 if last else 1
        common: dict[str, Any] = {"number": number, "started": self.clock.now(), "lease": self.lease}
        if isinstance(action, Miss):
            claim = Claim(night=action.missed.last, attempt=0, missed=action.missed, **common)
        else:
            claim = Claim(**vars(action), **common)
        return claim if self.state.claim(claim) else None

    def _miss(self, action: Miss, last: Run | None) -> None:
        if claim := self._claim(action, last):
            self._tell_missed(claim, "the next night takes what they would have")

    def _tell_missed(self, claim: Claim, then: str) -> None:
        if claim.missed:
            self.tell("missed", **claim.missed.model_dump(), then=then)
            self._alert("missed", claim, missed=claim.missed.model_dump(mode="json"), then=then)

    def _attempt(self, action: Start, last: Run | None, code: int) -> int:
        """Run a night, if it is ours; the exit code."""
        claim = self._claim(action, last)
        if claim is None:
            return code
        self._tell_missed(claim, f"the night of {claim.night:%Y-%m-%dT%H:%M:%SZ} makes up for them")
        coalesced = {"coalesced": claim.coalesced.nights} if claim.coalesced else {}
        self.tell("started", night=claim.night, attempt=claim.attempt, **coalesced)
        heartbeat = Heartbeat(self.state, claim, self.clock, self.tell)
        found = self._run_and_beat(claim, heartbeat)
        if found is None:
            self.tell("taken over", night=claim.night, attempt=claim.attempt)
            self._clear(claim)  # of what was submitted since, nobody else knows
            return 1
        result, outcome = found
        if result.code and not heartbeat.during(lambda: self._clear(claim)):
            self.tell("left open", night=claim.night, attempt=claim.attempt)  # who takes it over tries again
            return 1
        end = self._end_of(claim, result, outcome)
        if not self._write_down(claim, end):
            self.tell("taken over", night=claim.night, attempt=claim.attempt)
            return 1
        shown = end.model_dump(exclude={"nonce", "said", "ended", "seconds"}, exclude_none=True)
        self.tell("ended", night=claim.night, attempt=claim.attempt, seconds=end.seconds, **shown)
        good = end.outcome in ("published", "nothing new")
        if not good and not self.rules.again(end.outcome, claim.failures + 1):
            self._alert(end.outcome, claim, **end.model_dump(mode="json", exclude={"nonce", "outcome"}))
        return result.code if result.code >= 0 else 1

    def _run_and_beat(self, claim: Claim, heartbeat: Heartbeat) -> tuple[Result, Outcome | None] | None:
        """The result, and what came of it where the exit code does not say; None where the attempt was taken over."""
        running: Running | None = None

        def end(number: int) -> Result:
            nonlocal running
            assert running is not None
            ending, running = running, None
            return heartbeat.during(lambda: ending.stop(number))

        try:
            while heartbeat.keep():
                running = running or self.begin(claim)
                if (result := running.wait(STEP_SECONDS)) is not None:
                    running = None
                    return result, None
                if self.stopping:
                    return end(self.stopping), "interrupted"
                if self.timeout and heartbeat.seconds >= self.timeout.total_seconds():
                    return end(signal.SIGTERM), "timeout"
            return None
        finally:
            if running is not None:
                end(signal.SIGTERM)

    def _clear(self, claim: Claim) -> bool:
        """Keep at it until nothing is left of the attempt; False where the scheduler is to end before."""
        since = self.clock.monotonic()
        while not self._cleared(claim, since):
            if self.stopping:
                return False
            self.clock.sleep(STORE_PAUSE)
        return True

    def _cleared(self, claim: Claim, since: float) -> bool:
        """Whether nothing is left of the attempt, which has gone wrong at `since`."""
        if self.clear(claim):
            return True
        if self._stuck != claim and self.clock.monotonic() - since >= STUCK_SECONDS:
            self._stuck = claim
            self._alert("stuck", claim)
        return False

    def _end_of(self, claim: Claim, result: Result, outcome: Outcome | None) -> End:
        told = read_result(result.output)
        if result.code == 0:
            outcome = "published" if told.get("committed") else "nothing new"
        now = self.clock.now()
        return End(
            outcome=outcome or OUTCOMES.get(result.code, "failed"),
            ended=now,
            code=result.code,
            seconds=round((now - claim.started).total_seconds(), 1),
            said=result.said if result.code else "",
            **{name: told.get(name) for name in ("build_id", "log_number", "documents")},
        )

    def _write_down(self, claim: Claim, end: End) -> bool:
        """Whether that is how it ended, and not what somebody else said who took it over. Keeps at it where the store
        does not answer; where the scheduler is about to end, it tries once."""
        while True:
            try:
                return self.state.end(claim, end)
            except StorageError as error:
                if self.stopping or self.once:
                    raise
                self.tell("store", error=str(error), pause=STORE_PAUSE)
                self.clock.sleep(STORE_PAUSE)

    def _alert(self, event: str, claim: Claim, **fields: Any) -> None:
        night = f"{claim.night:%Y-%m-%dT%H:%M:%SZ}"
        body = {"event": event, "schedule": self.state.name, "night": night, "attempt": claim.attempt}
        body |= {"host": claim.host} | self.about | fields
        self._look_at_sent()
        self._sent.append(self._sender.submit(self._send, event, body))

    def _look_at_sent(self) -> None:
        """Raise what was raised in there."""
        done = [sent for sent in self._sent if sent.done()]
        self._sent = [sent for sent in self._sent if sent not in done]
        for sent in done:
            sent.result()

    def _send(self, event: str, body: dict[str, Any]) -> None:
        for problem in self.alerts.send(body):
            self.tell("alert failed", about=event, problem=problem)
