"""What a schedule has done: a log in the corpus's store, in which every entry is created if absent.

An entry claims one attempt at one night. Nobody may write entry n+1 before entry n has ended, and of several who write
it at once one does: so there is never more than one attempt, however many schedulers run on however many machines.

The claimant renews a heartbeat. An entry whose heartbeat has not changed for the lease that it names is ended as
`lost` by whoever watched it for so long by his own clock: no two clocks are ever compared. A claimant that was only
suspended finds its entry ended, and stops.
"""

from __future__ import annotations

import os
import secrets
import socket
from datetime import datetime
from typing import Literal, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from cluster.storage import AlreadyExists, Missing, Store

ROOT = "_schedule"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

Outcome = Literal["published", "nothing new", "failed", "timeout", "refused", "bad recipe", "interrupted", "lost"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Terms(_Record):
    """What a schedule runs by, from a moment on."""

    cron: str
    timezone: str
    since: AwareDatetime  # nights up to then are none of this schedule's
    host: str = Field(default_factory=socket.gethostname)
    nonce: str = Field(default_factory=lambda: secrets.token_hex(16))


class Span(_Record):
    """Nights that got no attempt of their own."""

    nights: int
    first: AwareDatetime
    last: AwareDatetime


class Claim(_Record):
    """An attempt at a night; attempt 0 says that the nights up to this one were missed and that nobody runs them."""

    number: int
    night: AwareDatetime
    attempt: int
    failures: int = 0  # in a row before this attempt, since the last success or alert
    coalesced: Span | None = None  # nights that were due while an earlier attempt ran
    missed: Span | None = None  # nights that were due while no scheduler ran
    started: AwareDatetime
    lease: float  # seconds without a heartbeat after which the attempt is taken for lost
    host: str = Field(default_factory=socket.gethostname)
    pid: int = Field(default_factory=os.getpid)
    nonce: str = Field(default_factory=lambda: secrets.token_hex(16))


class End(_Record):
    """What came of an attempt. Of a lost one `ended` is when it was last heard of."""

    outcome: Outcome
    ended: AwareDatetime
    code: int | None = None  # exit code; negative: the signal that ended the process
    build_id: str | None = None
    log_number: int | None = None
    documents: int | None = None
    seconds: float | None = None
    said: str = ""  # the last lines
    nonce: str = Field(default_factory=lambda: secrets.token_hex(16))


class Beat(_Record):
    count: int
    at: AwareDatetime


class Run(NamedTuple):
    """An entry of the log, with its end once it has one."""

    claim: Claim
    end: End | None

    @property
    def running(self) -> bool:
        return self.end is None and self.claim.attempt > 0


class ScheduleState:
    """The log of the schedule `name` in a corpus. Errors are StorageError."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name
        self._known = 0  # a number that the log has reached

    def _key(self, number: int, what: str) -> str:
        return f"{ROOT}/{self.name}/runs/{number:08d}.{what}.json"

    def _create(self, key: str, record: Terms | Claim | End) -> bool:
        """Whether the object is ours. A lost answer to our own write looks like a taken key; the nonce tells."""
        try:
            self.store.write(key, record.model_dump_json(indent=2).encode(), if_absent=True)
        except AlreadyExists:
            return type(record).model_validate_json(self.store.read(key)).nonce == record.nonce
        return True

    def terms(self) -> list[Terms]:
        """What it has run by, oldest first."""
        keys = sorted(stored.key for stored in self.store.list(f"{ROOT}/{self.name}/terms"))
        return [Terms.model_validate_json(self.store.read(key)) for key in keys]

    def begin(self, cron: str, timezone: str, since: datetime) -> tuple[Terms, Terms | None]:
        """The terms in force, which are new from `since` on where it ran by others, and those that they replace."""
        while True:
            known = self.terms()
            before = known[-1] if known else None
            if before is not None and (before.cron, before.timezone) == (cron, timezone):
                return before, None
            terms = Terms(cron=cron, timezone=timezone, since=since)
            if self._create(f"{ROOT}/{self.name}/terms/{len(known) + 1:08d}.json", terms):
                return terms, before

    def last(self) -> Run | None:
        """The newest entry. `LATEST` is only a hint where to start looking."""
        hint = f"{ROOT}/{self.name}/LATEST"
        if not self._known and self.store.exists(hint):
            self._known = int(self.store.read(hint))
        while self.store.exists(self._key(self._known + 1, "claim")):
            self._known += 1
        return self.run(self._known) if self._known else None

    def run(self, number: int) -> Run:
        claim = Claim.model_validate_json(self.store.read(self._key(number, "claim")))
        try:
            return Run(claim, End.model_validate_json(self.store.read(self._key(number, "end"))))
        except Missing:
            return Run(claim, None)

    def newest(self, count: int) -> list[Run]:
        """The last entries, the newest first."""
        last = self.last()
        head = last.claim.number if last else 0
        return [self.run(number) for number in range(head, max(0, head - count), -1)]

    def claim(self, claim: Claim) -> bool:
        """Whether this claim is entry `claim.number` now, and not somebody else's."""
        won = self._create(self._key(claim.number, "claim"), claim)
        if won:
            self.store.write(f"{ROOT}/{self.name}/LATEST", str(claim.number).encode())
        return won

    def beat(self, claim: Claim, beat: Beat) -> bool:
        """Renew the heartbeat; False where somebody has ended the attempt meanwhile, who took it for lost."""
        if self.store.exists(self._key(claim.number, "end")):
            return False
        self.store.write(self._key(claim.number, "beat"), beat.model_dump_json().encode())
        return True

    def heard(self, claim: Claim) -> Beat | None:
        """The last heartbeat."""
        try:
            return Beat.model_validate_json(self.store.read(self._key(claim.number, "beat")))
        except Missing:
            return None

    def end(self, claim: Claim, end: End) -> bool:
        """Whether this is how the attempt ended, and not what somebody else said before."""
        return self._create(self._key(claim.number, "end"), end)
