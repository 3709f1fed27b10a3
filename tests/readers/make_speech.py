"""Shards of audio for the readers to open, written by the product in its own environment, where `speech` is installed.

    python -m tests.readers.make_speech FOLDER

makes a folder for FLAC and one for MP3, each with two shards and `case.json`, which says what is in them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cluster.shards import write_shard
from operators.speech.codec import decode
from tests.cluster.audio_cases import utterances
from workflows.shard_task import as_mp3

FORMATS = ["webdataset", "lhotse"]


def make(folder: Path, kind: str) -> None:
    docs = utterances([f"{'0' * 32}/{k:05d}" for k in range(10)] + ["a.b/c", "漢字"])
    docs = as_mp3(docs) if kind == "mp3" else docs
    parts = [docs.slice(0, 7), docs.slice(7)]
    records = [
        r for n, part in enumerate(parts) for r in write_shard(folder, f"train-00000-{n:02d}", part, FORMATS, None)
    ]
    files = {name: [record for record in records if record.format == name] for name in FORMATS}
    case = {
        "tars": [str(folder / record.path) for record in files["webdataset"]],
        "recordings": [str(folder / record.path) for record in files["lhotse"]],
        "cuts": [str(folder / record.sidecars[0].path) for record in files["lhotse"]],
        "utterances": docs.drop_columns(["payload"]).to_pylist(),
        "samples": [decode(payload).tolist() for payload in docs["payload"].to_pylist()],
    }
    (folder / "case.json").write_text(json.dumps(case))


if __name__ == "__main__":
    for each in ("flac", "mp3"):
        make(Path(sys.argv[1], each), each)
