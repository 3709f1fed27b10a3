"""Shards of audio give back the documents and the very bytes of their audio, to us and to tar and soundfile."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import tarfile
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("soundfile", reason="of the extra `speech`")

import soundfile

from cluster import audio_formats, shards
from cluster.audio_formats import key_of, read_documents
from cluster.flat_formats import ShardError
from cluster.shard_reader import ShardRecord, read_utterances, sound_of, verify_shard
from cluster.shards import write_shard
from cluster.tables import file_sha256
from operators.speech.codec import decode
from operators.speech.spool import RATE
from tests.cluster.audio_cases import RECORDING, tone, utterances
from tests.cluster.shard_cases import by_format, tokenizer
from workflows.shard_task import as_mp3, gathered

NAME = "train-00000-00"
IDS = [f"{RECORDING}/{k:05d}" for k in range(4)]
BOTH = ["webdataset", "lhotse", "parquet"]
NASTY = [
    "",
    ".",
    "..",
    "../../etc/passwd",
    "a.b",
    "a%2Eb",
    "a/b",
    "a_b",
    "~",
    "\0",
    "漢字",
    "x" * 81,
    "__meta__",
    "a b{0..9}",
]


def documents(folder: Path, record: ShardRecord) -> pa.Table:
    return pa.concat_tables(read_documents(folder, "", record)).combine_chunks()


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("formats", [["parquet"], ["webdataset"], ["lhotse", "parquet"], BOTH])
def test_documents_come_back_whatever_holds_their_audio(formats: list[str], tokens: bool, tmp_path: Path) -> None:
    docs = utterances(IDS, tokens)
    asked = [*formats, "megatron"] if tokens else formats
    records = by_format(write_shard(tmp_path, NAME, docs, asked, tokenizer() if tokens else None))
    assert set(records) == {*asked, "parquet"}
    found = documents(tmp_path, records["parquet"])
    wanted = docs.drop_columns(["input_ids"]).append_column("tokens", pa.array([1, 2, 3, 4])) if tokens else docs
    assert sorted(found.column_names) == sorted(wanted.column_names)
    assert found.select(wanted.column_names).equals(wanted)
    for record in records.values():
        assert (record.documents, record.tokens) == (4, 10 if tokens else 0)
    raw = pq.read_table(tmp_path / records["parquet"].path)
    assert ("audio" in raw.column_names) == (formats == ["parquet"])  # audio is there once a format
    assert "payload" not in raw.column_names


def test_webdataset_as_tar_and_soundfile_read_it(tmp_path: Path) -> None:
    records = by_format(write_shard(tmp_path, NAME, utterances(IDS), BOTH, None))
    record = records["webdataset"]
    assert record.path == f"webdataset/{NAME}-{record.sha256[:12]}.tar"
    found = members(tmp_path / record.path)
    keys = [name.split(".", 1) for name in found]
    assert keys == [[key_of(one), suffix] for one in IDS for suffix in ("flac", "json")]
    for k, key in enumerate(map(key_of, IDS)):
        samples, rate = soundfile.read(io.BytesIO(found[f"{key}.flac"]), dtype="float32")
        assert rate == RATE
        assert np.abs(samples - tone(k)).max() < 1e-4
        told = json.loads(found[f"{key}.json"])
        assert (told["id"], told["dnsmos"], told["duration"]) == (IDS[k], 3 + k / 100, len(samples) / RATE)
        assert told["units"] == [k, 65_535]
        assert told["words"] == (None if k == 1 else [{"word": "Hello", "start": 0.01, "end": 0.2}])
        assert "payload" not in told
    with tarfile.open(tmp_path / record.path) as tar:
        assert {(i.mtime, i.uid, i.gid, i.uname, i.mode, i.type) for i in tar} == {(0, 0, 0, "", 0o644, b"0")}
    rows = pq.read_table(tmp_path / records["parquet"].path).to_pylist()
    for row in rows:
        path, at = tmp_path / row["audio_path"], row["audio_offset"]
        assert path.read_bytes()[at : at + row["audio_bytes"]] == found[row["audio_member"]]


def test_lhotse_cuts_and_recordings(tmp_path: Path) -> None:
    """What tests/readers opens with Lhotse itself."""
    record = by_format(write_shard(tmp_path, NAME, utterances(IDS), BOTH, None))["lhotse"]
    folder = (tmp_path / record.path).parent
    assert folder == tmp_path / "lhotse" / "train"
    assert sorted(path.name.split(".")[0] for path in folder.iterdir()) == ["cuts", "recording"]
    found = members(tmp_path / record.path)
    with gzip.open(tmp_path / record.sidecars[0].path) as file:
        cuts = [json.loads(line) for line in file]
    for k, cut in enumerate(cuts):
        assert json.loads(found[f"{cut['id']}.json"]) == cut["recording"]
        assert cut["recording"]["num_samples"] == len(tone(k))
        heard = cut["supervisions"][0]
        assert heard.get("text") == (None if k == 1 else f"Hello {k}, “you”.")
        assert heard.get("alignment") == (None if k == 1 else {"word": [["Hello", 0.01, 0.19, None]]})
        assert heard["custom"]["id"] == IDS[k]
    raw = (tmp_path / record.sidecars[0].path).read_bytes()
    assert raw[3:8] == bytes(5)  # neither a name nor a time in the header of gzip


def test_the_library_datasets_sees_audio(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    (record,) = write_shard(tmp_path, NAME, utterances(IDS), ["parquet"], None)
    found = datasets.Dataset.from_parquet(str(tmp_path / record.path), cache_dir=str(tmp_path / "cache"))
    assert isinstance(found.features["audio"], datasets.Audio)
    rows = found.cast_column("audio", datasets.Audio(decode=False))
    assert [row["audio"]["path"] for row in rows] == [f"{key_of(one)}.flac" for one in IDS]
    assert [len(decode(row["audio"]["bytes"])) for row in rows] == [len(tone(k)) for k in range(4)]
    assert rows[0]["words"] == [{"word": "Hello", "start": 0.01, "end": 0.2}]


def test_chunks_do_not_show_and_bytes_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = utterances(IDS)
    first = write_shard(tmp_path / "a", NAME, docs, BOTH, None)
    chunked = pa.concat_tables([docs.slice(0, 1), docs.slice(1)])
    assert write_shard(tmp_path / "b", NAME, chunked, BOTH, None) == first
    monkeypatch.setattr(shards, "GROUP_BYTES", 100)
    monkeypatch.setattr(audio_formats, "BATCH_BYTES", 100)
    cut = by_format(write_shard(tmp_path / "c", NAME, docs, BOTH, None))
    assert cut["webdataset"] == first[1]  # groups do not show in tars
    read = list(read_documents(tmp_path / "c", "", cut["parquet"]))
    assert len(read) == 4
    assert pa.concat_tables(read).select(docs.column_names).equals(docs)


def test_the_name_tells_contents_apart(tmp_path: Path) -> None:
    """Other words, the same audio: another cut."""
    docs = utterances(IDS)
    other = docs.set_column(1, "text", pa.array(["other"] * 4, pa.large_string()))
    for kind in ("webdataset", "lhotse"):
        paths = [by_format(write_shard(tmp_path, NAME, each, [kind], None))[kind].path for each in (docs, other)]
        assert len(set(paths)) == 2


def test_mp3_keeps_length_and_is_made_once(tmp_path: Path) -> None:
    docs = as_mp3(utterances(IDS))
    assert docs["content_type"].to_pylist() == ["audio/mpeg"] * 4
    assert as_mp3(docs).equals(docs)
    records = by_format(write_shard(tmp_path, NAME, docs, BOTH, None))
    for kind in ("webdataset", "lhotse"):
        assert [audio for audio, _ in read_utterances(tmp_path, records[kind])] == docs["payload"].to_pylist()
        for k, (name, data) in enumerate(list(members(tmp_path / records[kind].path).items())[::2]):
            assert name.endswith(".mp3")
            assert sound_of(data) == (RATE, None)
            samples, rate = soundfile.read(io.BytesIO(data))
            assert (len(samples), rate) == (len(tone(k)), RATE)
    assert documents(tmp_path, records["parquet"]).select(docs.column_names).equals(docs)
    with pytest.raises(ShardError, match="without its length"):
        write_shard(tmp_path, NAME, docs.drop_columns(["samples"]), ["lhotse"], None)


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.text(max_size=90), unique=True, min_size=1, max_size=9))
@example(ids=NASTY)
def test_keys_are_safe_and_tell_ids_apart(ids: list[str]) -> None:
    keys = [key_of(one) for one in ids]
    assert len(set(keys)) == len(ids)
    for one, key in zip(ids, keys, strict=True):
        assert key.isascii()
        assert 0 < len(key) <= 80
        assert not set(key) & set("./\\\0 {}")
        assert (len(key) == 41) if key.startswith("~") else (unquote(key) == one)


def test_hostile_ids_come_back(tmp_path: Path) -> None:
    docs = utterances(NASTY)
    records = by_format(write_shard(tmp_path, NAME, docs, BOTH, None))
    for kind in ("webdataset", "lhotse"):
        assert [told["id"] for _, told in read_utterances(tmp_path, records[kind])] == NASTY
        names = list(members(tmp_path / records[kind].path))
        assert len(set(names)) == 2 * len(NASTY)
        assert not [name for name in names if "/" in name or name.count(".") != 1]
    assert documents(tmp_path, records["parquet"]).select(docs.column_names).equals(docs)


def test_documents_without_audio_are_refused_or_left_as_they_are(tmp_path: Path) -> None:
    docs = utterances(IDS)
    assert write_shard(tmp_path, NAME, docs.slice(0, 0), BOTH, None) == []
    silent = pa.array([None, *docs["payload"].to_pylist()[1:]], pa.large_binary())
    pages = pa.array(["text/html"] * 4)
    for wrong in (docs.set_column(2, "payload", silent), docs.set_column(3, "content_type", pages)):
        with pytest.raises(ShardError, match="without audio"):
            write_shard(tmp_path, NAME, wrong, ["webdataset"], None)
        (record,) = write_shard(tmp_path, NAME, wrong, ["parquet"], None)
        assert documents(tmp_path, record).equals(wrong)
    lies = docs.set_column(2, "payload", pa.array([b"RIFF" + bytes(90)] * 4, pa.large_binary()))
    with pytest.raises(ShardError, match="neither FLAC nor MP3"):
        write_shard(tmp_path, NAME, lies, ["webdataset"], None)


def repacked(path: Path, change: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in change:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    whole = path.read_bytes().rstrip(b"\0")
    path.write_bytes(whole + bytes(-len(whole) % 512 + 1024))


@pytest.mark.parametrize("kind", ["webdataset", "lhotse"])
def test_damage_is_found(kind: str, tmp_path: Path) -> None:
    record = by_format(write_shard(tmp_path, NAME, utterances(IDS), [kind], None))[kind]
    path = tmp_path / record.path
    whole = path.read_bytes()
    for at in (0, 600, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ShardError, match="sha256"):
            verify_shard(tmp_path, record)
        if at in (0, len(whole) - 1):
            with pytest.raises(ShardError, match="no header|does not end"):
                verify_shard(tmp_path, forged(tmp_path, record))
    path.write_bytes(whole)
    files = list(members(path).items())
    wrong = {
        "no pair": [files[:-1], files[:2] + files[3:], files[1:], [files[1], files[0], *files[2:]]],
        "recorded|fewer recordings": [files[:-2]],
        "another kind": [[(files[0][0].replace("flac", "mp3"), files[0][1]), *files[1:]]],
    }
    if kind == "lhotse":
        wrong["not the recording"] = [files[2:4] + files[:2] + files[4:], [*files, *files[:2]]]
        wrong["samples at"] = [[(files[0][0], files[2][1]), *files[1:]]]
    for message, changes in wrong.items():
        for change in changes:
            repacked(path, change)
            with pytest.raises(ShardError, match=message):
                verify_shard(tmp_path, forged(tmp_path, record))
    repacked(path, files)
    verify_shard(tmp_path, forged(tmp_path, record))


def forged(folder: Path, record: ShardRecord) -> ShardRecord:
    """The record with the hash and size of what is there now."""
    path = folder / record.path
    return dataclasses.replace(record, sha256=file_sha256(path), bytes=path.stat().st_size)


def test_rows_are_gathered_as_take_does() -> None:
    docs = utterances(IDS)
    holes = docs.set_column(2, "payload", pa.array([None, b"", b"abc", b"d"], pa.large_binary()))
    for table in (docs, holes, holes.drop_columns(["payload"])):
        chunked = pa.concat_tables([table.slice(0, 1), table.slice(1, 2), table.slice(3)])
        for rows in ([3, 0, 2], [], [1, 1]):
            wanted = pa.array(rows, pa.int64())
            found = gathered(chunked, wanted)
            assert found.select(table.column_names).equals(table.take(wanted))
