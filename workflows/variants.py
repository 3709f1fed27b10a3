"""`corpusmill variants`: several cuts of one scored corpus, as lists of ids.

Scores are made once, by a build; a variant is a filter and a budget over the documents that it kept (A Pretrainer's
Guide, Longpre et al. 2023, arXiv 2305.13169: one corpus by quality, toxicity, domain and age). Each becomes Parquet
files of ids, named by their content, that `only_ids` of a recipe builds from. One process goes through the scores, and
holds those of one file.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pydantic
from numpy.typing import NDArray
from pydantic import Field

from cluster import cuts
from cluster.storage import Store
from cluster.tables import Entry, TableWriter, columns_of, iterate_entry
from operators.document import with_columns
from operators.phases import with_doc
from operators.retracted import Ids
from operators.selection.select import Select
from workflows.recipe import Checked, RecipeError, checked, load_yaml
from workflows.stage import Manifest

DATED = r"^\d{4}-\d{2}-\d{2}"
MOST_PARTS = 200  # values of a column of which one is left out at a time
TOLD = ("source", "language")  # columns by which a variant's documents are counted
Date = Annotated[str, Field(pattern=DATED + "$")]


class Variant(Checked):
    """All that is asked for must hold; nothing asked for is every document."""

    only: dict[str, list[str]] = {}  # column -> values, as text; null is the empty one
    without: dict[str, list[str]] = {}
    since: Date | None = None  # of the column `date`; documents without one are in no variant by date
    before: Date | None = None
    select: Select | None = None  # of what the others leave
    inverse_of: str | None = None  # every document that is not in that variant


class Variants(Checked):
    """A file of variants: each by its name, and one that leaves out each value of a column in turn."""

    variants: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")], Variant] = {}
    leave_one_out: str | None = None

    @pydantic.model_validator(mode="after")
    def _inverses_stand_alone(self) -> Variants:
        for name, variant in self.variants.items():
            if variant.inverse_of is None:
                continue
            if variant.model_fields_set != {"inverse_of"}:
                raise ValueError(f"{name}: inverse_of is all that an inverse says")
            base = self.variants.get(variant.inverse_of)
            if base is None or base.inverse_of is not None:
                raise ValueError(f"{name}: inverse_of: {variant.inverse_of!r} is no variant that has an inverse")
        return self


def load_variants(path: str | Path) -> Variants:
    """The variants in a YAML file. Raises RecipeError for anything else."""
    plain, located = load_yaml(path)
    found = checked(Variants, plain, located)
    if not found.variants and found.leave_one_out is None:
        raise RecipeError(f"{path}: names no variants, and no column for leave_one_out")
    return found


def make_variants(store: Store, manifest: Manifest, asked: Variants, retracted: Ids) -> dict[str, Any]:
    """Write the ids of each variant of a build, retracted ones aside; what was made, as it is written to
    `variants/<hash>.json`. Raises RecipeError."""
    corpus = _Corpus(store, manifest["stages"][-2]["files"]["kept"], _columns(asked), retracted)
    corpus.check(manifest["build_id"], _asked(asked))
    named = dict(asked.variants)
    if (column := asked.leave_one_out) is not None:
        for value in _values(corpus, column):
            name = f"without-{_file_name(value)}"
            if name in named:
                told = f"{name} would leave out {value!r}, and there is a variant of that name already"
                raise RecipeError(f"leave_one_out: {told}: rename that one, or write both out under variants")
            named[name] = Variant(without={column: [value]})
    every = _written(store, corpus, None, Variant(), named)
    made = {
        "build_id": manifest["build_id"],
        "documents": every["documents"],
        "characters": every["characters"],
        "variants": [_written(store, corpus, name, variant, named) for name, variant in named.items()],
    }
    data = orjson.dumps(made, option=orjson.OPT_INDENT_2)
    key = f"variants/{hashlib.sha256(data).hexdigest()[:12]}.json"
    store.write(key, data)
    return {"manifest": key, **made}


class _Corpus:
    """The kept documents of a build, file by file, without their text."""

    def __init__(self, store: Store, files: list[Entry], columns: list[str], retracted: Ids) -> None:
        self.store, self.files, self.columns, self.retracted = store, files, columns, retracted

    def __call__(self) -> Iterator[pa.Table]:
        for unit, entry in enumerate(self.files):
            docs = pa.concat_tables(list(iterate_entry(self.store, entry, self.columns)), promote_options="permissive")
            missing = {name: pa.nulls(docs.num_rows) for name in self.columns if name not in docs.column_names}
            docs = with_doc(with_columns(docs, missing), unit)
            yield docs.filter(pa.array(~self.retracted.has(docs["id"])))

    def check(self, build: str, asked: list[str]) -> None:
        """Raises RecipeError where the build's documents are gone or none of its files has a column."""
        for entry in self.files:
            if not self.store.exists(entry["path"]):
                raise RecipeError(f"build {build}: its documents were freed by `gc --stages`; build again")
        have = {name for entry in self.files for name in _all_columns(self.store, entry)}
        for column in asked:
            if self.files and column not in have:
                raise RecipeError(f"build {build} has no column {column!r}; there are: {', '.join(sorted(have))}")


def _all_columns(store: Store, entry: Entry) -> set[str]:
    """The columns of a file and of those that it lies over."""
    below = _all_columns(store, entry["over"]) if entry["over"] is not None else set()
    return below | {name for name in columns_of(store, entry) if name != "row" and not name.startswith(cuts.PREFIX)}


def _asked(asked: Variants) -> list[str]:
    """The columns that variants decide by."""
    columns = [asked.leave_one_out] if asked.leave_one_out else []
    for variant in asked.variants.values():
        columns += [*variant.only, *variant.without, *(variant.select.needs if variant.select else ())]
        columns += ["date"] if variant.since or variant.before else []
    return list(dict.fromkeys(columns))


def _columns(asked: Variants) -> list[str]:
    return list(dict.fromkeys(["id", "chars", *TOLD, *_asked(asked)]))


def _values(corpus: _Corpus, column: str) -> list[str]:
    """The values of a column, in alphabetical order."""
    counts: Counter[str] = Counter()
    for docs in corpus():
        for entry in pc.value_counts(_text(docs, column)):
            counts[entry["values"].as_py()] += entry["counts"].as_py()
    if len(counts) > MOST_PARTS:
        raise RecipeError(
            f"leave_one_out: {column} has {len(counts)} values, at most {MOST_PARTS} are left out in turn"
        )
    return sorted(counts)


def _file_name(value: str) -> str:
    """The value where it can be a name of a file as it is, else what can of it and a hash, so that no two are alike."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", value).strip("-")
    return value if value == plain != "" else f"{plain or 'none'}-{hashlib.sha256(value.encode()).hexdigest()[:8]}"


def _text(docs: pa.Table, column: str) -> pa.ChunkedArray:
    return pc.fill_null(docs[column].cast(pa.string()), "")


def _masks(corpus: _Corpus, variant: Variant, named: Mapping[str, Variant]) -> Iterator[tuple[pa.Table, NDArray[Any]]]:
    """Each unit of the corpus, and which of its documents are in the variant."""
    if variant.inverse_of is not None:
        yield from ((docs, ~inside) for docs, inside in _masks(corpus, named[variant.inverse_of], named))
        return
    if variant.select is None:
        yield from ((docs, _filtered(docs, variant)) for docs in corpus())
        return

    def units() -> Iterator[pa.Table]:
        return (docs.filter(pa.array(_filtered(docs, variant))) for docs in corpus())

    for docs, verdicts in zip(corpus(), variant.select.one_by_one(units), strict=True):
        gone = pc.is_in(docs["doc"], value_set=verdicts["doc"].combine_chunks()).to_numpy()
        yield docs, _filtered(docs, variant) & ~gone


def _filtered(docs: pa.Table, variant: Variant) -> NDArray[np.bool_]:
    """Which documents all but `select` leave."""
    inside = np.ones(docs.num_rows, bool)
    for column, values in variant.only.items():
        inside &= pc.is_in(_text(docs, column), value_set=pa.array(values)).to_numpy()
    for column, values in variant.without.items():
        inside &= ~pc.is_in(_text(docs, column), value_set=pa.array(values)).to_numpy()
    if variant.since or variant.before:
        date = _text(docs, "date")
        inside &= pc.match_substring_regex(date, DATED).to_numpy().astype(bool)
        for bound, keeps in ((variant.since, pc.greater_equal), (variant.before, pc.less)):
            if bound is not None:
                inside &= keeps(pc.utf8_slice_codeunits(date, 0, 10), bound).to_numpy().astype(bool)
    return inside


def _written(
    store: Store, corpus: _Corpus, name: str | None, variant: Variant, named: Mapping[str, Variant]
) -> dict[str, Any]:
    """Count a variant and, if it has a name, write its ids."""
    counts: dict[str, Counter[str]] = {column: Counter() for column in TOLD}
    documents = characters = 0
    with TableWriter(store, f"variants/{name}", 0) as writer:
        for docs, inside in _masks(corpus, variant, named):
            kept = docs.filter(pa.array(inside))
            documents += kept.num_rows
            characters += pc.sum(kept["chars"]).as_py() or 0
            for column, count in counts.items():
                for entry in pc.value_counts(_text(kept, column)):
                    count[entry["values"].as_py()] += entry["counts"].as_py()
            if name is not None:
                writer.write(kept.select(["id"]))
    told = {column: dict(sorted(count.items())) for column, count in counts.items()}
    definition = variant.model_dump(mode="json", exclude_defaults=True)
    files = [{key: entry[key] for key in ("path", "rows", "bytes", "sha256")} for entry in writer.entries]
    found = {"name": name, "definition": definition, "documents": documents, "characters": characters}
    return found | {"files": files} | told
