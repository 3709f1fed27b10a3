from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import speech_corpus
from benchmarks.speech_corpus import FOREIGN, LANGUAGES, PACKAGES, Source, beds, monologue, programme, sayable, single
from benchmarks.speech_score import truths
from workflows.speech_sample import RATE, SAMPLE, Mix, committed, write

pytest.importorskip("av", reason="needs the extra corpusmill[speech]")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed clips where the packages would have theirs, Italian and French ones in the place of dialogue."""
    folder = tmp_path_factory.mktemp("packages")
    share = folder / "root" / "usr" / "share"
    told = json.loads((SAMPLE / "transcripts.json").read_text("utf-8"))
    for name in PACKAGES:
        (folder / f"{name}_1.0_all.deb").touch()
        (share / "doc" / name).mkdir(parents=True)
    for language, voice in LANGUAGES.items():
        shutil.copytree(SAMPLE / "prompts" / language, share / "asterisk" / "sounds" / voice)
        lines = ["; a comment: not said", "beep: [this is a simple beep tone]", "one: Press 1 or 2 to hear that again"]
        lines += [f"{Path(path).stem}: {one['text']}" for path, one in told.items() if one["language"] == language]
        texts = share / "doc" / f"asterisk-core-sounds-{language}" / f"core-sounds-{language}.txt.gz"
        texts.write_bytes(gzip.compress("\n".join(lines).encode()))
    shutil.copytree(SAMPLE / "music", share / "asterisk" / "moh")
    game = share / "games" / "fillets-ng"
    (game / "script" / "cave").mkdir(parents=True)
    for language, real in zip(FOREIGN, ("it", "fr"), strict=True):
        script = []
        for number, clip in enumerate(committed()[real][:4]):
            write(game / "sound" / "cave" / language / f"line-{number}.ogg", clip.samples, 48_000)
            font = ("font_small", "font_big")[number % 2]
            script.append(f'dialogId("line-{number}", "{font}", "English.")\ndialogStr("{clip.text}")\n')
        (game / "script" / "cave" / f"dialogs_{language}.lua").write_text("\n".join(script), "utf-8")
    return folder


def test_what_is_not_words_is_not_asked_for() -> None:
    assert sayable("Please enter your password followed by the pound key.")
    for text in ("Goodbye.", "press 1 to hear the message once more", "[a long beep that is not words at all]"):
        assert not sayable(text)
    assert not sayable("Quella opzione ? invalida. Perpiacere prova ancora.")
    assert not sayable("La chiamata non pu? essere completata ora adesso")


def test_voices_are_those_of_the_packages(packages: Path) -> None:
    voices = Source(packages, 1).voices
    assert {key for key in voices if key[0] in LANGUAGES} == {
        ("en", "Allison"),
        ("es", "Allison"),
        ("fr", "June"),
        ("it", "Carlo"),
        ("ru", "IvrvoiceRU"),
    }
    assert {speaker for language, speaker in voices if language == "nl"} == {"small fish nl", "big fish nl"}
    said = {voices["en", "Allison"].take().text for _ in range(11)}
    assert len(said) == 11  # each once, and none of those that have no words


def test_a_programme_has_all_that_is_promised(packages: Path) -> None:
    mix = programme(Source(packages, 1), 1, 0)
    assert len({one.speaker for one in mix.said}) == 4
    assert {(one.bed, one.snr) for one in mix.said} == {(None, None), ("noise", 20), ("music", 20.0)}
    assert [end - start for start, end in mix.music] == [pytest.approx(12)]
    times = sorted((one.start, one.end, one.speaker) for one in mix.said)
    overlaps = [(a[1] - b[0], a[2], b[2]) for a, b in zip(times, times[1:], strict=False) if b[0] < a[1]]
    assert len(overlaps) == 1
    assert overlaps[0][0] == pytest.approx(1.5, abs=0.002)
    assert overlaps[0][1] != overlaps[0][2]


def test_a_seed_makes_the_same_and_another_another(packages: Path) -> None:
    one, again, other = (single(Source(packages, seed), seed, "ru").samples() for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert len(one) != len(other) or not np.array_equal(one, other)


def test_beds_and_monologue(packages: Path) -> None:
    source = Source(packages, 1)
    mix = beds(source, 1, "fr")
    found = list(dict.fromkeys((one.bed, one.snr) for one in mix.said))
    assert found == [(None, None), ("music", 20), ("music", 10), ("music", 0), ("noise", 10)]
    long = monologue(source, 1, "it").said
    assert sum(one.end - one.start for one in long) >= 61
    assert max(b.start - a.end for a, b in zip(long, long[1:], strict=False)) < 0.1


def test_a_corpus_says_what_it_is(packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With recordings of next to nothing: the real ones take a while to encode."""
    for name in ("programme", "beds", "monologue", "single", "foreign"):
        monkeypatch.setattr(speech_corpus, name, lambda source, seed, *_: Mix(seed))
    made = speech_corpus.build(tmp_path, 3, 0, packages)
    told = json.loads((tmp_path / "corpus-3.json").read_text("utf-8"))
    assert told["seconds"] == made
    assert told["packages"] == dict.fromkeys(PACKAGES, "1.0")
    assert set(truths(tmp_path / "truth")) == set(made)
    assert {path.name for path in (tmp_path / "audio").iterdir()} == set(made)
    assert made["3-silence.wav"] == 15
    assert RATE * 15 * 2 < (tmp_path / "audio" / "3-silence.wav").stat().st_size < RATE * 15 * 2 + 200
