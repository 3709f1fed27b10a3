"""The report of a build: one HTML file that needs no network and runs no script.

`render` turns a build's manifest, and samples of what was dropped, into the page. What the numbers mean is worked out
here; how they are drawn is in templates/report.html.j2. Strings of the manifest come from crawled pages, so they are
text and nothing else: escaped, cut to a length that a reader can take in, and freed of characters that HTML forbids.
(Over 300 lines: the page has many parts; each is one short function, and they share one way of reading the manifest.)
"""

from __future__ import annotations

import functools
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

import jinja2
import numpy as np
import ruamel.yaml
from markupsafe import Markup, escape

from operators.histogram import bin_end, cumulative
from operators.ordering.order import SIMILARITY
from workflows.audio_report import Audio
from workflows.contexts import orderings, packings
from workflows.distributions import Bin, Comparison, distributions
from workflows.profile import NAMED, OTHER, SCORE_BINS

Json = Mapping[str, Any]

LONGEST_STRING = 600
LONGEST_NAME = 120
SHARDS_SHOWN = 200
DISTRIBUTIONS_OPEN = 24  # pictures before the rest is folded away
REASONS_OPEN = 40  # rows of the drop table before the rest is folded away
SAMPLES_EACH = 20
SAMPLES_SHOWN = 600  # over all reasons: fewer of each when there are more than 30
NAMES_SHOWN = 20
TOLD_SHOWN = 12  # values that an operator sums up
SPARK_BINS = 24

# Control characters, halves of surrogate pairs, and those that turn the direction of the text that follows.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]")


class Step(NamedTuple):
    """One bar of the funnel: an operator, or a stage that names none."""

    stage: str
    name: str
    before: int
    dropped: int
    notes: list[str]  # of the stage
    told: dict[str, str]  # what the operator sums up


class Spread(NamedTuple):
    """Where the values that decided a drop lie: `heights` of equal bins from `low` to `high`, and three quantiles."""

    low: float
    high: float
    heights: list[float]
    quantiles: tuple[float, float, float]


class Reason(NamedTuple):
    name: str
    documents: int
    thresholds: list[float]
    spread: Spread | None
    samples: Sequence[Json]
    samples_shown: int


class Quarantined(NamedTuple):
    stage: str
    reason: str
    rows: int
    examples: Sequence[Json]


class Work(NamedTuple):
    stage: str
    operator: str | None
    documents: int
    seconds: float
    cached: bool
    units: int | None
    cut: int
    found: Mapping[str, int] = MappingProxyType({})  # documents with less text, or counts, by what was found


class Cost(NamedTuple):
    """What a stage or an operator of it took; bytes are known of stages only, and None where nothing recorded them."""

    stage: str
    operator: str | None
    cached: bool
    seconds: float  # of a stage by the clock, of an operator added up over processes
    cpu_seconds: float | None
    gpu_seconds: float | None
    moved: Sequence[int | None]  # read, written, shuffled, spilled
    peak: int | None


class Law(NamedTuple):
    """A conservation law of one stage: what came in is what went out, each part by name."""

    stage: str
    unit: str
    came: dict[str, int]
    went: dict[str, int]

    @property
    def missing(self) -> int:
        return sum(self.came.values()) - sum(self.went.values())


def render(
    manifest: Json,
    samples: Mapping[str, Sequence[Json]],
    quarantined: Mapping[str, Sequence[Json]] = MappingProxyType({}),
    audio: Audio | None = None,
) -> str:
    """The report of the build that `manifest` describes.

    `samples` holds dropped rows by "operator/reason", `quarantined` rows of quarantine by reason: id, file, offset and
    detail. Parts that are missing or empty are said to be so; an unusual manifest never makes the report fail.
    """
    stages: list[Json] = list(manifest.get("stages") or ())
    reasons = _reasons(stages, samples)
    shards: list[Json] = list(manifest.get("shards") or ())
    documents_in = stages[0].get("rows_in") or 0 if stages else 0
    return _environment().get_template("report.html.j2").render(
        build=manifest,
        stages=stages,
        documents_in=documents_in,
        documents_seen=documents_in + sum(stage.get("created") or 0 for stage in stages),
        created=_created(str(manifest.get("created") or "")),
        steps=list(_steps(stages)),
        reasons=reasons,
        reasons_open=REASONS_OPEN,
        has_text=any(row.get("text") is not None for reason in reasons for row in reason.samples),
        text_lost=any((stage.get("characters") or {}).get("dropped") for stage in stages)
        and not (manifest.get("recipe") or {}).get("dropped_text"),
        distributions=[one for one in distributions(stages) if one.name != SIMILARITY],  # drawn with the order
        distributions_open=DISTRIBUTIONS_OPEN,
        charts=[*_lengths(stages), *_scores(stages)],
        names=[one for key in NAMED for one in _names(stages, key, _sentence(key))],
        audio=audio,
        orders=list(orderings(stages)),
        packings=list(packings(stages)),
        quarantined=list(_quarantined(stages, quarantined)),
        work=list(_work(stages)),
        costs=list(_costs(stages)),
        cost=manifest.get("cost") or {},
        laws=[law for stage in stages for law in _laws(stage)],
        shards=shards,
        formats=Counter(shard.get("format") or "unknown" for shard in shards),
        shards_shown=SHARDS_SHOWN,
        recipe=_yaml(manifest.get("recipe") or {}),
    )  # fmt: skip


@functools.cache
def _environment() -> jinja2.Environment:
    """With the template, once it is compiled, which takes longer than to fill it in."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("workflows"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_plain,
    )
    filters: dict[str, Callable[..., str]] = {
        "count": count, "compact": compact, "share": share, "duration": duration, "size": size, "number": number,
        "name": name, "px": lambda x: f"{round(x, 2):g}", "hours": hours, "whole": Markup,
    }  # fmt: skip
    environment.filters.update(filters)
    return environment


def _plain(value: object) -> str:
    """What is written for a value: long strings cut, forbidden characters replaced, None as a dash."""
    if isinstance(value, Markup):  # made by our own macros: safe, and whole
        return value
    text = "–" if value is None else str(value)
    return _FORBIDDEN.sub("\ufffd", text if len(text) <= LONGEST_STRING else text[: LONGEST_STRING - 1] + "…")


def name(text: str) -> Markup:
    """A name that may break after its underscores and slashes."""
    short = _plain(text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…")
    return Markup(re.sub("([_/])", r"\1<wbr>", str(escape(short))))


def count(n: int | None) -> str:
    return "–" if n is None else f"{n:,}"


def compact(n: float | None) -> str:
    """Three digits and a unit: 12.3 M."""
    if n is None:
        return "–"
    for scale, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if n >= max(10_000, scale * 0.9995):
            return f"{n / scale:#.3g}".rstrip(".") + f" {unit}"
    return f"{n:,}"


def share(part: float, whole: float) -> str:
    if not whole:
        return "–"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "<0.1%"
    if 99.9 < percent < 100:
        return ">99.9%"
    return f"{percent:.1f}%"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02} min"


def hours(n: float) -> str:
    return duration(3600 * n)


def size(n: float | None) -> str:
    if n is None:
        return "–"
    for scale, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n >= scale:
            return f"{n / scale:.1f} {unit}"
    return f"{n:.0f} bytes"


def number(x: float | None) -> str:
    if x is None:
        return "–"
    return f"{x:,.0f}" if 1000 <= abs(x) < 1e15 else f"{x:.4g}"


def _created(text: str) -> str:
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return text


def _yaml(recipe: Json) -> list[str]:
    out = io.StringIO()
    yaml = ruamel.yaml.YAML()
    yaml.width = LONGEST_STRING
    yaml.dump(dict(recipe), out)
    return out.getvalue().splitlines()


def _dropped(part: Json) -> int:
    return sum((part.get("dropped") or {}).values())


def _steps(stages: Sequence[Json]) -> Iterator[Step]:
    for stage in stages:
        steps: Sequence[Json] = stage.get("operators") or [stage]
        parts = ((stage.get("created"), "created by splitting"), (stage.get("quarantined"), "quarantined"))
        notes = [f"{count(n)} {what}" for n, what in parts if n]
        for step in steps:
            rows, told = step.get("rows_in") or 0, _told(step.get("summary") or {})
            yield Step(stage.get("name", ""), step.get("name", ""), rows, _dropped(step), notes, told)


def _told(summary: Json) -> dict[str, str]:
    """What an operator sums up in single values."""
    write: dict[type, Callable[[Any], str]] = {
        int: count,
        float: number,
        str: str,
        bool: lambda x: "yes" if x else "no",
    }
    simple = [(key, value) for key, value in summary.items() if type(value) in write]
    return {_sentence(key): write[type(value)](value) for key, value in simple[:TOLD_SHOWN]}


def _reasons(stages: Sequence[Json], samples: Mapping[str, Sequence[Json]]) -> list[Reason]:
    counts: dict[str, int] = dict.fromkeys(samples, 0)
    profiles: dict[str, Json] = {}
    for stage in stages:
        for name, n in (stage.get("dropped") or {}).items():
            counts[name] = counts.get(name, 0) + n
        profiles.update((stage.get("profile") or {}).get("dropped") or {})
    shown = _shown_of_each(samples)
    return [
        Reason(
            name,
            n,
            sorted(float(t) for t in profiles.get(name, {}).get("thresholds") or ()),
            _spread(profiles.get(name, {})),
            samples.get(name, ()),
            shown,
        )
        for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def _shown_of_each(samples: Mapping[str, Sequence[Json]]) -> int:
    return max(1, min(SAMPLES_EACH, SAMPLES_SHOWN // max(1, len(samples))))


def _spread(profile: Json) -> Spread | None:
    """A linear picture of the values of one reason, wide enough for 96% of them and the thresholds."""
    counts: Mapping[str, int] = profile.get("values") or {}
    if not counts:
        return None
    thresholds = [float(t) for t in profile.get("thresholds") or ()]
    starts = sorted(map(float, counts))
    edges, at_edges = cumulative(counts)
    first, low, middle, high, last = (float(q) for q in np.interp([0.02, 0.05, 0.5, 0.95, 0.98], at_edges, edges))
    if _are_whole(starts, thresholds):
        wholes = np.array([sorted((start, _last_whole(start))) for start in starts]).ravel()
        low, middle, high = (float(round(q)) for q in np.interp([0.05, 0.5, 0.95], at_edges, wholes))
    finite = [t for t in thresholds if np.isfinite(t)]
    left, right = min([first, *finite]), max([last, *finite])
    margin = (right - left) / SPARK_BINS or 1.0
    cuts = np.linspace(left - margin, right + margin, SPARK_BINS + 1)
    shares = np.diff(np.concatenate([[0.0], np.interp(cuts[1:-1], edges, at_edges), [1.0]]))
    return Spread(float(cuts[0]), float(cuts[-1]), (shares / shares.max()).tolist(), (low, middle, high))


def _are_whole(starts: Sequence[float], thresholds: Sequence[float]) -> bool:
    """Whether the values look like counts of something (words, sentences) and not like shares or means."""
    counted = all(t >= 1 and t.is_integer() for t in thresholds)
    return bool(thresholds) and counted and all(start.is_integer() for start in starts)


def _last_whole(start: float) -> float:
    """The whole number farthest from zero in the bin that begins at the whole number `start`."""
    return start + float(np.copysign(max(0.0, np.ceil(abs(bin_end(start) - start)) - 1), start))


def _early_and_late(stages: Sequence[Json], part: Callable[[Json], Any]) -> tuple[Any, Any, str, str] | None:
    """The first and the last profile in which `part` is not empty, and where they were taken.

    A column that an operator adds is not known before its stage, so "before" is the earliest that knows it.
    """
    found = []
    for stage in stages:
        profiles = stage.get("profile") or {}
        for key, place in (("in", "into"), ("kept", "kept by")):
            profile = profiles.get(key) or {}
            if value := part(profile):
                found.append((value, f"{place} {stage.get('name', '')}"))
    if not found:
        return None
    return found[0][0], found[-1][0], found[0][1], found[-1][1]


def _lengths(stages: Sequence[Json]) -> Iterator[Comparison]:
    pair = _early_and_late(stages, lambda profile: profile.get("lengths"))
    if pair is None or not sum(pair[0]):
        return
    size = max(len(pair[0]), len(pair[1]))
    early, late = ([*counts, *[0] * (size - len(counts))] for counts in pair[:2])
    first = next(k for k in range(size) if early[k] or late[k])
    bins = [Bin(_length_range(k), early[k], late[k]) for k in range(first, size)]
    every = 1 + len(bins) // 7
    ticks = {k - first: _power_of_two(k - 1) if k else "0" for k in range(first, size + 1, every)}
    yield Comparison(
        "Length in characters", pair[2], pair[3], bins, ticks, "Each bar covers twice the range of the one before."
    )


def _power_of_two(exponent: int) -> str:
    return f"{2 ** (exponent % 10)}{['', 'k', 'M', 'G'][exponent // 10]}"


def _length_range(k: int) -> str:
    return f"{count(2 ** (k - 1))} to {count(2**k - 1)} characters" if k else "empty"


def _scores(stages: Sequence[Json]) -> Iterator[Comparison]:
    profiles = [p for s in stages for p in (s.get("profile") or {}).values() if p and "scores" in p]
    for name in sorted({score for profile in profiles for score in profile["scores"]}):

        def known(profile: Json, name: str = name) -> Json | None:
            score: Json = (profile.get("scores") or {}).get(name) or {}
            return score if any(score.get("bins") or ()) else None

        if pair := _early_and_late(stages, known):
            early, late = pair[0], pair[1]
            width = 1 / SCORE_BINS
            both = enumerate(zip(early["bins"], late["bins"], strict=True))
            bins = [Bin(f"{k * width:.2f} to {(k + 1) * width:.2f}", a, b) for k, (a, b) in both]
            outside = sum(score.get(side) or 0 for score in (early, late) for side in ("below", "above"))
            note = f"{count(outside)} values outside 0 to 1 are not drawn." if outside else ""
            ticks = {k * SCORE_BINS // 4: f"{k / 4:g}" for k in range(5)}
            yield Comparison(_sentence(name), *pair[2:], bins, ticks, note)


def _sentence(name: str) -> str:
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def _names(stages: Sequence[Json], key: str, title: str) -> Iterator[Comparison]:
    pair = _early_and_late(stages, lambda profile: profile if profile.get(key) else None)
    if pair is None:
        return
    early, late = pair[0][key], pair[1][key]
    names = (early.keys() | late.keys()) - {OTHER}
    for counts in (early, late):
        if OTHER in counts:  # a name that is missing here may be among them
            names &= counts.keys()
    order = sorted(names, key=lambda name: (-early.get(name, 0), -late.get(name, 0), name))[:NAMES_SHOWN]
    bins = [Bin(name, early.get(name, 0), late.get(name, 0)) for name in order]
    if others := (early.keys() | late.keys()) - set(order):
        both = (sum(counts.get(name, 0) for name in others) for counts in (early, late))
        bins.append(Bin("all others" if OTHER in others else f"{count(len(others))} others", *both))
    unknown = [profile.get("documents", 0) - sum(profile[key].values()) for profile in pair[:2]]
    if any(unknown):
        bins.append(Bin("not known", *unknown))
    yield Comparison(title, pair[2], pair[3], bins, {})


def _quarantined(stages: Sequence[Json], examples: Mapping[str, Sequence[Json]]) -> Iterator[Quarantined]:
    """By stage and reason. Examples are known by reason alone: they stand at the first stage that has the reason."""
    shown = _shown_of_each(examples)
    left = {reason: rows[:shown] for reason, rows in examples.items()}
    for stage in stages:
        name, reasons = stage.get("name", ""), stage.get("quarantine_reasons") or {}
        for reason, n in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
            yield Quarantined(name, reason, n, left.pop(reason, ()))
        if rest := (stage.get("quarantined") or 0) - sum(reasons.values()):
            yield Quarantined(name, "no reason recorded", rest, ())
    for reason, rows in left.items():
        yield Quarantined("not recorded", reason, len(examples[reason]), rows)


def _work(stages: Sequence[Json]) -> Iterator[Work]:
    for stage in stages:
        name, cached = stage.get("name", ""), bool(stage.get("cached"))
        cut = (stage.get("characters") or {}).get("cut") or 0
        yield Work(name, None, stage.get("rows_in") or 0, stage.get("seconds") or 0, cached, stage.get("units"), cut)
        for op in stage.get("operators") or ():
            rows, cut = op.get("rows_in") or 0, max(0, op.get("chars_cut") or 0)
            found = {**(op.get("trimmed") or {}), **{k: n for k, n in (op.get("counted") or {}).items() if n}}
            yield Work(name, op.get("name", ""), rows, op.get("seconds") or 0, cached, None, cut, found)


def _costs(stages: Sequence[Json]) -> Iterator[Cost]:
    """Of stages that recorded it, and their operators."""
    for stage in (stage for stage in stages if stage.get("cpu_seconds") is not None):
        name, cached = stage.get("name", ""), bool(stage.get("cached"))
        for part, operator in ((stage, None), *((one, one.get("name", "")) for one in stage.get("operators") or ())):
            times = part.get("seconds") or 0, part.get("cpu_seconds"), part.get("gpu_seconds")
            moved = [part.get(f"{kind}_bytes") for kind in ("read", "written", "shuffled", "spilled")]
            yield Cost(name, operator, cached and operator is None, *times, moved, part.get("peak_rss_bytes"))


def _laws(stage: Json) -> Iterator[Law]:
    """The laws a stage must keep: documents always, characters where the stage counted them."""
    name = stage.get("name", "")
    rows = {key: stage.get(key) or 0 for key in ("rows_in", "created", "kept", "quarantined")}
    went = {"kept": rows["kept"], "dropped": _dropped(stage), "quarantined": rows["quarantined"]}
    yield Law(name, "documents", {"in": rows["rows_in"], "created": rows["created"]}, went)
    if characters := stage.get("characters"):
        went = {key: characters.get(key) or 0 for key in ("kept", "dropped", "cut")}
        came = {key: characters.get(key) or 0 for key in ("in", "created")}
        yield Law(name, "characters", came, went)
