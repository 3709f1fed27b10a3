"""The `corpusmill` command: thin functions over the library. Results on standard output, everything else on error.

Exit codes: 0 done, 1 failed, 2 bad recipe or arguments, 3 a quality gate refused, 4 another build committed first.
"""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from workflows.console import (
    byte_count,
    count,
    counted,
    err,
    exit_codes,
    input_files,
    interruptible,
    out,
    print_inputs,
    print_json,
    print_result,
    print_table,
    stdout_is_stderr,
    tell_ignored,
)
from workflows.ending import to_the_end
from workflows.local import app as cluster
from workflows.monitoring import app as metrics
from workflows.schedule import schedule
from workflows.show_status import status
from workflows.submit import app as job
from workflows.submit import submit
from workflows.train import app as train

if TYPE_CHECKING:
    from cluster.storage import Store

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(train, name="train")
app.command()(status)
app.command()(submit)
app.add_typer(job, name="job")
app.command()(schedule)
app.add_typer(cluster, name="cluster")
app.add_typer(metrics, name="metrics")

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="a recipe, as `corpusmill init` writes one")]
Out = Annotated[str, typer.Argument(metavar="OUT", help="the recipe's output: a corpus")]
Json = Annotated[bool, typer.Option("--json", help="one JSON object on standard output")]
BuildName = Annotated[str | None, typer.Option("--build", help="a build id; default: the build committed last")]
INIT_WORKFLOWS = ("captions", "order", "speech", "text")
SHOWN_IDS = 5  # of those that `retract` did not find


def main() -> None:
    """Entry point of the command, with which the process ends."""
    to_the_end(run)


def run() -> None:
    """The command of `sys.argv`. Raises SystemExit."""
    with exit_codes():
        app()


@app.command()
def init(workflow: Annotated[str, typer.Argument(help=f"one of: {', '.join(INIT_WORKFLOWS)}")] = "text") -> None:
    """Print a commented recipe to start from."""
    from workflows.recipe import RecipeError

    template = Path(__file__).parent / "templates" / f"{workflow}.yaml"
    if workflow not in INIT_WORKFLOWS:
        raise RecipeError(f"no recipe for {workflow!r}; there are: {', '.join(INIT_WORKFLOWS)}")
    sys.stdout.write(template.read_text("utf-8"))


@app.command()
def validate(recipe: RecipeFile) -> None:
    """Check a recipe and its inputs without doing any work."""
    from workflows.build import prepare

    prepared = prepare(recipe)
    tell_ignored(prepared.ignored)
    files, size = len(prepared.job.inputs), sum(item["size"] for item in prepared.job.inputs)
    out.print(f"{escape(str(recipe))}: good; {input_files(files)}, {byte_count(size)}")


@app.command()
def schema(workflow: Annotated[str, typer.Argument(help="a workflow, or file.py:function")] = "text") -> None:
    """Print the JSON schema of recipes for a workflow, for editors."""
    from workflows.recipe import recipe_schema

    print_json(recipe_schema(workflow))


@app.command()
def plan(
    recipe: RecipeFile,
    limit: Annotated[int | None, typer.Option(min=1, help="as for `build`")] = None,
    nodes: Annotated[int, typer.Option(min=1, help="estimate for a cluster of this many nodes")] = 1,
    cpus_per_node: Annotated[int | None, typer.Option(min=1, help="of it; default: those of this machine")] = None,
    gpus_per_node: Annotated[float, typer.Option(min=0, help="of it")] = 0,
    price: Annotated[float | None, typer.Option(min=0, help="of a node for an hour, in any currency")] = None,
    like: Annotated[str | None, typer.Option(help="a corpus to take the rates from; default: the recipe's own")] = None,
    json: Json = False,
) -> None:
    """Show the stages, what is cached, what would run and why, and what that may take. Touches nothing."""
    from workflows.build import plan as make_plan
    from workflows.build import prepare
    from workflows.estimate import estimate_of, of_cluster, told

    prepared = prepare(recipe, limit=limit)
    planned = make_plan(prepared)
    machines = of_cluster(prepared, nodes, cpus_per_node, gpus_per_node, price)
    planned["estimate"] = estimate_of(prepared, planned, machines, like)
    if json:
        return print_json(planned)
    inputs = planned["inputs"]
    out.print(f"{input_files(inputs['files'])}, {byte_count(inputs['bytes'])}, build {planned['build_id']}")
    tell_ignored(planned["ignored"])
    for stage in planned["stages"]:
        state = "[green]cached[/]" if stage["cached"] else "[yellow]would run[/]"
        why = f"  ({escape('; '.join(stage['changed']))})" if stage["changed"] else ""
        out.print(f"  {stage['name']:<8} {stage['fingerprint']}  {state}{why}")
        if stage["operators"]:
            out.print(f"           {escape(' → '.join(stage['operators']))}")
        if stage["exchanges"]:
            out.print(f"           {_exchanges(stage['exchanges'], planned['memory_bytes'])}")
    for line in told(planned["estimate"]):
        out.print(escape(line))
    return None


def _exchanges(lines: list[dict[str, Any]], budget: int) -> str:
    """What the exchanges of a stage will move, and the phase whose process will hold the most."""
    most = max(lines, key=lambda line: line["memory"])
    where = escape(f"{most['operator']}/{most['phase']}")
    told = f"about {byte_count(sum(line['bytes'] for line in lines))} of keys exchanged; a process holds up to"
    over = "  [bold red]more than workers.memory_bytes[/]" if most["memory"] > budget else ""
    return f"{told} {byte_count(most['memory'])} ({where}) of {byte_count(budget)}{over}"


@app.command()
def build(
    recipe: RecipeFile,
    limit: Annotated[
        int | None, typer.Option(min=1, help="try on this many documents, after reading all input; never committed")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="stop after this stage; only a build of all stages is committed")
    ] = None,
    force: Annotated[str | None, typer.Option(help="run this stage and those below again")] = None,
    address: Annotated[str | None, typer.Option(help="of a Ray cluster; default: Ray on this machine")] = None,
    dashboard: Annotated[bool, typer.Option(help="start the Ray dashboard with an embedded Ray")] = False,
    json: Json = False,
) -> None:
    """Build the corpus: run what is not done yet, then commit. A second run goes on where the first one ended.

    Paths in the recipe are relative to the directory the command runs in.
    """
    from cluster.session import session
    from workflows.build import build as run_build
    from workflows.build import check_output, prepare
    from workflows.build import plan as make_plan
    from workflows.progress import console_progress

    with interruptible(), stdout_is_stderr(), console_progress(err) as progress:
        prepared = prepare(recipe, limit=limit, until=until, force=force, progress=progress)
        tell_ignored(prepared.ignored)
        check_output(prepared.store)
        done = force is None and all(stage["cached"] for stage in make_plan(prepared)["stages"])
        if not done:
            progress.started("starting Ray", "", 1)
        with nullcontext() if done else session(address, prepared.recipe.workers.cpus, dashboard):
            result = run_build(prepared, force=force, publish=limit is None)
    if json:
        return print_json(result)
    return print_result(result, prepared.store)


@app.command()
def order(  # noqa: PLR0913
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Parquet, JSONL or text: files, folders, globs")
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="a folder, or s3://bucket/path")],
    method: Annotated[str, typer.Option(help="greedy_edge, icp, random or by_field")] = "greedy_edge",
    field: Annotated[str | None, typer.Option(help="the column to order by, of by_field")] = None,
    descending: Annotated[bool, typer.Option("--descending", help="the largest first, of by_field")] = False,
    column: Annotated[str | None, typer.Option(help="a column of embeddings; default: the words of the texts")] = None,
    neighbours: Annotated[int | None, typer.Option(help="of each document; default: 10")] = None,
    text: Annotated[str | None, typer.Option(help="the column of texts; default: text")] = None,
    no_text: Annotated[bool, typer.Option("--no-text", help="there are embeddings only")] = False,
    id_column: Annotated[str | None, typer.Option("--id", help="the column of ids; default: id")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="train:bpe, hf:tokenizer.json, …: token shards; default: Parquet in order")
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="concat_chunk, best_fit, icp_fit or decompose; default: icp_fit")
    ] = None,
    seq_len: Annotated[int | None, typer.Option(help="tokens of a context; default: 2048")] = None,
    formats: Annotated[str | None, typer.Option(help="of token shards, with commas; default: megatron,parquet")] = None,
    address: Annotated[str | None, typer.Option(help="of a Ray cluster; default: Ray on this machine")] = None,
    show_recipe: Annotated[bool, typer.Option("--show-recipe", help="print the recipe that this is, and stop")] = False,
    json: Json = False,
) -> None:
    """Put related documents next to each other (In-Context Pretraining) and pack them into contexts, nothing else."""
    from workflows.order import recipe_of
    from workflows.recipe import RecipeError, write_recipe

    if no_text and (text or tokenizer or (column is None and method in ("greedy_edge", "icp"))):
        raise RecipeError("--no-text: without texts there must be a --column of embeddings and no --tokenizer")
    if tokenizer is None and any(given is not None for given in (mode, seq_len, formats)):
        raise RecipeError("--mode, --seq-len, --formats: contexts are made of tokens: name a --tokenizer")
    recipe = recipe_of(
        inputs,
        output,
        columns={"text": False if no_text else text, "id": id_column},
        order={
            "method": method,
            "field": field,
            "descending": descending or None,
            "column": column,
            "neighbours": neighbours,
        },
        tokenizer=tokenizer,
        pack={"mode": mode, "seq_len": seq_len},
        formats=[name.strip() for name in formats.split(",")] if formats else None,
    )
    if show_recipe:
        write_recipe(recipe, sys.stdout)
        return
    with TemporaryDirectory() as folder:
        path = Path(folder, "order.yaml")
        with path.open("w", encoding="utf-8") as file:
            write_recipe(recipe, file)
        try:
            build(path, address=address, json=json)
        except RecipeError as error:  # of a file that is gone
            raise RecipeError(re.sub(rf"{re.escape(str(path))}:\d+: ", "", str(error))) from error


@app.command()
def nightly(
    recipe: RecipeFile,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what is new")] = False,
    address: Annotated[str | None, typer.Option(help="of a Ray cluster; default: Ray on this machine")] = None,
    dashboard: Annotated[bool, typer.Option(help="start the Ray dashboard with an embedded Ray")] = False,
    json: Json = False,
) -> None:
    """Build what is new since the published builds, without what duplicates them, and publish it beside them.

    New is an input (path and version) that no published build was made of: a night that failed is caught up by the
    next one. With nothing new there is nothing to do.
    """
    from cluster.session import session
    from workflows.build import check_output
    from workflows.nightly import prepare_night, run_night, tell
    from workflows.progress import console_progress

    with interruptible(), stdout_is_stderr(), console_progress(err) as progress:
        night = prepare_night(recipe, progress)
        prepared = night.prepared
        if dry_run:
            result: dict[str, Any] = {"inputs": tell(night)}
        elif night.empty:
            result = run_night(recipe, night)
        else:
            check_output(prepared.store)
            progress.started("starting Ray", "", 1)
            with session(address, prepared.recipe.workers.cpus, dashboard):
                result = run_night(recipe, night, progress)
    if json:
        return print_json(result)
    print_inputs(result["inputs"])
    return print_result(result, prepared.store) if result.get("stages") else None


@app.command()
def report(output: Out, build: BuildName = None) -> None:
    """Write the report of a build again and print where it is."""
    from workflows.build import write_report

    store, manifest = _opened(output, build)
    out.print(f"{store.url}/{write_report(store, manifest)}")


@app.command()
def why(
    output: Out,
    doc_id: Annotated[str, typer.Argument(metavar="DOC_ID")],
    build: BuildName = None,
    json: Json = False,
) -> None:
    """Say where a document went: its shard and offset, or what dropped it and by which value."""
    from workflows.explain import why as explain

    store, manifests = _searched(output, build)
    answer = explain(store, manifests, doc_id)
    if json:
        print_json(answer)
    else:
        _print_fate(store, manifests, answer)
    if answer["fate"] == "unknown":
        raise typer.Exit(1)


def _print_fate(store: Store, manifests: list[dict[str, Any]], answer: dict[str, Any]) -> None:
    """Where the document went, and below it where the one went that it duplicates, down to the last of them."""
    from workflows.explain import why as explain

    out.print(escape(_sentence(answer)))
    while answer["duplicate_of"] and answer["duplicate_of"] != answer["id"]:
        answer = explain(store, manifests, answer["duplicate_of"])
        out.print(escape("  " + _sentence(answer)))


def _sentence(a: dict[str, Any]) -> str:
    if a["fate"] == "kept":
        return f"{a['id']}: kept, in {a['shard']} at token {a['offset']}" if a["shard"] else f"{a['id']}: kept"
    if a["fate"] == "quarantined":
        detail = f" ({a['detail']})" if a["detail"] else ""
        return f"{a['id']}: quarantined in stage {a['stage']}: {a['reason']}{detail}, {a['file']} at {a['offset']}"
    if a["fate"] == "dropped":
        dropped = f"{a['id']}: dropped in stage {a['stage']} by {a['operator']}: {a['reason']}"
        if (a["operator"], a["reason"]) == ("language", "not_kept"):
            return f"{dropped}, language is {a['detail']} ({a['value']:.3f})"
        value = "" if a["value"] is None else f", value {a['value']:g}"
        bound = "" if a["threshold"] is None else f", threshold {a['threshold']:g}"
        detail = f", {a['detail']}" if a["detail"] else ""
        twin = f", duplicate of {a['duplicate_of']}" if a["duplicate_of"] else ""
        return f"{dropped}{value}{bound}{detail}{twin}"
    return f"{a['id']}: unknown: no document of the builds looked at has that id"


@app.command()
def verify(
    output: Out,
    build: Annotated[
        str | None, typer.Option("--build", help="only this build, also one that readers do not see")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="only names and sizes of files, by listing; reads none")
    ] = False,
    json: Json = False,
) -> None:
    """Check the log and, of all builds that readers see, every checksum, count and conservation law."""
    from cluster.storage import open_store
    from workflows.progress import console_progress
    from workflows.verify import verify as check

    with interruptible(), console_progress(err) as progress:
        checks = list(check(open_store(output), build, quick, progress))
    wrong = [(what, error) for what, error in checks if error is not None]
    if json:
        print_json({"checks": len(checks), "failures": [{"what": what, "error": error} for what, error in wrong]})
    else:
        for what, error in wrong:
            out.print(f"[red]FAILED[/] {escape(what)}: {escape(error)}")
        out.print(f"{len(checks) - len(wrong)} of {len(checks)} checks passed")
    if wrong:
        raise typer.Exit(1)


@app.command()
def log(output: Out, json: Json = False) -> None:
    """List the commits, the newest first: what readers saw from each on."""
    from cluster.storage import open_store
    from workflows.status import history

    lines = history(open_store(output))
    if json:
        return print_json(lines)
    table = [("entry", "op", "when", "build", "builds", "documents", "tokens", "retracted")]
    for line in lines:
        counts = (count(line[key]) for key in ("documents", "tokens", "retracted"))
        table.append(
            (str(line["number"]), line["op"], line["created"], line["build"], str(len(line["visible"])), *counts)
        )
    return print_table(table)


@app.command()
def gc(
    output: Out,
    grace: Annotated[str, typer.Option(help="touch nothing that is younger: 30m, 24h, 7d")] = "24h",
    keep: Annotated[
        int | None, typer.Option(min=1, help="give up rollback to all but this many of the newest entries")
    ] = None,
    stages: Annotated[
        bool, typer.Option("--stages", help="also free files that only make rebuilding fast: text above the shards")
    ] = False,
    answers: Annotated[
        bool, typer.Option("--answers", help="also what model servers answered, which would have to be paid for again")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would go")] = False,
    json: Json = False,
) -> None:
    """Delete what no entry of the log leads to and nobody has touched for the grace period."""
    from cluster.storage import open_store
    from workflows.gc import gc as collect
    from workflows.gc import seconds

    with interruptible():
        result = collect(open_store(output), seconds(grace), keep, stages, answers, dry_run)
    if json:
        return print_json(result)
    if result["deleted"]:
        rows = [(line["what"], count(line["objects"]), byte_count(line["bytes"])) for line in result["deleted"]]
        print_table([("would go" if dry_run else "deleted", "objects", "size"), *rows])
    else:
        out.print("nothing to delete")
    if result["interrupted_writes"]:
        out.print(f"{result['interrupted_writes']} interrupted writes cleared away")
    return None


@app.command()
def fit_thresholds(
    recipe: RecipeFile,
    output: Annotated[Path | None, typer.Option(help="the new recipe; default: RECIPE.fitted.yaml")] = None,
    drop: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="share of a language's documents that all bounds may drop; default: 0.1"),
    ] = None,
    tail: Annotated[
        float | None, typer.Option(min=0, max=0.5, help="instead: the tail of each statistic that goes, as CulturaX")
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="documents of which bounds are made")] = 100_000,
    least: Annotated[int, typer.Option(min=1, help="of a language that gets bounds of its own")] = 500,
    address: Annotated[str | None, typer.Option(help="of a Ray cluster; default: Ray on this machine")] = None,
    json: Json = False,
) -> None:
    """Fit bounds on the statistics of each language to a sample, and write them into a copy of the recipe."""
    from cluster.session import session
    from workflows.fit import Tail, fit, rows_of, write_fitted
    from workflows.progress import console_progress
    from workflows.recipe import RecipeError

    if drop is not None and tail is not None:
        raise RecipeError(f"--drop {drop:g} and --tail {tail:g}: give one of the two")
    wanted = Tail(0.1 if drop is None else drop, "documents") if tail is None else Tail(tail, "statistic")
    written = output or recipe.with_suffix(".fitted.yaml")
    if written.resolve() == recipe.resolve():
        raise RecipeError(f"--output: {written} is the recipe itself")
    if not written.parent.is_dir():
        raise RecipeError(f"--output: {written.parent} is no folder")
    with interruptible(), stdout_is_stderr(), console_progress(err) as progress, session(address):
        fitted = fit(recipe, wanted, sample, least, progress)
        write_fitted(recipe, fitted, written)
    if json:
        return print_json({"recipe": str(written), "languages": [one._asdict() for one in fitted]})
    print_table(list(rows_of(fitted)))
    return out.print(f"bounds of params.text_rules in {escape(str(written))}")


@app.command()
def variants(
    output: Out,
    asked: Annotated[Path, typer.Argument(metavar="VARIANTS", help="a YAML file of variants")],
    build: BuildName = None,
    json: Json = False,
) -> None:
    """Write the ids of several cuts of one scored build, and say what each keeps."""
    from workflows.retract import retracted_ids
    from workflows.variants import load_variants, make_variants

    wanted = load_variants(asked)
    store, manifest = _opened(output, build)
    made = make_variants(store, manifest, wanted, retracted_ids(store))
    if json:
        return print_json(made)
    every, characters = made["documents"], made["characters"]
    table = [("variant", "documents", "of all", "characters", "of all", "ids")]
    for one in made["variants"]:
        files = ", ".join(file["path"] for file in one["files"]) or "-"
        shares = (_share(one["documents"], every), _share(one["characters"], characters))
        table.append((one["name"], count(one["documents"]), shares[0], count(one["characters"]), shares[1], files))
    print_table(table)
    return out.print(f"{counted(every, 'document')} in build {made['build_id']}; {made['manifest']} says more")


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


@app.command()
def export(
    output: Out,
    destination: Annotated[Path, typer.Argument(help="a folder that does not exist yet")],
    format: Annotated[
        Literal["hf", "emilia", "audiosetcaps"],
        typer.Option(
            help="hf: Parquet with a dataset card; emilia: a folder a recording, with MP3 and JSON; audiosetcaps: "
            "tables of captions and questions"
        ),
    ] = "hf",
    build: BuildName = None,
) -> None:
    """Copy a build out in the layout that another tool expects."""
    from workflows.export import export_hf
    from workflows.export_captions import export_captions
    from workflows.export_emilia import export_emilia

    store, manifest = _opened(output, build)
    layouts = {"hf": export_hf, "emilia": export_emilia, "audiosetcaps": export_captions}
    files = layouts[format](store, manifest, destination)
    out.print(f"{len(files)} files in {escape(str(destination))} ({format})")


@app.command()
def fingerprint(
    files: Annotated[list[str], typer.Argument(help="paths, folders or quoted globs of recordings, local or s3://")],
    output: Annotated[Path, typer.Option("--output", "-o", help="where the fingerprints go: .parquet")],
    json: Json = False,
) -> None:
    """Write what recordings of an evaluation set sound like, no audio, for `decontaminate_audio` in a recipe."""
    from workflows.fingerprints import fingerprints

    made = fingerprints(files, output)
    if json:
        return print_json(made)
    for name, reason in made["unread"].items():
        err.print(f"{escape(name)}: {reason}")
    left = f", {count(len(made['unread']))} without one" if made["unread"] else ""
    told = f"{counted(made['recordings'], 'fingerprint')}{left}: {made['fingerprints']}, {byte_count(made['bytes'])}"
    return out.print(escape(f"{told}, sha256 {made['sha256']}"))


@app.command()
def retract(
    output: Out,
    ids: Annotated[
        str, typer.Option(metavar="FILE", help="one id a line, or Parquet with a column `id`; - for standard input")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would go; write nothing")] = False,
    json: Json = False,
) -> None:
    """Take documents out of the committed builds, and keep them out of later ones."""
    from cluster.storage import open_store
    from workflows.retract import retract as take_out

    store = open_store(output)
    result = take_out(store, _listed_ids(ids), dry_run)
    _report_again(store, result, result["builds"])
    if json:
        return print_json(result)
    _print_retracted(result["builds"])
    if unknown := result["unknown"]:
        some = ", ".join(unknown[:SHOWN_IDS]) + (", …" if len(unknown) > SHOWN_IDS else "")
        out.print(f"in no visible build: {counted(len(unknown), 'id')}: {escape(some)}")
    if dry_run:
        return out.print("nothing was written: --dry-run")
    return _print_entry(result)


@app.command()
def rollback(
    output: Out,
    to: Annotated[
        int | None, typer.Option(help="an entry of the log; default: the last one that shows other builds")
    ] = None,
    json: Json = False,
) -> None:
    """Show readers an earlier set of builds again. What was retracted stays out."""
    from cluster.storage import open_store
    from workflows.rollback import rollback as roll_back

    store = open_store(output)
    result = roll_back(store, to)
    _report_again(store, result, result["retracted"])
    if json:
        return print_json(result)
    out.print(f"builds of entry {result['to']}: {', '.join(result['builds'])}")
    _print_retracted(result["retracted"])
    return _print_entry(result)


def _listed_ids(name: str) -> Any:
    from operators.retracted import parse_ids
    from workflows.recipe import RecipeError

    try:
        return parse_ids(sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes())
    except (OSError, ValueError) as error:
        told = error.strerror if isinstance(error, OSError) else error
        raise RecipeError(f"--ids {name}: {told}") from error


def _report_again(store: Store, result: dict[str, Any], changed: list[dict[str, Any]]) -> None:
    """Write the reports of builds that documents were taken out of."""
    from workflows.build import write_report
    from workflows.corpus import load_build

    for build in changed if result["committed"] else ():
        write_report(store, load_build(store, build["build_id"]))


def _print_retracted(builds: list[dict[str, Any]]) -> None:
    for build in builds:
        tokens = "" if build["tokens"] is None else f" of {build['tokens']} tokens"
        documents, shards = counted(build["documents"], "document"), counted(build["shards"], "shard")
        out.print(f"build {build['build_id']}: {documents}{tokens}, in {shards}")


def _print_entry(result: dict[str, Any]) -> None:
    number = result["log_number"]
    out.print(f"committed as entry {number}" if result["committed"] else f"nothing new: entry {number} is in force")


@app.command()
def demo(
    what: Annotated[str, typer.Argument(metavar="WORKFLOW", help="text, speech or captions")] = "text",
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="where input and corpus are put")] = Path("out"),
    s3: Annotated[
        bool, typer.Option("--s3", help="in object storage: a server started for it, its data in FOLDER")
    ] = False,
) -> None:
    """Build a small corpus of real pages, or of real recordings, with planted faults, step by step. An earlier demo in
    FOLDER is replaced."""
    from workflows.demo import demo as run_demo

    try:
        run_demo(what, folder, s3)
    except subprocess.CalledProcessError as error:
        raise typer.Exit(error.returncode) from error


@app.command()
def doctor(
    output: Annotated[str | None, typer.Argument(help="also try to write there")] = None,
    address: Annotated[
        str | None,
        typer.Option(help="also see whether this Ray cluster asks for a token: host:port, auto, ray://… or http://…"),
    ] = None,
) -> None:
    """Check this machine: versions, packages, memory, disk, Ray."""
    from workflows.doctor import examine

    findings = examine(output, address)
    for finding in findings:
        mark = "[green]ok[/]     " if finding.good else "[red]problem[/]"
        out.print(f"{mark} {escape(finding.what)}: {escape(finding.told)}")
    if not all(finding.good for finding in findings):
        raise typer.Exit(1)


def _searched(output: str, build: str | None) -> tuple[Store, list[dict[str, Any]]]:
    """The builds to look for a document in: the one named, else all that readers see, the newest first."""
    from cluster import commit
    from workflows.corpus import visible_builds

    store, manifest = _opened(output, build)
    entry = commit.head(store)
    return store, [manifest] if build or entry is None else visible_builds(store, entry)[::-1]


def _opened(output: str, build: str | None) -> tuple[Store, dict[str, Any]]:
    from cluster.storage import open_store
    from workflows.corpus import load_build, newest_build

    store = open_store(output)
    return store, load_build(store, build) if build else newest_build(store)
