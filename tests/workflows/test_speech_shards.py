"""Utterances through the last stage's tasks, in this process: bounded shards, retracting, exporting. Without Ray."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

pytest.importorskip("soundfile", reason="of the extra `speech`")

from cluster.artefacts import keep, on_disk
from cluster.exchange import write_partitions
from cluster.shard_reader import verify_shard
from cluster.storage import Store, open_store
from cluster.tables import TableWriter
from operators.apply import Step
from operators.document import Pinned
from operators.retracted import Ids, Retracted
from operators.speech.codec import decode
from operators.tokens.pack import Pack
from tests.cluster.audio_cases import tone, utterances
from tests.cluster.shard_cases import tokenizer
from workflows.corpus import shard_record
from workflows.export import export_hf
from workflows.export_emilia import export_emilia
from workflows.recipe import RecipeError, Shards
from workflows.retract import _Removal
from workflows.shard_task import ShardTask, ShardWriter
from workflows.token_stage import cut_splits

IDS = [f"{k % 2}{'0' * 31}/{k:05d}" for k in range(12)]


def written(
    store: Store,
    formats: list[str],
    tokens: bool = False,
    most: int = 10**9,
    audio: str = "flac",
    without: Sequence[str] = (),
    pack: Pack | None = None,
) -> Any:
    """The manifest, as far as it is needed, of twelve utterances that came in two files."""
    docs = utterances(IDS, tokens)
    docs = docs.append_column("chars", pa.array([10] * len(IDS), pa.int64()))
    docs = docs.append_column("key", pa.array(np.arange(len(IDS))[::-1].astype(np.uint64)))
    docs = docs.filter(pc.invert(pc.is_in(docs["id"], pa.array(without, pa.string()))))
    if tokens:
        docs = docs.append_column("tokens", pa.array([len(ids) for ids in docs["input_ids"].to_pylist()]))
    keys = ("exchange/0.arrow", "exchange/1.arrow")
    for key, part in zip(keys, (docs.slice(0, 5), docs.slice(5)), strict=True):
        write_partitions(store, key, part, np.zeros(part.num_rows, np.int64), 1)
    about = tokenizer() if tokens else None
    names = frozenset(docs.column_names)
    writer = ShardWriter(store, "builds/b/shards", pack or Pack(), about, tuple(formats), names, linked=False)
    record = ShardTask("stages/tokens", keys, writer, 10**6, most, audio)(0, ["train", 0, 0])
    assert record["kept_documents"] == docs.num_rows
    stage = {"steps": [], "contexts": [], "files": {"kept": record["index"]}, "dropped": {}, "profile": {"kept": {}}}
    told = {"build_id": "b", "tokenizer": about, "shards": record["shards"], "recipe": {"shards": {"formats": formats}}}
    counts = {"train": {"documents": len(IDS), "tokens": record["tokens"]}}
    return told | {"stages": [stage], "splits": counts, "workflow": "speech", "created": "", "documents": len(IDS)}


def check(store: Store, manifest: Any) -> dict[str, list[Any]]:
    """All shards hold what their records say; these, by format."""
    found: dict[str, list[Any]] = {}
    with store.local(*(shard["path"] for shard in manifest["shards"])) as root:
        for shard in manifest["shards"]:
            verify_shard(root, shard_record(shard))
            found.setdefault(shard["format"], []).append(shard)
    return found


@pytest.mark.parametrize("tokens", [False, True])
def test_a_shard_ends_at_bytes_of_audio(tokens: bool, tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    sizes = [len(payload) for payload in utterances(IDS)["payload"].to_pylist()]
    most = sum(sizes) // 3 + 1
    found = check(store, written(store, ["webdataset", "lhotse"], tokens, most))
    for kind in ("webdataset", "lhotse", "parquet"):
        assert len(found[kind]) == 3
        assert min(shard["documents"] for shard in found[kind]) > 2
    rows = [r for s in found["parquet"] for r in pq.read_table(tmp_path / s["path"]).to_pylist()]
    assert [row["id"] for row in rows] == IDS[::-1]  # by key
    for shard in found["parquet"]:
        sizes = pq.read_table(tmp_path / shard["path"])["audio_bytes"].to_pylist()
        assert sum(sizes) <= most + max(sizes)


def test_lengths_of_sequences_are_of_tokens_alone(tmp_path: Path) -> None:
    pack = Pack(layout="windows", mode="decompose", seq_len=16, min_len=2)
    manifest = written(open_store(str(tmp_path)), ["webdataset", "mds"], tokens=True, pack=pack)
    assert {s["format"] for s in manifest["shards"] if "buckets" in s} == {"mds"}
    assert {s["format"]: s["sequences"] == 12 for s in manifest["shards"]} == {
        "parquet": True,
        "webdataset": True,
        "mds": False,
    }


def test_partitions_are_sized_by_the_larger_of_tokens_and_audio() -> None:
    def partitions(**more: int) -> list[int]:
        return [cut.partitions for cut in cut_splits({"test": 0.25}, 4_000_000, 100_000, **more)]

    assert partitions() == partitions(total_bytes=10**6, bytes_per_shard=10**6) == [2, 8]
    assert partitions(total_bytes=40 * 10**6, bytes_per_shard=10**6) == [10, 30]


@pytest.mark.parametrize("audio", ["flac", "mp3"])
@pytest.mark.parametrize("formats", [["parquet"], ["webdataset"], ["lhotse", "megatron"], ["webdataset", "lhotse"]])
def test_retracting_lays_out_again_what_is_left(formats: list[str], audio: str, tmp_path: Path) -> None:
    """As if the others had been given alone, whatever holds the audio; MP3 is not made of MP3 again."""
    store, gone = open_store(str(tmp_path)), [IDS[3], IDS[8]]
    manifest = written(store, formats, tokens="megatron" in formats, audio=audio)
    sha256 = keep(store, Ids(pa.array(gone)).to_bytes())
    step = Step("retract", Retracted(ids=Pinned(str(on_disk(store, sha256)), sha256)))
    removal = _Removal(store, manifest, step)
    before = {shard["format"]: shard for shard in manifest["shards"]}
    with TableWriter(store, "dropped", 0) as dropped:
        paths = {before[formats[0]]["path"]: 2}
        removal._file(0, paths, dropped)
    manifest["shards"] = [record for records in removal.shards.values() for record in records]
    found = check(store, manifest)
    assert set(found) == {*formats, "parquet"}
    alone = written(open_store(str(tmp_path / "alone")), formats, "megatron" in formats, audio=audio, without=gone)
    for told, expected in zip(manifest["shards"], alone["shards"], strict=True):
        if told["format"] == "parquet":  # names of items of lists are another once they were read back
            files = (tmp_path / told["path"], tmp_path / "alone" / expected["path"])
            first, second = (pq.read_table(file) for file in files)
            assert first.equals(second)
        else:
            assert told == expected


@pytest.mark.parametrize("formats", [["parquet"], ["webdataset", "lhotse"]])
def test_emilias_layout(formats: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path / "corpus"))
    manifest = written(store, formats, most=9_000)
    assert len(check(store, manifest)["parquet"]) > 2
    monkeypatch.setattr("cluster.audio_formats.BATCH_BYTES", 1000)
    files = export_emilia(store, manifest, tmp_path / "emilia")
    names = [f"radio%2F2024%2Fep%20{k}%2Emp3" for k in (0, 1)]
    assert files == [tmp_path / "emilia" / name / f"{name}.json" for name in names]
    for k, file in enumerate(files):
        told = json.loads(file.read_text())
        expected = utterances(IDS).to_pylist()[k::2]
        for n, (one, row) in enumerate(zip(told, expected, strict=True)):
            assert set(one) == {"text", "start", "end", "speaker", "language", "dnsmos"}
            assert (one["text"], one["start"], one["end"]) == (row["text"], row["start"], row["end"])
            assert one["dnsmos"] == round(row["dnsmos"], 3)
            samples = decode((file.parent / f"{file.parent.name}_{n}.mp3").read_bytes())
            assert len(samples) == len(tone(2 * n + k))
            assert 0.9 < np.abs(samples).max() <= 1  # brought to full scale
        assert len(list(file.parent.iterdir())) == len(told) + 1
    with pytest.raises(RecipeError, match="not empty"):
        export_emilia(store, manifest, tmp_path / "emilia")


@pytest.mark.parametrize("formats", [["parquet"], ["webdataset"], ["lhotse"]])
def test_the_exported_data_set_has_its_audio(formats: list[str], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    store = open_store(str(tmp_path / "corpus"))
    manifest = written(store, formats, most=9_000)
    nothing = {"dropped": {}, "rows_in": 12, "name": "tokens", "fingerprint": "0", "operators": []}
    manifest["stages"] = [manifest["stages"][0] | nothing]
    export_hf(store, manifest, tmp_path / "hf")
    found = datasets.load_dataset(str(tmp_path / "hf"), split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(found.features["audio"], datasets.Audio)
    rows = found.cast_column("audio", datasets.Audio(decode=False))
    assert [len(decode(row["audio"]["bytes"])) for row in rows] == [len(tone(k)) for k in range(12)][::-1]


@pytest.mark.parametrize(
    ("said", "tokens", "audio", "field"),
    [
        ({"formats": ["webdataset", "lhotse", "parquet"]}, False, True, None),
        ({"formats": ["webdataset", "mds"], "audio": "mp3"}, True, True, None),
        ({"formats": ["megatron", "parquet"]}, True, False, None),
        ({"formats": ["webdataset", "megatron"]}, False, True, "formats"),
        ({"formats": ["parquet", "lhotse"]}, True, False, "formats"),
        ({"formats": ["parquet"], "audio": "mp3"}, True, False, "audio"),
    ],
)
def test_formats_that_do_not_fit_are_named(said: dict[str, Any], tokens: bool, audio: bool, field: str | None) -> None:
    wrong = Shards(**said).unfit(tokens=tokens, audio=audio)
    assert (wrong and wrong[0]) == field
    assert wrong is None or "got" in wrong[1]
