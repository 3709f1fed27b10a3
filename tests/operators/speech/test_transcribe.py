from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("av")
pytest.importorskip("soundfile")
pytest.importorskip("faster_whisper")

from operators.apply import Step, apply
from operators.document import identity, loaded
from operators.models import weights, whisper
from operators.models.whisper import FRAME, SHORTEST, SILENCE, STEP, WINDOW, Heard, Word
from operators.speech import transcribe
from operators.speech.codec import encode_flac
from operators.speech.spool import RATE
from operators.speech.transcribe import REPETITION, Transcribe, _joined, _windows
from tests.operators.speech.recordings import SAMPLE, Samples, sound

TRUTH = json.loads((SAMPLE / "transcripts.json").read_text())
PROMPTS = {
    "en": ("en/vm-nobox", "en/ss-noservice"),
    "fr": ("fr/vm-mailboxfull",),
    "it": ("it/ss-noservice",),
    "ru": ("ru/queue-youarenext",),
}
MOST_ERRORS = {"en": 0.10, "fr": 0.20, "it": 0.30, "ru": 0.40}  # what is accepted of a language; here they are near 0
NAMES = [name for names in PROMPTS.values() for name in names]


def prompt(name: str) -> Samples:
    return sound(SAMPLE / f"prompts/{name}.g722")


def utterances(clips: list[Samples], speaker: str | None = None) -> pa.Table:
    return pa.table(
        {
            "id": [f"{7:032x}/{k:05}" for k in range(len(clips))],
            "samples": [len(clip) for clip in clips],
            "speaker": pa.array([speaker] * len(clips), pa.string()),
            "payload": pa.array([encode_flac(clip) for clip in clips], pa.large_binary()),
        }
    )


def words_of(text: str) -> list[str]:
    return re.sub(r"[^\w\s]", " ", text.lower().replace("ё", "е")).split()


def errors(truth: list[str], found: list[str]) -> int:
    """Words replaced, left out and put in."""
    costs = np.arange(len(found) + 1)
    for k, word in enumerate(truth, 1):
        before, costs[0] = costs.copy(), k
        for j, other in enumerate(found, 1):
            costs[j] = min(costs[j - 1] + 1, before[j] + 1, before[j - 1] + (word != other))
    return int(costs[-1])


@pytest.fixture(scope="module")
def spoken() -> pa.Table:
    """Prompts in four languages with their words."""
    return utterances([prompt(name) for name in NAMES], "a/S00")


@pytest.fixture(scope="module")
def heard(spoken: pa.Table) -> pa.Table:
    return Transcribe(words=True)(spoken)


def test_language_and_text_of_real_speech(heard: pa.Table) -> None:
    assert heard["drop_reason"].null_count == len(NAMES)
    assert heard["language"].to_pylist() == [name[:2] for name in NAMES]
    assert min(heard["language_score"].to_pylist()) > 0.8
    for language, names in PROMPTS.items():
        rows = [NAMES.index(name) for name in names]
        truths = [words_of(TRUTH[f"prompts/{name}.g722"]["text"]) for name in names]
        wrong = sum(
            errors(truth, words_of(heard["text"][row].as_py())) for truth, row in zip(truths, rows, strict=True)
        )
        assert wrong <= MOST_ERRORS[language] * sum(map(len, truths)), language


def test_words_are_the_text_in_order_within_the_utterance(heard: pa.Table) -> None:
    for row in heard.to_pylist():
        assert [word["word"] for word in row["words"]] == row["text"].split()
        edges = [edge for word in row["words"] for edge in (word["start"], word["end"])]
        assert edges == sorted(edges)
        assert edges[0] >= 0
        assert edges[-1] <= row["samples"] / RATE + 0.001
        assert edges[-1] - edges[0] > 0.5 * row["samples"] / RATE  # they are spread over it


@pytest.mark.parametrize(
    ("language", "pieces", "words"),
    [
        ("en", [' "', "Don", "'t", " go", ",", '"', " ", "12", ".", "5"], ["\"Don't", 'go,"', "12.5"]),
        ("es", [" ¿", "Qué", "?"], ["¿Qué?"]),
        ("zh", ["你好", ",", "世界", "。"], ["你好,", "世界。"]),
    ],
)
def test_pieces_make_words(language: str, pieces: list[str], words: list[str]) -> None:
    recogniser = loaded(Transcribe()._whisper)
    tokens = [token for piece in pieces for token in recogniser._tokenizer(language).encode(piece)]
    pairs = np.array([[k, 5 * k + late] for k in range(len(tokens) + 1) for late in (0, 3)])
    found = recogniser._words(language, tokens, pairs, 1000.0)
    assert "".join(word.word for word in found) == "".join(pieces).replace(" ", "")
    assert [word.word for word in found] == words
    assert found[0].start == 0
    assert found[-1].end == 5 * len(tokens) * FRAME


def test_a_word_is_where_it_is_heard(heard: pa.Table) -> None:
    """Silence put before an utterance moves its words by as much."""
    row = NAMES.index("fr/vm-mailboxfull")
    later = np.concatenate([np.zeros(2 * RATE, np.float32), prompt(NAMES[row])])
    moved = Transcribe(words=True)(utterances([later]))
    here, there = heard["words"][row].as_py(), moved["words"][0].as_py()
    assert errors([word["word"] for word in here], [word["word"] for word in there]) <= 1
    apart = [b["end"] - a["end"] for a, b in zip(here, there, strict=False)]
    assert np.median(apart) == pytest.approx(2, abs=0.1)


def test_an_utterance_alone_is_as_among_others(spoken: pa.Table, heard: pa.Table) -> None:
    row = len(NAMES) - 1
    alone = Transcribe(words=True)(spoken.slice(row, 1))
    assert alone.equals(heard.slice(row, 1))


def test_utterances_of_two_languages_in_one_call(
    monkeypatch: pytest.MonkeyPatch, spoken: pa.Table, heard: pa.Table
) -> None:
    """As on a GPU."""
    rows = [NAMES.index("fr/vm-mailboxfull"), NAMES.index("it/ss-noservice")]
    monkeypatch.setattr(loaded(Transcribe()._whisper), "batch", 2)
    together = Transcribe(words=True)(spoken.take(rows))
    assert together["language"].to_pylist() == heard["language"].take(rows).to_pylist()
    for one, other in zip(together["text"].to_pylist(), heard["text"].take(rows).to_pylist(), strict=True):
        assert errors(words_of(other), words_of(one)) <= 1  # another processor may round otherwise


def test_says_who_says_what(heard: pa.Table) -> None:
    assert heard["utterance_key"].to_pylist() == [f"a/S00: {text}" for text in heard["text"].to_pylist()]


def test_languages_that_are_not_wanted_and_what_is_no_speech_are_dropped() -> None:
    rng = np.random.default_rng(0)
    noise = (rng.normal(size=4 * RATE) * 0.1).astype(np.float32)
    clips = [prompt("it/ss-noservice"), np.zeros(3 * RATE, np.float32), noise, prompt("en/vm-nobox")]
    docs = utterances(clips)
    done = apply([Step("transcribe", Transcribe(languages=("en", "de")))], docs)
    kept = done.kept.to_pylist()
    assert [row["id"][-5:] for row in kept] == ["00003"]
    assert kept[0]["utterance_key"] == f"{7:032x}: {kept[0]['text']}"  # no speaker is known
    italian = done.dropped.to_pylist()[0]
    assert italian["drop_reason"] == "transcribe/language"
    assert italian["drop_detail"] == "it"
    assert italian["drop_value"] == pytest.approx(italian["language_score"])
    assert italian["drop_threshold"] == 0.8
    assert italian["text"] is None
    (count,) = done.counts
    assert count.counted["heard_ms"] == docs["samples"].to_numpy().sum() * 1000 // RATE
    assert count.counted["text_ms"] <= count.counted["heard_ms"]
    assert sum(count.measured["language_score"].values()) == len(clips)


def test_an_utterance_of_a_few_samples() -> None:
    noise = (np.random.default_rng(0).normal(size=60) * 0.1).astype(np.float32)
    (marked,) = Transcribe(words=True, min_language_score=0, min_log_probability=-9)(utterances([noise])).to_pylist()
    assert "".join(word["word"] for word in marked["words"]) == "".join(marked["text"].split())
    assert all(0 <= word["start"] <= word["end"] <= 60 / RATE + 0.001 for word in marked["words"])


def test_emilia_listens_with_beams_and_a_prompt() -> None:
    (marked,) = Transcribe(mode="emilia")(utterances([prompt("en/demo-thanks")])).to_pylist()
    truth = words_of(TRUTH["prompts/en/demo-thanks.g722"]["text"])
    assert errors(truth, words_of(marked["text"])) <= 2
    assert marked["drop_reason"] is None
    assert "words" not in marked


def test_what_is_longer_than_a_window_is_heard_in_parts(
    monkeypatch: pytest.MonkeyPatch, spoken: pa.Table, heard: pa.Table
) -> None:
    row = NAMES.index("en/ss-noservice")
    monkeypatch.setattr(transcribe, "WINDOW", 3 * whisper.RATE)
    marked = Transcribe(words=True)(spoken.slice(row, 1)).to_pylist()[0]
    truth = words_of(heard["text"][row].as_py())
    assert errors(truth, words_of(marked["text"])) <= 3  # no more than at the cut
    starts = [word["start"] for word in marked["words"]]
    assert starts == sorted(starts)
    assert starts[-1] > 3


def test_parts_are_joined() -> None:
    clips = [np.zeros(whisper.RATE * 2, np.float32)] * 2
    one = Heard("en", 0.95, "Hello", (Word("Hello", 0.5, 1.0),), -0.2, 0.9, 0.3)
    other = Heard("en", 0.9, "monde.", (Word("monde.", 0.25, 1.25),), -0.4, 0.8, 0.1)
    joined = _joined([one, other], clips)
    assert joined == Heard(
        "en", 0.9, "Hello monde.", (Word("Hello", 0.5, 1.0), Word("monde.", 2.25, 3.25)), -0.4, 0.9, 0.1
    )
    chinese = [Heard("zh", 0.9, "你好。"), Heard("zh", 0.95, "世界。")]
    assert _joined(chinese, clips).text == "你好。世界。"
    mixed = _joined([one, other._replace(language="fr")], clips)
    assert (mixed.text, mixed.language, mixed.language_score) == (None, "fr", 0.0)
    refused = Heard("it", 0.99)
    assert _joined([one, refused], clips) == refused


@given(st.integers(1, 5 * WINDOW))
def test_windows_are_of_equal_length_and_whole(samples: int) -> None:
    clip = np.arange(samples, dtype=np.float32)
    parts = _windows(clip)
    assert np.array_equal(np.concatenate(parts), clip)
    assert max(map(len, parts)) <= WINDOW
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(st.integers(1, WINDOW))
def test_a_window_holds_its_utterance(samples: int) -> None:
    length = whisper._window(samples)
    assert SHORTEST <= length <= WINDOW
    assert length >= min(WINDOW, samples + SILENCE)
    assert length < max(SHORTEST, samples + SILENCE + STEP) + 1
    assert length % int(FRAME * whisper.RATE) == 0


LOOP = "Thank you very much. " * 12
DOUBTS = [
    (Heard("en", 0.99, "Fine.", None, -0.3, 0.8, 0.9), None, None),
    (Heard("en", 0.99, LOOP, None, -0.1, 6.0, 0.0), "hallucination", 2.4),
    (Heard("en", 0.99, "Fine.", None, -1.2, 0.8, 0.1), "hallucination", -1.0),
    (Heard("en", 0.99, "Fine.", None, -1.2, 0.8, 0.7), "no_text", 0.6),
    (Heard("en", 0.99, "...", None, -0.2, 0.8, 0.1), "no_text", 0.6),
    (Heard("en", 0.8), "language", 0.8),  # no more than the bound is not enough
]


@pytest.mark.parametrize(("said", "reason", "threshold"), DOUBTS)
def test_reasons(said: Heard, reason: str | None, threshold: float | None) -> None:
    found = Transcribe()._reason(said)
    assert (found and found.reason, found and found.threshold) == (reason, threshold)
    emilia = Transcribe(mode="emilia")._reason(said)
    assert (emilia and emilia.reason) == (reason if reason == "language" else None)


def test_bounds_of_a_recipe() -> None:
    lenient = Transcribe(min_log_probability=-2, max_repetition=7, min_language_score=0.5)
    assert lenient._reason(DOUBTS[1][0]) is None
    assert lenient._reason(DOUBTS[2][0]) is None
    assert lenient._wanted("es", 0.6)
    assert not lenient._wanted("es", 0.5)
    assert not Transcribe(languages=("en",))._wanted("es", 0.99)
    assert not Transcribe(mode="emilia")._wanted("es", 0.99)
    assert Transcribe(mode="emilia")._wanted("ko", 0.81)


def test_real_text_in_cyrillic_does_not_look_repeated() -> None:
    """Whisper's own measure, of bytes, gives 2.5 here."""
    text = (
        "Для прослушивания следующего сообщения нажмите 6. Для повторного прослушивания сообщения нажмите 5. Для "
        "прослушивания предыдущего сообщения нажмите 4. Для удаления или восстановления сообщения нажмите 0."
    )
    assert whisper.repetition(text) < 1.5
    assert whisper.repetition("Спасибо за просмотр! " * 12) > REPETITION
    assert whisper.repetition(LOOP) > REPETITION
    assert whisper.repetition("谢谢观看" * 20) > REPETITION


def test_a_model_in_a_folder_is_pinned_by_content(tmp_path: Path, spoken: pa.Table, heard: pa.Table) -> None:
    base = whisper.Whisper().folder
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
        for file in base.iterdir():
            (tmp_path / place / file.name).hardlink_to(file)
    one, other = (Transcribe(model=str(tmp_path / place)) for place in ("one", "other"))  # type: ignore[arg-type]
    assert one.gpu
    assert not Transcribe().gpu
    assert identity(one) == identity(other) != identity(Transcribe())
    marked = one(spoken.slice(0, 1))
    assert marked["text"].to_pylist() == heard["text"].to_pylist()[:1]
    (tmp_path / "other" / "config.json").unlink()
    shutil.copyfile(base / "config.json", tmp_path / "other" / "config.json")
    with (tmp_path / "other" / "config.json").open("a") as file:
        file.write(" ")
    with pytest.raises(ValueError, match="the recipe was validated with"):
        loaded(other._whisper)


def refused(**fields: object) -> str:
    with pytest.raises(pydantic.ValidationError) as error:
        Transcribe(**fields)  # type: ignore[arg-type]
    return str(error.value)


def test_parameters_that_cannot_be(tmp_path: Path) -> None:
    assert "languages: the model knows no language 'english'; it knows af am ar" in refused(languages=["en", "english"])
    assert f"no such folder: {tmp_path / 'none'}" in refused(model=str(tmp_path / "none"))
    assert "has no model.bin" in refused(model=str(tmp_path))
    assert "max_repetition: 3 has no meaning in mode emilia" in refused(mode="emilia", max_repetition=3)
    assert "languages" in refused(languages=[])
    assert "min_language_score" in refused(min_language_score=1.0)
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (tmp_path / name).write_text('{"added_tokens": []}')
    assert "not the tokenizer of a multilingual Whisper" in refused(model=str(tmp_path), languages=["en"])


def test_halves_need_a_gpu() -> None:
    import ctranslate2

    if ctranslate2.get_cuda_device_count():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="compute: float16 needs a GPU"):
        loaded(Transcribe(compute="float16")._whisper)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(weights.FOLDER, str(tmp_path))
    weights.find.cache_clear()
    assert "make install-speech" in refused()
    real = weights.importlib.util.find_spec  # type: ignore[attr-defined]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "ctranslate2" else real(name))
    assert "needs the extra corpusmill[speech], which is not installed (no package ctranslate2)" in refused()
