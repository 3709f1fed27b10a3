"""`corpusmill fit-thresholds`: bounds for `text_rules` from what a sample of the user's own documents shows.

As CulturaX does (Nguyen et al. 2023, arXiv 2309.09400, section 3.2), the bounds of a language are percentiles of each
statistic: a tail of it goes. Either the tail is given, the same for all statistics, or the share of documents that all
bounds together may drop, and the tail follows. The sample is of documents as `text_rules` will see them, those whose
ids hash lowest; so the same recipe over the same input always gives the same bounds.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from cluster.exchange import read_table, write_table
from cluster.storage import Store
from cluster.tables import Entry, iterate_entry
from cluster.units import Record, peak_rss_bytes, run_units
from operators.apply import Step, apply
from operators.document import identity
from operators.hashes import xxh3_64
from operators.text.statistics import statistics
from operators.text.text_rules import OTHERS, TextRules
from workflows.build import Prepared, check_output, prepare, run_stages
from workflows.placing import check_placement
from workflows.recipe import RecipeError, load_recipe, read_tree
from workflows.stage import Progress, Stage, basis_of, folder_of

Side = Literal["low", "high", "both"]
SIDES: Mapping[str, Side] = {  # where text that nobody wants lies
    "characters": "low",
    "letters": "low",
    "uppercase": "high",
    "digits": "high",
    "white_space": "high",
    "punctuation": "high",
    "entropy": "both",
    "words": "low",
    "distinct_words": "low",
    "mean_word_chars": "both",
    "longest_word": "high",
    "alpha_words": "low",
    "stop_word_share": "low",
    "hashes_per_word": "high",
    "ellipses_per_word": "high",
    "mean_line_chars": "low",
    "words_per_line": "low",
    "bullet_lines": "high",
    "ellipsis_lines": "high",
    "terminal_lines": "low",
    "short_lines": "high",
    "newlines_per_word": "high",
    "duplicate_lines": "high",
    "duplicate_line_chars": "high",
    "duplicate_paragraphs": "high",
    "duplicate_paragraph_chars": "high",
    **{f"top_{n}gram": "high" for n in (2, 3, 4)},
    **{f"duplicate_{n}gram": "high" for n in (5, 6, 7, 8, 9, 10)},
}
DIGITS = 4  # of a bound
SMALLEST = 1e-12
HALVINGS = 24  # of the interval in which a tail is looked for
LANGUAGE = "language"
Numbers = NDArray[np.float64]


class Tail(NamedTuple):
    """How much goes: of each statistic, or of the documents by all of them together."""

    share: float
    of: Literal["statistic", "documents"]


class Fitted(NamedTuple):
    language: str
    documents: int
    tail: float
    dropped: float  # share of the sample's documents out of any bound
    bounds: dict[str, dict[str, float]]


def fit(recipe: Path, tail: Tail, sample: int, least: int, progress: Progress) -> list[Fitted]:
    """The bounds of each language of which the sample has `least` documents, and of all others together. Runs what is
    above `text_rules` and not done yet; needs a Ray session."""
    load_recipe(recipe)  # what is wrong is told of the user's file, not of the copy
    prepared, stage, before = _prepared(recipe, progress)
    check_placement(stage, prepared.job)
    upstream = run_stages(stage.upstream, prepared.job)[-1] if stage.upstream else None
    if upstream is None or not upstream["kept"]:
        raise RecipeError(f"{recipe}: no documents reach text_rules")
    found = _sampled(prepared, stage, before, upstream, sample)
    languages = found.pop(LANGUAGE)
    codes, counts = np.unique(languages[languages != OTHERS], return_counts=True)
    own = [code for code, n in zip(codes.tolist(), counts.tolist(), strict=True) if n >= least]
    groups = {code: languages == code for code in own} | {OTHERS: ~np.isin(languages, own)}
    if not own and len(languages) < least:
        told = f"{len(languages)} documents of the sample reach text_rules, and no language has {least} (--least)"
        raise RecipeError(f"{recipe}: {told}: nothing to fit bounds to")
    return [
        _fitted(code, {name: found[name][rows] for name in SIDES}, tail)
        for code, rows in groups.items()
        if rows.sum() >= (1 if code != OTHERS else least)
    ]


def _prepared(recipe: Path, progress: Progress) -> tuple[Prepared, Stage, tuple[Step, ...]]:
    """The recipe with bounds that drop nothing, the stage of `text_rules`, and the steps before it there."""
    with tempfile.TemporaryDirectory() as folder:
        open_ended = Path(folder, recipe.name)
        _write(open_ended, recipe, {})
        prepared = prepare(open_ended, progress=progress)
    check_output(prepared.store)
    for stage in prepared.stage.chain():
        for at, step in enumerate(stage.steps):
            if isinstance(step.operator, TextRules):
                return prepared, stage, stage.steps[: at + 1]
    raise RecipeError(f"{recipe}: workflow {prepared.recipe.workflow} does not use text_rules")


def _sampled(
    prepared: Prepared, stage: Stage, before: tuple[Step, ...], upstream: Mapping[str, Any], sample: int
) -> dict[str, NDArray[Any]]:
    """The statistics of the documents that reach `text_rules`, and their languages."""
    job, files = prepared.job, upstream["files"]["kept"]
    bound = min((sample << 64) // max(upstream["kept"], 1), 2**64 - 1)
    made_of = orjson.dumps([[step.name, identity(step.operator)] for step in before] + [str(bound)])
    assert stage.upstream is not None
    folder = f"fits/{folder_of(stage.upstream, job).removeprefix('stages/')}-{hashlib.sha256(made_of).hexdigest()[:16]}"
    task = SampleTask(job.store, folder, before, bound)
    job.progress.started("fit-thresholds", "sample", len(files))
    ask = job.recipe.workers.ask()
    run_units(job.store, folder, files, task, "fit[sample]", job.progress.unit, basis_of(dict(upstream)), ask)
    table = pa.concat_tables([read_table(job.store, task.key(number)) for number in range(len(files))])
    job.store.delete([stored.key for stored in job.store.list(folder)])
    return {name: table[name].to_numpy() for name in table.column_names}


@dataclass(frozen=True)
class SampleTask:
    """The statistics of the documents of one file whose ids hash below `bound` and that the steps leave."""

    store: Store
    folder: str
    steps: tuple[Step, ...]
    bound: int

    def key(self, number: int) -> str:
        return f"{self.folder}/{number:06d}.arrow"

    def __call__(self, number: int, work: Entry) -> Record:
        rules: TextRules = self.steps[-1].operator
        tables = [self._measured(docs, rules) for docs in iterate_entry(self.store, work)]
        write_table(self.store, self.key(number), pa.concat_tables(tables))
        return {"peak_rss_bytes": peak_rss_bytes()}

    def _measured(self, docs: pa.Table, rules: TextRules) -> pa.Table:
        docs = docs.filter(pa.array(xxh3_64(docs["id"].cast(pa.large_string())) < np.uint64(self.bound)))
        docs = apply(self.steps[:-1], docs).kept
        _, values = statistics(docs, "paper", rules.words)
        known = docs[LANGUAGE] if LANGUAGE in docs.column_names else pa.nulls(docs.num_rows)
        return pa.table({LANGUAGE: known.cast(pa.string()).fill_null(OTHERS)} | {name: values[name] for name in SIDES})


def _fitted(language: str, values: Mapping[str, Numbers], tail: Tail) -> Fitted:
    share = tail.share
    if tail.of == "documents":
        low, high = 0.0, tail.share  # one statistic alone may take all of it
        for _ in range(HALVINGS):
            share = (low + high) / 2
            low, high = (share, high) if _dropped(values, _bounds(values, share)) <= tail.share else (low, share)
        share = low
    bounds = _bounds(values, share)
    return Fitted(language, len(next(iter(values.values()))), share, _dropped(values, bounds), bounds)


def _bounds(values: Mapping[str, Numbers], tail: float) -> dict[str, dict[str, float]]:
    """For each statistic the ends beyond which at most `tail` of its values lie; only those beyond which any do."""
    found: dict[str, dict[str, float]] = {}
    for name, column in values.items():
        known = np.sort(column[np.isfinite(column)])
        if not len(known):
            continue
        beyond = int(tail * len(known))
        ends = {"min": _rounded(known[beyond], "down"), "max": _rounded(known[-1 - beyond], "up")}
        wanted = {"low": ("min",), "high": ("max",), "both": ("min", "max")}[SIDES[name]]
        cuts = {end: ends[end] for end in wanted if (known[0] < ends[end] if end == "min" else known[-1] > ends[end])}
        crossing = cuts.get("min", -np.inf) > cuts.get("max", np.inf)  # of a tail so large that nothing would stay
        found |= {name: cuts} if cuts and not crossing else {}
    return found


def _dropped(values: Mapping[str, Numbers], bounds: Mapping[str, Mapping[str, float]]) -> float:
    """The share of documents out of any bound."""
    out = np.zeros(len(next(iter(values.values()))), bool)
    for name, ends in bounds.items():
        out |= (values[name] < ends.get("min", -np.inf)) | (values[name] > ends.get("max", np.inf))
    return float(out.mean()) if len(out) else 0.0


def _rounded(value: float, towards: Literal["down", "up"]) -> float:
    """To DIGITS digits, away from what is kept."""
    if abs(value) < SMALLEST:
        return 0.0 if value == 0 or (towards == "down") == (value > 0) else float(np.copysign(SMALLEST, value))
    unit = 10.0 ** (np.floor(np.log10(abs(value))) - DIGITS + 1)
    step = (np.floor if towards == "down" else np.ceil)(value / unit)
    return float(f"{step * unit:.{DIGITS}g}")


def write_fitted(recipe: Path, fitted: list[Fitted], output: Path) -> None:
    """The recipe with these bounds, its comments and all the rest as they are."""
    _write(output, recipe, {one.language: one.bounds for one in fitted})


def _write(output: Path, recipe: Path, bounds: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    tree = read_tree(recipe)
    if not isinstance(params := tree.setdefault("params", CommentedMap()), CommentedMap):
        raise RecipeError(f"{recipe}: params: expected a mapping")
    rules = params.get("text_rules")
    if not isinstance(rules, CommentedMap):
        params["text_rules"] = rules = CommentedMap()
    rules["bounds"] = _flow(bounds)
    yaml = YAML()
    yaml.width = 200
    with output.open("w", encoding="utf-8") as file:
        yaml.dump(tree, file)


def _flow(bounds: Mapping[str, Mapping[str, Mapping[str, float]]]) -> CommentedMap:
    """A line for each statistic."""
    tree = CommentedMap()
    for language, own in bounds.items():
        tree[language] = CommentedMap()
        for name, ends in own.items():
            whole = {end: int(value) if value.is_integer() else value for end, value in ends.items()}
            tree[language][name] = CommentedMap(whole)
            tree[language][name].fa.set_flow_style()
    return tree


def rows_of(fitted: list[Fitted]) -> Iterator[tuple[str, ...]]:
    """What a person is shown: a line for each language."""
    yield ("language", "documents", "tail", "dropped", "bounds")
    for one in fitted:
        ends = sum(map(len, one.bounds.values()))
        yield (one.language, f"{one.documents:,}", f"{one.tail:.2%}", f"{one.dropped:.1%}", str(ends))
