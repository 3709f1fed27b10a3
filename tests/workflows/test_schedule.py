"""Schedules: every night is run, or told why not; never two at once; nothing is lost with a scheduler."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from typer.testing import CliRunner

from cluster.schedule_state import Beat, Claim, End, Outcome, Run, ScheduleState
from cluster.session import SessionError
from cluster.storage import open_store
from tests.workflows.test_nightly import Corpus, texts
from workflows.alert import Alerts
from workflows.attempt import Child, Result
from workflows.clock import SystemClock
from workflows.cron import MONTHS, Times, five_fields, on_calendar, parse
from workflows.gates import GateRefused
from workflows.gc import gc
from workflows.nightly import prepare_night, run_night
from workflows.nights import LONGEST_WAIT, Busy, Miss, Rules, Start, Wait, decide, starts
from workflows.recipe import RecipeError
from workflows.schedule import _stop_job, schedule
from workflows.schedule_view import view
from workflows.scheduler import STORE_PAUSE, STUCK_SECONDS, Scheduler

__all__ = ["texts"]
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MONDAY = datetime(2026, 11, 23, tzinfo=UTC)
RULES = Rules(timedelta(), HOUR, False, 3, timedelta(minutes=5))
COMMAND = typer.Typer()
COMMAND.command()(schedule)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def times(cron: str = "0 2 * * *", timezone: str = "UTC") -> Times:
    return Times(parse(cron), timezone)


# --- cron


@st.composite
def fields(draw: Any, first: int, last: int) -> str:
    def part() -> str:
        low = draw(st.integers(first, last))
        high = draw(st.integers(low, last))
        step = draw(st.integers(1, 20))
        return str(draw(st.sampled_from(["*", f"*/{step}", str(low), f"{low}-{high}", f"{low}-{high}/{step}"])))

    return ",".join(part() for _ in range(draw(st.integers(1, 2))))


def comes(cron: str, moment: datetime) -> bool:
    """By the definition, one field after the other."""
    minute, hour, day, month, weekday = cron.split()

    def has(field: str, value: int, first: int, last: int) -> bool:
        for part in field.split(","):
            span, _, step = part.partition("/")
            low, _, high = span.partition("-")
            bounds = (first, last) if span == "*" else (int(low), int(high or low))
            if bounds[0] <= value <= bounds[1] and (value - bounds[0]) % int(step or 1) == 0:
                return True
        return False

    days = has(day, moment.day, 1, 31)
    weekdays = has(weekday, moment.isoweekday() % 7, 0, 6)
    both = days or weekdays if "*" not in (day, weekday) else days and weekdays
    return (
        has(minute, moment.minute, 0, 59) and has(hour, moment.hour, 0, 23) and has(month, moment.month, 1, 12) and both
    )


@given(st.tuples(fields(0, 59), fields(0, 23), fields(1, 31), fields(1, 12), fields(0, 6)), st.integers(0, 500_000))
@settings(max_examples=60, deadline=None)
def test_the_next_time_is_the_first_minute_that_fits(parts: tuple[str, ...], minutes: int) -> None:
    text = " ".join(parts)
    begin = MONDAY + timedelta(minutes=minutes)
    try:
        found = Times(parse(text), "UTC").after(begin)
    except RecipeError as error:  # 31 February, or days that programs read differently
        assert any(why in str(error) for why in ("never comes", "programs differ"))  # noqa: PT017
        return
    assert comes(text, found)
    looked_at = min(found, begin + 4 * DAY)
    fits = (begin + timedelta(minutes=n) for n in itertools.count(1))
    assert next(moment for moment in fits if moment >= looked_at or comes(text, moment)) == looked_at


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("0 25 * * *", "hour: '25' is not in 0-23"),
        ("60 2 * * *", "minute: '60' is not in 0-59"),
        ("0 2 0 * *", "day of month: '0' is not in 1-31"),
        ("0 2 * foo *", "month: 'foo' is not in 1-12 or jan-dec"),
        ("0 2 * * 8", "day of week: '8' is not in 0-7 or sun-sat"),
        ("0 5-2 * * *", "hour: '5-2' ends before it begins"),
        ("0/0 2 * * *", "minute: '0/0' has a step of 0"),
        ("0 2 L * *", "day of month: 'L' is not in"),
        ("61 0 2 * * *", "second: '61' is not in 0-59"),
        ("0 2,, * * *", "hour: '' is none of"),
        ("0 2 * *", "has 4 fields and not 5"),
        ("0 2 31 2 *", "never comes"),
        ("0 2 */2 * 1", "programs differ"),
    ],
)
def test_a_wrong_expression_is_refused_by_its_field(text: str, named: str) -> None:
    with pytest.raises(RecipeError, match=r"--cron: ") as raised:
        times(text)
    assert named in str(raised.value)


def test_sunday_is_0_and_7_and_names_are_names() -> None:
    assert [parse(f"0 0 * * {day}").weekdays for day in ("0", "7", "sun", "5-7", "Mon-Fri")] == [
        (0,), (0,), (0,), (0, 5, 6), (1, 2, 3, 4, 5),
    ]  # fmt: skip
    assert parse(f"0 0 * {','.join(MONTHS)} *").months == tuple(range(1, 13))
    assert times("0 0 * * 0").after(MONDAY).strftime("%a") == "Sun"
    assert times("*/20 * * * * *").after(MONDAY) == MONDAY + timedelta(seconds=20)


def test_of_two_kinds_of_day_one_that_never_comes_does_no_harm() -> None:
    mondays = list(times("0 0 30 2 1").between(MONDAY, at("2027-02-28T00:00Z")))
    assert [f"{one:%a %d %b}" for one in mondays] == ["Mon 01 Feb", "Mon 08 Feb", "Mon 15 Feb", "Mon 22 Feb"]


@pytest.mark.parametrize(
    ("cron", "plain"),
    [
        ("0 2 * * 7", "0 2 * * 0"),
        ("0 2 * * 1-7", "0 2 * * *"),
        ("0 2 1 * 1-7", "0 2 * * *"),  # every day, and not the first alone
        ("0 2 1-31 * 1", "0 2 * * *"),
        ("*/5 2 1,15 jan-mar fri-7", "*/5 2 1,15 jan-mar 0,5,6"),
        ("0 2 29 * *", "0 2 29 * *"),
    ],
)
def test_days_of_the_week_are_said_as_every_program_knows_them(cron: str, plain: str) -> None:
    assert five_fields(parse(cron)) == plain
    assert list(times(cron).between(MONDAY, MONDAY + 40 * DAY)) == list(times(plain).between(MONDAY, MONDAY + 40 * DAY))


@pytest.mark.parametrize(
    ("cron", "day", "expected"),
    [
        ("30 2 * * *", "2026-03-29", ["01:30"]),  # there is no 2:30: half past three, by the clock
        ("30 2 * * *", "2026-10-25", ["00:30"]),  # there are two: the first
        ("0 3 * * *", "2026-03-29", ["01:00"]),
        ("0 1-4 * * *", "2026-10-25", ["23:00", "00:00", "02:00", "03:00"]),
        ("0 * * * *", "2026-10-25", [f"{hour % 24:02}:00" for hour in range(22, 22 + 25)]),
        ("0 * * * *", "2026-03-29", [f"{hour % 24:02}:00" for hour in range(23, 23 + 23)]),
    ],
)
def test_nights_on_which_clocks_change_come_once(cron: str, day: str, expected: list[str]) -> None:
    berlin = times(cron, "Europe/Berlin")
    begin = datetime.fromisoformat(day).replace(tzinfo=berlin.zone)
    end = (datetime.fromisoformat(day) + DAY).replace(tzinfo=berlin.zone)
    second = timedelta(seconds=1)
    assert [
        f"{one:%H:%M}" for one in berlin.between(begin.astimezone(UTC) - second, end.astimezone(UTC) - second)
    ] == expected


@given(
    st.sampled_from(["30 2 * * *", "*/15 * * * *", "0 1-3 * * *", "59 2 * * 0", "10 3 25,29 * 6", "0 */2 * * *"]),
    st.sampled_from(["2026-03-29T00:00Z", "2026-10-25T00:00Z"]),
    st.integers(-300, 300),
)
@settings(max_examples=25, deadline=None)
def test_the_times_do_not_depend_on_when_one_asks(cron: str, change: str, minutes: int) -> None:
    berlin = times(cron, "Europe/Berlin")
    begin, end = at(change) - DAY, at(change) + 2 * DAY
    asked = at(change) + timedelta(minutes=minutes)
    assert list(berlin.between(asked, end)) == [one for one in berlin.between(begin, end) if one > asked]


@pytest.mark.parametrize(
    ("cron", "lines"),
    [
        ("0 2 * * *", ["*-*-* 02:00:00 UTC"]),
        ("30 1-4 * * 1-5", ["Mon,Tue,Wed,Thu,Fri *-*-* 01..04:30:00 UTC"]),
        ("*/15 8,20 1 */3 *", ["*-1/3-1 08,20:00/15:00 UTC"]),
        ("0 2 1 * mon", ["*-*-1 02:00:00 UTC", "Mon *-*-* 02:00:00 UTC"]),
        ("*/20 5-50/7 * * * *", ["*-*-* *:05,12,19,26,33,40,47:00/20 UTC"]),
        ("0 2 * jun-aug sun,wed", ["Sun,Wed *-6..8-* 02:00:00 UTC"]),
    ],
)
def test_systemd_understands_the_same(cron: str, lines: list[str]) -> None:
    assert on_calendar(parse(cron), "UTC") == lines
    if shutil.which("systemd-analyze"):
        base = ["--base-time=2026-11-23 00:00:00 UTC", "--iterations=1"]
        told = [_output("systemd-analyze", "calendar", *base, line) for line in lines]
        elapses = [line.split(": ")[1] for out in told for line in out.splitlines() if "Next elapse" in line]
        first = min(datetime.strptime(one, "%a %Y-%m-%d %H:%M:%S %Z") for one in elapses)
        assert first == times(cron).after(MONDAY - timedelta(seconds=1)).replace(tzinfo=None) or first > MONDAY.replace(
            tzinfo=None
        )
        assert first == times(cron).after(MONDAY).replace(tzinfo=None)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"TZ": "UTC"}).stdout


# --- what to do now


def run_of(night: datetime, outcome: Outcome | None, ended: datetime | None = None, **claim: Any) -> Run:
    made = Claim(**({"number": 1, "night": night, "attempt": 1, "started": night, "lease": 60, "nonce": ""} | claim))
    return Run(made, End(outcome=outcome, ended=ended or night + HOUR) if outcome else None)


TWO = MONDAY + 2 * HOUR  # the night of Monday


@pytest.mark.parametrize(
    ("last", "now", "expected"),
    [
        (None, MONDAY + HOUR, Wait(TWO)),
        (None, TWO, Start(TWO)),
        (None, TWO + HOUR, Start(TWO)),
        (run_of(TWO, None), TWO + 3 * DAY, Busy(run_of(TWO, None))),
        (run_of(TWO, "published"), TWO + 2 * HOUR, Wait(TWO + DAY)),
        (run_of(TWO, "refused"), TWO + 2 * HOUR, Wait(TWO + DAY)),
        (run_of(TWO, "interrupted"), TWO + 2 * HOUR, Start(TWO, attempt=2)),
        (run_of(TWO, "lost", failures=2, attempt=7), TWO + 2 * HOUR, Start(TWO, attempt=8, failures=3)),
        (run_of(TWO, "lost", failures=4), TWO + 2 * HOUR, Wait(TWO + DAY)),
        (run_of(TWO, "failed"), TWO + HOUR, Wait(TWO + HOUR + timedelta(minutes=5))),
        (run_of(TWO, "failed", failures=1), TWO + HOUR, Wait(TWO + HOUR + timedelta(minutes=10))),
        (run_of(TWO, "timeout"), TWO + 2 * HOUR, Start(TWO, attempt=2, failures=1)),
        (run_of(TWO, "failed", failures=3), TWO + 9 * HOUR, Wait(TWO + DAY)),
        (run_of(TWO, "failed", failures=1), TWO + DAY, Start(TWO + DAY, failures=2)),
        (run_of(TWO, "failed", failures=3), TWO + DAY, Start(TWO + DAY)),
        (run_of(TWO, "refused"), TWO + DAY, Start(TWO + DAY)),
    ],
)  # fmt: skip
def test_what_is_done_next(last: Run | None, now: datetime, expected: Any) -> None:
    found = decide(last, MONDAY, times(), RULES, now)
    assert found == expected


def test_missed_nights_wait_for_the_next_one_or_are_made_up_for_by_one() -> None:
    now = TWO + 3 * DAY + 5 * HOUR
    last = run_of(TWO, "published")
    missed = decide(last, MONDAY, times(), RULES, now)
    assert isinstance(missed, Miss)
    assert (missed.missed.nights, missed.missed.last) == (3, TWO + 3 * DAY)
    eager = Rules(timedelta(), HOUR, True, 3, HOUR)
    made_up = decide(last, MONDAY, times(), eager, now)
    assert isinstance(made_up, Start)
    assert (made_up.night, made_up.missed) == (TWO + 3 * DAY, missed.missed)


def test_nights_that_came_during_a_long_one_are_coalesced_and_not_missed() -> None:
    long = run_of(TWO, "published", TWO + 2 * DAY + 9 * HOUR)
    found = decide(long, MONDAY, times(), RULES, TWO + 2 * DAY + 9 * HOUR)
    assert isinstance(found, Start)
    assert (found.night, found.missed, found.coalesced and found.coalesced.nights) == (TWO + 2 * DAY, None, 1)


def test_jitter_is_the_same_whoever_asks_and_never_more_than_asked_for() -> None:
    rules = Rules(10 * timedelta(minutes=1), HOUR, False, 3, HOUR, "web")
    late = [rules.start(TWO + n * DAY) - (TWO + n * DAY) for n in range(50)]
    assert timedelta() <= min(late) < timedelta(minutes=2) < timedelta(minutes=8) < max(late) <= timedelta(minutes=10)
    assert late == [rules.start(TWO + n * DAY) - (TWO + n * DAY) for n in range(50)]
    assert decide(None, MONDAY, times(), rules, TWO) == Wait(rules.start(TWO))
    with pytest.raises(RecipeError, match=r"--jitter: .* is more than the 0:05:00 between two nights"):
        rules.check(times("*/5 * * * *"), MONDAY)


def test_waits_grow_up_to_six_hours_however_often_it_failed() -> None:
    assert [RULES.wait(n) for n in (1, 2, 7, 8, 40, 10**9)] == [
        timedelta(minutes=5), timedelta(minutes=10), timedelta(minutes=320), *[LONGEST_WAIT] * 3,
    ]  # fmt: skip
    assert Rules(timedelta(), HOUR, False, 3, 1000 * DAY).wait(10**9) == 1000 * DAY


def test_a_night_whose_jitter_has_not_passed_is_still_to_come() -> None:
    rules = Rules(HOUR, HOUR, False, 3, HOUR, "web")
    tonight, tomorrow = rules.start(TWO), rules.start(TWO + DAY)
    assert tonight > TWO
    for now, expected in ((TWO, tonight), (tonight - timedelta(microseconds=1), tonight), (tonight, tomorrow)):
        assert next(starts(times(), rules, now)) == expected


@given(
    cron=st.sampled_from(["0 2 * * *", "0 */6 * * *", "*/30 1-3 * * *", "0 2 1 * 1"]),
    rules=st.builds(
        Rules, st.sampled_from([timedelta(), timedelta(minutes=20)]), st.sampled_from([timedelta(), HOUR, 9 * HOUR]),
        st.booleans(), st.integers(0, 3), st.sampled_from([timedelta(minutes=1), HOUR]), st.just("web"),
    ),
    lives=st.lists(st.tuples(st.integers(1, 72), st.integers(0, 72)), min_size=3, max_size=6),
    attempts=st.lists(
        st.tuples(st.integers(1, 2400), st.sampled_from(["published", "nothing new", "failed", "timeout", "refused"])),
        min_size=40, max_size=40,
    ),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_every_night_is_run_or_coalesced_or_told_to_be_missed(
    cron: str, rules: Rules, lives: list[tuple[int, int]], attempts: list[tuple[int, Outcome]]
) -> None:
    """Schedulers that live and are dead for some hours in turn; attempts of some minutes."""
    planned, log, now, given_up = times(cron), list[Run](), MONDAY, iter(itertools.cycle(attempts))
    for up, down in lives:
        dies = now + up * HOUR
        while now < dies:
            action = decide(log[-1] if log else None, MONDAY, planned, rules, now)
            common: dict[str, Any] = {"number": len(log) + 1, "started": now, "lease": 60}
            if isinstance(action, Wait):
                assert action.until > now
                now = min(action.until, dies)
            elif isinstance(action, Miss):
                log.append(Run(Claim(night=action.missed.last, attempt=0, missed=action.missed, **common), None))
            else:
                assert isinstance(action, Start)
                minutes, outcome = next(given_up)
                ends = now + timedelta(minutes=minutes)
                end = End(outcome="lost", ended=dies) if ends > dies else End(outcome=outcome, ended=ends)
                log.append(Run(Claim(**vars(action), **common), end))
                now = end.ended
        now = dies + down * HOUR
    settled = MONDAY
    for before, (claim, _) in zip([None, *log], log, strict=False):
        assert rules.start(claim.night) <= claim.started
        if claim.attempt > 1:
            assert before is not None
            assert before.end is not None
            assert claim.night == settled
            assert before.end.outcome == "lost" or rules.again(before.end.outcome, claim.failures)
            continue
        nights = list(planned.between(settled, claim.night))
        spans = [span for span in (claim.coalesced, claim.missed) if span]
        apart = sum(span.nights for span in spans if span.last != claim.night)
        own = sum(span.nights - 1 for span in spans if span.last == claim.night) + 1
        assert len(nights) == (apart + own if nights else 0)
        assert nights[-1] == claim.night
        late = claim.started - rules.start(claim.night)
        if claim.attempt == 0:
            assert late > rules.grace
            assert not rules.catch_up
        settled = claim.night
    assert [run.claim.number for run in log] == list(range(1, len(log) + 1))


# --- the log of a schedule


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "corpus") if request.param == "local" else str(request.getfixturevalue("s3"))


def test_of_many_who_claim_a_night_at_once_one_gets_it(place: str) -> None:
    gate = threading.Barrier(4)

    def claim(worker: int) -> list[int]:
        state = ScheduleState(open_store(place), "web")
        won = []
        for number in range(1, 4):
            mine = Claim(number=number, night=TWO, attempt=1, started=TWO, lease=60, host=str(worker))
            gate.wait()
            if state.claim(mine):
                won.append(number)
        return won

    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(claim, range(4)))
    assert sorted(number for numbers in won for number in numbers) == [1, 2, 3]
    state = ScheduleState(open_store(place), "web")
    for run in state.newest(9):
        assert run.claim.number in won[int(run.claim.host)]
    assert [run.claim.number for run in state.newest(2)] == [3, 2]
    last = state.newest(1)[0]
    assert state.end(last.claim, End(outcome="lost", ended=TWO))
    assert not state.end(last.claim, End(outcome="published", ended=TWO))
    assert not state.beat(last.claim, Beat(count=1, at=TWO))


CLAIMING = """
import sys
from datetime import UTC, datetime
from cluster.schedule_state import Claim, ScheduleState
from cluster.storage import open_store
night = datetime(2026, 11, 23, tzinfo=UTC)
state = ScheduleState(open_store(sys.argv[1]), "web")
print("ready", flush=True)
sys.stdin.readline()
print(state.claim(Claim(number=1, night=night, attempt=1, started=night, lease=60)))
"""


def test_of_two_processes_that_claim_a_night_at_once_one_gets_it(s3: str) -> None:
    command = [sys.executable, "-c", CLAIMING, s3]
    both = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
        for _ in range(2)
    ]
    for one in both:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    said = list(zip(*[one.communicate("\n") for one in both], strict=True))[0]
    assert sorted(said) == ["False\n", "True\n"]


def test_other_terms_hold_from_when_they_were_given(tmp_path: Path) -> None:
    state = ScheduleState(open_store(str(tmp_path)), "web")
    first, before = state.begin("0 2 * * *", "UTC", MONDAY)
    assert before is None
    assert state.begin("0 2 * * *", "UTC", MONDAY + DAY) == (first, None)
    second, before = state.begin("0 3 * * *", "UTC", MONDAY + DAY)
    assert (second.since, before) == (MONDAY + DAY, first)
    assert state.terms() == [first, second]


class Clock:
    """Time that passes by being slept; `during` is called with each sleep."""

    def __init__(self, now: datetime, during: Callable[[], None] = lambda: None) -> None:
        self.time, self.during = now, during

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)
        self.during()


class Work:
    """An attempt in this process, of which `work` gives the exit code."""

    def __init__(self, work: Callable[[], int | tuple[int, dict[str, Any]] | None]) -> None:
        self.work, self.stopped = work, 0

    def wait(self, seconds: float) -> Result | None:
        found = self.work()
        code, told = found if isinstance(found, tuple) else (found, {"committed": True})
        return None if code is None else Result(code, orjson.dumps(told), "said")

    def stop(self, number: int) -> Result:
        self.stopped = number
        return Result(-number, b"", "")


class Told:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))

    def names(self) -> list[str]:
        return [event for event, _ in self.events]


def scheduler(place: str | Path, clock: Any, work: Callable[[Claim], Any], **changes: Any) -> tuple[Scheduler, Told]:
    told = Told()
    state = ScheduleState(open_store(str(place)), "web")
    given = {"times": times(), "rules": RULES, "begin": work, "tell": told, "clock": clock} | changes
    return Scheduler(state, **given), told


def test_a_dead_scheduler_s_night_is_taken_over_when_its_lease_is_over_and_not_before(tmp_path: Path) -> None:
    state = ScheduleState(open_store(str(tmp_path)), "web")
    state.begin("0 2 * * *", "UTC", MONDAY)
    dead = Claim(number=1, night=TWO, attempt=1, started=TWO, lease=60, host="elsewhere")
    state.claim(dead)
    clock = Clock(TWO + timedelta(minutes=1))
    beats = itertools.count()

    def beat() -> None:  # by a clock that is years behind: only that it changes counts
        if (count := next(beats)) < 10:
            state.beat(dead, Beat(count=count, at=MONDAY - 1000 * DAY))

    clock.during = beat
    cleared: list[Claim] = []

    def clear(claim: Claim) -> bool:
        cleared.append(claim)
        return len(cleared) == 3  # until then its cluster does not answer

    one, told = scheduler(tmp_path, clock, lambda claim: Work(lambda: 0), until=TWO + 3 * HOUR, clear=clear)
    assert one.run() == 0
    assert cleared == [dead] * 3  # its job on a cluster, if there is one, ends before another begins
    assert [event for event in told.names() if event != "waiting"] == ["busy", "lost", "started", "ended"]
    last, before = state.newest(2)
    assert (last.claim.attempt, last.claim.night, before.end and before.end.outcome) == (2, TWO, "lost")
    waited = (last.claim.started - TWO - timedelta(minutes=1)).total_seconds()
    assert 12 * 15 + 60 <= waited <= 12 * 15 + 90


def test_what_was_taken_for_dead_and_was_not_stops(tmp_path: Path) -> None:
    clock = Clock(TWO)
    state = ScheduleState(open_store(str(tmp_path)), "web")
    works: list[Work] = []

    def go() -> int | None:
        clock.time += timedelta(seconds=20)
        if len(works) > 1:
            return 0
        last = state.last()
        assert last is not None
        state.end(last.claim, End(outcome="lost", ended=clock.time))
        return None

    def begin(claim: Claim) -> Work:
        works.append(Work(go))
        return works[-1]

    cleared: list[Claim] = []

    def clear(claim: Claim) -> bool:
        assert works[0].stopped
        cleared.append(claim)
        return len(cleared) == 2

    one, told = scheduler(tmp_path, clock, begin, once=True, clear=clear)
    assert one.run() == 0
    assert works[0].stopped == signal.SIGTERM
    assert "taken over" in told.names()
    assert [claim.number for claim in cleared] == [1, 1]  # its job may have come there after the other one looked


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflows.heartbeat.STEP_SECONDS", 0.01)


@pytest.mark.parametrize("slow", ["told to end", "too long", "cleared", "breaks"])
def test_the_heartbeat_goes_on_while_an_attempt_is_being_ended(slow: str, looks_often: None, tmp_path: Path) -> None:
    clock, state = Clock(TWO), ScheduleState(open_store(str(tmp_path)), "web")

    def take_long() -> None:
        """Ten leases; the next quarter only begins when the heartbeat of this one has come."""
        for _ in range(40):
            last = state.last()
            assert last is not None
            before = state.heard(last.claim)
            clock.time += timedelta(seconds=15)
            deadline = time.monotonic() + 20
            while state.heard(last.claim) == before:
                assert time.monotonic() < deadline
                time.sleep(0.001)

    class Slow(Work):
        def stop(self, number: int) -> Result:
            if slow != "cleared":
                take_long()
            return super().stop(number)

    def begin(claim: Claim) -> Work:
        if claim.attempt > 1:
            return Work(lambda: 0)
        return Slow({"told to end": told_to_end, "too long": too_long, "cleared": lambda: 1, "breaks": breaks}[slow])

    def told_to_end() -> None:
        one.stop(signal.SIGTERM)

    def too_long() -> None:
        clock.time += HOUR

    def breaks() -> None:
        raise ZeroDivisionError

    def clear(_: Claim) -> bool:
        if slow == "cleared":
            take_long()
        return True

    one, told = scheduler(tmp_path, clock, begin, once=True, timeout=HOUR, clear=clear)
    with pytest.raises(ZeroDivisionError) if slow == "breaks" else nullcontext():
        one.run()
    end = state.run(1).end
    assert (end and end.outcome) == {
        "told to end": "interrupted", "too long": "timeout", "cleared": "failed", "breaks": None,
    }[slow]  # fmt: skip
    assert "taken over" not in told.names()


def test_what_was_taken_over_while_it_was_being_ended_is_not_written_down_or_alerted(tmp_path: Path) -> None:
    clock, state = Clock(MONDAY), ScheduleState(open_store(str(tmp_path)), "web")

    def clear(claim: Claim) -> bool:
        return state.end(claim, End(outcome="lost", ended=TWO))

    heard = tmp_path / "alerts"
    alerts = Alerts(("sh", "-c", f"cat > {heard}"))
    rules = Rules(timedelta(), HOUR, False, 0, HOUR)
    one, told = scheduler(
        tmp_path, clock, lambda claim: Work(lambda: 3 if claim.attempt == 1 else 0), rules=rules, clear=clear,
        alerts=alerts, about={"output": "here"}, until=TWO + HOUR,
    )  # fmt: skip
    assert one.run() == 0
    assert [event for event in told.names() if event != "waiting"] == ["started", "taken over", "started", "ended"]
    assert not heard.exists()


def test_nothing_begins_beside_a_job_that_could_not_be_stopped(looks_often: None, tmp_path: Path) -> None:
    clock, asked, heard = Clock(TWO), list[datetime](), tmp_path / "alerts"
    away = timedelta(seconds=2 * STUCK_SECONDS)  # the cluster

    def clear(_: Claim) -> bool:
        asked.append(clock.now())
        return clock.now() >= TWO + away

    one, _ = scheduler(
        tmp_path / "corpus", clock, lambda claim: Work(lambda: int(claim.attempt == 1)), once=True, clear=clear,
        alerts=Alerts(("sh", "-c", f"cat >> {heard}")), about={"output": "here"},
    )  # fmt: skip
    assert one.run() == 0
    last, before = one.state.newest(9)
    assert before.end is not None
    assert TWO + away <= before.end.ended < last.claim.started
    assert {after - earlier for earlier, after in itertools.pairwise(asked)} == {timedelta(seconds=STORE_PAUSE)}
    [alert] = heard.read_text().replace("}{", "}\n{").splitlines()
    assert orjson.loads(alert)["event"] == "stuck"


def test_told_to_end_it_leaves_an_attempt_open_whose_job_it_could_not_stop(tmp_path: Path) -> None:
    clock = Clock(MONDAY)
    one, told = scheduler(
        tmp_path, clock, lambda claim: Work(lambda: one.stop(signal.SIGTERM)), clear=lambda _: False
    )  # fmt: skip
    assert one.run() == 0
    assert told.names() == ["waiting", "started", "left open"]
    two, told = scheduler(tmp_path, clock, lambda claim: Work(lambda: 0), until=TWO + HOUR)
    two.run()
    assert [event for event in told.names() if event != "waiting"] == ["busy", "lost", "started", "ended"]


@pytest.mark.parametrize(
    ("codes", "attempts", "outcome", "alerts"),
    [
        ([1, 4, 0], 3, "published", []),
        ([1, -9, 1, 1], 4, "failed", ["failed"]),
        ([3], 1, "refused", ["refused"]),
        ([2], 1, "bad recipe", ["bad recipe"]),
        ([None, 0], 2, "published", []),  # it takes too long, the second one does not
    ],
)
def test_a_night_is_retried_with_growing_waits_and_then_alerted(
    codes: list[int | None], attempts: int, outcome: str, alerts: list[str], tmp_path: Path
) -> None:
    clock, given = Clock(TWO), iter(codes)
    heard = tmp_path / "alerts"
    script = f'cat >> {heard}; echo "$CORPUSMILL_ALERT_EVENT $CORPUSMILL_ALERT_SCHEDULE" >> {heard}.env'

    def begin(claim: Claim) -> Work:
        code = next(given)

        def go() -> int | None:
            clock.time += timedelta(minutes=7)
            return code

        return Work(go)

    one, told = scheduler(
        tmp_path / "corpus", clock, begin, once=True, timeout=HOUR,
        alerts=Alerts(("sh", "-c", script)), about={"output": "here"},
    )  # fmt: skip
    code = one.run()
    runs = one.state.newest(9)[::-1]
    assert [run.claim.attempt for run in runs] == list(range(1, attempts + 1))
    assert runs[-1].end is not None
    assert runs[-1].end.outcome == outcome
    assert code == (codes[-1] or 0)
    waits = [
        (after.claim.started - before.end.ended).total_seconds()
        for before, after in itertools.pairwise(runs) if before.end
    ]  # fmt: skip
    assert waits == [300 * 2**n for n in range(attempts - 1)]
    assert (f"{alerts[0]} web\n" if alerts else "") == (Path(f"{heard}.env").read_text() if alerts else "")
    if alerts:
        body = orjson.loads(heard.read_bytes())
        assert (body["event"], body["attempt"], body["code"], body["said"]) == (alerts[0], attempts, codes[-1], "said")


def test_asked_to_end_it_passes_that_on_and_the_next_start_goes_on_at_once(tmp_path: Path) -> None:
    clock, works = Clock(MONDAY), list[Work]()

    def begin(claim: Claim) -> Work:
        works.append(Work(lambda: one.stop(signal.SIGTERM)))
        return works[-1]

    cleared: list[Claim] = []

    def clear(claim: Claim) -> bool:
        cleared.append(claim)
        return True

    one, _ = scheduler(tmp_path, clock, begin, clear=clear)
    assert one.run() == 0
    assert works[0].stopped == signal.SIGTERM
    assert len(cleared) == 1
    later = Clock(TWO + 7 * HOUR)
    two, _ = scheduler(tmp_path, later, lambda claim: Work(lambda: 0), until=TWO + 8 * HOUR)
    two.run()
    last, before = two.state.newest(9)
    assert before.end is not None
    assert (before.end.outcome, last.claim.attempt, last.claim.night) == ("interrupted", 2, TWO)
    assert last.claim.started == later.now() - HOUR


def test_once_runs_what_came_lately_and_nothing_twice(tmp_path: Path) -> None:
    ran: list[datetime] = []

    def begin(claim: Claim) -> Work:
        ran.append(claim.night)
        return Work(lambda: 0)

    for moment in (TWO + timedelta(minutes=1), TWO + timedelta(minutes=2), TWO + 5 * HOUR, TWO + DAY):
        one, _ = scheduler(tmp_path, Clock(moment), begin, once=True)
        assert one.run() == 0
    assert ran == [TWO, TWO + DAY]


def test_once_ends_though_nights_come_faster_than_they_are_done(tmp_path: Path) -> None:
    clock = Clock(TWO)

    def go() -> int:
        clock.time += HOUR
        return 0

    one, told = scheduler(tmp_path, clock, lambda claim: Work(go), once=True, times=times("*/20 * * * * *"))
    assert one.run() == 0
    assert told.names() == ["started", "ended"]


@pytest.mark.timeout(60)
def test_two_schedulers_run_every_second_once_and_never_two_at_once(s3: str) -> None:
    """On a real clock, one of them dying in the middle of a night like a process that is killed."""
    spans: list[tuple[float, float, datetime]] = []
    dying = threading.Event()

    class Sleeping:
        def __init__(self, claim: Claim, mortal: bool) -> None:
            self.claim, self.mortal, self.began = claim, mortal, time.monotonic()
            self.length = 0.2 + (claim.number % 3) * 0.6

        def wait(self, seconds: float) -> Result | None:
            time.sleep(0.1)
            if self.mortal and self.claim.number >= 2 and not dying.is_set():
                dying.set()
                spans.append((self.began, time.monotonic(), self.claim.night))
                raise Killed
            if time.monotonic() - self.began < self.length:
                return None
            spans.append((self.began, time.monotonic(), self.claim.night))
            if dying.is_set() and len(spans) >= 4:
                for one in both:
                    one.stop(signal.SIGTERM)
            return Result(0, b'{"committed": true}', "")

        def stop(self, number: int) -> Result:
            return Result(-number, b"", "")

    class Killed(BaseException):
        pass

    def live(one: Scheduler) -> None:
        with suppress(Killed):
            one.run()

    def made(mortal: bool) -> Scheduler:
        changes = {"times": times("* * * * * *"), "lease": 1.0}
        return scheduler(s3, SystemClock(), lambda claim: Sleeping(claim, mortal), **changes)[0]

    both = [made(True), made(False)]
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(live, one) for one in both]:
            done.result()
    spans.sort()
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    runs = ScheduleState(open_store(s3), "web").newest(99)[::-1]
    assert [run.end.outcome if run.end else None for run in runs].count("lost") == 1
    settled = runs[0].claim.night
    for claim, _ in runs[1:]:
        if claim.attempt == 1:
            nights = list(times("* * * * * *").between(settled, claim.night))
            assert len(nights) == 1 + sum(span.nights for span in (claim.coalesced, claim.missed) if span)
        settled = claim.night
    assert len(runs) >= 4


# --- alerts


class Hook(BaseHTTPRequestHandler):
    """Answers with the codes that its server was given, in turn, and keeps what it got."""

    server: Any

    def do_POST(self) -> None:
        self.server.got.append((self.path, self.rfile.read(int(self.headers.get("Content-Length", 0)))))
        self.send_response(self.server.answers.pop(0))
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[Any]:
    server: Any = HTTPServer(("127.0.0.1", 0), Hook)
    server.got = []
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ([204], None),
        ([503, 200], None),
        ([404], "it answered 404"),
        ([302], "it answered 302"),
        ([500] * 3, "it answered 500"),
    ],
)
def test_a_webhook_gets_the_night_and_its_secret_stays_secret(
    answers: list[int], problem: str | None, hook: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr("workflows.alert.PAUSE_SECONDS", 0.0)
    hook.answers = list(answers)
    alerts = Alerts.of(None, f"http://user:hidden@127.0.0.1:{hook.server_port}/s3cret?key=s3cret")
    problems = alerts.send({"event": "failed"})
    assert problems == ([f"the alert webhook at 127.0.0.1 failed: {problem}"] if problem else [])
    assert hook.got == [("/s3cret?key=s3cret", b'{"event":"failed"}')] * len(answers)
    assert not {"s3cret", "hidden"} & set("".join(capfd.readouterr()).split("/"))


@pytest.mark.parametrize(("answer", "stopped"), [(404, True), (403, False), (500, False)])
def test_a_job_counts_as_stopped_only_where_its_cluster_says_so(answer: int, stopped: bool, hook: Any) -> None:
    hook.answers, told = [answer], Told()
    claim = Claim(number=1, night=TWO, attempt=1, started=TWO, lease=60)
    assert _stop_job(f"http://127.0.0.1:{hook.server_port}", "web", claim, told) is stopped
    assert told.names() == ([] if stopped else ["job not stopped"])


def test_an_alert_that_fails_is_told_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflows.alert.PAUSE_SECONDS", 0.0)
    alerts = Alerts.of("false", "http://127.0.0.1:1/s3cret")
    one, told = scheduler(
        tmp_path, Clock(MONDAY), lambda claim: Work(lambda: 3), alerts=alerts, about={"output": "here"},
        until=TWO + DAY + HOUR,
    )  # fmt: skip
    assert one.run() == 0
    assert told.names().count("ended") == 2
    problems = {fields["problem"] for event, fields in told.events if event == "alert failed"}
    assert problems == {
        "the alert command false exited with 1",
        "the alert webhook at 127.0.0.1 failed: NewConnectionError",
    }


@pytest.mark.parametrize(
    ("command", "webhook", "named"),
    [
        ("echo 'open", None, "--alert-command: "),
        (" ", None, "--alert-command: it is empty"),
        (None, "ftp://s3cret", "--alert-webhook: it is no http:// or https:// address"),
        (None, "https://", "--alert-webhook: "),
    ],
)
def test_alerts_that_can_never_be_sent_are_refused(command: str | None, webhook: str | None, named: str) -> None:
    with pytest.raises(RecipeError, match=named) as raised:
        Alerts.of(command, webhook)
    assert "s3cret" not in str(raised.value)


# --- processes


def test_a_night_is_a_process_whose_exit_code_and_last_words_are_kept(tmp_path: Path, capfd: Any) -> None:
    child = Child(["nightly", str(tmp_path / "none.yaml"), "--json"], "Monday")
    while (result := child.wait(1)) is None:
        pass
    assert result.code == 2
    assert "none.yaml" in result.said
    assert capfd.readouterr().err.startswith("[Monday] error: ")


DYING = """
import os, signal, sys
from workflows.attempt import Child
child = Child(["nightly", sys.argv[1]], "night")
print(child._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the lease alone keeps two nights apart")
def test_a_night_dies_with_its_scheduler(tmp_path: Path) -> None:
    pipe = tmp_path / "recipe.yaml"
    os.mkfifo(pipe)  # reading it takes for ever
    done = subprocess.run(
        [sys.executable, "-c", DYING, str(pipe)], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 20
    while _alive(int(done.stdout)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(int(done.stdout))


def _alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


# --- the command


@pytest.fixture
def recipe_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / '50% of "my" $corpora {{x}}'
    folder.mkdir()
    monkeypatch.chdir(folder)
    path = folder / "web.yaml"
    path.write_text("inputs: [in]\n\noutput: out  # here\n")
    return path


def printed(*arguments: str) -> str:
    done = CliRunner().invoke(COMMAND, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


TIMER = ("--cron", "30 2 * * mon-fri", "--timezone", "Europe/Berlin")


def test_the_systemd_form(recipe_file: Path, tmp_path: Path) -> None:
    out = printed(str(recipe_file), *TIMER, "--print", "systemd", "--jitter", "5m", "--catch-up", "--retries", "2")
    heads = "# /etc/systemd/system/corpusmill-web.service\n", "# /etc/systemd/system/corpusmill-web.timer\n"
    service, timer = out.removeprefix(heads[0]).split(heads[1])
    assert "OnCalendar=Mon,Tue,Wed,Thu,Fri *-*-* 02:30:00 Europe/Berlin\n" in timer
    assert "RandomizedDelaySec=300\n" in timer
    assert "Persistent=true\n" in timer
    assert "StartLimitBurst=3\n" in service
    assert "StartLimitIntervalSec=77490\n" in service  # less than from a late night to an early one
    [command] = [line for line in service.splitlines() if line.startswith("ExecStart=")]
    quoted = str(recipe_file).replace("%", "%%").replace('"', '\\"').replace("$", "$$")
    assert command.endswith(f' nightly "{quoted}"')
    if shutil.which("systemd-analyze"):
        (tmp_path / "corpusmill-web.service").write_text(service)
        (tmp_path / "corpusmill-web.timer").write_text(timer)
        done = subprocess.run(
            ["systemd-analyze", "verify", "./corpusmill-web.timer", "./corpusmill-web.service"],
            cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        assert (done.returncode, [line for line in done.stderr.splitlines() if "corpusmill" in line]) == (0, [])


def test_the_kubernetes_form(recipe_file: Path) -> None:
    address = ("--address", "http://ray-head:8265")
    out = printed(str(recipe_file), *TIMER, "--print", "kubernetes", "--grace", "30m", "--timeout", "12h", *address)
    config, job = YAML(typ="safe").load_all(out)
    assert config["data"]["recipe.yaml"] == recipe_file.read_text()
    spec = job["spec"]
    assert (spec["schedule"], spec["timeZone"]) == ("30 2 * * 1,2,3,4,5", "Europe/Berlin")
    assert (spec["concurrencyPolicy"], spec["startingDeadlineSeconds"]) == ("Forbid", 1800)
    job = spec["jobTemplate"]["spec"]
    assert job["backoffLimit"] == 3
    assert "activeDeadlineSeconds" not in job  # which would be for all attempts together
    assert job["template"]["metadata"]["labels"] == {"corpusmill/role": "submitter"}
    pod = job["template"]["spec"]
    assert pod["activeDeadlineSeconds"] == 43200
    assert pod["restartPolicy"] == "Never"  # which podFailurePolicy asks for
    [container] = pod["containers"]
    expected = ["corpusmill", "submit", "/etc/corpusmill/recipe.yaml", "--nightly", *address]
    assert container["command"] == expected
    assert [one["name"] for one in container["env"]] == ["RAY_AUTH_MODE", "RAY_AUTH_TOKEN"]
    assert container["env"][1]["valueFrom"]["secretKeyRef"] == {"name": "corpusmill", "key": "auth_token"}
    assert container["envFrom"] == [{"secretRef": {"name": "corpusmill-web-keys", "optional": True}}]
    assert container["volumeMounts"][0]["mountPath"] == "/etc/corpusmill"
    assert pod["volumes"][0]["configMap"]["name"] == config["metadata"]["name"] == "corpusmill-web"


def test_the_airflow_form(recipe_file: Path) -> None:
    out = printed(str(recipe_file), *TIMER, "--print", "airflow", "--retries", "5", "--retry-wait", "2m")
    compile(out, "dag.py", "exec")
    names: dict[str, Any] = {}
    command = out[out.index("COMMAND = ") : out.index("\n", out.index("COMMAND = "))]
    exec(command, names)  # noqa: S102
    import jinja2

    shell = jinja2.Environment().from_string(names["COMMAND"]).render()
    assert _arguments(shell)[1:] == ["nightly", str(recipe_file)]
    for line in ("catchup=False", "max_active_runs=1", '"retries": 5', "timedelta(seconds=120)", "tz='Europe/Berlin'"):
        assert line in out


def test_the_form_for_cron(recipe_file: Path) -> None:
    *_, zone, line = printed(str(recipe_file), *TIMER, "--print", "cron").splitlines()
    assert zone == "CRON_TZ=Europe/Berlin"
    assert line.startswith("30 2 * * 1,2,3,4,5  cd ")
    command = line.removeprefix("30 2 * * 1,2,3,4,5  ")
    assert command.count("%") == command.count("\\%")  # else cron ends the line there
    folder, _, shell = command.replace("\\%", "%").partition(" && ")
    assert _arguments(folder) == ["cd", str(recipe_file.parent)]
    lock = f"{recipe_file}.lock"
    assert _arguments(shell)[:3] == ["flock", "-n", lock]
    assert _arguments(shell)[4:] == ["nightly", str(recipe_file)]


def _arguments(shell: str) -> list[str]:
    """As a shell takes them."""
    import shlex

    return shlex.split(shell)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--print", "cron", "--jitter", "5m"], "--jitter: --print cron cannot say that"),
        (["--print", "systemd", "--once"], "--once: --print systemd cannot say that"),
        (["--print", "kubernetes", "--cron", "0 0 2 * * *"], "--cron: '0 0 2 [*] [*] [*]' has seconds"),
        (["--timezone", "Berlin"], "--timezone: 'Berlin' is no time zone"),
        (["--timezone", "../../etc/passwd"], "--timezone: "),
        (["--retry-wait", "soon"], "--retry-wait: 'soon' is no duration"),
        (["--lease", "1s"], "--lease: '1s' is less than 3s"),
        (["--until", "later"], "--until: 'later' is no time"),
        (["--name", "../x"], "--name: '../x' is no name"),
        (["--address", "http://me:secret@ray:8265"], "--address: no user or password in an address"),
        (["--jitter", "25h"], "--jitter: 1 day, 1:00:00 is more than the 1 day, 0:00:00 between"),
        (["--alert-webhook", "mail"], "--alert-webhook: "),
        (["--once", "--jitter", "5m"], "--jitter: with --once, 5m would put each night ahead of it"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    options: list[str], named: str, recipe_file: Path
) -> None:
    with pytest.raises((RecipeError, SessionError), match=named):
        CliRunner().invoke(COMMAND, [str(recipe_file), "--cron", "0 2 * * *", *options], catch_exceptions=False)
    assert not (recipe_file.parent / "out").exists()


# --- nights


def test_three_nights_with_a_failure_and_a_dead_scheduler(
    ray_session: None, tmp_path: Path, texts: Sequence[str]
) -> None:
    """Real builds by a clock that is set: each night brings something new and something that is published already."""
    corpus = Corpus(tmp_path)
    clock = Clock(MONDAY)
    refusing = corpus.with_recipe("strict", gates={"min_tokens": 10**9})
    delivered = iter(range(3))
    spans: list[tuple[datetime, datetime]] = []
    dead = threading.Event()

    def deliver() -> None:
        night = next(delivered)
        new = {f"n{night}-{k}": texts[night * 4 + k] for k in range(4)}
        corpus.deliver(f"night-{night}", new | ({f"n{night}-copy": texts[night * 4 - 1].upper()} if night else {}))

    def begin(claim: Claim) -> Work:
        path = corpus.recipe
        if claim.night == TWO + DAY:  # its gate refuses
            path = refusing

        def go() -> tuple[int, dict[str, Any]]:
            began = clock.now()
            if claim.night == TWO + 2 * DAY and not dead.is_set():
                dead.set()
                spans.append((began, clock.now()))
                raise Died
            try:
                code, told = 0, run_night(path, prepare_night(path))
            except GateRefused:
                code, told = 3, {}
            clock.time += 2 * HOUR
            spans.append((began, clock.now()))
            return code, told

        return Work(go)

    class Died(BaseException):
        pass

    def live(until: datetime) -> list[str]:
        one, told = scheduler(corpus.output, clock, begin, until=until)
        with suppress(Died):
            one.run()
        return [fields.get("outcome", event) for event, fields in told.events if event in ("ended", "missed", "lost")]

    deliver()
    assert live(TWO + 5 * HOUR) == ["published"]
    deliver()
    assert live(TWO + DAY + 5 * HOUR) == ["refused"]
    deliver()
    assert live(TWO + 2 * DAY + 5 * HOUR) == []  # the scheduler dies
    assert live(TWO + 2 * DAY + 9 * HOUR) == ["lost", "published"]

    published = corpus.published()
    assert [len(ids) for ids in published] == [4, 8]
    assert sorted(doc for ids in published for doc in ids) == sorted(f"n{n}-{k}" for n in range(3) for k in range(4))
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(sorted(spans)))
    assert gc(corpus.store, grace=0, keep=1)["dry_run"] is False
    assert corpus.intact()
    state = ScheduleState(corpus.store, "web")
    told = view(state, times(), RULES, clock.now())["nights"][::-1]
    assert [(night["attempt"], night["outcome"]) for night in told] == [
        (1, "published"), (1, "refused"), (1, "lost"), (2, "published"),
    ]  # fmt: skip
    assert [night.get("documents") for night in told] == [4, None, None, 8]
    shown = printed(str(corpus.recipe), "--show", "--name", "web")
    assert shown.startswith("web: 0 2 * * * UTC\n  next   ")
    assert shown.count("  night  ") == 4
    assert (
        orjson.loads(printed(str(corpus.recipe), "--show", "--name", "web", "--json"))["nights"][0]["log_number"] == 2
    )
