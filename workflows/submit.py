"""`corpusmill submit` and `corpusmill job …`: builds as jobs of a Ray cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from workflows.console import err, out, print_json, print_table

if TYPE_CHECKING:
    from cluster.jobs import Job, Jobs

app = typer.Typer(no_args_is_help=True, help="Look at submitted jobs of a cluster, and stop them.")

Address = Annotated[
    str | None,
    typer.Option(help="of the head's dashboard, http://HEAD:8265; default: RAY_API_SERVER_ADDRESS or RAY_ADDRESS"),
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="as `submit` and `job list` tell it")]
Json = Annotated[bool, typer.Option("--json", help="one JSON object on standard output")]


def submit(  # noqa: PLR0913
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="a recipe, as `corpusmill init` writes one")],
    address: Address = None,
    nightly: Annotated[bool, typer.Option("--nightly", help="run `nightly`: build only what is new")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="return when the job is submitted")] = False,
    json: Json = False,
    id: Annotated[str | None, typer.Option(help="of the job, which no other job of the cluster may have")] = None,
    also: Annotated[
        list[Path] | None, typer.Option("--with", help="a file or folder to send along; may be repeated")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="a variable to pass on; no secrets; may be repeated")
    ] = None,
    shared: Annotated[
        bool, typer.Option("--shared", help="every node sees this machine's files under the same paths: send none")
    ] = False,
    retries: Annotated[int, typer.Option(min=0, help="submit again, so often, a job that dies")] = 0,
) -> None:
    """Run a build on a Ray cluster as a job, and follow it: this command ends with the job's exit code.

    Needs the same Ray and Python on both sides. The code and the recipe's own files are sent; inputs and output must
    be where the nodes reach them. Ctrl-C leaves the job alone.
    """
    from cluster.job_server import server_address
    from cluster.jobs import Jobs, check_id
    from cluster.session import SessionError
    from workflows.job_log import JobLog
    from workflows.recipe import RecipeError
    from workflows.submission import ended, followed, submission

    if detach and retries:
        raise RecipeError(f"--retries {retries}: nobody would see that the job died: leave out --detach")
    jobs = Jobs(server_address(address))
    jobs.check_version()
    sent = submission(
        recipe,
        "nightly" if nightly else "build",
        jobs,
        id=check_id(id) if id else None,
        also=also or (),
        environment=env or (),
        shared=shared,
        tell=_say,
    )
    started = jobs.patiently(lambda: sent.start(jobs))
    _say(f"job {started} was submitted: {_page(jobs, started)}")
    if detach:
        return _detached(jobs, started, sent.metadata["build_id"] or None, json)
    log = JobLog(sys.stderr.write)
    try:
        job = followed(jobs, sent, log, retries, _say, started)
    except KeyboardInterrupt:
        _say(f"the job goes on; {_hints(jobs, started)}")
        raise typer.Exit(130) from None
    if job.exit_code:
        _say(f"job {job.id} {ended(job)}")
        raise typer.Exit(job.exit_code)
    if log.result is None:
        raise SessionError(f"job {job.id} is done, but its log could not be read to the end: the output has the result")
    if json:
        return print_json(log.result)
    sys.stdout.write(log.summary)
    return out.print(f"job: {escape(_page(jobs, job.id))}")


def _detached(jobs: Jobs, id: str, build: str | None, json: bool) -> None:
    if json:
        return print_json({"job": id, "address": jobs.address, "page": _page(jobs, id), "build_id": build})
    out.print(escape(id))
    return _say(_hints(jobs, id))


def _hints(jobs: Jobs, id: str) -> str:
    at = f"{id} --address {jobs.address}"
    return f"`corpusmill job logs --follow {at}` follows it, `corpusmill job stop {at}` stops it"


def _page(jobs: Jobs, id: str) -> str:
    return f"{jobs.address}/#/jobs/{id}"


def _say(text: str) -> None:
    err.print(escape(text))


@app.command("list")
def list_jobs(address: Address = None, json: Json = False) -> None:
    """List the cluster's jobs that `corpusmill submit` started, the newest first."""
    from cluster.packages import DISTRIBUTION
    from workflows.submission import told_of

    told = [told_of(job) for job in _jobs(address).list() if DISTRIBUTION in job.metadata]
    if json:
        return print_json(told)
    if not told:
        return out.print("no jobs")
    rows = [("job", "op", "recipe", "build", "status", "started", "ended")]
    for one in told:
        rows.append(tuple(str(one[key] or "-") for key in ("job", "op", "recipe", "build_id", "status", *TIMES)))  # type: ignore[arg-type]
    return print_table(rows)


TIMES = ("started", "ended")


@app.command()
def status(id: JobId, address: Address = None, json: Json = False) -> None:
    """Say how a job stands."""
    from workflows.submission import ended, told_of

    jobs = _jobs(address)
    job = jobs.get(id)
    told = told_of(job)
    if json:
        return print_json(told)
    how = ended(job) if job.over else f"is {job.status.lower()}"
    out.print(f"job {escape(job.id)} {escape(how)}")
    for key in ("op", "recipe", "build_id", *TIMES):
        if told[key]:
            out.print(f"  {key:<9} {escape(told[key])}")
    return out.print(f"  page      {escape(_page(jobs, id))}")


@app.command()
def logs(
    id: JobId,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", help="until the job is over; ends with its exit code")] = False,
) -> None:
    """Print what a job has said."""
    from workflows.job_log import JobLog
    from workflows.submission import ended

    jobs = _jobs(address)
    log = JobLog(_written)
    job: Job | None = None
    try:
        if follow:
            job = jobs.follow(id, log.take)
        else:
            log.take(jobs.logs(id))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    log.close()
    sys.stdout.write(log.summary)
    if job is not None and job.exit_code:
        _say(f"job {id} {ended(job)}")
        raise typer.Exit(job.exit_code)


def _written(line: str) -> Any:
    sys.stdout.write(line)
    sys.stdout.flush()


@app.command()
def stop(id: JobId, address: Address = None) -> None:
    """Stop a job and wait until it has ended. What it has done stays: submitted again, the build goes on from there."""
    from workflows.submission import ended

    job = _jobs(address).stop(id)
    out.print(f"job {escape(id)} {escape(ended(job))}")


def _jobs(address: str | None) -> Jobs:
    from cluster.job_server import server_address
    from cluster.jobs import Jobs

    return Jobs(server_address(address))
