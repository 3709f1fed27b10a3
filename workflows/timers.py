"""The nights of a schedule as files for systemd, Kubernetes, Airflow or cron, which then run them."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import jinja2

from workflows.cron import Times, five_fields, on_calendar
from workflows.nights import Rules
from workflows.recipe import RecipeError

Form = Literal["systemd", "kubernetes", "airflow", "cron"]
HONOURED: dict[Form, set[str]] = {  # options that the form can say
    "systemd": {"jitter", "retries", "retry_wait", "timeout", "catch_up"},
    "kubernetes": {"retries", "timeout", "grace", "catch_up"},
    "airflow": {"retries", "retry_wait", "timeout"},
    "cron": set(),
}
IN_POD = "/etc/corpusmill/recipe.yaml"


@dataclass(frozen=True)
class Timer:
    """What runs when. `recipe` is an absolute path; times are in the schedule's time zone."""

    recipe: Path
    times: Times
    rules: Rules
    address: str | None
    timeout: timedelta | None

    def command(self, program: str, recipe: str) -> list[str]:
        if self.address:
            return [program, "submit", recipe, "--nightly", "--address", self.address]
        return [program, "nightly", recipe]


def print_timer(form: Form, timer: Timer) -> str:
    """The files, one after the other. Raises RecipeError naming what that scheduler cannot do."""
    cron = timer.times.cron
    if form != "systemd" and cron.by_seconds:
        raise RecipeError(f"--cron: {cron.text!r} has seconds, which --print {form} cannot say")
    folder, recipe = str(Path.cwd()), str(timer.recipe)
    if any(not one.isprintable() for one in (folder, recipe)):
        raise RecipeError(f"--print: {recipe!r} in {folder!r} has a character that such files cannot hold")
    if form == "airflow" and "endraw" in recipe:
        raise RecipeError(f"--print: {recipe!r} ends what Airflow must not take for a template")
    program = shutil.which("corpusmill") or str(Path(sys.executable).with_name("corpusmill"))
    command = timer.command(program, recipe)
    seconds: Callable[[timedelta], int] = lambda span: round(span.total_seconds())  # noqa: E731
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("workflows"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(systemd=_systemd, percent=_percent, repr=repr)
    return environment.get_template(f"schedule.{form}.j2").render(
        name=f"corpusmill-{_plain(timer.recipe.stem)}",
        file=timer.recipe.name,
        text=timer.recipe.read_text("utf-8").rstrip("\n"),
        folder=folder,
        cron=cron.text if form == "systemd" else five_fields(cron),
        timezone=timer.times.zone.key,
        calendar=on_calendar(cron, timer.times.zone.key),
        command=command,
        command_in_pod=timer.command("corpusmill", IN_POD),
        mount=IN_POD.rpartition("/")[0],
        version=importlib.metadata.version("corpusmill"),
        airflow=f"{{% raw %}}{shlex.join(command)}{{% endraw %}}",
        limited=max(1, seconds((timer.times.gap(datetime.now(UTC)) - timer.rules.jitter) * 0.9)),
        locked=f"{shlex.join(['cd', folder])} && {shlex.join(['flock', '-n', f'{recipe}.lock', *command])}",
        jitter=seconds(timer.rules.jitter),
        grace=seconds(timer.rules.grace),
        retries=timer.rules.retries,
        retry_wait=seconds(timer.rules.retry_wait),
        timeout=seconds(timer.timeout) if timer.timeout else None,
        catch_up=timer.rules.catch_up,
        today=datetime.now(UTC).astimezone(timer.times.zone).date(),
    )


def _plain(text: str) -> str:
    """A name for systemd, Kubernetes and Airflow alike: up to 40 small letters, digits and '-'."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-") or "corpus"


def _systemd(argument: str) -> str:
    """An argument of `ExecStart=`."""
    quoted = argument.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return argument if re.fullmatch(r"[\w/.:@+=,-]+", argument) else f'"{quoted}"'


def _percent(text: str, instead: str) -> str:
    return text.replace("%", instead)
