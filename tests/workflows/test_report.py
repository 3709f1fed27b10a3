"""The report: every figure of the manifest is on the page, and nothing in a manifest can break or abuse it."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.browser.example_build import HOSTILE, hostile, manifest, quarantined, samples
from workflows import report
from workflows.report import render

SECTIONS = ["funnel", "drops", "before-after", "samples", "quarantine", "time", "cost", "shards", "accounts", "recipe"]


class Outline(HTMLParser):
    """What a browser would find: text, tags with attributes, heading levels."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def headings(self) -> list[int]:
        return [int(tag[1]) for tag, _ in self.tags if re.fullmatch("h[1-6]", tag)]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


@pytest.fixture(scope="module")
def build() -> dict[str, Any]:
    return manifest()


def test_usual_build(build: dict[str, Any]) -> None:
    page = render(json.loads(json.dumps(build)), samples(build))
    outline = Outline(page)
    assert len(page.encode()) < 330_000
    for section in SECTIONS:
        assert ("section", section) in [(tag, attrs.get("id")) for tag, attrs in outline.tags]
    for stage in build["stages"]:
        for reason, n in stage["dropped"].items():
            assert reason in outline.words
            assert f"{n:,}" in outline.words
    for shard in build["shards"]:
        assert shard["path"] in outline.words
    figures = "400 M tokens|205,245|14.6% kept|committed as log entry 42|2026-11-03 02:14 UTC|45 quarantined|6 min 53 s"
    for text in f"{figures}|train:bpe|min_score: 0.65|pyarrow|6 others".split("|"):
        assert text in outline.words
    assert outline.words.count("✓ yes") == 10
    assert "✗" not in outline.text
    assert render(build, samples(build)) == page


def test_what_a_build_cost_is_told_or_said_to_be_unknown(build: dict[str, Any]) -> None:
    text = Outline(render(build, {})).words
    assert "20 min 08 s of CPUs on 2 machines, 61.2 GB read, 22.1 GB written, 6.8 GB of it shuffled." in text
    assert "20 min 08 s31.5 s61.2 GB22.1 GB5.1 GB0 bytes851.4 MB" in text
    unknown = build | {"stages": [{"name": "read", "seconds": 3, "rows_in": 1}], "cost": None}
    assert "This build did not record what it cost." in Outline(render(unknown, {})).words


def test_order_and_contexts_are_shown(build: dict[str, Any]) -> None:
    page = render(build, {})
    text = Outline(page).words
    summary = build["stages"][3]["operators"][0]["summary"]
    links = summary["links"]
    for said in (
        "Ordered bygreedy_edge206,289 documents",
        f"{summary['adjacent']}mean; of random pairs {summary['random']}",
        "93.4%measured on 400 documents",
        "512lists of documents, 32 for each",
        f"a nearest neighbour {links['edge']:,}",
        "Packed byicp_fit195,312 sequences of 2,048 tokens",
        "Padding<0.1%118,204 positions",
        "Documents cut0.0%0 that would fit into one sequence",
        "Coherence kept93.2%",
        "Building on other systems<urn:uuid:20000002>3520.58",
        "and 4 more",
    ):
        assert said in text
    assert page.count('class="dots"') == 8
    assert page.count("order_similarity") == 0  # it is drawn with the order, not among the cuts


@pytest.mark.parametrize("method", ["random", "by_field"])
def test_order_without_likeness(build: dict[str, Any], method: str) -> None:
    plain = copy.deepcopy(build)
    [order] = plain["stages"][3]["operators"]
    order |= {"summary": {"method": method}, "measured": {}}
    plain["stages"][3]["steps"][0]["parameters"] |= {"field": "date", "descending": True}
    text = Outline(render(plain, {})).words
    assert f"Ordered by{method}field date, descending True, 206,289 documents" in text
    for unknown in ("Similarity along the path", "two dimensions", "was joined", "Nearest neighbours found"):
        assert unknown not in text


def test_builds_without_order_or_windows_say_nothing_of_them(build: dict[str, Any]) -> None:
    ids = {attrs.get("id") for _, attrs in Outline(render(build | {"stages": build["stages"][:3]}, {})).tags}
    assert not ids & {"order", "contexts"}
    assert set(SECTIONS) <= ids


@pytest.mark.parametrize(
    "key", [*manifest()["stages"][3]["operators"][0]["summary"], *manifest()["stages"][4]["packing"]]
)
def test_any_part_of_order_and_packing_may_be_missing(build: dict[str, Any], key: str) -> None:
    for changed in ({}, {key: None}):
        part = copy.deepcopy(build)
        [order], tokens = part["stages"][3]["operators"], part["stages"][4]
        for known in (order["summary"], tokens["packing"]):
            if known.pop(key, None) is not None:
                known |= changed
        ids = {attrs.get("id") for _, attrs in Outline(render(part, {})).tags}
        assert {"order", "contexts"} <= ids


def test_contexts_may_be_incomplete(build: dict[str, Any]) -> None:
    part = copy.deepcopy(build)
    part["stages"][4]["contexts"] = [{}, {"documents": [{}, {"title": None, "similarity": -0.25}]}]
    text = Outline(render(part, {})).words
    assert "no title––" in text
    assert "-0.25" in text
    part["stages"][4] |= {"packing": None, "steps": None}
    assert "no title––" in Outline(render(part, {})).words


def test_what_operators_sum_up_stands_below_them(build: dict[str, Any]) -> None:
    told = copy.deepcopy(build)
    told["stages"][2]["operators"][1]["summary"] = {
        "threshold": 0.9312,
        "sampled": 12_345,
        "calibrated": True,
        "model": "a <b>model</b>",
        "curve": [1, 2],
        "nothing": None,
    }
    text = Outline(render(told, {})).words
    assert "Threshold 0.9312 Sampled 12,345 Calibrated yes Model a <b>model</b>" in text
    assert "Curve" not in text
    assert "Nothing None" not in text
    told["stages"][2]["operators"][1]["summary"] = {f"value_{k}": k for k in range(50)}
    assert "Value 11" in Outline(render(told, {})).words
    assert "Value 12" not in Outline(render(told, {})).words


def test_documents_that_stay_with_less_text_are_told_by_what_was_found(build: dict[str, Any]) -> None:
    trimmed = copy.deepcopy(build)
    trimmed["stages"][2]["operators"][0]["trimmed"] = {"<gsm8k>": 1234, "": 7}
    text = Outline(render(trimmed, {})).words
    assert "<gsm8k> 1,234" in text
    assert "in 7" in text


def test_page_is_sound_and_closed(build: dict[str, Any]) -> None:
    outline = Outline(render(build, samples(build)))
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in outline.tags:
        assert tag not in {"script", "iframe", "object", "img"}
        if tag == "svg":
            assert attrs.get("aria-hidden") == "true" or (attrs["role"] == "img" and attrs["aria-label"])
        if "href" in attrs:
            assert attrs["href"] is not None
            assert attrs["href"].startswith(("#", "data:"))
            assert attrs["href"][1:] in ids or tag == "link"
    levels = outline.headings
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False))


def test_broken_accounts_are_shown(build: dict[str, Any]) -> None:
    broken = copy.deepcopy(build)
    broken["stages"][1]["kept"] -= 7
    broken["stages"][2]["characters"]["cut"] += 5
    text = Outline(render(broken, {})).words
    assert "✗ 7 missing" in text
    assert "✗ 5 too many" in text


@pytest.mark.parametrize("key", [*manifest(), None])
def test_any_part_may_be_missing_or_null(build: dict[str, Any], key: str | None) -> None:
    for part in ({k: v for k, v in build.items() if k != key}, build | {key: None} if key else {}):
        assert set(SECTIONS) <= {attrs.get("id") for _, attrs in Outline(render(part, {})).tags}


@pytest.mark.parametrize("key", [*manifest()["stages"][1], *manifest()["stages"][1]["operators"][0]])
def test_any_part_of_a_stage_may_be_missing(build: dict[str, Any], key: str) -> None:
    stages = []
    for stage in build["stages"]:
        operators = [{k: v for k, v in op.items() if k != key} for op in stage["operators"]]
        stages.append({k: v for k, v in {**stage, "operators": operators}.items() if k != key})
    assert "Nothing lost" in render(build | {"stages": stages}, {})


def test_empty_input() -> None:
    nothing = {"documents": 0, "lengths": [], "languages": {}, "scores": {"a_score": {"bins": [0] * 20}}}
    stage = {"name": "read", "rows_in": 0, "kept": 0, "dropped": {}, "seconds": 0, "profile": {"in": nothing}}
    stage["operators"] = [{"name": "warc", "rows_in": 0}]
    text = Outline(render({"stages": [stage], "documents": 0, "tokens": 0, "shards": [], "seconds": 0.2}, {})).words
    for said in (
        "No document was dropped",
        "No lengths, scores",
        "There are no samples",
        "Nothing was quarantined",
        "no shards",
    ):
        assert said in text


def test_many_reasons(build: dict[str, Any]) -> None:
    stage = build["stages"][1]
    dropped = {f"op/reason_{k}": k for k in range(1000)}
    many = build | {"stages": [stage | {"dropped": dropped}]}
    page = render(many, samples(many))
    text = Outline(page).words
    assert "960 more reasons" in text
    assert "op/reason_999" in text
    assert "op/reason_1" in text
    assert len(page.encode()) < 1_200_000


def test_hostile_strings_are_text(build: dict[str, Any]) -> None:
    attacked = hostile(build)
    page = render(attacked, samples(attacked, "</blockquote>" + " ".join(HOSTILE) + "\ud800"))
    page.encode()  # halves of surrogate pairs were replaced
    outline = Outline(page)
    for attack in HOSTILE:
        assert attack in outline.words
    assert not [tag for tag, attrs in outline.tags if tag == "script" or any(a.startswith("on") for a in attrs)]
    assert "\x00" not in page
    assert "\u202e" not in page
    assert "W" * 601 not in page


def test_text_of_dropped_rows(build: dict[str, Any]) -> None:
    without, given = (Outline(render(build, samples(build, text))).words for text in (None, "word " * 500))
    assert "dropped_text: true" in without
    assert "dropped_text: true" not in given
    assert "word word" in given
    assert "word " * 120 not in given
    for stage in build["stages"]:
        stage["characters"]["dropped"] = 0  # pages that were dropped before they were read, clips before their captions
    had_none = Outline(render(build, samples(build, None))).words
    assert "They had no text." in had_none
    assert "dropped_text: true" not in had_none


@pytest.mark.parametrize(
    ("profile", "median"),
    [
        ({}, None),
        ({"values": {"0.0": 5}}, 0.0),
        ({"values": {"0.0": 1, "2.0": 1, "-2.0": 1}, "thresholds": {"inf": 3}}, 0.0),
        ({"values": {"1.0": 10}, "thresholds": {"3.5": 10}}, 1.03125),
        ({"values": {"1.0": 10}}, 1.03125),
        ({"values": {"0.5": 10}, "thresholds": {"3.0": 10}}, 0.515625),
        ({"values": {"1.0": 10}, "thresholds": {"3.0": 10}}, 1.0),
        ({"values": {"0.0": 1, "27.0": 8, "40.0": 1}, "thresholds": {"50.0": 10}}, 27.0),
        ({"values": {"-5.0": 10}, "thresholds": {"1.0": 10}}, -5.0),
        ({"values": {"64.0": 10}, "thresholds": {"50.0": 10}}, 66.0),
    ],
)
def test_spread(profile: dict[str, Any], median: float | None) -> None:
    found = report._spread(profile)
    assert (found and found.quantiles[1]) == (median if median is None else pytest.approx(median))
    if found:
        assert found.low < found.high
        assert max(found.heights) == 1
        assert min(found.heights) >= 0


@given(st.lists(st.integers(0, 31), min_size=1, max_size=40))
def test_quantiles_of_small_counts_are_counts_that_occurred(values: list[int]) -> None:
    found = report._spread({"values": {str(float(v)): values.count(v) for v in values}, "thresholds": {"3.0": 1}})
    assert found
    assert set(found.quantiles) <= set(values)
    assert found.quantiles[1] in {sorted(values)[(len(values) - 1) // 2], sorted(values)[len(values) // 2]}


def test_shards_are_counted_once_whatever_their_formats(build: dict[str, Any]) -> None:
    shards = [{"format": kind, "bytes": 1000} for kind in ("megatron", "olmo", "datatrove") for _ in range(3)]
    assert "Shards3in 3 formats, 9.0 kB" in Outline(render(build | {"shards": shards}, {})).words
    assert "Shards33.0 kB as megatron" in Outline(render(build | {"shards": shards[:3]}, {})).words
    assert "Shards00 bytes" in Outline(render(build | {"shards": []}, {})).words


def test_examples_of_quarantine(build: dict[str, Any]) -> None:
    rows = quarantined(build)
    rows["bad_gzip"] = [{"id": None, "file": "a.gz", "offset": k, "detail": f"broken at {k};"} for k in range(25)]
    rows["unheard_of"] = [{"file": "b.gz"}]
    page = Outline(render(build, {}, rows))
    assert "truncated_record20 examples" in page.words
    assert "a.gz at 19 broken at 19;" in page.words
    assert "a.gz at 20" not in page.words
    assert "b.gz" in page.words
    for attack in HOSTILE:
        assert f"{attack} in record" in page.words
    ids = {attrs.get("id") for _, attrs in page.tags}
    links = {attrs["href"] for tag, attrs in page.tags if tag == "a" and str(attrs.get("href")).startswith("#q")}
    assert len(links - {"#quarantine"}) == 4
    assert {str(link)[1:] for link in links} <= ids


def test_names_beyond_the_bound_are_not_compared() -> None:
    early = {"documents": 30, "sources": {"a": 10, "b": 5, "(other)": 15}}
    late = {"documents": 12, "sources": {"a": 8, "c": 4}}
    (sources,) = report._names([{"name": "s", "profile": {"in": early, "kept": late}}], "sources", "Sources")
    assert [tuple(b) for b in sources.bins] == [("a", 10, 8), ("b", 5, 0), ("all others", 15, 4)]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (report.compact(9999), "9,999"), (report.compact(12_345), "12.3 K"), (report.compact(999_999), "1.00 M"),
        (report.compact(1_234_567), "1.23 M"), (report.compact(None), "–"), (report.share(1, 3), "33.3%"),
        (report.share(1, 10**6), "<0.1%"), (report.share(999_999, 10**6), ">99.9%"), (report.share(0, 0), "–"),
        (report.share(5, 5), "100.0%"), (report.duration(0.04), "0.0 s"), (report.duration(99.96), "1 min 40 s"),
        (report.duration(7384), "2 h 03 min"), (report.size(999), "999 bytes"), (report.size(2e9), "2.0 GB"),
        (report.number(0.65), "0.65"), (report.number(100000.0), "100,000"), (report.number(float("inf")), "inf"),
    ],
)  # fmt: skip
def test_figures(shown: str, expected: str) -> None:
    assert shown == expected
