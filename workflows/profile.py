"""What a table of documents looks like, in integer counts that add up.

A profile is plain JSON: counts, dictionaries of counts and lists of counts. Adding them is exact and knows no order,
so a stage profiles each unit as it goes and `merge` gives the same profile whatever the units were:
merge([profile(a), profile(b)]) == profile(a + b). A value that is null or not a number is not counted, so a column
that is missing and a column of nulls agree, and what is unknown is `documents` less the sum.

Languages and sources are the user's strings and may be as many as the documents. A profile, and a merge of profiles,
names at most 200 of each: the most frequent, ties by name. The rest add up under "(other)", last, which never competes
for a place. Up to 200 names in all, every count is exact; beyond that only the totals are, for a name that was
frequent in some parts has a share of its documents in the "(other)" of the parts where it was rare.

Values that decided a drop have no common scale (a share of lines, a number of words, a perplexity). They are
counted in sixteenths of their octave, as in an HDR histogram: bounds exact in binary, at most 6.25% wide.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from operators.histogram import bin_start
from operators.read.recording import RECORDING

Profile = dict[str, Any]

SCORE_BINS = 20
MOST_NAMES = 200
OTHER = "(other)"
SAMPLES = "samples"  # the column of a document's length in samples, and the key of their sum
NAMED = ("languages", "sources", "topics")  # parts of a profile that count names


def profile(docs: pa.Table) -> Profile:
    """Documents, characters, lengths by power of two, languages, sources, and each score in 20 bins of [0, 1]; samples
    of their audio, where they have any.

    `lengths[k]` counts texts of 2^(k-1) to 2^k - 1 characters; `lengths[0]` counts empty ones.
    """
    names = docs.column_names
    if "chars" in names:  # verdict files carry the length, not the text
        lengths = _numbers(docs["chars"])
    else:
        lengths = _numbers(pc.utf8_length(docs["text"])) if "text" in names else np.zeros(0)
    scores = {f.name for f in docs.schema if f.name.endswith("_score") and pa.types.is_floating(f.type)}
    return {
        "documents": docs.num_rows,
        "characters": int(lengths.sum()),
        "lengths": np.bincount(np.frexp(lengths)[1]).tolist() if len(lengths) else [],
        "languages": _most_frequent(_counts(docs["language"])) if "language" in names else {},
        "sources": _most_frequent(_counts(docs["source"])) if "source" in names else {},
        "topics": _most_frequent(_counts(docs["topic"])) if "topic" in names else {},
        "scores": {name: _score_histogram(docs[name]) for name in sorted(scores)},
        **({SAMPLES: pc.sum(docs[SAMPLES]).as_py() or 0} if has_audio(docs.schema) else {}),
    }


def has_audio(schema: pa.Schema) -> bool:
    """Whether rows are recordings or utterances; a column of the user's may happen to have the name of ours."""
    return {RECORDING, SAMPLES} <= set(schema.names) and pa.types.is_integer(schema.field(SAMPLES).type)


def hears(stages: Sequence[Profile]) -> bool:
    """Whether stages, as manifests have them, are of a build of recordings."""
    parts = [part for stage in stages for part in (stage["profile"]["kept"], *stage["profile"]["dropped"].values())]
    return any(SAMPLES in part for part in parts)


def drop_profile(dropped: pa.Table) -> Profile:
    """By drop reason: documents, thresholds as they were set, the deciding values in bins, and samples of audio.

    A bin is named by its bound nearer to zero, as a decimal string; `bin_end` gives the other bound.
    """
    values = pc.cast(dropped["drop_value"], pa.float64())
    table = pa.table(
        {
            "reason": pc.cast(dropped["drop_reason"], pa.string()),
            "threshold": _decimal(pc.cast(dropped["drop_threshold"], pa.float64())),
            "value": _decimal(pa.array(bin_start(values.to_numpy(zero_copy_only=False)), from_pandas=True)),
        }
    ).filter(pc.is_valid(dropped["drop_reason"]))
    found: Profile = {
        reason: {"documents": n, "thresholds": {}, "values": {}} for reason, n in _counts(table["reason"]).items()
    }
    if has_audio(dropped.schema):
        added = dropped.select(["drop_reason", SAMPLES]).group_by("drop_reason").aggregate([(SAMPLES, "sum")])
        for reason, n in zip(*(added[name].to_pylist() for name in added.column_names), strict=True):
            if reason is not None:
                found[reason][SAMPLES] = n or 0
    for column, into in (("threshold", "thresholds"), ("value", "values")):
        grouped = table.group_by(["reason", column]).aggregate([([], "count_all")]).sort_by([(column, "ascending")])
        rows = zip(*(grouped[name].to_pylist() for name in ("reason", column, "count_all")), strict=True)
        for reason, name, n in rows:
            if name is not None:
                found[reason][into][name] = n
    return found


def merge(profiles: Iterable[Profile]) -> Profile:
    """The profile of all the tables together. Works for those of `profile` and of `drop_profile`."""
    total: Profile = _sum([{}, *profiles])
    return total | {key: _most_frequent(total[key]) for key in NAMED if key in total}


def _sum(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], dict):
        values: dict[str, list[Any]] = defaultdict(list)
        for part in parts:
            for key, value in part.items():
                values[key].append(value)
        return {key: _sum(values[key]) for key in sorted(values)}
    if isinstance(parts[0], list):
        return [sum(column) for column in zip_longest(*parts, fillvalue=0)]
    return sum(parts)


def _most_frequent(counts: dict[str, int]) -> dict[str, int]:
    """The most frequent names in alphabetical order, then OTHER; a name that is spelled "(other)" counts as OTHER."""
    named = sorted(counts.keys() - {OTHER}, key=lambda name: (-counts[name], name))
    kept = {name: counts[name] for name in sorted(named[:MOST_NAMES])}
    other = sum(counts.values()) - sum(kept.values())
    return kept | ({OTHER: other} if other else {})


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """The finite values, as doubles: exact for any count of characters."""
    values = pc.cast(column.drop_null(), pa.float64()).to_numpy(zero_copy_only=False)
    finite: NDArray[np.float64] = values[np.isfinite(values)]
    return finite


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    counted = pc.value_counts(pc.cast(column, pa.large_string()).drop_null())
    names, counts = counted.field("values").to_pylist(), counted.field("counts").to_pylist()
    return dict(sorted(zip(names, counts, strict=True)))


def _score_histogram(column: pa.ChunkedArray) -> Profile:
    scores = _numbers(column)
    inside = scores[(scores >= 0) & (scores <= 1)]
    bins = np.minimum((inside * SCORE_BINS).astype(np.int64), SCORE_BINS - 1)  # a score of 1 is in the last bin
    return {
        "bins": np.bincount(bins, minlength=SCORE_BINS).tolist(),
        "below": int((scores < 0).sum()),
        "above": int((scores > 1).sum()),
    }


def _decimal(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Each number as the shortest decimal that reads back the same."""
    distinct = pc.unique(column)
    decimals = pa.array([None if x is None or x != x else repr(x) for x in distinct.to_pylist()], pa.string())
    return decimals.take(pc.index_in(column, value_set=distinct))
