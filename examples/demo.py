"""`make demo`: real pages and documents, with planted faults, through the whole text workflow.

Lays the input out below `out/demo-input`, then runs the same commands a user would. The planted rows show what the
report and `why` say of an exact duplicate, a near duplicate, a truncated record and a bad line.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pyarrow.parquet as pq

SAMPLE = Path("tests/data/sample")
INPUT = Path("out/demo-input")
OUTPUT = Path("out/demo")
RECIPE = Path("examples/demo.yaml")
PLANTED = 12
PARQUET_ROWS = 400


def lay_out_input() -> str:
    """Write the demo's input files; the id of a planted near duplicate."""
    shutil.rmtree(INPUT, ignore_errors=True)
    INPUT.mkdir(parents=True)
    documents = pq.read_table(SAMPLE / "sample.parquet")
    pq.write_table(documents, INPUT / "documents.parquet", row_group_size=PARQUET_ROWS)
    pages = (SAMPLE / "sample.warc.gz").read_bytes()
    (INPUT / "pages.warc.gz").write_bytes(pages[:-200])  # the last record ends in the middle
    english = [t for t in documents["text"].to_pylist() if len(t.split()) > 300 and " the " in t][:PLANTED]
    lines = [orjson.dumps({"id": f"exact-{n}", "text": text, "source": "planted"}) for n, text in enumerate(english)]
    lines += [
        orjson.dumps({"id": f"near-{n}", "text": near_duplicate(text), "source": "planted"})
        for n, text in enumerate(english)
    ]
    lines += [b'{"id": "broken", "text": "this line ends too', b'{"id": "latin", "text": "caf\xe9"}']
    with gzip.GzipFile(INPUT / "planted.jsonl.gz", "wb", mtime=0) as file:
        file.write(b"\n".join(lines) + b"\n")
    return "near-0"


def near_duplicate(text: str) -> str:
    """The text with its middle word replaced and a line added."""
    words = text.split(" ")
    words[len(words) // 2] = "edited"
    return " ".join(words) + "\nThis copy was edited for the demo."


def corpusmill(*arguments: str) -> None:
    print(f"\n$ corpusmill {' '.join(arguments)}", flush=True)  # noqa: T201
    subprocess.run([Path(sys.executable).with_name("corpusmill"), *arguments], check=True)


def main() -> None:
    began = time.monotonic()
    near = lay_out_input()
    shutil.rmtree(OUTPUT, ignore_errors=True)
    corpusmill("plan", str(RECIPE))
    corpusmill("build", str(RECIPE))
    corpusmill("why", str(OUTPUT), near)
    corpusmill("verify", str(OUTPUT))
    build = next((OUTPUT / "builds").iterdir())
    print(f"\nThe demo took {time.monotonic() - began:.0f} s.")  # noqa: T201
    print(f"report: {build / 'report.html'}\nshards: {build / 'shards'}")  # noqa: T201


if __name__ == "__main__":
    main()
