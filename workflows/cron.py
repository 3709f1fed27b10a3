"""Cron expressions: five fields, or six with seconds first; when they come in a time zone; how systemd says them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from workflows.recipe import RecipeError

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
LOOKED_AT = 50  # times
AROUND = timedelta(hours=3)  # longer than clocks are put forward or back
PART = re.compile(r"(\*|(\w+)(?:-(\w+))?)(?:/(\d+))?")


class Field(NamedTuple):
    name: str
    first: int
    last: int
    words: tuple[str, ...] = ()  # of `first` and those that follow


FIELDS = (
    Field("second", 0, 59),
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day of month", 1, 31),
    Field("month", 1, 12, MONTHS),
    Field("day of week", 0, 7, DAYS),  # 0 and 7 are Sunday
)


@dataclass(frozen=True)
class Cron:
    """The values of each field, ascending. Where both the day of month and the day of week are given, one suffices."""

    text: str
    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]  # 0 is Sunday
    either_day: bool

    @property
    def by_seconds(self) -> bool:
        """Whether it has six fields, which most other schedulers do not know."""
        return len(self.text.split()) == len(FIELDS)


def parse(text: str) -> Cron:
    """Read an expression. Raises RecipeError naming the field."""
    given = text.split()
    if len(given) not in (5, 6):
        raise RecipeError(
            f"--cron: {text!r} has {len(given)} fields and not 5 (minute, hour, day of month, month, day of week), or 6"
            " with seconds first"
        )
    parts = given if len(given) == len(FIELDS) else ["0", *given]
    seconds, minutes, hours, days, months, weekdays = (_values(*one) for one in zip(FIELDS, parts, strict=True))
    weekdays = tuple(sorted({number % 7 for number in weekdays}))
    day, weekday = parts[3], parts[5]
    starred = [part != "*" and part.startswith("*") for part in (day, weekday)]
    both = "*" not in (day, weekday)
    if both and any(starred):
        raise RecipeError(
            f"--cron: day of month {day!r} with day of week {weekday!r}: programs differ on whether both must hold or"
            " one; list the days instead"
        )
    return Cron(" ".join(given), seconds, minutes, hours, days, months, weekdays, both)


def _values(field: Field, text: str) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.split(","):
        match = PART.fullmatch(part)
        if match is None:
            raise _wrong(field, part, "is none of *, a, a-b, */n, a-b/n, and lists of those")
        whole, low, high, step = match.groups()
        first = field.first if whole == "*" else _number(field, low)
        last = first if high is None and step is None else field.last
        if whole == "*":
            last = field.last
        elif high is not None:
            last = _number(field, high)
        if last < first:
            raise _wrong(field, part, "ends before it begins")
        if step is not None and int(step) == 0:
            raise _wrong(field, part, "has a step of 0")
        found.update(range(first, last + 1, int(step or 1)))
    return tuple(sorted(found))


def _number(field: Field, text: str) -> int:
    if text.lower() in field.words:
        return field.first + field.words.index(text.lower())
    if not (text.isascii() and text.isdigit() and field.first <= int(text) <= field.last):
        names = f" or {field.words[0]}-{field.words[-1]}" if field.words else ""
        raise _wrong(field, text, f"is not in {field.first}-{field.last}{names}")
    return int(text)


def _wrong(field: Field, part: str, why: str) -> RecipeError:
    return RecipeError(f"--cron: {field.name}: {part!r} {why}")


def zone(name: str) -> ZoneInfo:
    """The time zone of that name. Raises RecipeError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: a folder of the database
        raise RecipeError(f"--timezone: {name!r} is no time zone such as UTC or Europe/Berlin") from error


class Times:
    """When an expression comes, in UTC.

    On the day when clocks go back, what names its hours comes once, at the first of the two; what comes in every hour
    comes in both. On the day when they go forward, a time that does not exist comes an hour later by the clock.
    """

    def __init__(self, cron: Cron, timezone: str) -> None:
        self.cron, self.zone = cron, zone(timezone)
        triggers = [self._trigger(cron.days, range(7) if cron.either_day else cron.weekdays)]
        if cron.either_day:
            triggers.append(self._trigger(range(1, 32), cron.weekdays))
        now = datetime.now(UTC)
        self._triggers = [trigger for trigger in triggers if self._next(trigger, now)]  # 30 February never comes
        if not self._triggers:
            raise RecipeError(f"--cron: {cron.text!r} never comes")

    def _trigger(self, days: Sequence[int], weekdays: Sequence[int]) -> Any:
        try:
            from apscheduler.triggers.cron import CronTrigger
        except ImportError as error:
            raise RecipeError("schedule: APScheduler is not installed; it comes with corpusmill[schedule]") from error
        numbers = zip(
            ("second", "minute", "hour", "month", "day"),
            (self.cron.seconds, self.cron.minutes, self.cron.hours, self.cron.months, days),
            strict=True,
        )
        fields = {name: ",".join(map(str, values)) for name, values in numbers}
        # By name: APScheduler's day 0 is Monday, cron's is Sunday.
        return CronTrigger(**fields, day_of_week=",".join(DAYS[day] for day in weekdays), timezone=self.zone)

    def after(self, moment: datetime) -> datetime:
        """The next time after `moment`."""
        return min(time for trigger in self._triggers if (time := self._next(trigger, moment)))

    def _next(self, trigger: Any, moment: datetime) -> datetime | None:
        # What a trigger finds in the hour after a change of clocks depends on where it begins: always before it.
        changed = (moment - AROUND).astimezone(self.zone).utcoffset() != moment.astimezone(self.zone).utcoffset()
        found = moment - AROUND if changed else moment
        while found <= moment or (len(self.cron.hours) < 24 and found.astimezone(self.zone).fold):
            time = trigger.get_next_fire_time(None, found + timedelta(microseconds=1))
            if time is None:
                return None
            found = time.astimezone(UTC)
        return found

    def between(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """The times after `after`, up to `until`."""
        while (after := self.after(after)) <= until:
            yield after

    def gap(self, moment: datetime) -> timedelta:
        """The shortest time between two of the next ones."""
        times = [self.after(moment)]
        for _ in range(LOOKED_AT):
            times.append(self.after(times[-1]))
        return min(after - before for before, after in itertools.pairwise(times))

    def here(self, moment: datetime) -> str:
        """A time as its time zone has it, for people."""
        return moment.astimezone(self.zone).isoformat(" ", "seconds")


def five_fields(cron: Cron) -> str:
    """The expression as other programs read it alike: days of the week as numbers, 0 being the only Sunday."""
    minute, hour, day, month, _ = cron.text.split()
    every = len(cron.weekdays) == 7
    if cron.either_day and (every or len(cron.days) == 31):
        day, every = "*", True  # one suffices: to say both would be to say the other one
    return f"{minute} {hour} {day} {month} {'*' if every else ','.join(map(str, cron.weekdays))}"


def on_calendar(cron: Cron, timezone: str) -> list[str]:
    """The expression as systemd's `OnCalendar=` has it: of several lines each one suffices."""
    months, days = _systemd(FIELDS[4], cron.months), _systemd(FIELDS[3], cron.days)
    clock = ":".join(
        _systemd(field, values, width=2)
        for field, values in zip(
            (FIELDS[2], FIELDS[1], FIELDS[0]), (cron.hours, cron.minutes, cron.seconds), strict=True
        )
    )
    weekdays = ",".join(DAYS[day].title() for day in cron.weekdays) + " " if len(cron.weekdays) < 7 else ""
    if cron.either_day:
        return [f"*-{months}-{days} {clock} {timezone}", f"{weekdays}*-{months}-* {clock} {timezone}"]
    return [f"{weekdays}*-{months}-{days} {clock} {timezone}"]


def _systemd(field: Field, values: Sequence[int], width: int = 1) -> str:
    """`*`, `first/step`, `a..b` or a list."""
    first, last = values[0], values[-1]
    steps = {after - before for before, after in zip(values, values[1:], strict=False)}
    if len(values) == field.last - field.first + 1:
        return "*"
    if len(values) > 2 and steps == {1}:
        return f"{first:0{width}}..{last:0{width}}"
    if len(values) > 2 and len(steps) == 1 and last + min(steps) > field.last:
        return f"{first:0{width}}/{min(steps)}"
    return ",".join(f"{value:0{width}}" for value in values)
