"""`corpusmill schedule`: a nightly build by cron expression, with retries, catch-up and alerts."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from cluster.schedule_state import Claim
    from workflows.attempt import Running
    from workflows.cron import Times

LEAST_LEASE = 3.0  # seconds
FORMED = {"recipe", "cron", "timezone", "address", "form"}  # options of every form of --print


def schedule(  # noqa: PLR0913
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="a recipe, as `corpusmill init` writes one")],
    cron: Annotated[
        str | None, typer.Option(help='when: "0 2 * * *"; six fields have seconds first; default: as it ran last')
    ] = None,
    timezone: Annotated[str | None, typer.Option(help="of --cron, such as Europe/Berlin; default: UTC")] = None,
    jitter: Annotated[str, typer.Option(help="start each night up to that much later, drawn by its date")] = "0s",
    address: Annotated[str | None, typer.Option(help="of a Ray cluster to submit to; default: Ray here")] = None,
    retries: Annotated[int, typer.Option(min=0, max=50, help="attempts after the first one of a night")] = 3,
    retry_wait: Annotated[str, typer.Option(help="before the first retry; twice as long each time")] = "5m",
    timeout: Annotated[str | None, typer.Option(help="an attempt that takes longer is ended, and has failed")] = None,
    grace: Annotated[str, typer.Option(help="a night is run late by so much; missed by more, the next one waits")] = (
        "1h"
    ),
    catch_up: Annotated[bool, typer.Option("--catch-up", help="make up for missed nights, however late")] = False,
    alert_command: Annotated[str | None, typer.Option(help="run when a night failed for good or was missed")] = None,
    alert_webhook: Annotated[
        str | None, typer.Option(envvar="CORPUSMILL_ALERT_WEBHOOK", help="an address to POST to then")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="run what is due now, and end")] = False,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="begin no night from then on; ISO 8601")] = None,
    name: Annotated[str | None, typer.Option(help="of the schedule in the corpus; default: that of the recipe")] = None,
    lease: Annotated[str, typer.Option(help="a scheduler not heard of for so long is taken for dead")] = "60s",
    show: Annotated[bool, typer.Option("--show", help="tell the next times and the last nights, and end")] = False,
    form: Annotated[
        Literal["systemd", "kubernetes", "airflow", "cron"] | None,
        typer.Option("--print", help="print files for another scheduler, and end"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON object a line for each event")] = False,
) -> None:
    """Run `nightly` at the times of a cron expression until stopped; what happened is written down in the corpus.

    A night that failed is retried, and in the end told by an alert; what it left is caught up by the next one. Of
    several schedulers of one name, on any machines, one runs a night, and never two at once.
    """
    from cluster.job_server import server_address
    from cluster.schedule_state import ScheduleState
    from cluster.storage import open_store
    from workflows.alert import Alerts
    from workflows.cron import Times, parse
    from workflows.nights import Rules
    from workflows.recipe import RecipeError, load_recipe
    from workflows.scheduler import Scheduler

    output = load_recipe(recipe)[0].output
    if address is not None:
        address = server_address(address)
    wait, most = _duration("retry-wait", retry_wait), _duration("timeout", timeout) if timeout else None
    seed = _name(name or recipe.stem)
    rules = Rules(_duration("jitter", jitter), _duration("grace", grace), catch_up, retries, wait, seed)
    state = ScheduleState(open_store(output), seed)
    known = state.terms()[-1:] if cron is None else []  # as it ran last
    cron = cron or next((terms.cron for terms in known), None)
    times = Times(parse(_given(cron)), timezone or next((terms.timezone for terms in known), "UTC"))
    rules.check(times, datetime.now(UTC))
    if once and rules.jitter:
        raise RecipeError(
            f"--jitter: with --once, {jitter} would put each night ahead of it; what starts it draws that"
        )
    if form is not None:
        from workflows.timers import HONOURED, Timer, print_timer

        _refuse_others(context, FORMED | HONOURED[form], form)
        sys.stdout.write(print_timer(form, Timer(recipe.resolve(), times, rules, address, most)))
        return
    if show:
        from workflows.schedule_view import print_view, view

        print_view(view(state, times, rules, datetime.now(UTC)), times, json)
        return
    scheduler = Scheduler(
        state,
        times,
        rules,
        begin=lambda claim: _begin(recipe, address, seed, claim),
        tell=(tell := teller(times, json)),
        clear=(lambda claim: _stop_job(address, seed, claim, tell)) if address else lambda _: True,
        alerts=Alerts.of(alert_command, alert_webhook),
        about={"recipe": str(recipe.resolve()), "output": state.store.url, "cron": times.cron.text},
        timeout=most,
        lease=_lease(lease),
        once=once,
        until=_moment(until, times) if until else None,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, scheduler.stop)
    raise typer.Exit(scheduler.run())


def _begin(recipe: Path, address: str | None, name: str, claim: Claim) -> Running:
    from workflows.attempt import Child

    command = ["nightly", str(recipe)]
    if address:
        command = ["submit", str(recipe), "--nightly", "--address", address, "--id", _job(name, claim)]
    return Child([*command, "--json"], f"{claim.night:%Y-%m-%dT%H:%M:%SZ} #{claim.attempt}")


def _job(name: str, claim: Claim) -> str:
    """The id of an attempt's job, by which another scheduler finds it, too."""
    return f"{name}-{claim.night:%Y%m%dT%H%M%SZ}-{claim.nonce[:8]}"


def _stop_job(address: str, name: str, claim: Claim, tell: Callable[..., None]) -> bool:
    """End the attempt's job where it goes on without the process that submitted it; False where it may still do so."""
    from cluster.jobs import JobLost, Jobs
    from cluster.session import SessionError

    try:
        Jobs(address).stop(_job(name, claim))
    except JobLost:  # it never came there
        return True
    except SessionError as error:
        tell("job not stopped", job=_job(name, claim), error=str(error))
        return False
    return True


def _duration(name: str, text: str) -> timedelta:
    from workflows.gc import seconds

    return timedelta(seconds=seconds(text, f"--{name}"))


def _lease(text: str) -> float:
    from workflows.recipe import RecipeError

    found = _duration("lease", text).total_seconds()
    if found < LEAST_LEASE:
        raise RecipeError(f"--lease: {text!r} is less than {LEAST_LEASE:.0f}s")
    return found


def _given(cron: str | None) -> str:
    from workflows.recipe import RecipeError

    if cron is None:
        raise RecipeError('--cron: say when, for example "0 2 * * *"')
    return cron


def _name(text: str) -> str:
    from cluster.schedule_state import NAME
    from workflows.recipe import RecipeError

    if not re.fullmatch(NAME, text):
        raise RecipeError(f"--name: {text!r} is no name of up to 64 letters, digits, '.', '_' and '-'")
    return text


def _moment(text: str, times: Times) -> datetime:
    from workflows.recipe import RecipeError

    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise RecipeError(f"--until: {text!r} is no time such as 2026-12-31T18:00") from error
    return found if found.tzinfo else found.replace(tzinfo=times.zone)


def _refuse_others(context: typer.Context, known: set[str], form: str) -> None:
    from workflows.recipe import RecipeError

    for name in sorted(context.params.keys() - known):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise RecipeError(f"--{name.replace('_', '-')}: --print {form} cannot say that")


def teller(times: Times, json: bool) -> Callable[..., None]:
    """What says an event: a line on standard error, and with `json` an object on standard output."""
    import orjson

    def tell(event: str, **fields: Any) -> None:
        now = datetime.now(UTC)
        typer.echo(f"{times.here(now)}  {_line(event, fields, times)}", err=True)
        if json:
            line = orjson.dumps(
                {"time": now, "event": event} | fields, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE
            )
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()

    return tell


def _line(event: str, fields: Mapping[str, Any], times: Times) -> str:
    shown = {key: times.here(value) if isinstance(value, datetime) else value for key, value in fields.items()}
    night = f"night of {shown.pop('night')}, attempt {shown.pop('attempt')}: " if "night" in shown else ""
    outcome = shown.pop("outcome", None)
    rest = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in shown.items() if value is not None)
    return f"{night}{outcome or event}{': ' if rest and not night else ', ' if rest else ''}{rest}"
