"""What a submitted job runs on the head of the cluster: it checks that this Python can, then runs the command.

What is imported here works with any Python 3, and with nothing installed: both may be what is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from workflows.ending import exit_code, to_the_end
from workflows.job_log import marked

DISTRIBUTION = "corpusmill"
UNFIT = 2


def main(arguments: list[str] | None = None) -> None:
    """Run `-- build RECIPE …` or `-- nightly RECIPE …`; exits with the command's code, or 2 where it cannot run."""
    parser = argparse.ArgumentParser(prog="workflows.entrypoint")
    parser.add_argument("--python", required=True, help="the minor version where the job was submitted")
    parser.add_argument("--ray", required=True, help="the version of Ray there")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args(arguments)
    if problems := unfit(given.python, given.ray):
        sys.stderr.write("".join(f"error: {problem}\n" for problem in problems))
        sys.exit(UNFIT)
    sys.exit(run(given.command))


def unfit(python: str, ray: str) -> list[str]:
    """Why this Python cannot do what one of those versions submitted."""
    here = minor_version()
    if here != python:
        return [
            f"the head's Python is {here} ({sys.executable}), the job comes from Python {python}: make them the same"
        ]
    found = _version("ray")
    if found != ray:
        told = f"has Ray {found}" if found else "has no Ray"
        return [f"the head's Python ({sys.executable}) {told}, the job comes from Ray {ray}: make them the same"]
    return [f"on the head, in {sys.executable}: {problem}" for problem in _unmet()]


def minor_version() -> str:
    """Of this Python: what both sides of a job must have in common."""
    return ".".join(platform.python_version_tuple()[:2])


def _unmet() -> Iterator[str]:
    """What the shipped code depends on and is not installed here."""
    from packaging.requirements import Requirement  # which Ray depends on

    try:
        wanted = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:  # submitted from a checkout that was never installed
        return
    for requirement in map(Requirement, wanted):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _version(requirement.name)
        if version is None:
            yield f"{requirement.name} is not installed ({requirement} is needed)"
        elif not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement.name} {version} is installed ({requirement} is needed)"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def run(command: list[str]) -> int:
    """Run the command in this process on this cluster; its exit code. The result goes to standard output, marked."""
    # The environment of the nodes says whether the cluster asks for tokens: where it says nothing, it asks for none.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    from cluster.session import prepare_environment

    prepare_environment()  # before kernels are imported, which would be compiled again for this copy of the code
    end_softly()
    from workflows.cli import run as corpusmill

    recipe = os.path.abspath(command[1])
    sys.argv = ["corpusmill", *command, "--address", "auto", "--json"]
    said = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    with contextlib.redirect_stdout(said):
        code = _exit_code(corpusmill)
    if code == 0:
        result = json.loads(said.buffer.getvalue())
        sys.stdout.writelines(marked(result, _summary(result, recipe)))
    return code


def end_softly() -> None:
    """Make SIGTERM, by which jobs are stopped, what Ctrl-C is elsewhere.

    A handler would not do: Ray replaces it by one of its own that ends the process at once. So the signal is blocked,
    and a thread waits for it. SIGINT is what Ray blocks in all that it starts.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main_thread = threading.get_ident()

    def wait() -> None:
        signal.sigwait({signal.SIGTERM})
        signal.pthread_kill(main_thread, signal.SIGINT)

    threading.Thread(target=wait, daemon=True).start()


def _exit_code(command: Callable[[], object]) -> int:
    try:
        command()
    except SystemExit as end:
        return exit_code(end)
    return 0


def _summary(result: dict[str, Any], recipe: str) -> str:
    """What the command prints for people. The output can be read here, perhaps not where the job comes from."""
    from cluster.storage import open_store
    from workflows.console import print_inputs, print_result
    from workflows.recipe import load_recipe

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        if "inputs" in result:
            print_inputs(result["inputs"])
        if result["stages"]:
            print_result(result, open_store(load_recipe(recipe)[0].output))
    return text.getvalue()


if __name__ == "__main__":
    to_the_end(main)
