"""Telling people that a night went wrong: a command, a webhook, or both.

The address of a webhook often is a secret: messages name its host and nothing else.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson

from workflows.recipe import RecipeError

COMMAND_SECONDS = 60.0
TRIES, PAUSE_SECONDS = 3, 2.0  # of a webhook
CONNECT_SECONDS, READ_SECONDS = 5.0, 15.0
PREFIX = "CORPUSMILL_ALERT_"


@dataclass(frozen=True)
class Alerts:
    """Where alerts go. The command gets the JSON of the night on its standard input and a few values in its
    environment; a webhook gets the JSON by POST."""

    command: tuple[str, ...] = ()
    webhook: str = ""

    @classmethod
    def of(cls, command: str | None, webhook: str | None) -> Alerts:
        """Raises RecipeError for what can never be sent."""
        try:
            argv = tuple(shlex.split(command or ""))
        except ValueError as error:
            raise RecipeError(f"--alert-command: {command!r}: {error}") from error
        if command is not None and not argv:
            raise RecipeError("--alert-command: it is empty")
        if webhook is not None:
            try:
                parts = urlsplit(webhook)
                good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
            except ValueError:
                good = False
            if not good:
                raise RecipeError("--alert-webhook: it is no http:// or https:// address")
        return cls(argv, webhook or "")

    def send(self, night: Mapping[str, Any]) -> list[str]:
        """Send to both; what went wrong, for people."""
        body = orjson.dumps(night)
        problems = [self._call(night, body) if self.command else "", self._post(body) if self.webhook else ""]
        return [problem for problem in problems if problem]

    def _call(self, night: Mapping[str, Any], body: bytes) -> str:
        told = {f"{PREFIX}{name.upper()}": str(night[name]) for name in ("event", "schedule", "night", "output")}
        name = self.command[0]
        try:
            done = subprocess.run(
                self.command, input=body, env=os.environ | told, stdout=subprocess.DEVNULL, timeout=COMMAND_SECONDS
            )
        except subprocess.TimeoutExpired:
            return f"the alert command {name} did not end within {COMMAND_SECONDS:.0f} s"
        except OSError as error:
            return f"the alert command {name} did not start: {error.strerror}"
        return f"the alert command {name} exited with {done.returncode}" if done.returncode else ""

    def _post(self, body: bytes) -> str:
        import urllib3

        # Its own retries would log the path of the address.
        pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS), retries=False)
        problem = ""
        for attempt in range(TRIES):
            time.sleep(PAUSE_SECONDS * attempt)
            try:
                headers = {"Content-Type": "application/json"}
                answer = pool.request("POST", self.webhook, body=body, headers=headers, redirect=False)
            except urllib3.exceptions.HTTPError as error:
                problem = type(error).__name__
                continue
            if 200 <= answer.status < 300:
                return ""
            problem = f"it answered {answer.status}"
            if answer.status < 500 and answer.status != 429:
                break
        return f"the alert webhook at {urlsplit(self.webhook).hostname} failed: {problem}"
