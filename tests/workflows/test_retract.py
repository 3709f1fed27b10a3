"""Taking documents out: gone from every format of every visible build, accounted for, and kept out of later builds.

One corpus is built: two builds that readers see at once (documents and windows), and two without tokens. Tests work on
copies of its folder, so only the last ones need Ray.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import commit
from cluster.artefacts import artefact_key
from cluster.shard_reader import read_sequences
from cluster.storage import StorageError, Store, open_store
from cluster.tables import read_entry
from operators.document import SCHEMA
from tests.workflows.corpora import hashes, recipe
from tests.workflows.test_cli import corpusmill
from workflows import profile
from workflows.build import build, prepare
from workflows.corpus import committed_build, shard_record, visible_builds
from workflows.explain import why
from workflows.retract import less, retract
from workflows.stage import Manifest, StageError
from workflows.verify import verify

ROWS = {"documents": (0, 110), "windows": (110, 50), "counts": (0, 110), "text": (0, 110)}  # first, number
FORMATS = ["megatron", "datatrove", "olmo", "mds", "tokens_parquet", "parquet"]
OFF = dict.fromkeys(("language", "gopher_repetition", "gopher_quality", "c4", "fineweb"), "off")
RECIPES: dict[str, dict[str, Any]] = {
    "documents": {"shards": {"formats": FORMATS, "tokens_per_shard": 30_000}},
    "windows": {
        "params": {"pack": {"layout": "windows", "seq_len": 128}},
        "shards": {"formats": FORMATS[::-1], "tokens_per_shard": 1_000_000},
    },
    "counts": {
        "params": {"pack": {"layout": "windows", "seq_len": 128}},
        "shards": {"formats": ["parquet"], "tokens_per_shard": 50_000},
    },
    "text": {"params": {"tokenizer": "off"}, "shards": {"formats": ["parquet"], "tokens_per_shard": 50_000}},
}


def recipe_of(folder: Path, sample: Path, name: str, **more: Any) -> Path:
    first, rows = ROWS[name]
    path = folder / f"from-{first}.parquet"
    if not path.exists():
        table = pq.read_table(sample / "sample.parquet").slice(first, rows)
        pq.write_table(table, path, row_group_size=30)
    changes = RECIPES[name] | {"workers": {"unit_bytes": 40_000}} | more
    params = OFF | {"tokenizer": {"name": "train:bpe", "vocab": 400}} | changes.pop("params", {})
    inputs = [{"path": str(path), "source": "books"}]
    return recipe(folder / f"{name}.yaml", inputs, folder / "out", params=params, **changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, sample: Path, ray_session: None) -> Path:
    return corpus_of_builds(tmp_path_factory.getbasetemp() / "retraction", sample)


@functools.cache
def corpus_of_builds(folder: Path, sample: Path) -> Path:
    """The folder, with the builds of RECIPES, each committed in its turn; entry 5 shows the first two. Made once."""
    folder.mkdir()
    for name in RECIPES:
        assert build(prepare(recipe_of(folder, sample, name)))["committed"]
    store = open_store(str(folder / "out"))
    entries = list(commit.entries(store))[::-1]
    commit.append(store, entries[-1], "nightly", entries[0].manifests | entries[1].manifests)
    return folder


@pytest.fixture
def corpus(made: Path, tmp_path: Path) -> Path:
    """A copy of the corpus, for one test."""
    return shutil.copytree(made / "out", tmp_path / "out")


def head(store: Store) -> commit.LogEntry:
    entry = commit.head(store)
    assert entry is not None
    return entry


def index(store: Store, manifest: Manifest) -> pa.Table:
    """Where each document of a build is, in order."""
    return pa.concat_tables([read_entry(store, entry) for entry in manifest["stages"][-1]["files"]["kept"]])


def ids_everywhere(store: Store, manifest: Manifest) -> set[str]:
    """Ids in any file of shards of a build, however the format writes them, and in its index."""
    found: set[str] = set(index(store, manifest)["id"].to_pylist())
    for shard in manifest["shards"]:
        for path in (shard["path"], *(sidecar["path"] for sidecar in shard["sidecars"])):
            if path.endswith(".csv.gz"):
                found |= {line.split(",")[2] for line in gzip.decompress(store.read(path)).decode().splitlines()}
            elif path.endswith(".parquet"):
                table = pq.read_table(pa.BufferReader(store.read(path)))
                found |= set(table["id"].to_pylist())
                for names in table["documents"].to_pylist() if "documents" in table.column_names else ():
                    found |= set(names)
    return found


def texts_of(store: Store, manifest: Manifest, kind: str) -> Iterator[list[str]]:
    """The texts of the documents of each shard, decoded from the tokens of one format."""
    decoder = tokenizers.Tokenizer.from_buffer(store.read(artefact_key(manifest["tokenizer"]["sha256"])))
    for shard in (shard for shard in manifest["shards"] if shard["format"] == kind):
        record = shard_record(shard)
        with store.local(record.path, *(sidecar.path for sidecar in record.sidecars)) as root:
            tokens = np.array(read_sequences(root, record).tokens)
        ids = in_path_order(store, manifest, record.path, tokens)[: record.tokens].tolist()
        documents: list[list[int]] = [[]]
        for token in ids:
            if token == manifest["tokenizer"]["eos_id"]:
                documents.append([])
            else:
                documents[-1].append(token)
        yield decoder.decode_batch(documents[:-1], skip_special_tokens=False)


def in_path_order(store: Store, manifest: Manifest, path: str, tokens: np.ndarray) -> np.ndarray:
    """The tokens of a shard with its windows in the order of the documents again, as its tokens_parquet says."""
    name = Path(path).name.rsplit("-", 1)[0]
    paths = [shard["path"] for shard in manifest["shards"] if shard["format"] == "tokens_parquet"]
    rows = next(one for one in paths if Path(one).name.rsplit("-", 1)[0] == name)
    with store.local(rows) as root:
        table = pq.read_table(root / rows)
    if "context" not in table.column_names:
        return tokens
    return tokens.reshape(table.num_rows, -1)[np.argsort(table["context"].to_numpy())].reshape(-1)


def wrong(store: Store) -> list[tuple[str, str]]:
    return [(what, error) for what, error in verify(store) if error]


def chosen(store: Store) -> tuple[list[set[str]], str]:
    """Ids to retract of each visible build, some of many shards and all of one; and the name of that one. One shard of
    the first build loses none."""
    first, *others = (index(store, manifest) for manifest in visible_builds(store, head(store)))
    paths, ids = first["shard"].to_pylist(), first["id"].to_pylist()
    untouched, whole, *_ = sorted({path for path in paths if "/train-" in path})
    some = {doc for doc, path in zip(ids, paths, strict=True) if path == whole}
    some |= {doc for doc, path in zip(ids, paths, strict=True) if path not in (whole, untouched)} & set(ids[::4])
    return [some, *(set(rows["id"].to_pylist()[::5]) for rows in others)], whole


def few(store: Store) -> list[str]:
    """Two ids of each visible build."""
    return [doc for ids in chosen(store)[0] for doc in sorted(ids)[:2]]


def without_dates(folder: Path) -> dict[str, bytes]:
    """All files but the log's, whose entries have a nonce and a date, and what is only on its way."""
    files = (path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {name: data for name, data in found.items() if not name.startswith(("_log/", "_scratch/"))}


def test_documents_are_gone_from_all_formats_of_all_visible_builds_and_from_nothing_else(corpus: Path) -> None:
    store = open_store(str(corpus))
    before = visible_builds(store, head(store))
    chosen_ids, whole = chosen(store)
    ids = set().union(*chosen_ids)
    result = retract(store, pa.array([*ids, "nobody"]))
    assert (result["committed"], result["log_number"], result["unknown"]) == (True, 6, ["nobody"])
    assert wrong(store) == []
    after = visible_builds(store, head(store))
    for old, new, told, own in zip(before, after, result["builds"], chosen_ids, strict=True):
        assert told["documents"] == len(own)
        rest = [doc for doc in index(store, old)["id"].to_pylist() if doc not in ids]
        assert index(store, new)["id"].to_pylist() == rest  # in their order
        assert not ids_everywhere(store, new) & ids
        assert (new["documents"], new["tokens"]) == (len(rest), old["tokens"] - told["tokens"])
        shards = [shard for shard in new["shards"] if shard["format"] == "parquet"]
        texts = [pq.read_table(corpus / shard["path"], columns=["text"])["text"].to_pylist() for shard in shards]
        for kind in FORMATS[:-1]:
            assert list(texts_of(store, new, kind)) == texts
    paths = [shard["path"] for shard in after[0]["shards"]]
    assert whole in [shard["path"] for shard in before[0]["shards"]]
    assert not [path for path in paths if Path(path).name.startswith(Path(whole).name[:14])]
    same = [shard for shard in before[0]["shards"] if shard["path"] in paths]
    assert len(same) >= len(FORMATS)  # of the shard that lost none, at its old path


def test_the_account_and_why_say_what_was_retracted(corpus: Path) -> None:
    store = open_store(str(corpus))
    before = visible_builds(store, head(store))
    chosen_ids, _ = chosen(store)
    early = [min(ids) for ids in chosen_ids]
    retract(store, pa.array(early))
    retract(store, pa.array([doc for ids in chosen_ids for doc in ids if doc not in early]))
    for old, new, ids, first in zip(before, visible_builds(store, head(store)), chosen_ids, early, strict=True):
        stage, was = new["stages"][-1], old["stages"][-1]
        assert stage["dropped"] == was["dropped"] | {"retract/tombstone": len(ids)}
        last = stage["operators"][-1]
        assert (last["name"], last["rows_in"], last["chars_in"]) == ("retract", was["kept"], was["characters"]["kept"])
        assert [step["name"] for step in stage["steps"]] == [step["name"] for step in was["steps"]] + ["retract"]
        assert stage["profile"]["dropped"]["retract/tombstone"]["documents"] == len(ids)
        assert stage["profile"]["kept"]["sources"] == {"books": new["documents"]}
        assert {split: told["documents"] for split, told in new["splits"].items()} == {
            split: index(store, new)["split"].to_pylist().count(split) for split in old["splits"]
        }
        answer = why(store, [new], first)
        told = {"fate": "dropped", "stage": "tokens", "operator": "retract", "reason": "tombstone"}
        assert answer | told == answer
        dropped = pa.concat_tables([read_entry(store, entry) for entry in stage["files"]["dropped"]])
        assert set(dropped["id"].to_pylist()) == ids
        assert "text" not in dropped.column_names


def test_twice_is_the_same_as_once_and_again_is_nothing_new(corpus: Path, tmp_path: Path) -> None:
    other = shutil.copytree(corpus, tmp_path / "other")
    ids = sorted(set().union(*chosen(open_store(str(corpus)))[0]))
    one, two = ids[::2], ids[1::2]
    stores = open_store(str(corpus)), open_store(str(other))
    retract(stores[0], pa.array(ids))
    for part in (one, two):
        assert retract(stores[1], pa.array(part))["committed"]
    kept = [[hashes(manifest) for manifest in visible_builds(store, head(store))] for store in stores]
    assert kept[0] == kept[1]
    assert head(stores[0]).tombstones == head(stores[1]).tombstones
    files = without_dates(other)
    again = retract(stores[1], pa.array(one))
    assert (again["committed"], again["log_number"], again["already"], again["builds"]) == (False, 7, len(one), [])
    assert without_dates(other) == files


@pytest.mark.parametrize("name", ["counts", "text"])
def test_builds_whose_only_format_is_text_lose_documents_too(made: Path, corpus: Path, name: str) -> None:
    store = open_store(str(corpus))
    entries = {entry.number: entry for entry in commit.entries(store)}
    commit.append(store, head(store), "rollback", entries[list(RECIPES).index(name) + 1].manifests)
    [old] = visible_builds(store, head(store))
    gone = index(store, old)["id"].to_pylist()[::5]
    retract(store, pa.array(gone))
    [new] = visible_builds(store, head(store))
    assert wrong(store) == []
    assert not ids_everywhere(store, new) & set(gone)
    assert new["documents"] == old["documents"] - len(gone)
    assert (new["tokens"] is None) == (name == "text")
    for shard in new["shards"]:
        table, was = (pq.read_table(corpus / one["path"]) for one in (shard, old["shards"][0]))
        assert table.schema == was.schema


def test_builds_may_lose_all_their_documents(corpus: Path, tmp_path: Path) -> None:
    store = open_store(str(corpus))
    ids = [doc for manifest in visible_builds(store, head(store)) for doc in index(store, manifest)["id"].to_pylist()]
    (tmp_path / "ids").write_text("\n".join(ids), "utf-8")
    ran = corpusmill("retract", corpus, "--ids", tmp_path / "ids")
    assert (ran.code, ran.err) == (0, "")
    assert wrong(store) == []
    for manifest in visible_builds(store, head(store)):
        assert (manifest["documents"], manifest["tokens"], manifest["padding"], manifest["shards"]) == (0, 0, 0, [])
        assert manifest["stages"][-1]["profile"]["kept"]["characters"] == 0
        assert "retract/<wbr>tombstone" in store.read(f"builds/{manifest['build_id']}/report.html").decode()


class Interrupted(StorageError):
    """The store fails from here on."""


class Failing:
    """A store that stops answering after some operations."""

    def __init__(self, store: Store, operations: int = 1 << 30) -> None:
        self.store, self.left, self.url = store, operations, store.url
        self.one_at_a_time = threading.Lock()  # several threads read; two that count at once would count for one

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self.store, name)

        def counted(*given: Any, **named: Any) -> Any:
            with self.one_at_a_time:
                self.left -= 1
                left = self.left
            if left < 0:
                raise Interrupted(f"{name} {given}")
            return operation(*given, **named)

        return counted


def test_killed_at_any_operation_nothing_shows_and_the_same_command_ends_with_the_same_bytes(
    corpus: Path, tmp_path: Path
) -> None:
    ids = pa.array(few(open_store(str(corpus))))
    undisturbed = shutil.copytree(corpus, tmp_path / "undisturbed")
    counting = Failing(open_store(str(undisturbed)))
    retract(counting, ids)
    operations = (1 << 30) - counting.left
    expected = without_dates(undisturbed)
    interrupted = 0
    places = [*range(5, operations - 3, operations // 4), *range(operations - 3, operations)]
    for left in places:
        copy = shutil.copytree(corpus, tmp_path / str(left))
        store = open_store(str(copy))
        try:
            retract(Failing(store, left), ids)
        except Interrupted:
            interrupted += 1
        shown = head(store)
        assert shown.number == 5 or (shown.number, shown.tombstones) == (
            6,
            head(open_store(str(undisturbed))).tombstones,
        )
        assert wrong(store) == []
        retract(store, ids)
        assert head(store).number == 6
        assert without_dates(copy) == expected
        shutil.rmtree(copy)
    assert interrupted >= len(places) - 1  # threads that read ahead may need an operation more or less at the end


class Overtaken:
    """A store in which somebody else commits just before we do."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        if if_absent and key.startswith("_log/"):
            before = head(self.store)
            commit.append(self.store, before, "nightly", before.manifests)
        self.store.write(key, data, if_absent=if_absent)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


def test_whoever_commits_second_loses_and_may_try_again(corpus: Path) -> None:
    store = open_store(str(corpus))
    ids = pa.array(few(store))
    with pytest.raises(commit.CommitLost, match="entry 6"):
        retract(Overtaken(store), ids)
    assert (head(store).number, head(store).tombstones) == (6, None)
    assert retract(store, ids)["log_number"] == 7


@pytest.mark.parametrize("kind", ["tokens_parquet", "parquet"])
def test_a_damaged_shard_is_not_given_a_right_checksum(corpus: Path, kind: str) -> None:
    store = open_store(str(corpus))
    manifest = visible_builds(store, head(store))[0]
    doc = few(store)[0]
    [row] = index(store, manifest).filter(pc.field("id") == doc).to_pylist()
    name = Path(row["shard"]).name[:14]
    [path] = [s["path"] for s in manifest["shards"] if s["format"] == kind and f"/{name}" in s["path"]]
    data = bytearray(store.read(path))
    data[len(data) // 2] ^= 1
    (corpus / path).write_bytes(data)
    with pytest.raises(StageError, match="sha256"):
        retract(store, pa.array([doc]))
    assert head(store).number == 5


def test_in_object_storage_it_is_the_same(corpus: Path, s3: str) -> None:
    local, remote = open_store(str(corpus)), open_store(s3)
    before = visible_builds(local, head(local))
    entry = head(local)
    for manifest in before:
        files = [file for stage in manifest["stages"][-1:] for own in stage["files"].values() for file in own]
        shards = [file for shard in manifest["shards"] for file in (shard, *shard["sidecars"])]
        for file in (*files, *shards):
            remote.write(file["path"], local.read(file["path"]))
    for stored in local.list("builds"):
        if "/manifest" in stored.key:
            remote.write(stored.key, local.read(stored.key))
    commit.append(remote, None, "build", entry.manifests)
    ids = pa.array(few(local))
    for store in (local, remote):
        assert retract(store, ids)["committed"]
    assert head(local).manifests == head(remote).manifests
    for manifest in visible_builds(remote, head(remote)):
        for shard in manifest["shards"]:
            assert hashlib.sha256(remote.read(shard["path"])).hexdigest() == shard["sha256"]


@pytest.mark.parametrize("name", ["documents", "windows"])
def test_a_later_build_leaves_them_out_and_is_what_retracting_gives(
    sample: Path, tmp_path: Path, ray_session: None, name: str
) -> None:
    """Shards as large as their partitions, so that both cut alike; all documents of a file of the stage above, too."""
    folder = tmp_path / "again"
    folder.mkdir()
    path = recipe_of(folder, sample, name, shards={"formats": FORMATS, "tokens_per_shard": 1_000_000})
    build(prepare(path))
    store = open_store(str(folder / "out"))
    [old] = visible_builds(store, head(store))
    ids = set(index(store, old)["id"].to_pylist()[::6])
    ids |= set(read_entry(store, old["stages"][-2]["files"]["kept"][0], ["id"])["id"].to_pylist())
    retract(store, pa.array(sorted(ids)))
    [retracted] = visible_builds(store, head(store))
    result = build(prepare(path))
    [fresh] = visible_builds(store, head(store))
    assert result["committed"]
    assert fresh["build_id"] != retracted["build_id"]
    assert fresh["stages"][-1]["dropped"] == {"retracted/tombstone": len(ids)}
    assert hashes(fresh) == hashes(retracted)
    for key in ("documents", "tokens", "padding", "splits"):
        assert fresh[key] == retracted[key]
    assert fresh["stages"][-1]["profile"]["kept"] == retracted["stages"][-1]["profile"]["kept"]
    assert index(store, fresh).drop_columns(["shard"]).equals(index(store, retracted).drop_columns(["shard"]))


def test_a_dry_run_and_a_bad_list_of_ids_touch_nothing(corpus: Path, tmp_path: Path) -> None:
    store = open_store(str(corpus))
    ids = few(store)
    (tmp_path / "ids").write_text("\n".join([*ids, "nobody"]), "utf-8")
    (tmp_path / "bad").write_bytes(b"caf\xe9\n")
    files = without_dates(corpus)
    ran = corpusmill("retract", corpus, "--ids", tmp_path / "ids", "--dry-run", "--json")
    assert ran.code == 0
    assert ran.json["dry_run"]
    assert [build["documents"] for build in ran.json["builds"]] == [2, 2]
    assert (ran.json["committed"], ran.json["log_number"], ran.json["unknown"]) == (False, 5, ["nobody"])
    for name, told in (("bad", "line 1 is not UTF-8"), ("none", "No such file")):
        ran = corpusmill("retract", corpus, "--ids", tmp_path / name)
        assert ran.code == 2
        assert told in ran.err
    assert corpusmill("retract", tmp_path / "empty", "--ids", tmp_path / "ids").code == 2
    assert without_dates(corpus) == files
    assert head(store).number == 5
    assert not (tmp_path / "empty").exists()


def test_the_command_says_what_went_and_the_report_is_written_again(corpus: Path, tmp_path: Path) -> None:
    store = open_store(str(corpus))
    ids = few(store)
    pq.write_table(pa.table({"id": [*ids, "[nobody]"]}), tmp_path / "ids")
    ran = corpusmill("retract", corpus, "--ids", tmp_path / "ids")
    assert ran.code == 0
    assert ran.out.count(": 2 documents of ") == 2
    assert "in no visible build: 1 id: [nobody]\n" in ran.out
    assert ran.out.endswith("committed as entry 6\n")
    for name in head(store).visible:
        assert "retract/<wbr>tombstone" in store.read(f"builds/{name}/report.html").decode()
    again = corpusmill("retract", corpus, "--ids", tmp_path / "ids")
    assert (again.code, again.out) == (0, "nothing new: entry 6 is in force\n")


NAMES = st.sampled_from(["en", "de", "(other)", *(f"x{n}" for n in range(5))])
DOCUMENT = st.tuples(st.text(max_size=20), NAMES | st.none(), st.floats(-0.5, 1.5) | st.none())


@settings(max_examples=50, deadline=None)
@given(st.lists(DOCUMENT, max_size=30), st.lists(DOCUMENT, max_size=30))
def test_a_profile_less_a_part_is_the_profile_of_the_rest(left: list[Any], gone: list[Any]) -> None:
    def profiled(rows: list[Any]) -> profile.Profile:
        text, language, score = ([row[k] for row in rows] for k in range(3))
        columns = {
            "text": pa.array(text, SCHEMA.field("text").type),
            "language": pa.array(language, pa.string()),
            "language_score": pa.array(score, pa.float64()),
        }
        return profile.profile(pa.table(columns))

    total = profile.merge([profiled(left), profiled(gone)])
    assert orjson.dumps(less(total, profile.merge([profiled(gone)]))) == orjson.dumps(profile.merge([profiled(left)]))


def test_names_that_a_profile_does_not_list_are_taken_from_the_others() -> None:
    rows = pa.table({"language": [f"l{n:03d}" for n in range(profile.MOST_NAMES + 10) for _ in range(2)]})
    total = profile.profile(rows)
    rest = less(total, profile.profile(pa.table({"language": ["l000", "l000", "l209"]})))
    assert sum(rest["languages"].values()) == rows.num_rows - 3
    assert "l000" not in rest["languages"]
    assert rest["languages"][profile.OTHER] == 19


def test_the_manifest_names_those_it_was_made_from(corpus: Path) -> None:
    store = open_store(str(corpus))
    name, first = next(iter(head(store).manifests.items()))
    digests = [first]
    for doc in few(store)[:2]:
        retract(store, pa.array([doc]))
        digests.append(head(store).manifests[name])
    assert committed_build(store, name, digests[-1])["retracted_from"] == digests[:-1]
