"""Copy a build of speech out in the layout that Emilia-Pipe writes (preprocessors/Emilia in Amphion, its last step):
a folder a recording, with `<recording>_<n>.mp3` of each utterance in the order of time and `<recording>.json` for all.

Utterances of a recording are in several shards. What is known of them is gathered in its folder while shards stream
through, and put in order when all are there: memory holds a batch of audio, then the utterances of one recording.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from cluster.audio_formats import has_audio, key_of, read_documents, short
from cluster.shards import TEXT_FORMAT, shard_name
from cluster.storage import Store
from operators.models.weights import needs
from workflows.corpus import shard_record
from workflows.export import tars_of
from workflows.recipe import RecipeError
from workflows.stage import Manifest

TOLD = ("text", "start", "end", "speaker", "language", "dnsmos")  # of an utterance, as Emilia's JSON has them
ROWS = "utterances.jsonl"  # of a recording, while shards stream through


def export_emilia(store: Store, manifest: Manifest, destination: Path) -> list[Path]:
    """Write the folders; the JSON files. Each clip is brought to full scale, and is an MP3 of 128 kbit/s, as Emilia's.
    Names of recordings are in percent-encoding, since paths have slashes. The destination must not exist or be empty.
    """
    try:
        needs("av", "soundfile")
    except ValueError as error:
        raise RecipeError(f"export in Emilia's layout {error}") from error
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise RecipeError(f"{destination} is not empty")
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # the encoder runs without the interpreter's lock
        for docs in _documents(store, manifest):
            if not has_audio(docs) or "recording" not in docs.column_names:
                raise RecipeError(f"build {manifest['build_id']} has documents that are no utterances of recordings")
            _add(docs, destination, pool)
    return [_finish(folder) for folder in sorted(destination.iterdir())] if destination.exists() else []


def _documents(store: Store, manifest: Manifest) -> Iterator[pa.Table]:
    """The documents of all shards with their audio, a batch at a time."""
    folder, tars = f"builds/{manifest['build_id']}/shards", tars_of(manifest)
    for shard in manifest["shards"]:
        if shard["format"] == TEXT_FORMAT:
            with store.local(shard["path"], *tars.get(shard_name(shard["path"]), [])) as root:
                yield from read_documents(root, folder, shard_record(shard))


def _add(docs: pa.Table, destination: Path, pool: ThreadPoolExecutor) -> None:
    """Write the utterances' audio, named by the end of their ids, and add them to those of their recordings."""
    names = [name for name in ("id", "recording", *TOLD) if name in docs.column_names]
    rows = pa.table({name: short(docs[name]) for name in names}).to_pylist()
    folders = [destination / key_of(row["recording"]) for row in rows]
    files = [folder / _clip(row) for folder, row in zip(folders, rows, strict=True)]
    for folder in set(folders):
        folder.mkdir(parents=True, exist_ok=True)
    payloads = (value.as_buffer().to_pybytes() for chunk in docs["payload"].chunks for value in chunk)
    for file, mp3 in zip(files, pool.map(_encoded, payloads), strict=True):
        file.write_bytes(mp3)
    lines: dict[Path, bytes] = {}
    for folder, row in zip(folders, rows, strict=True):
        lines[folder] = lines.get(folder, b"") + orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    for folder, added in lines.items():
        with (folder / ROWS).open("ab") as told:
            told.write(added)


def _encoded(payload: bytes) -> bytes:
    from operators.speech.codec import decode, encode_mp3

    samples = decode(payload)
    peak = np.abs(samples).max()
    return encode_mp3(samples / peak if peak > 0 else samples)


def _finish(folder: Path) -> Path:
    """Number the recording's utterances by time, and write its JSON."""
    rows: Sequence[Mapping[str, Any]] = [orjson.loads(line) for line in (folder / ROWS).read_bytes().splitlines()]
    rows = sorted(rows, key=lambda row: (row["start"], row["end"], row["id"]))
    for number, row in enumerate(rows):
        (folder / _clip(row)).rename(folder / f"{folder.name}_{number}.mp3")
    told = [{name: row.get(name) for name in TOLD} for row in rows]
    target = folder / f"{folder.name}.json"
    target.write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2))
    (folder / ROWS).unlink()
    return target


def _clip(row: Mapping[str, Any]) -> str:
    return f".{key_of(row['id'])}.mp3"
