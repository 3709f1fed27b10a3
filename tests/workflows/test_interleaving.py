"""Utterances spread, composed and written as shards, without Ray: each in one document, found where the index says."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.flat_formats import ShardError
from cluster.shard_reader import read_sequences, verify_shard
from cluster.shards import write_shard
from cluster.storage import Store, open_store
from cluster.tables import TableWriter, read_entry
from operators.apply import Step
from operators.document import Operator
from operators.read.recording import RECORDING
from operators.speech.units import Units
from operators.tokens.compose import ADDED, Composer
from operators.tokens.interleave import Interleave
from operators.tokens.pack import Pack
from operators.tokens.tokenizer import Tokenizer
from tests.cluster.shard_cases import table as documents_of
from tests.cluster.shard_cases import tokenizer as described
from tests.operators.tokens.test_interleave import check, recording, table
from workflows.corpus import shard_record
from workflows.interleaving import Composing, check_interleaving
from workflows.learned import Learned
from workflows.recipe import ParameterError
from workflows.shard_task import ShardTask, ShardWriter
from workflows.stage import Stage, TokenStage
from workflows.token_stage import SpreadTask, cut_splits

ROWS = [one for k in range(16) for one in recording(f"{k:032x}", [30, 4, 41, 17][: 1 + k % 4], seed=k)]
FORMATS = ("tokens_parquet", "mds")


class Heard(Operator):
    """As what transcribes."""

    name: ClassVar[str] = "heard"

    @property
    def adds(self) -> tuple[str, ...]:
        return ("words",)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    texts = pa.chunked_array([[one["text"] for one in ROWS]], pa.large_string())
    data = Tokenizer(vocab=400).fit(texts)
    path = Path(tmp_path_factory.mktemp("tokenizer"), "tokenizer.json")
    path.write_bytes(data)
    return Tokenizer(vocab=400).with_artefact(str(path), hashlib.sha256(data).hexdigest())


def build(
    store: Store, rows: list[dict[str, Any]], files: int, composer: Composer, pack: Pack
) -> tuple[list[dict[str, Any]], pa.Table]:
    """(records of the written partitions, index), of utterances that came in so many files."""
    cuts = cut_splits({"validation": 0.3}, 40_000, 2000)
    learned = (Learned("tokenizer", composer.tokenizer, None),)
    spread = SpreadTask(store, "stage", learned, cuts, False, None, RECORDING, True)
    for number in range(files):
        docs = table(rows[number::files])
        chars = pa.array([len(text) for text in docs["text"].to_pylist()])
        with TableWriter(store, "stage/in", number) as writer:
            writer.write(docs.append_column("chars", chars).append_column("payload", pa.array([b"x"] * len(docs))))
        [entry] = writer.entries
        assert spread(number, entry)["kept"] == docs.num_rows
    columns = frozenset(ADDED) | {"recording", "source"}
    writer_ = ShardWriter(store, "shards", pack, composer.describe(), FORMATS, columns, False, True)
    keys = tuple(f"stage/exchange/documents/{number:06d}.arrow" for number in range(files))
    compose = Composing(composer.interleave, learned[0], composer.clusters)
    write = ShardTask("stage", keys, writer_, 2000, 1 << 30, "flac", compose)
    works = [[cut.split, n, cut.first + n] for cut in cuts for n in range(cut.partitions)]
    records = [write(number, work) for number, work in enumerate(works)]
    index = pa.concat_tables([read_entry(store, entry) for record in records for entry in record["index"]])
    return records, index


def read(store: Store, record: dict[str, Any], kind: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of a partition's shards of one kind, by the name that the formats of a shard have in common."""
    shards = [shard["path"] for shard in record["shards"] if shard["format"] == kind]
    return {
        Path(path).name.rpartition("-")[0]: pq.read_table(Path(str(store.url), path)).to_pylist() for path in shards
    }


@pytest.mark.parametrize(("mode", "layout"), [("glm", "documents"), ("inserter", "windows")])
def test_every_utterance_is_where_the_index_says(tmp_path: Path, tokenizer: Tokenizer, mode: str, layout: str) -> None:
    store = open_store(str(tmp_path / "out"))
    composer = Composer(Interleave(mode=mode, max_words=80), tokenizer, 256)  # type: ignore[arg-type]
    pack = Pack() if layout == "documents" else Pack(layout="windows", seq_len=64)
    records, index = build(store, ROWS, 3, composer, pack)
    told = composer.describe()
    own = {one["id"]: one for one in composer(table(ROWS))[0].to_pylist()}
    assert sorted(index["id"].to_pylist()) == sorted(one["id"] for one in ROWS)
    assert sum(record["kept_documents"] for record in records) == len(ROWS)
    assert sum(index["tokens"].to_pylist()) == sum(record["tokens"] for record in records)
    texts = {name: rows for record in records for name, rows in read(store, record, "parquet").items()}
    sequences = {name: rows for record in records for name, rows in read(store, record, "tokens_parquet").items()}
    assert sorted(row["id"] for rows in texts.values() for row in rows) == sorted(own)
    flat: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, rows in sequences.items():
        ids, mask = (np.concatenate([row[column] for row in rows]) for column in ("input_ids", "loss_mask"))
        learned = ids != told["pad_id"]
        if mode == "inserter":
            learned &= (ids < told["first_unit_id"]) & (ids != told["speech_id"])
        assert np.array_equal(mask, learned)
        flat[name] = ids, mask
    splits: dict[str, set[str]] = {}
    for row in index.to_pylist():
        name = Path(row["shard"]).name.rpartition("-")[0]
        document = texts[name][row["row"]]
        member = document["members"].index(row["id"])
        place = own[document["id"]]["scratch/places"][member]
        assert flat[name][0][row["offset"]] == own[document["id"]]["input_ids"][place]
        splits.setdefault(document["recording"], set()).add(row["split"])
    assert {len(found) for found in splits.values()} == {1}, "no recording crosses splits"
    assert {split for found in splits.values() for split in found} == {"train", "validation"}
    for shard in [shard for record in records for shard in record["shards"]]:
        verify_shard(Path(str(store.url)), shard_record(shard))
    for name, rows in texts.items() if layout == "documents" else ():
        for row, tokens in zip(rows, sequences[name], strict=True):
            check(own[row["id"]] | row | tokens, ROWS, composer)


def test_shards_do_not_depend_on_how_utterances_came(tmp_path: Path, tokenizer: Tokenizer) -> None:
    composer = Composer(Interleave(), tokenizer, 256)
    told = []
    for name, files, rows in (("a", 1, ROWS), ("b", 5, ROWS[::-1])):
        records, index = build(open_store(str(tmp_path / name)), rows, files, composer, Pack())
        shards = [(shard["path"], shard["sha256"]) for record in records for shard in record["shards"]]
        told.append((shards, index.to_pylist(), [record["interleaved"] for record in records]))
    assert told[0] == told[1]


def test_masks_come_with_mds_and_are_refused_where_there_is_no_place(tmp_path: Path) -> None:
    docs = documents_of([[5, 6, 7], [8]])
    mask = np.array([1, 0, 1, 1, 1, 1], np.uint8)
    [_, tokens, mds] = write_shard(tmp_path, "train-00000", docs, FORMATS, described(), None, mask)
    assert read_sequences(tmp_path, mds).tokens.tolist() == [5, 6, 7, 0, 8, 0]
    assert pq.read_table(tmp_path / tokens.path)["loss_mask"].to_pylist() == [[1, 0, 1, 1], [1, 1]]
    assert b'"loss_mask"' in (tmp_path / mds.path).read_bytes()
    with pytest.raises(ShardError, match="megatron has no place for a loss mask"):
        write_shard(tmp_path, "train-00000", docs, ["megatron"], described(), None, mask)
    write_shard(tmp_path, "train-00000", docs, ["megatron"], described(), None, np.ones(6, np.uint8))
    for wrong in (np.ones(5, np.uint8), np.full(6, 2, np.uint8)):
        with pytest.raises(ShardError, match="no loss mask of 0 and 1"):
            write_shard(tmp_path, "train-00000", docs, FORMATS, described(), None, wrong)


@pytest.mark.parametrize(
    ("left_out", "mode", "formats", "told"),
    [
        ("units", "glm", ["parquet"], "switch on `units`"),
        ("tokenizer", "glm", ["parquet"], "needs a tokenizer"),
        ("", "glm", ["webdataset"], "webdataset holds audio"),
        ("", "inserter", ["megatron", "parquet"], "megatron has no place"),
    ],
)
def test_what_cannot_be_composed_is_told_before(left_out: str, mode: str, formats: list[str], told: str) -> None:
    steps = (Heard(), *(() if left_out == "units" else (Units(),)))
    interleave = Step("interleave", Interleave(mode=mode))  # type: ignore[arg-type]
    last = () if left_out == "tokenizer" else (Tokenizer(),)
    stage = TokenStage("tokens", Stage("heard", None, steps), last, compose=interleave)
    with pytest.raises(ParameterError, match=told) as found:
        check_interleaving(stage, formats)
    assert found.value.path == ("interleave",)
    check_interleaving(TokenStage("tokens", Stage("heard", None, steps), last), formats)
