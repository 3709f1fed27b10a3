"""What commands share: the two consoles, results as people and programs read them, errors as exit codes."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from cluster.storage import Store

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)
TOP_REASONS = 3  # of dropped documents, told after a build


@contextmanager
def exit_codes() -> Any:
    """Turn the errors that users cause or can mend into a message and an exit code; bugs keep their traceback."""
    from cluster.commit import CommitLost
    from cluster.session import SessionError
    from cluster.storage import StorageError
    from cluster.units import UnitFailed
    from workflows.gates import GateRefused
    from workflows.recipe import RecipeError
    from workflows.stage import StageError

    codes: dict[type[BaseException], int] = {RecipeError: 2, GateRefused: 3, CommitLost: 4}
    codes |= {UnitFailed: 1, StageError: 1, SessionError: 1, StorageError: 1, PermissionError: 1}
    try:
        yield
    except tuple(codes) as error:
        code = next(code for kind, code in codes.items() if isinstance(error, kind))
        for note in getattr(error, "__notes__", []):
            err.print(escape(note), style="dim")
        err.print(f"[bold red]error:[/] {escape(str(error))}")
        raise SystemExit(code) from None


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C ends a command that a second run takes up."""
    try:
        yield
    except KeyboardInterrupt:
        err.print("interrupted; run the same command again to go on")
        raise typer.Exit(130) from None


@contextmanager
def stdout_is_stderr() -> Iterator[None]:
    """Whatever prints to standard output inside, Ray's notes on dead workers too, goes to standard error: the result
    comes alone."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def print_result(result: dict[str, Any], store: Store) -> None:
    """The last lines of a build, from what `build --json` prints."""
    last = result["stages"][-1]
    reasons = sum((Counter(stage["dropped"]) for stage in result["stages"]), Counter[str]())
    dropped = reasons.total()
    quarantined = sum(stage["quarantined"] for stage in result["stages"])
    counts = f"kept={last['kept']} dropped={dropped} quarantined={quarantined}"
    if result["tokens"] is not None:
        counts += f" tokens={result['tokens']} shards={len(result['shards'])}"
    out.print(f"Done. {counts}")
    if dropped:
        most = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
        more = ", …" if len(most) > TOP_REASONS else ""
        out.print(f"most dropped: {escape(', '.join(f'{reason} {n}' for reason, n in most[:TOP_REASONS]))}{more}")
    if result["committed"]:
        out.print(f"committed as entry {result['log_number']}: build {result['build_id']}")
    elif result["log_number"] is not None:
        out.print(f"nothing new: build {result['build_id']} is entry {result['log_number']} already")
    else:
        out.print("not committed")
    build = f"builds/{result['build_id']}"
    if store.exists(f"{build}/report.html"):
        out.print(f"report: {escape(store.url)}/{build}/report.html", soft_wrap=True)
    if result["shards"]:
        out.print(f"shards: {escape(store.url)}/{build}/shards", soft_wrap=True)


def print_inputs(told: dict[str, Any]) -> None:
    """What a night found new."""
    what = f"{input_files(told['new'])} new, {byte_count(told['bytes'])}; {told['known']} known"
    if told["gone"]:
        what += f"; {len(told['gone'])} gone, their documents stay"
    if told["whole"]:
        what = f"{len(told['changed'])} inputs changed: everything is built again"
    out.print(what if told["new"] or told["whole"] else f"nothing new; {what}")


def print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Rows of cells, the first one the head; columns two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        out.print(escape("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()))


def count(n: int | None) -> str:
    """A number as tables show it."""
    return "-" if n is None else f"{n:,}"


def tell_ignored(ignored: Sequence[str]) -> None:
    """Name the files of folders and globs that no reader knows."""
    if ignored:
        more = f" and {len(ignored) - 1} more" if len(ignored) > 1 else ""
        err.print(f"passed over, no reader knows their kind: {escape(ignored[0])}{more}")


def input_files(n: int) -> str:
    """As `counted`."""
    return counted(n, "input file")


def counted(n: int, what: str) -> str:
    """A number and what it is of, in one or many."""
    return f"1 {what}" if n == 1 else f"{n} {what}s"


def print_json(value: Any) -> None:
    """The one object on standard output."""
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.flush()


def byte_count(n: float) -> str:
    """Bytes for people, in powers of 1,000."""
    units = ["B", "KB", "MB", "GB", "TB"]
    while n >= 1000 and len(units) > 1:
        n /= 1000
        units.pop(0)
    return f"{n:.0f} B" if units[0] == "B" else f"{n:.1f} {units[0]}"
