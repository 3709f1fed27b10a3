"""WebDataset's and Lhotse's own readers, torch and all, on our shards of audio (`make test-readers`)."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("webdataset", reason="webdataset is in the environment of requirements-readers.txt only")

import lhotse
import soundfile
import webdataset
from lhotse import CutSet
from lhotse.dataset import DynamicBucketingSampler
from lhotse.dataset.collation import collate_audio

from tests.readers.cases import PRODUCT, ROOT, run_snippet


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speech")
    subprocess.run([PRODUCT, "-m", "tests.readers.make_speech", folder], check=True, cwd=ROOT)
    return folder


@pytest.fixture(params=["flac", "mp3"])
def case(made: Path, request: pytest.FixtureRequest) -> SimpleNamespace:
    folder = made / request.param
    case = json.loads((folder / "case.json").read_text())
    return SimpleNamespace(**case, kind=request.param, folder=folder)


def test_webdataset_gives_all_in_order(case: SimpleNamespace) -> None:
    dataset = webdataset.WebDataset(case.tars, shardshuffle=False).decode()
    samples = list(dataset)
    assert [sample["json"]["id"] for sample in samples] == [one["id"] for one in case.utterances]
    assert len({sample["__key__"] for sample in samples}) == len(samples)
    for sample, one, expected in zip(samples, case.utterances, case.samples, strict=True):
        assert set(sample) == {"__key__", "__url__", "__local_path__", case.kind, "json"} & {*sample, case.kind, "json"}
        audio, rate = soundfile.read(io.BytesIO(sample[case.kind]), dtype="float32")
        assert rate == 24_000
        assert np.array_equal(audio, np.array(expected, np.float32))
        told = sample["json"]
        assert told["duration"] == len(expected) / 24_000
        assert {name: told[name] for name in ("text", "words", "speaker", "units")} == {
            name: one[name] for name in ("text", "words", "speaker", "units")
        }


def test_webdataset_shuffles_and_batches(case: SimpleNamespace) -> None:
    dataset = webdataset.WebDataset(case.tars, shardshuffle=2, seed=3).shuffle(5).to_tuple("json", case.kind)
    found = [json.loads(told)["id"] for told, _ in dataset]
    assert sorted(found) == sorted(one["id"] for one in case.utterances)


@pytest.mark.parametrize("way", ["folder", "fields"])
def test_lhotse_gives_cuts_with_audio(case: SimpleNamespace, way: str) -> None:
    if way == "folder":
        cuts = CutSet.from_shar(in_dir=case.folder / "lhotse" / "train")
    else:
        cuts = CutSet.from_shar(fields={"cuts": case.cuts, "recording": case.recordings})
    found = list(cuts)
    assert len(found) == len(case.utterances)
    for cut, one, expected in zip(found, case.utterances, case.samples, strict=True):
        audio = cut.load_audio()
        assert audio.shape == (1, len(expected))
        assert np.allclose(audio[0], expected, atol=1e-6)  # decoders of MP3 round
        assert (cut.sampling_rate, cut.num_samples) == (24_000, len(expected))
        (heard,) = cut.supervisions
        assert (heard.text, heard.speaker) == (one["text"], one["speaker"])
        assert heard.custom["id"] == one["id"]
        assert heard.custom["dnsmos"] == pytest.approx(one["dnsmos"])
        words = heard.alignment["word"] if heard.alignment else None
        assert words == one["words"] or [(w.symbol, w.start) for w in words] == [
            (w["word"], w["start"]) for w in one["words"]
        ]
        assert cut.truncate(offset=0.1, duration=0.1).load_audio().shape == (1, 2400)
        lhotse.validate(cut, read_data=True)


def test_lhotse_trains_on_them(case: SimpleNamespace) -> None:
    """Through a sampler into batches: what has no text is filtered, as a recipe of theirs would."""
    cuts = CutSet.from_shar(fields={"cuts": case.cuts, "recording": case.recordings})
    cuts = cuts.filter(lambda cut: cut.supervisions[0].text is not None)
    sampler = DynamicBucketingSampler(cuts, max_duration=2, num_buckets=2, shuffle=True, seed=1)
    texts = []
    for batch in sampler:
        audio, lengths = collate_audio(batch)
        assert audio.shape == (len(batch), max(lengths))
        assert lengths.tolist() == [cut.num_samples for cut in batch]
        texts += [cut.supervisions[0].text for cut in batch]
    assert sorted(texts) == sorted(one["text"] for one in case.utterances if one["text"] is not None)


@pytest.mark.parametrize("name", ["webdataset", "lhotse"])
def test_the_snippets(case: SimpleNamespace, name: str) -> None:
    paths = case.tars if name == "webdataset" else case.recordings
    names = run_snippet(name, paths[0])
    assert len(names["samples"]) == len(case.samples[0])
