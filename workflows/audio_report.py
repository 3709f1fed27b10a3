"""What the report tells of recordings: hours by fate, one of them as a timeline, and utterances to listen to."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cluster.storage import Store
from cluster.tables import Entry, iterate_entry, read_entry
from operators.apply import SPLIT
from operators.models.weights import needs
from operators.speech.spool import RATE
from workflows.caption_report import Captions, captions_of
from workflows.profile import SAMPLES, hears
from workflows.stage import Manifest

FILES = 50  # of a stage that are looked through: a report is no search
HEARD = 8  # utterances to listen to, kept ones, and as many that were not
LONGEST = 12  # seconds of one that are played
BIT_RATE = 48  # kbit/s
WIDTH, LANE, GAP = 1000, 16, 7  # of the timeline
SPEAKERS = 8  # colours
TOLD = ("id", "recording", "start", "end", "speaker", "language", "text", "dnsmos", "snr", "drop_reason", "drop_value")
CAPTION = ("facts", "labels", "caption_score", "attempts", "written_by", "qa")  # of a clip, beside these


class Hours(NamedTuple):
    """Audio by fate; of what was kept the `reason` is empty. Spans that overlap count for each."""

    stage: str
    reason: str
    spans: int
    hours: float


class Lane(NamedTuple):
    """One row of the timeline: bars (x, width, colour, title) of one kind."""

    name: str
    bars: list[tuple[float, float, str, str]]


class Timeline(NamedTuple):
    recording: str
    seconds: float
    lanes: list[Lane]

    @property
    def height(self) -> int:
        return len(self.lanes) * (LANE + GAP)


class Audio(NamedTuple):
    hours: list[Hours]
    recordings: int
    hours_in: float
    hours_kept: float
    timeline: Timeline | None
    kept: list[Mapping[str, Any]]
    rejected: list[Mapping[str, Any]]
    captions: Captions | None


def audio_of(store: Store, manifest: Manifest) -> Audio | None:
    """None for a build that has no audio."""
    stages = manifest["stages"]
    if not hears(stages):
        return None
    left = stages[-1]["profile"]["kept"].get(SAMPLES, 0)
    lost = [one for one in _hours(stages) if not one.reason.endswith(f"/{SPLIT}")]
    kept = Hours(stages[-1]["name"], "", stages[-1]["kept"], left / RATE / 3600)
    heard = stages[-2] if len(stages) > 1 else stages[-1]  # the last stage whose files hold the documents themselves
    files = heard["files"]["kept"][:FILES]
    return Audio(
        hours=[kept, *sorted(lost, key=lambda one: -one.hours)],
        recordings=stages[0]["rows_in"],
        hours_in=kept.hours + sum(one.hours for one in lost),
        hours_kept=kept.hours,
        timeline=_timeline(store, stages, files),
        kept=_playable(store, files),
        rejected=_playable(store, [e for s in stages for e in s["files"]["dropped"][:FILES]], each=1),
        captions=captions_of(stages),
    )


def _hours(stages: Sequence[Manifest]) -> Iterator[Hours]:
    for stage in stages:
        for reason, found in stage["profile"]["dropped"].items():
            if SAMPLES in found:
                yield Hours(stage["name"], reason, found["documents"], found[SAMPLES] / RATE / 3600)


def _playable(store: Store, files: Sequence[Entry], each: int = HEARD) -> list[Mapping[str, Any]]:
    """A few rows with their audio as a data URL, `each` of a reason at most; none where the extra is missing."""
    try:
        needs("av", "soundfile")
    except ValueError:
        return []
    from operators.speech.codec import decode, encode_mp3

    found: list[Mapping[str, Any]] = []
    reasons = Counter[str | None]()
    told: set[str] = set()  # captions: to hear the same eight times says little
    most = -(-HEARD // len(files)) if files else 0  # of a file
    for entry in files:
        wanted = (
            row
            for row in _with_audio(store, entry)
            if reasons[row.get("drop_reason")] < each and row.get("text") not in told
        )
        for row in islice(wanted, min(most, HEARD - len(found))):
            reasons[row.get("drop_reason")] += 1
            told |= {row["text"]} if row.get("text") else set()
            samples = decode(row.pop("payload"))[: LONGEST * RATE]
            mp3 = base64.b64encode(encode_mp3(samples, BIT_RATE)).decode()
            found.append(row | {"audio": f"data:audio/mpeg;base64,{mp3}"})
    return found


def _with_audio(store: Store, entry: Entry) -> Iterator[dict[str, Any]]:
    """Rows of a file that have audio, at most FILES of each of its parts."""
    for rows in iterate_entry(store, entry, [*TOLD, *CAPTION, "payload"]):
        if "payload" in rows.column_names:
            yield from rows.filter(pc.is_valid(rows["payload"])).slice(0, FILES).to_pylist()


def _timeline(store: Store, stages: Sequence[Manifest], files: Sequence[Entry]) -> Timeline | None:
    """Of the recording in `files` of which most was kept, ties by name."""
    if not files:
        return None
    kept = pa.concat_tables([read_entry(store, file, ["recording", "start", "end"]) for file in files])
    lengths: dict[str, float] = {}
    for row in kept.to_pylist():
        lengths[row["recording"]] = lengths.get(row["recording"], 0.0) + row["end"] - row["start"]
    name = min(lengths, key=lambda one: (-lengths[one], one), default=None)
    if name is None:
        return None
    rows = [row for stage in stages for row in _dropped_of(store, stage, name)]
    marks = next((row["timeline"] for row in rows if row.get("timeline")), None)
    parent = next((row for row in rows if row["drop_reason"].endswith(f"/{SPLIT}")), None)
    if marks is None or parent is None:
        return None
    seconds = parent[SAMPLES] / RATE
    lanes: dict[str, Lane] = {}

    def bar(lane: str, start: float, end: float, colour: str, title: str) -> None:
        x, width = WIDTH * start / seconds, max(0.8, WIDTH * (end - start) / seconds)
        told = f"{title}, {start:.1f} to {end:.1f} s"
        lanes.setdefault(lane, Lane(lane, [])).bars.append((x, width, colour, told))

    for mark in marks:
        if mark["kind"] == "turn":
            number = mark["speaker"] or 0
            bar(f"speaker {number + 1}", mark["start"], mark["end"], f"run{number % SPEAKERS}", "turn")
        else:
            bar(mark["kind"], mark["start"], mark["end"], "early", mark["kind"])
    for row in kept.filter(pc.equal(kept["recording"], name)).to_pylist():
        bar("kept", row["start"], row["end"], "kept", "kept")
    for row in rows:
        if row.get("end") is not None and row is not parent:
            bar(row["drop_reason"].partition("/")[2].replace("_", " "), row["start"], row["end"], "lost", "dropped")
    return Timeline(name, seconds, list(lanes.values()))


def _dropped_of(store: Store, stage: Manifest, recording: str) -> list[dict[str, Any]]:
    """The dropped rows of a recording, looked for in a bounded number of files."""
    found: list[dict[str, Any]] = []
    for entry in stage["files"]["dropped"][:FILES]:
        rows = read_entry(store, entry, ["recording", "start", "end", SAMPLES, "timeline", "drop_reason"])
        if "recording" in rows.column_names:
            mine = rows.filter(pc.equal(rows["recording"], pa.scalar(recording)))
            found += mine.to_pylist()
    return found
