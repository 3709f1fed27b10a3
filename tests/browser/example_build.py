"""The manifest of an invented text build, with profiles made by workflows/profile.py, and samples of its drops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from operators.histogram import histogram
from workflows.profile import drop_profile, merge, profile

RNG_SEED = 7
REPEATS = 584  # the profiled tables stand for a build this many times as large
HOSTILE = ("<script>alert(1)</script>", "</style><script>alert(2)</script>", '" onload="alert(3)" x="', "{{ 7 * 7 }}")

# stage: operator: (reason: documents, threshold, typical value)
STAGES: dict[str, dict[str, dict[str, tuple[int, float | None, float]]]] = {
    "read": {
        "warc": {"not_html": (60411, None, 0), "http_status": (21877, 200, 404), "empty_payload": (412, None, 0)},
        "url_filter": {"blocked_host": (18211, None, 0), "blocked_word": (9120, 2, 2.6)},
        "extract": {"no_text": (33127, 1, 0), "too_deep": (3, 512, 700)},
    },
    "clean": {
        "normalise": {},
        "language": {"other_language": (402118, None, 0), "low_score": (71207, 0.65, 0.45)},
        "c4": {
            "too_few_sentences": (120411, 3, 1.4),
            "lorem_ipsum": (310, None, 0),
            "curly_bracket": (18233, None, 0),
            "bad_word": (6071, 1, 1.3),
            "javascript": (2044, None, 0),
        },
        "gopher_quality": {
            "too_few_words": (88120, 50, 27),
            "too_many_words": (214, 100000, 160000),
            "mean_word_length": (9120, 10, 11.5),
            "symbol_ratio": (11820, 0.1, 0.16),
            "bullet_lines": (4100, 0.9, 0.95),
            "stop_words": (29551, 2, 0.8),
        },
        "gopher_repetition": {
            "duplicate_lines": (14113, 0.3, 0.44),
            "top_2_gram": (30914, 0.2, 0.27),
            "duplicate_10_grams": (9944, 0.1, 0.19),
        },
        "fineweb": {
            "line_punctuation": (51019, 0.12, 0.06),
            "short_lines": (17240, 0.67, 0.8),
            "newline_ratio": (801, 0.3, 0.4),
        },
    },
    "dedup": {
        "exact_dedup": {"duplicate": (22071, None, 0)},
        "minhash_dedup": {"near_duplicate": (143201, 0.72, 0.87)},
    },
    "order": {"order": {}},
    "tokens": {"tokenizer": {"no_tokens": (2, 1, 0)}, "pack": {"too_short": (1042, 16, 9)}},
}
PAGES = 1_402_117


def manifest() -> dict[str, Any]:
    rng = np.random.default_rng(RNG_SEED)
    stages, alive, text = [], PAGES, _documents(rng, 2400)
    characters_in = PAGES * 3100
    for number, (name, operators) in enumerate(STAGES.items()):
        rows_in, listed = alive, []
        dropped: dict[str, int] = {}
        for operator, reasons in operators.items():
            counts = {f"{operator}/{reason}": n for reason, (n, _, _) in reasons.items()}
            seconds = round(float(rng.uniform(4, 90)), 2)
            cut = 48_120_417 if operator == "c4" else 0
            listed.append(
                {
                    "name": operator,
                    "rows_in": alive,
                    "dropped": counts,
                    "chars_in": alive * 3100,
                    "chars_cut": cut,
                    "seconds": seconds,
                    "cpu_seconds": round(0.9 * seconds, 2),
                    "gpu_seconds": 0.0,
                }
            )
            dropped |= counts
            alive -= sum(counts.values())
        quarantined = {"truncated_record": 41, "bad_gzip": 3, "worker_crash": 1} if name == "read" else {}
        alive -= sum(quarantined.values())
        kept = text.slice(0, int(2400 * alive / PAGES))
        before, text = text, kept
        lost = {"dropped": (rows_in - alive) * 3000, "cut": 48_120_417 if name == "clean" else 0}
        characters = {"in": characters_in, "kept": characters_in - sum(lost.values()), **lost}
        characters_in = characters["kept"]
        stages.append(
            {
                "name": name,
                "fingerprint": f"{number}f3b9c27e1d{number}4a80",
                "cached": name == "read",
                "rows_in": rows_in,
                "created": 0,
                "kept": alive,
                "dropped": dropped,
                "quarantined": sum(quarantined.values()),
                "quarantine_reasons": quarantined,
                "seconds": round(float(rng.uniform(8, 140)), 2),
                "units": 64 if number < 2 else 16,
                **_cost(number),
                "operators": listed,
                "characters": characters,
                "profile": {
                    "in": _profile(before, extracted=number > 0, scored=number > 0),
                    "kept": _profile(kept, extracted=True, scored=number > 0),
                    "dropped": merge([drop_profile(_drops(rng, operators))]),
                },
            }
        )
    _give_order(rng, stages[-2])
    stages[-1] |= _packed(alive)
    shards = [
        {
            "format": kind,
            "path": f"shards/{kind}/{split}-{k:05}-{'8c41f0e2b7' if k % 2 else '03de99a17c'}.{end}",
            "sha256": f"{k}c" * 32,
            "bytes": 203_118_400 + 7919 * k,
            "documents": alive // 4,
            "sequences": 12207,
            "tokens": 99_999_744,
            "split": split,
        }
        for kind, end in (("megatron", "bin"), ("parquet", "parquet"))
        for k, split in enumerate(["train"] * 3 + ["validation"])
    ]
    return {
        "schema_version": 1,
        "build_id": "20261103-021407-5f0c3a",
        "workflow": "text",
        "created": "2026-11-03T02:14:07+00:00",
        "recipe": {
            "workflow": "text",
            "inputs": ["s3://crawl/2026-11/*.warc.gz"],
            "output": "s3://corpora/web",
            "params": {"language": {"keep": ["en"], "min_score": 0.65}, "minhash_dedup": {"bands": 14, "rows": 8}},
        },
        "versions": {"corpusmill": "0.1.0", "python": "3.11.7", "ray": "2.60.0", "pyarrow": "26.0.0"},
        "inputs": {"files": 64, "bytes": 61_204_118_220, "sha256": "ab" * 32, "new": 64},
        "committed": True,
        "log_number": 42,
        "seconds": 412.7,
        "cost": {**_cost(4), "seconds": 398.2, "nodes": ["10.0.0.7", "10.0.0.9"], "ran": list(STAGES)[1:]},
        "stages": stages,
        "documents": alive,
        "tokens": 399_998_976,
        "padding": 118_204,
        "tokenizer": {"name": "train:bpe", "sha256": "cd" * 32, "vocab_size": 32000, "eos_id": 0, "dtype": "uint16"},
        "splits": {
            "train": {"documents": alive - 402, "tokens": 399_610_112},
            "validation": {"documents": 402, "tokens": 388_864},
        },
        "shards": shards,
    }


def _cost(number: int) -> dict[str, Any]:
    cost: dict[str, Any] = {
        "cpu_seconds": 1204.5 + number,
        "gpu_seconds": 31.5 * (number == 3),
        "peak_rss_bytes": 812 << 20,
    }
    moved = {"read_bytes": 61_204_118_220, "written_bytes": 22_118_000_000, "shuffled_bytes": number * 1_700_000_000}
    return cost | moved | {"spilled_bytes": None if number == 2 else 0}


def samples(manifest: dict[str, Any], text: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """20 rows of each reason, some of them hostile."""
    found = {}
    for stage in manifest["stages"]:
        for reason, n in stage["dropped"].items():
            found[reason] = [
                {
                    "id": f"<urn:uuid:{k:08x}-7d1c-4b8e-9f2a-{n:012x}>",
                    "url": f"https://example.org/{reason}/{k}?q={HOSTILE[k % 4]}",
                    "value": k / 7,
                    "threshold": 0.65,
                    "detail": HOSTILE[k % 4] if k % 5 == 0 else None,
                    "duplicate_of": f"<urn:uuid:{k:08x}>" if "dup" in reason else None,
                    "text": text,
                }
                for k in range(min(20, n))
            ]
    return found


def quarantined(manifest: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Up to 20 rows of each reason of quarantine, some of them hostile."""
    reasons = {reason: n for stage in manifest["stages"] for reason, n in stage["quarantine_reasons"].items()}
    return {
        reason: [
            {
                "id": None if k % 2 else f"<urn:uuid:{k:08x}>",
                "file": f"crawl/2026-11/{reason}-{k:05}.warc.gz",
                "offset": 7919 * k,
                "detail": f"{HOSTILE[k % 4]} in record {k}",
            }
            for k in range(min(20, n))
        ]
        for reason, n in reasons.items()
    }


def hostile(manifest: dict[str, Any]) -> dict[str, Any]:
    """The same build with hostile and giant strings wherever a string can come from outside."""
    attack = " ".join(HOSTILE) + "\u202e\x00" + "W" * 2000
    stages = [
        stage
        | {
            "name": f"{stage['name']} {attack}",
            "dropped": stage["dropped"] | {f"{stage['name']}/{attack}": 12},
            "quarantine_reasons": {attack: 3},
            "fingerprint": attack,
            "profile": {
                key: value
                | {
                    "languages": {attack: 5, "en": 9},
                    "sources": {attack: 1},
                    "scores": {f"{attack}_score": {"bins": [1] * 20, "below": 1, "above": 0}},
                }
                for key, value in stage["profile"].items()
                if key != "dropped"
            },
        }
        for stage in manifest["stages"]
    ]
    operators = [
        stage
        | {
            "operators": [op | {"name": attack} for op in stage["operators"] if op["name"] != "order"]
            + [
                op | {"summary": _attacked_order(op["summary"], attack)} for op in stage["operators"] if "summary" in op
            ],
            "contexts": [
                {"shard": attack, "sequence": 3, "more": 4, "documents": [dict.fromkeys(("id", "title"), attack)]}
            ],
        }
        for stage in stages
    ]
    return manifest | {
        "stages": operators,
        "workflow": attack,
        "build_id": attack,
        "created": attack,
        "recipe": {attack: [attack]},
        "versions": {attack: attack},
        "splits": {attack: {"documents": 1}},
        "tokenizer": {"name": attack},
        "shards": [{"path": attack, "format": attack, "split": attack, "sha256": attack}],
        "inputs": {attack: attack},
    }


def _attacked_order(summary: dict[str, Any], attack: str) -> dict[str, Any]:
    return summary | {"method": attack, attack: attack, "links": {attack: 3}}


def _give_order(rng: np.random.Generator, stage: dict[str, Any]) -> None:
    """What ordering by likeness leaves in a manifest: a path of which most neighbours are alike."""
    documents = stage["kept"]
    along, random = rng.beta(4, 5, 4000), rng.normal(0.02, 0.04, 4000)
    centres = rng.uniform(100, 900, (30, 2))
    land = centres[rng.integers(0, 30, 1500)] + rng.normal(0, 40, (1500, 2))
    runs = [centres[k] + rng.normal(0, 14, (12, 2)) for k in range(8)]
    runs[3][7:] += 260
    places = np.rint(np.concatenate([land, *runs])).clip(0, 1000)
    stage["steps"] = [{"name": "order", "parameters": {"type": "Order", "method": "greedy_edge"}}]
    stage["operators"][0] |= {
        "measured": {"order_similarity": {start: 12 * n for start, n in histogram(along).items()}},
        "summary": {
            "method": "greedy_edge",
            "documents": documents,
            "lists": 512,
            "probes": 32,
            "exact": False,
            "queries": 400,
            "recall": 0.934,
            "adjacent": round(float(along.mean()), 4),
            "random": round(float(random.mean()), 4),
            "random_similarity": histogram(random),
            "links": {"edge": documents - 19_213, "stitch": 19_200, "jump": 13},
            "landscape": {
                "x": places[:, 0].tolist(),
                "y": places[:, 1].tolist(),
                "context": [-1] * 1500 + np.repeat(np.arange(8), 12).tolist(),
            },
        },
    }


def _packed(documents: int) -> dict[str, Any]:
    """What packing leaves in a manifest."""
    titles = ("Installing the package from source", "How to build it yourself", "Building on other systems", "Licence")
    similar = (None, 0.71, 0.58, 0.12)
    contexts = [
        {
            "sequence": 4711 * k,
            "documents": [
                {"id": f"<urn:uuid:{k}{n:07x}>", "title": name, "tokens": 512 - 80 * n, "similarity": similarity}
                for n, (name, similarity) in enumerate(zip(titles, similar, strict=True))
            ],
            "more": 2 * k,
        }
        for k in range(3)
    ]
    costs = {"documents": documents, "documents_cut": 0, "links": documents, "padding": 118_204, "sequences": 195_312}
    parameters = {"type": "Pack", "layout": "windows", "mode": "icp_fit", "seq_len": 2048}
    return {
        "packing": costs | {"similarity": 0.44 * documents, "similarity_kept": 0.41 * documents},
        "contexts": contexts,
        "steps": [{"name": "pack", "parameters": parameters}],
        "tokens": 399_998_976,
    }


def _documents(rng: np.random.Generator, n: int) -> pa.Table:
    lengths = np.minimum(rng.lognormal(7.3, 1.1, n), 60_000).astype(int)
    quality = rng.beta(4, 2.2, n)
    order = np.argsort(quality + rng.normal(0, 0.25, n) < 0.5, kind="stable")  # better pages tend to stay
    languages = np.array(["en", "de", "fr", "es", "ru", "zh", "ja", "it", "pl", "nl", *(f"x{k}" for k in range(16))])
    odds = np.r_[np.full(2, 30.0), 9, 8, 7, 6, 5, 4, 3, 2, np.ones(16)]
    language = languages[rng.choice(len(languages), n, p=odds / odds.sum())]
    language[order[:760]] = "en"
    table = pa.table(
        {
            "text": pa.array(["x" * int(k) for k in lengths], pa.large_string()),
            "language": language,
            "source": np.array(["crawl", "books", "forums"])[rng.choice(3, n, p=[0.8, 0.15, 0.05])],
            "language_score": rng.beta(7, 1.5, n),
            "quality_score": quality,
        }
    )
    return table.take(order)


def _profile(docs: pa.Table, extracted: bool, scored: bool) -> dict[str, Any]:
    columns = ["source", *["text"] * extracted, *["language", "language_score", "quality_score"] * scored]
    return merge([profile(docs.select(columns))] * REPEATS)


def _drops(rng: np.random.Generator, operators: dict[str, dict[str, tuple[int, float | None, float]]]) -> pa.Table:
    tables = [
        pa.table(
            {
                "drop_reason": pa.array([], pa.string()),
                "drop_value": pa.array([], pa.float64()),
                "drop_threshold": pa.array([], pa.float64()),
            }
        )
    ]
    for operator, reasons in operators.items():
        for reason, (n, threshold, typical) in reasons.items():
            rows = min(n, 1500)
            near = typical * rng.lognormal(0, 0.3, rows)
            beyond = np.minimum if threshold is None or typical < threshold else np.maximum
            if threshold is not None and threshold >= 1 and reason != "mean_word_length":
                near = np.floor(near)  # a count
            values = [None] * rows if threshold is None else beyond(near, threshold)
            tables.append(
                pa.table(
                    {
                        "drop_reason": [f"{operator}/{reason}"] * rows,
                        "drop_value": pa.array(values, pa.float64()),
                        "drop_threshold": pa.array([threshold] * rows, pa.float64()),
                    }
                )
            )
    return pa.concat_tables(tables)
