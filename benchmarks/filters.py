"""The rule filters beside those of peers, on one core: MB/s of text, and how many times that is.

    taskset -c 0 python -m benchmarks.filters [TEXTS.parquet]      # default: the committed sample

Peers run in environments of their own (tests/peers/requirements-peers.txt, benchmarks/peers/requirements-*.txt) and are
left out where those do not exist. All read the same texts, one after the other in this one run. Times are CPU seconds,
of ours the best of five after a first call that compiles; MB are 10^6 bytes of UTF-8. Quote the ratios.

- `each alone` counts for itself. `all four` are Gopher repetition, Gopher quality and FineWeb, which read one pass over
  the text, then C4, on every text; datatrove's chain cuts words once for all, too.
- `cascade` is that of `workflows/text.py` without the language: each filter sees what the ones before left, and FineWeb
  the text that C4 left. `through Ray` is the clean stage of a build of the texts 40 times over: reading Parquet, the
  cascade, profiles and writing, by the CPU seconds in its manifest.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.timing import seconds
from operators.apply import Step, apply
from operators.document import Operator
from operators.text.c4 import C4
from operators.text.fineweb import FineWeb
from operators.text.gopher_quality import GopherQuality
from operators.text.gopher_repetition import GopherRepetition
from operators.text.statistics import STATISTICS, statistics

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "workflows" / "sample" / "sample.parquet"
PEER = ROOT / "benchmarks" / "peers" / "rule_filters.py"
ENVIRONMENTS = {
    "datatrove": ".venv-peers",
    "datatrove_split": ".venv-peers",
    "data_juicer": ".venv-bench-data-juicer",
    "nemo_curator": ".venv-bench-nemo",
}
TIMES = 40  # of the texts through Ray: a worker first loads what was compiled, 1 s that a long build does not see


def chain(docs: pa.Table, operators: list[Operator]) -> None:
    for operator in operators:
        docs = operator(docs)


def ours(docs: pa.Table) -> dict[str, float]:
    """CPU seconds by what is done."""
    four: list[Operator] = [GopherRepetition(), GopherQuality(), FineWeb(), C4()]
    stock: list[Operator] = [
        GopherRepetition(mode="datatrove"),
        GopherQuality(mode="datatrove"),
        FineWeb(mode="datatrove"),
        C4(mode="datatrove"),
    ]
    cascade: list[Operator] = [*four[:2], C4(require_terminal_punctuation=False), four[2]]
    steps = [Step(operator.name, operator) for operator in cascade]
    taken = {operator.name: seconds(lambda op=operator: op(docs), rounds=5) for operator in four}
    taken[f"{len(STATISTICS)} statistics"] = seconds(lambda: statistics(docs, "paper", "whitespace"), rounds=5)
    taken["first three"] = seconds(lambda: chain(docs, four[:3]), rounds=5)
    taken["all four"] = seconds(lambda: chain(docs, four), rounds=5)
    taken["all four, mode datatrove"] = seconds(lambda: chain(docs, stock), rounds=5)
    taken["cascade"] = seconds(lambda: apply(steps, docs), rounds=5)
    return taken


def through_ray(docs: pa.Table) -> float:
    """CPU seconds of the clean stage."""
    with tempfile.TemporaryDirectory(prefix="filters-") as folder:
        copies = [
            docs.set_column(0, "id", pc.binary_join_element_wise(docs["id"], str(i), "-").cast(pa.string()))
            for i in range(TIMES)
        ]
        pq.write_table(pa.concat_tables(copies), f"{folder}/texts.parquet", row_group_size=4096)
        recipe = Path(folder) / "recipe.yaml"
        recipe.write_text(
            f"inputs: [{folder}/texts.parquet]\noutput: {folder}/out\nparams:\n  language: off\n", "utf-8"
        )
        command = [str(Path(sys.executable).parent / "corpusmill"), "build", str(recipe), "--until", "clean"]
        subprocess.run(command, check=True, capture_output=True)
        manifest = next(Path(folder).glob("out/stages/clean-*/manifest.json"))
        return float(json.loads(manifest.read_bytes())["cpu_seconds"])


def peers(texts: str) -> dict[str, dict[str, Any]]:
    """What rule_filters.py prints, by tool."""
    answers = {}
    for tool, environment in ENVIRONMENTS.items():
        python = ROOT / environment / "bin" / "python"
        if python.exists():
            done = subprocess.run([python, PEER, tool, texts], check=True, capture_output=True)
            answers[tool] = json.loads(done.stdout.splitlines()[-1])
    return answers


def main() -> None:
    given = sys.argv[1] if len(sys.argv) > 1 else str(SAMPLE)
    docs = pq.read_table(given, columns=["id", "text"])
    docs = docs.set_column(1, "text", docs["text"].cast(pa.large_string()))
    size = pc.sum(pc.binary_length(docs["text"])).as_py() / 1e6
    print(f"{docs.num_rows:,} texts, {size:.2f} MB\n")
    taken = ours(docs)
    told = peers(given)
    stock, split = (told.get(t, {}).get("seconds", {}) for t in ("datatrove", "datatrove_split"))
    for words in (stock, split):
        if words:
            words["all four, mode datatrove"] = words["all four"]
    version = told["datatrove"]["version"] if stock else ""
    print(f"{'each alone, and together':28s} {'ours':>12s}   datatrove {version} (spaCy)     (str.split)")
    for name, ours_took in taken.items():
        beside = "".join(
            f"   {size / w[name]:7.2f} MB/s  x{w[name] / ours_took:<5.0f}" for w in (stock, split) if name in w
        )
        print(f"{name:28s} {size / ours_took:7.1f} MB/s{beside}")
    print(f"{'cascade through Ray':28s} {TIMES * size / through_ray(docs):7.1f} MB/s")
    for tool in ("data_juicer", "nemo_curator"):
        if tool in told:
            print(f"\n{tool} {told[tool]['version']}")
            for name, peer_took in told[tool]["seconds"].items():
                print(f"  {name:40s} {size / peer_took:7.2f} MB/s")
            total = sum(told[tool]["seconds"].values())
            ratio = total / taken["all four"]
            print(f"  {'all of them':40s} {size / total:7.2f} MB/s; ours, all four: x{ratio:.0f}")


if __name__ == "__main__":
    main()
