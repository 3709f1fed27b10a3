"""One recipe on its way to a cluster: checked here, packed, and started as a job, again where the job dies."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import os
import re
import secrets
import shlex
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cluster.jobs import Job, JobLost, Jobs
from cluster.packages import DISTRIBUTION, Package, code
from cluster.session import ENVIRONMENT
from workflows.build import build_id, prepare
from workflows.entrypoint import minor_version
from workflows.job_log import JobLog
from workflows.nightly import prepare_night
from workflows.packing import Packing
from workflows.recipe import Params, RecipeError, load_recipe, load_workflow
from workflows.refused import secret_key, secret_value

STOP_SECONDS = 30  # from SIGTERM to SIGKILL when a job is stopped: Ray's three are short for a driver with work
SECRET = re.compile(r"(^|_)(TOKEN|KEY|PASS|PASSWD|PWD|PAT|AUTH|COOKIE|DSN|CREDS?)(_|$)")
NODES = "credentials belong to the nodes: to their role, or the environment that Ray was started with"


@dataclass(frozen=True)
class Submission:
    """A recipe as it is sent. `entrypoint` is what runs on the head."""

    id: str
    entrypoint: str
    packages: tuple[Package, Package]  # the code, the recipe and its files
    environment: dict[str, str]
    metadata: dict[str, str]

    def start(self, jobs: Jobs, attempt: int = 1) -> str:
        """Send what the cluster does not have yet and start the job; its id."""
        id = self.id if attempt == 1 else f"{self.id}-{attempt}"
        source, files = (jobs.upload(package) for package in self.packages)
        environment = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), **self.environment}
        runtime_env = {"py_modules": [source], "working_dir": files, "env_vars": environment}
        jobs.submit(id, self.entrypoint, runtime_env, self.metadata)
        return id


def checked_here(recipe: Path, op: Literal["build", "nightly"], shared: bool) -> tuple[str | None, str | None]:
    """The id that the build will have, None with the reason where inputs or output cannot be looked at from here, and
    for a night without anything new. Raises RecipeError."""
    try:
        if op == "build":
            return build_id(prepare(recipe)), None
        night = prepare_night(recipe)
        return None if night.empty else build_id(night.prepared), None
    except OSError as error:
        return None, str(error)
    except RecipeError as error:
        cause = error.__cause__
        if not isinstance(cause, OSError) or (isinstance(cause, FileNotFoundError) and not shared):
            raise
        return None, str(error)


def submission(
    recipe: Path,
    op: Literal["build", "nightly"],
    jobs: Jobs,
    *,
    id: str | None = None,
    also: Sequence[Path] = (),
    environment: Sequence[str] = (),
    shared: bool = False,
    tell: Callable[[str], object] = lambda _: None,
) -> Submission:
    """Check a recipe and pack it for a cluster. Raises RecipeError, SessionError."""
    given, located = load_recipe(recipe)
    values = passed_on(environment)
    build, unseen = checked_here(recipe, op, shared)
    if unseen:
        tell(f"not checked from here, the job will: {unseen}")
    stage = load_workflow(given.workflow)(Params(given.params))
    reachable = on_this_machine(jobs.nodes())
    path, files = Packing(recipe, located, shared, reachable).pack(given, stage, also)
    metadata = {
        DISTRIBUTION: _own_version(),
        "op": op,
        "recipe": recipe.name,
        "recipe_sha256": hashlib.sha256(recipe.read_bytes()).hexdigest(),
        "build_id": build or "",
        "nonce": secrets.token_hex(8),  # by which a job is known for this submission's
        "submitted": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    return Submission(id or _new_id(op, recipe, build), entrypoint(op, path), (code(), files), values, metadata)


def entrypoint(op: str, recipe: str) -> str:
    """The shell command of a job. The folder of the job, which is the user's, hides no module of ours."""
    checks = ["--python", minor_version(), "--ray", importlib.metadata.version("ray")]
    command = ["env", "PYTHONSAFEPATH=1", "python", "-m", "workflows.entrypoint", *checks, "--", op, recipe]
    return f"exec {shlex.join(command)}"


def passed_on(names: Sequence[str]) -> dict[str, str]:
    """The variables of this environment that a job gets. Raises RecipeError for those that may hold secrets."""
    found = {}
    for name in names:
        if "=" in name:  # whose value this message must not repeat
            raise RecipeError("--env takes the name of a variable that is set here, not NAME=value")
        if name not in os.environ:
            raise RecipeError(f"--env {name}: not set here")
        if secret_key(name) or SECRET.search(name.upper()) or secret_value(os.environ[name]):
            raise RecipeError(f"--env {name}: may be a secret, and all who see the dashboard would see it; {NODES}")
        if name in ENVIRONMENT:
            raise RecipeError(f"--env {name}: is set on the nodes by each session")
        found[name] = os.environ[name]
    return found


def on_this_machine(addresses: Sequence[str]) -> bool:
    """Whether all these are addresses of this machine: only then can it be listened on them. A tunnel's end is here,
    the nodes behind it are not."""
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.bind((address, 0))
        except OSError:
            return False
    return bool(addresses)


def _new_id(op: str, recipe: Path, build: str | None) -> str:
    stem = re.sub(r"[^A-Za-z0-9_]+", "-", recipe.stem).strip("-")[:40] or "recipe"
    when = build or datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
    return f"{op}-{stem}-{when}-{secrets.token_hex(2)}"


def _own_version() -> str:
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "checkout"


def followed(jobs: Jobs, sent: Submission, log: JobLog, retries: int, tell: Callable[[str], object], first: str) -> Job:
    """Follow the job `first` of a submission to its end, with up to `retries` more tries where it dies; the last job.

    Died has what ended without a verdict: its driver was killed, a node or the head was lost, storage failed.
    """
    id = first
    for attempt in range(2, retries + 3):
        try:
            job: Job | None = jobs.follow(id, log.take)
        except JobLost:
            if attempt == retries + 2:
                raise
            job = None
        log.close()
        if job is not None and (not job.died or attempt == retries + 2):
            return job
        tell(f"job {id} {'was lost' if job is None else ended(job)}; try {attempt} of {retries + 1}")
        log.forget()
        id = jobs.patiently(lambda attempt=attempt: sent.start(jobs, attempt))  # type: ignore[misc]
    raise AssertionError("unreachable")


def ended(job: Job) -> str:
    """How a job that is over ended, for people."""
    if job.status == "STOPPED":
        return "was stopped"
    if job.status == "SUCCEEDED":
        return "is done"
    code = job.driver_exit_code
    if code is None:
        return f"failed: {job.message.strip().partition(chr(10))[0]}"
    if code < 0 or code > 128:
        return f"failed: its driver was killed by signal {-code if code < 0 else code - 128}"
    if code in (126, 127):
        return f"failed: `python` was not found on the head (exit code {code}): Ray must be started with it on its PATH"
    return f"failed with exit code {code}"


def told_of(job: Job) -> dict[str, Any]:
    """A job as `job list --json` and `job status --json` print it."""
    times = {"started": _moment(job.started), "ended": _moment(job.ended)}
    named = {key: job.metadata.get(key) or None for key in ("op", "recipe", "build_id", "recipe_sha256", DISTRIBUTION)}
    code = job.exit_code if job.over else None
    return {"job": job.id, "status": job.status, "exit_code": code, **times, **named, "message": job.message}


def _moment(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
