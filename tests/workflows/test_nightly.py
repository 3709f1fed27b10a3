"""Nights: what is new is built and published beside the rest, nothing twice, whatever failed or ran at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster import commit
from cluster.storage import open_store
from cluster.tables import read_entry
from tests.workflows.corpora import recipe
from workflows.build import build, prepare
from workflows.corpus import manifest_key, visible_builds
from workflows.explain import why
from workflows.gates import GateRefused
from workflows.nightly import prepare_night, run_night
from workflows.recipe import RecipeError
from workflows.retract import retract
from workflows.rollback import rollback
from workflows.stage import StageError
from workflows.verify import verify

pytestmark = pytest.mark.usefixtures("ray_session")
COMMAND = Path(sys.executable).with_name("corpusmill")
OFF = dict.fromkeys(("language", "gopher_repetition", "gopher_quality", "c4", "fineweb"), "off")


@pytest.fixture(scope="module")
def texts(sample: Path) -> list[str]:
    """Texts of a few hundred words, no two alike."""
    found = pq.read_table(sample / "sample.parquet", columns=["text"])["text"].to_pylist()
    long = sorted({text for text in found if 200 < len(text.split()) < 500})
    return long[:40]


class Corpus:
    """A folder of inputs, one file a delivery, and a recipe over it."""

    def __init__(self, folder: Path, **params: Any) -> None:
        self.inputs, self.output = folder / "in", folder / "out"
        self.inputs.mkdir(parents=True, exist_ok=True)
        self.params = OFF | params
        self.store = open_store(str(self.output))
        self.recipe = self.with_recipe("recipe")

    def with_recipe(self, name: str, inputs: str | None = None, **changes: Any) -> Path:
        params = self.params | {"tokenizer": {"name": "train:bpe", "vocab": 400}} | changes.pop("params", {})
        where = [str(self.inputs / inputs)] if inputs else [str(self.inputs)]
        changes = {"shards": {"formats": ["megatron", "parquet"]}, "splits": {}} | changes
        return recipe(self.inputs.parent / f"{name}.yaml", where, self.output, params=params, **changes)

    def deliver(self, name: str, documents: dict[str, str]) -> None:
        lines = [orjson.dumps({"id": doc, "text": text}) for doc, text in documents.items()]
        (self.inputs / f"{name}.jsonl").write_bytes(b"\n".join(lines) + b"\n")

    def night(self, path: Path | None = None) -> dict[str, Any]:
        path = path or self.recipe
        return run_night(path, prepare_night(path))

    def published(self) -> list[list[str]]:
        """Ids of the documents of each visible build, oldest first."""
        builds = visible_builds(self.store, commit.head(self.store))
        return [
            sorted(
                doc
                for entry in b["stages"][-1]["files"]["kept"]
                for doc in read_entry(self.store, entry)["id"].to_pylist()
            )
            for b in builds
        ]

    def intact(self) -> bool:
        return all(error is None for _, error in verify(self.store))


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path)


@pytest.fixture
def plain(tmp_path: Path) -> Corpus:
    """Where near-duplicates are not looked for."""
    return Corpus(tmp_path, minhash_dedup="off")


@pytest.fixture(scope="module")
def first_night(tmp_path_factory: pytest.TempPathFactory, texts: Sequence[str], ray_session: None) -> Path:
    folder = tmp_path_factory.mktemp("monday")
    corpus = Corpus(folder)
    corpus.deliver("monday", {"m0": texts[0]})
    corpus.night()
    return folder


@pytest.fixture
def monday(first_night: Path, tmp_path: Path) -> Corpus:
    """A corpus that has published the document m0, in another place than where it was made."""
    return Corpus(Path(shutil.copytree(first_night, tmp_path / "corpus")))


def near(text: str) -> str:
    return text[: -len(text) // 50] + " indeed"


def test_nights_publish_what_is_new_and_drop_what_is_published(corpus: Corpus, texts: Sequence[str]) -> None:
    corpus.deliver("monday", {f"m{n}": text for n, text in enumerate(texts[:10])})
    first = corpus.night()
    assert (first["committed"], first["log_number"], first["documents"]) == (True, 1, 10)
    new = {f"t{n}": text for n, text in enumerate(texts[10:15])}
    copies = {"exact": texts[0].upper(), "near": near(texts[1]), "m2": texts[20]}
    corpus.deliver("tuesday", new | copies)
    second = corpus.night()
    assert corpus.published() == [[f"m{n}" for n in range(10)], [f"t{n}" for n in range(5)]]
    assert second["inputs"] | {"bytes": 0} == {
        "new": 1,
        "bytes": 0,
        "changed": [],
        "gone": [],
        "known": 1,
        "whole": False,
    }
    dropped = next(stage["dropped"] for stage in second["stages"] if stage["name"] == "dedup")
    assert dropped == {"exact_dedup/duplicate": 1, "minhash_dedup/duplicate": 1, "unique_id/duplicate_id": 1}
    builds = visible_builds(corpus.store, commit.head(corpus.store))[::-1]
    assert why(corpus.store, builds, "exact")["duplicate_of"] == "m0"
    assert why(corpus.store, builds, "near")["duplicate_of"] == "m1"
    assert why(corpus.store, builds, "m2")["build"] == first["build_id"]
    assert len({build["tokenizer"]["sha256"] for build in builds}) == 1
    assert corpus.intact()
    third = corpus.night()
    assert (third["committed"], third["log_number"]) == (False, 2)


def test_a_night_that_was_refused_is_caught_up_by_the_next(plain: Corpus, texts: Sequence[str]) -> None:
    plain.deliver("monday", {f"m{n}": text for n, text in enumerate(texts[:5])})
    plain.night()
    plain.deliver("tuesday", {"t0": texts[5]})
    with pytest.raises(GateRefused, match=r"gates\.min_tokens"):
        plain.night(plain.with_recipe("strict", gates={"min_tokens": 10**9}))
    assert commit.head(plain.store).number == 1  # type: ignore[union-attr]
    plain.deliver("wednesday", {"w0": texts[6], "again": texts[5]})
    result = plain.night()
    assert result["inputs"]["new"] == 2
    assert plain.published()[1] == ["again", "w0"]  # the smaller id of two copies stays
    assert plain.intact()


def test_the_second_of_two_nights_at_once_is_checked_against_the_first(monday: Corpus, texts: Sequence[str]) -> None:
    monday.deliver("left", {"l0": texts[1], "l1": texts[2]})
    monday.deliver("right", {"r0": texts[1], "r1": texts[3], "r2": near(texts[2])})
    left = monday.with_recipe("left", "left.jsonl")
    right = monday.with_recipe("right", "right.jsonl")
    nights = [(path, prepare_night(path)) for path in (left, right)]
    results = [run_night(path, night) for path, night in nights]
    assert [(r["committed"], r["log_number"]) for r in results] == [(True, 2), (True, 3)]
    assert monday.published() == [["m0"], ["l0", "l1"], ["r1"]]
    assert monday.intact()


def test_the_same_night_run_twice_at_once_is_committed_once(plain: Corpus, texts: Sequence[str]) -> None:
    plain.deliver("monday", {"m0": texts[0]})
    nights = [prepare_night(plain.recipe) for _ in range(2)]
    results = [run_night(plain.recipe, night) for night in nights]
    assert [(r["committed"], r["log_number"]) for r in results] == [(True, 1), (False, 1)]


def test_an_input_changed_in_place_is_refused_or_makes_everything_new(plain: Corpus, texts: Sequence[str]) -> None:
    plain.deliver("monday", {"m0": texts[0]})
    plain.deliver("tuesday", {"t0": texts[1]})
    plain.night()
    plain.deliver("tuesday", {"t0": texts[2], "t1": texts[3]})
    with pytest.raises(StageError, match=r"1 inputs changed.*tuesday\.jsonl"):
        prepare_night(plain.recipe)
    result = plain.night(plain.with_recipe("rebuilding", on_changed_input="rebuild"))
    assert (result["inputs"]["whole"], result["committed"], result["log_number"]) == (True, True, 2)
    assert plain.published() == [["m0", "t0", "t1"]]


def test_inputs_that_are_gone_are_told_and_their_documents_stay(monday: Corpus, texts: Sequence[str]) -> None:
    os.remove(monday.inputs / "monday.jsonl")
    monday.deliver("tuesday", {"t0": texts[1]})
    assert monday.night()["inputs"]["gone"] == ["monday.jsonl"]
    assert monday.published() == [["m0"], ["t0"]]


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"tokenizer": {"name": "train:bpe", "vocab": 500}}, "vocab is 500, the published corpus has 400"),
        ({"minhash_dedup": {"bands": 10}}, "bands"),
    ],
)
def test_what_does_not_fit_the_published_corpus_is_an_error_before_any_work(
    monday: Corpus, texts: Sequence[str], params: dict[str, Any], named: str
) -> None:
    monday.deliver("tuesday", {"t0": texts[1]})
    with pytest.raises(RecipeError, match=named):
        prepare_night(monday.with_recipe("other", params=params))


def test_the_command_says_what_is_new_without_doing_it(corpus: Corpus, texts: Sequence[str]) -> None:
    corpus.deliver("monday", {"m0": texts[0]})
    command = [COMMAND, "nightly", str(corpus.recipe), "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("1 input file new")
    assert not corpus.output.exists()


def test_what_was_retracted_comes_in_neither_by_a_night_nor_by_a_build(plain: Corpus, texts: Sequence[str]) -> None:
    plain.deliver("monday", {"m0": texts[0], "m1": texts[1]})
    plain.night()
    retract(plain.store, pa.array(["m1", "t1"]))
    plain.deliver("tuesday", {"t0": texts[2], "t1": texts[3], "copy": texts[1].upper()})
    plain.night()
    assert plain.published() == [["m0"], ["t0"]]
    build(prepare(plain.recipe))
    assert plain.published() == [["copy", "m0", "t0"]]  # ids are retracted: the same text under another one is not
    assert plain.intact()


def test_a_night_that_was_rolled_back_is_new_again(monday: Corpus, texts: Sequence[str]) -> None:
    monday.deliver("tuesday", {"t0": texts[1]})
    night = monday.night()
    rollback(monday.store)
    assert monday.published() == [["m0"]]
    monday.deliver("wednesday", {"w0": texts[2], "again": texts[1]})
    assert monday.night()["inputs"]["new"] == 2
    assert monday.published() == [["m0"], ["again", "w0"]]
    assert night["build_id"] not in commit.head(monday.store).visible  # type: ignore[union-attr]


def test_a_build_may_be_compared_with_any_committed_builds(corpus: Corpus, texts: Sequence[str]) -> None:
    """By their ids, visible or not, in a build and in a night; what nobody committed, or gc took, is refused."""
    corpus.deliver("monday", {f"m{n}": text for n, text in enumerate(texts[:4])})
    monday = corpus.night()["build_id"]
    corpus.deliver("tuesday", {"t0": near(texts[0]), "t1": texts[10], "t2": texts[11]})
    tuesday = corpus.night()["build_id"]
    rollback(corpus.store)  # tuesday is out of sight
    corpus.deliver("wednesday", {"w0": texts[10].upper(), "w1": near(texts[1]), "w2": texts[20]})
    listed = {name: {"scope": [tuesday]} for name in ("exact_dedup", "minhash_dedup")}
    path = corpus.with_recipe("listed", "wednesday.jsonl", params=listed)
    prepared = prepare(path)
    assert prepared.job.history == ()
    result = build(prepared, publish=False)
    assert result["stages"][2]["dropped"] == {"exact_dedup/duplicate": 1}  # w1 is like a document of monday alone
    both = corpus.with_recipe(
        "both",
        "wednesday.jsonl",
        params={"exact_dedup": {"scope": [tuesday, monday]}} | {"minhash_dedup": {"scope": [monday]}},
    )
    night = corpus.night(both)
    assert corpus.published()[-1] == ["w2"]
    assert night["stages"][2]["dropped"] == {"exact_dedup/duplicate": 1, "minhash_dedup/duplicate": 1}
    manifest = visible_builds(corpus.store, commit.head(corpus.store))[-1]
    assert manifest["history"] == [monday, tuesday]
    assert corpus.intact()

    unknown = corpus.with_recipe("unknown", params={"exact_dedup": {"scope": ["0123456789abcdef"]}})
    with pytest.raises(
        RecipeError, match=r"params.exact_dedup: scope: '0123456789abcdef' was never committed to .*log"
    ):
        prepare(unknown)
    other = {"minhash_dedup": {"bands": 20, "scope": [tuesday]}}
    with pytest.raises(
        RecipeError, match=f"params.minhash_dedup: bands is 20 here and 14 in the listed build {tuesday}"
    ):
        prepare(corpus.with_recipe("other", params=other))
    [before] = [one for one in prepared.job.listed[tuesday]["stages"] if one["name"] == "dedup"]
    corpus.store.delete([before["files"]["index"]["exact_dedup"]["hashes"][0]["path"]])
    with pytest.raises(
        RecipeError, match=f"1 of 1 files of its index were collected by gc in the listed build {tuesday}"
    ):
        prepare(path)
    digest = commit.read_entry(corpus.store, 2).manifests[tuesday]
    corpus.store.delete([manifest_key(tuesday, digest)])
    with pytest.raises(RecipeError, match=f"params.exact_dedup: scope: '{tuesday}' was collected by gc: leave it out"):
        prepare(path)


def test_nights_keep_one_of_each_cluster_and_what_is_rolled_back_comes_again(
    corpus: Corpus, texts: Sequence[str]
) -> None:
    """Copies and near copies of the same stories, spread over nights: each story is published once. With the last two
    nights rolled back, the next one publishes what they had, and nothing that is published already."""
    gates = {"min_kept": 0, "max_drop_share": 1.0}  # a night of copies is none to refuse
    path = corpus.with_recipe("any", gates=gates, params={"minhash_dedup": {"verify": "estimated"}})
    stories = texts[:6]
    nights: list[dict[str, str]] = [{} for _ in range(3)]
    for n, story in enumerate(stories):
        for k, copy in enumerate((story, story.upper(), near(story))):
            nights[(n + 2 * k) % 3][f"s{n}-{k}"] = copy
    for number, documents in enumerate(nights):
        corpus.deliver(f"night-{number}", documents)
        assert corpus.night(path)["committed"]
    told = [[doc.split("-")[0] for doc in ids] for ids in corpus.published()]
    assert sorted(story for ids in told for story in ids) == [f"s{n}" for n in range(6)]
    earlier = corpus.published()[:-2]
    rollback(corpus.store, to=1)
    assert corpus.published() == earlier
    corpus.night(path)
    again = [doc.split("-")[0] for ids in corpus.published() for doc in ids]
    assert corpus.published()[:1] == earlier
    assert sorted(again) == [f"s{n}" for n in range(6)]
    assert corpus.intact()
