"""`corpusmill status`: what readers see, what runs now, what is left over; once, or again and again."""

from __future__ import annotations

from collections.abc import Sequence
from time import sleep
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from workflows.console import byte_count, count, interruptible, out, print_json, print_table

if TYPE_CHECKING:
    from cluster.storage import Store

REFRESH_SECONDS = 2.0  # on a terminal
LINE_SECONDS = 10.0  # elsewhere
MOST_DROPPED = 3  # reasons of an operator that are told


def status(
    output: Annotated[str, typer.Argument(metavar="OUT", help="the recipe's output: a corpus")],
    watch: Annotated[bool, typer.Option("--watch", help="follow the builds that run until they end")] = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
) -> None:
    """Say what readers see, which builds run and how far they are, and whether anything waits for `gc`.

    With --watch the exit code is 1 where a build that was followed failed, or its driver is gone.
    """
    from cluster.storage import open_store
    from workflows.recipe import RecipeError
    from workflows.status import status as look

    if watch and json:
        raise RecipeError("--watch, --json: give one of the two")
    store = open_store(output)
    followed: set[str] = set()
    if watch:
        with interruptible():
            followed = follow(store)
    found = look(store)
    if json:
        return print_json(found)
    _print(found)
    if any(build["build_id"] in followed and build["state"] != "running" for build in found["running"]):
        raise typer.Exit(1)
    return None


def follow(store: Store) -> set[str]:
    """Show the builds that run until none does; their ids."""
    from rich.live import Live
    from rich.text import Text

    from workflows.running import is_live, running

    followed: set[str] = set()
    if out.is_terminal:
        with Live(console=out, auto_refresh=False, transient=True) as live:
            while builds := [build for build in running(store, None) if is_live(build)]:
                followed |= {build["build_id"] for build in builds}
                text = "\n".join(line for build in builds for line in lines_of(build))
                live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
                sleep(REFRESH_SECONDS)
        return followed
    told: dict[str, str] = {}
    while builds := [build for build in running(store, None) if is_live(build)]:
        for build in builds:
            followed.add(build["build_id"])
            if told.get(build["build_id"]) != build["updated"]:
                out.print(escape(headline(build)))
            told[build["build_id"]] = build["updated"]
        sleep(LINE_SECONDS)
    return followed


def headline(build: dict[str, Any]) -> str:
    """Where a build stands, in one line."""
    where = f"build {build['build_id']} ({build['op']}, {build['workflow']}) on {build['host']}: "
    units = f"{build['stage']} {build['pass']}, {build['units_done']:,} of {build['units']:,} units"
    if build["state"] == "failed":
        return f"{where}failed in {units}: {build['failed']}"
    if build["state"] == "gone":
        return f"{where}its driver ended without a word in {units}, after {build['updated']}"
    told = [units]
    if build["rows_per_second"]:
        told.append(f"{build['rows_per_second']:,.0f} rows/s")
    if build["eta_seconds"] is not None:
        told.append(f"eta {build['eta_seconds']:,} s")
    stalled = "stalled, " if build["state"] == "stalled" else ""
    return f"{where}{', '.join(told)}; {stalled}{build['idle_seconds']:,} s since the last progress"


def lines_of(build: dict[str, Any]) -> list[str]:
    """All that is told of a build."""
    lines = [headline(build)]
    rows = [("  stage", "operator", "rows in", "kept", "dropped", "most dropped")]
    for stage in build["stages"]:
        for number, operator in enumerate(stage["operators"]):
            counts = (operator["rows_in"], operator["kept"], sum(operator["dropped"].values()))
            most = sorted(operator["dropped"].items(), key=lambda item: (-item[1], item[0]))[:MOST_DROPPED]
            reasons = ", ".join(f"{reason} {n:,}" for reason, n in most)
            name = "" if number else stage["name"]
            rows.append((f"  {name}", operator["name"], *(f"{n:,}" for n in counts), reasons))
        if stage["quarantined"]:
            rows.append((f"  {stage['name']}", "(quarantined)", "", "", f"{stage['quarantined']:,}", ""))
    if len(rows) > 1:
        lines += _aligned(rows)
    if build["dashboard"]:
        lines.append(f"  {build['dashboard']}")
    return lines


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _print(found: dict[str, Any]) -> None:
    head = found["head"]
    out.print(f"entry {head['number']}, {head['op']}, {head['created']}" if head else "nothing is committed yet")
    if head:
        table = [("build", "made", "inputs", "documents", "tokens", "shards", "size")]
        for build in found["builds"]:
            counts = (count(build[key]) for key in ("documents", "tokens", "shards"))
            files = str(build["inputs"]["files"])
            table.append((build["build_id"], build["created"], files, *counts, byte_count(build["bytes"])))
        totals = found["totals"]
        counts = (count(totals[key]) for key in ("documents", "tokens", "shards"))
        print_table([*table, ("all", "", "", *counts, byte_count(totals["bytes"]))])
    for build in found["running"]:
        for line in lines_of(build):
            out.print(escape(line))
    for stage in found["unfinished"]:
        units = f"{stage['units_done']} of {stage['units']}" if stage["units"] is not None else str(stage["units_done"])
        out.print(f"unfinished: {stage['stage']}, {units} units done, last touched {stage['idle_seconds']} s ago")
    waiting = found["waiting"]
    if waiting["stages"]:
        size = byte_count(waiting["bytes"])
        out.print(f"{waiting['stages']} stages that no entry leads to ({size}): see `corpusmill gc`")
