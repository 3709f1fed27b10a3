"""Jobs of a Ray cluster: submit, look at, follow, stop."""

from __future__ import annotations

import asyncio
import importlib.metadata
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

import orjson

from cluster.job_server import ANSWER_SECONDS, JobServer, Unreachable
from cluster.packages import Package
from cluster.session import SessionError

UPLOAD_SECONDS = 600
PATIENCE_SECONDS = 300  # with a head that does not answer, while a job is followed
SILENCE_SECONDS = 60  # of a log, before the connection is made again: a dead one looks the same
POLL_SECONDS = 1.0
STOP_SECONDS = 60
LAST_TRIES = 3  # to read the log of a job that is over
TERMINAL = ("SUCCEEDED", "FAILED", "STOPPED")
OUR_CODES = (1, 2, 3, 4)  # with which the command fails by itself
INTERRUPTED = 130
T = TypeVar("T")
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class JobLost(SessionError):
    """The cluster does not know the job: it never did, or its head was started again."""


@dataclass(frozen=True)
class Job:
    """A submitted job as the cluster tells of it. Times are seconds since the epoch."""

    id: str
    status: str
    message: str
    metadata: Mapping[str, str]
    started: float | None
    ended: float | None
    driver_exit_code: int | None

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Job:
        """From the JSON of the job server."""
        start, end = (told[key] / 1000 if told.get(key) else None for key in ("start_time", "end_time"))
        metadata, code = told.get("metadata") or {}, told.get("driver_exit_code")
        return cls(told["submission_id"], told["status"], told.get("message") or "", metadata, start, end, code)

    @property
    def over(self) -> bool:
        return self.status in TERMINAL

    @property
    def died(self) -> bool:
        """Whether it ended otherwise than by a verdict on its recipe or its corpus, which a second try would repeat,
        and otherwise than by somebody's wish."""
        return self.status == "FAILED" and self.exit_code == 1

    @property
    def exit_code(self) -> int:
        """Of a job that is over, as a command ends that followed it: the job's own where it is one of ours."""
        if self.status == "STOPPED":
            return INTERRUPTED
        if self.status == "SUCCEEDED":
            return 0
        code = self.driver_exit_code
        return code if code in (*OUR_CODES, INTERRUPTED) else 1


class Jobs:
    """The jobs of the cluster whose job server has this address. All calls raise SessionError."""

    def __init__(self, address: str) -> None:
        self._server = JobServer(address)
        self.address = address

    def check_version(self) -> None:
        """Raises SessionError for a cluster with another Ray than is installed here."""
        there = self._server.told("GET", "/api/version").get("ray_version")
        here = importlib.metadata.version("ray")
        if there != here:
            raise SessionError(f"{self.address} runs Ray {there}, here is Ray {here}: both sides need the same")

    def nodes(self) -> list[str]:
        """The addresses of the nodes that are alive. Raises SessionError where none is."""
        told = self._server.told("GET", "/api/v0/nodes?limit=10000")["data"]["result"]["result"]
        if not (alive := [node["node_ip"] for node in told if node["state"] == "ALIVE"]):
            raise SessionError(f"{self.address}: no node of the cluster is alive")
        return alive

    def upload(self, package: Package) -> str:
        """Send a package unless the cluster has it; its URI."""
        uri = package.uri
        path = f"/api/packages/gcs/{uri.removeprefix('gcs://')}"
        answer = self._server.answer("GET", path)  # which keeps what is there for a job to come
        if answer.status == 404:
            answer = self._server.answer("PUT", path, package.archive(), seconds=UPLOAD_SECONDS)
        self._server.checked(answer)
        return uri

    def submit(self, id: str, entrypoint: str, runtime_env: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
        """Start a job. Raises SessionError where the cluster has another job of this id: one with other metadata."""
        if found := self.find(id):
            if dict(found.metadata) == dict(metadata):  # only the answer was lost
                return
            raise SessionError(f"{self.address} has a job {id!r} already: give another --id")
        wanted = {"entrypoint": entrypoint, "submission_id": id, "runtime_env": runtime_env, "metadata": metadata}
        try:
            self._server.told("POST", "/api/jobs/", orjson.dumps(wanted))
        except Unreachable:  # perhaps only the answer was lost
            if not self.find(id):
                raise

    def find(self, id: str) -> Job | None:
        """The job of that id; None where the cluster knows none."""
        answer = self._server.answer("GET", _path(id))
        return None if answer.status == 404 else Job.of(self._server.checked(answer).json())

    def get(self, id: str) -> Job:
        """As `find`. Raises JobLost."""
        if job := self.find(id):
            return job
        raise JobLost(f"{self.address} knows no job {id!r}")

    def list(self) -> list[Job]:
        """All jobs that were submitted, the newest first."""
        told = [one for one in self._server.told("GET", "/api/jobs/") if one.get("submission_id")]
        return sorted(map(Job.of, told), key=lambda job: -(job.started or 0))

    def logs(self, id: str) -> str:
        """All that the job has said so far. Raises JobLost."""
        self.get(id)
        return str(self._server.told("GET", f"{_path(id)}/logs")["logs"] or "")

    def stop(self, id: str) -> Job:
        """Ask the job to end and wait until it has. Raises JobLost; SessionError where it goes on."""
        if not self.get(id).over:
            self._server.told("POST", f"{_path(id)}/stop")
        deadline = time.monotonic() + STOP_SECONDS
        while not (job := self.get(id)).over:
            if time.monotonic() > deadline:
                raise SessionError(f"job {id} goes on {STOP_SECONDS} s after it was told to stop: {job.message}")
            time.sleep(POLL_SECONDS)
        return job

    def follow(self, id: str, tell: Callable[[str], None]) -> Job:
        """Give the job's log to `tell`, piece by piece as it comes, until the job is over; the job then.

        A connection that breaks is made again and goes on where it stopped. Raises JobLost; SessionError where the
        head does not answer for `PATIENCE_SECONDS`.
        """
        log = Log(tell)
        tries = 0
        while True:
            job = self.patiently(lambda: self.get(id))
            tries += job.over
            try:
                whole = asyncio.run(self._tail(id, log))
            except (OSError, TimeoutError):
                whole = False
            if job.over and (whole or tries == LAST_TRIES):
                return job
            time.sleep(POLL_SECONDS)

    def patiently(self, ask: Callable[[], T]) -> T:
        """Ask again while the head does not answer, for `PATIENCE_SECONDS`."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return ask()
            except Unreachable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(POLL_SECONDS)

    async def _tail(self, id: str, log: Log) -> bool:
        """Read the log from its beginning; whether the cluster said that this was all. Raises OSError."""
        import aiohttp

        log.begin()
        limits = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_SECONDS, sock_read=ANSWER_SECONDS)
        path = f"{self.address}{_path(id)}/logs/tail"
        try:
            # No pings: Ray's server answers none while it sends, so a dead connection is told by silence alone.
            async with (
                aiohttp.ClientSession(headers=self._server.headers, timeout=limits) as session,
                session.ws_connect(path, max_msg_size=0) as socket,
            ):
                while True:
                    message = await socket.receive(timeout=SILENCE_SECONDS)
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        return socket.close_code == aiohttp.WSCloseCode.OK
                    log.take(message.data)
        except aiohttp.ClientError as error:
            raise OSError(str(error)) from error


class Log:
    """What was read of a log that is read from its beginning each time: only what is new is told."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told = self._seen = 0  # characters

    def begin(self) -> None:
        """What comes next is the beginning of the log."""
        self._seen = 0

    def take(self, text: str) -> None:
        """The next piece of the log."""
        new = text[max(0, self._told - self._seen) :]
        self._seen += len(text)
        if new:
            self._told = self._seen
            self._tell(new)


def check_id(id: str) -> str:
    """The id. Raises SessionError for one that Ray would make a strange file name of."""
    if not ID.fullmatch(id):
        raise SessionError(f"--id {id!r}: letters, digits, '-', '_' and '.', 128 at most")
    return id


def _path(id: str) -> str:
    return f"/api/jobs/{quote(id, safe='')}"
