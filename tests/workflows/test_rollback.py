"""Going back to earlier builds: their documents are there again, but never those that were retracted since."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import orjson
import pyarrow as pa
import pytest

from cluster import commit
from cluster.storage import Store, open_store
from tests.workflows.test_cli import corpusmill
from tests.workflows.test_retract import Overtaken, corpus_of_builds, head, ids_everywhere, index, without_dates, wrong
from workflows.corpus import committed_build, manifest_key, visible_builds
from workflows.recipe import RecipeError
from workflows.retract import retract
from workflows.rollback import rollback
from workflows.stage import StageError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, sample: Path, ray_session: None) -> Path:
    return corpus_of_builds(tmp_path_factory.getbasetemp() / "retraction", sample)


@pytest.fixture
def corpus(made: Path, tmp_path: Path) -> Path:
    """A copy of the corpus: entries 1 to 4 show a build each, entry 5 the first two."""
    return shutil.copytree(made / "out", tmp_path / "out")


def shown(store: Store, number: int) -> list[str]:
    return commit.read_entry(store, number).visible


def test_it_goes_back_to_the_last_other_builds_and_by_the_same_way_forth_again(corpus: Path) -> None:
    store = open_store(str(corpus))
    result = rollback(store)
    assert (result["to"], result["committed"], result["log_number"]) == (4, True, 6)
    entry = head(store)
    assert (entry.op, entry.parent, entry.visible) == ("rollback", 5, shown(store, 4))
    assert (entry.build, entry.manifest_sha256) == next(iter(entry.manifests.items()))
    assert rollback(store)["to"] == 5
    assert head(store).manifests == commit.read_entry(store, 5).manifests
    assert wrong(store) == []


def test_going_back_to_what_is_in_force_is_nothing_new(corpus: Path) -> None:
    store = open_store(str(corpus))
    result = rollback(store, 5)
    assert (result["committed"], result["log_number"]) == (False, 5)
    rollback(store, 1)
    again = rollback(store, 1)
    assert (again["committed"], again["log_number"], head(store).number) == (False, 6, 6)


def test_what_was_retracted_while_a_build_was_shown_stays_out_and_nothing_is_written_anew(corpus: Path) -> None:
    store = open_store(str(corpus))
    doc = index(store, visible_builds(store, head(store))[0])["id"][3].as_py()
    retract(store, pa.array([doc]))
    digests = head(store).manifests
    files = without_dates(corpus)
    assert rollback(store, 2)["retracted"] == []
    assert rollback(store, 1)["retracted"] == []  # entry 1 was committed before the retraction
    assert without_dates(corpus) == files
    [name] = shown(store, 1)
    assert head(store).manifests == {name: digests[name]}
    assert doc not in ids_everywhere(store, visible_builds(store, head(store))[0])
    assert rollback(store, 5)["committed"]
    assert head(store).manifests == digests


def test_what_was_retracted_while_a_build_was_out_of_sight_is_taken_out_of_it_first(corpus: Path) -> None:
    store = open_store(str(corpus))
    first, second = (index(store, manifest)["id"].to_pylist() for manifest in visible_builds(store, head(store)))
    retract(store, pa.array([first[0]]))
    rollback(store, 2)
    told = retract(store, pa.array([first[1], second[1]]))
    assert told["unknown"] == [first[1]]
    result = rollback(store, 5)
    [name] = shown(store, 1)
    assert [(one["build_id"], one["documents"]) for one in result["retracted"]] == [(name, 1)]
    assert wrong(store) == []
    for manifest in visible_builds(store, head(store)):
        assert not ids_everywhere(store, manifest) & {first[0], first[1], second[1]}
    [*_, before] = committed_build(store, name, head(store).manifests[name])["retracted_from"]
    assert before == commit.read_entry(store, 6).manifests[name]
    assert rollback(store, 1)["retracted"] == []  # it has been done


def test_retractions_before_a_rollback_do_not_count_as_other_builds(corpus: Path) -> None:
    store = open_store(str(corpus))
    ids = index(store, visible_builds(store, head(store))[0])["id"]
    retract(store, pa.array([ids[0].as_py()]))
    assert rollback(store)["to"] == 4


def test_a_build_that_was_made_again_goes_back_to_how_it_was_then(corpus: Path) -> None:
    """A forced build has the id of the one before, with another manifest."""
    store = open_store(str(corpus))
    before = head(store)
    name, digest = next(iter(before.manifests.items()))
    forced = orjson.dumps(committed_build(store, name, digest) | {"seconds": 1.5})
    other = hashlib.sha256(forced).hexdigest()
    store.write(manifest_key(name, other), forced)
    commit.append(store, before, "build", before.manifests | {name: other})
    assert rollback(store)["to"] == 5
    assert head(store).manifests == before.manifests


def test_files_that_were_deleted_are_missed_before_anything_is_committed(corpus: Path) -> None:
    store = open_store(str(corpus))
    [name] = shown(store, 4)
    manifest = committed_build(store, name, commit.read_entry(store, 4).manifests[name])
    path = manifest["shards"][0]["path"]
    store.delete([path])
    with pytest.raises(StageError, match=path):
        rollback(store)
    store.delete([manifest_key(name, commit.read_entry(store, 4).manifests[name])])
    with pytest.raises(StageError, match="entry 4: the manifest"):
        rollback(store)
    assert head(store).number == 5


def test_an_old_manifest_that_was_deleted_is_not_needed_where_a_retraction_followed(corpus: Path) -> None:
    store = open_store(str(corpus))
    before = head(store)
    ids = index(store, visible_builds(store, before)[0])["id"]
    retract(store, pa.array([ids[0].as_py()]))
    name, digest = next(iter(before.manifests.items()))
    store.delete([manifest_key(name, digest)])
    rollback(store, 1)
    assert head(store).manifests == {name: commit.read_entry(store, 6).manifests[name]}


def test_whoever_commits_second_loses(corpus: Path) -> None:
    store = open_store(str(corpus))
    with pytest.raises(commit.CommitLost, match="entry 6"):
        rollback(Overtaken(store))
    assert head(store).op == "nightly"


def test_a_corpus_with_one_build_has_nothing_to_go_back_to(corpus: Path, tmp_path: Path) -> None:
    store = open_store(str(corpus))
    store.delete([commit.LATEST, *(commit.entry_key(number) for number in range(2, 6))])
    with pytest.raises(RecipeError, match="no earlier entry"):
        rollback(store)
    with pytest.raises(RecipeError, match="no build"):
        rollback(open_store(str(tmp_path / "empty")))


def test_the_command_says_what_is_shown_and_refuses_entries_that_are_not(corpus: Path) -> None:
    store = open_store(str(corpus))
    for number in ("0", "6", "-1"):
        ran = corpusmill("rollback", corpus, "--to", number)
        assert ran.code == 2
        assert "the log has 1 to 5" in ran.err
    ids = index(store, visible_builds(store, head(store))[0])["id"]
    rollback(store)
    retract(store, pa.array([ids[0].as_py()]))
    ran = corpusmill("rollback", corpus, "--to", 5)
    one, two = shown(store, 5)
    assert ran.code == 0
    assert ran.out.startswith(f"builds of entry 5: {one}, {two}\nbuild {one}: 1 document of ")
    assert ran.out.endswith("committed as entry 8\n")
    assert "retract/<wbr>tombstone" in store.read(f"builds/{one}/report.html").decode()
    again = corpusmill("rollback", corpus, "--to", 5, "--json")
    assert (again.code, again.json["committed"], again.json["log_number"]) == (0, False, 8)
