"""Speech, from recordings to transcribed utterances: how fast on one core, and how right on recordings of which all is
known (benchmarks/speech_corpus.py, four seeds).

    python -m benchmarks.speech [PACKAGES]      # Debian's packages, and where to keep them; got where they are missing

The steps are those of `workflows/speech.py`, recording by recording, without Ray; times are CPU seconds of this
process. The last steps, which see all utterances at once, cost next to nothing. Then two peers on the same utterances:
faster-whisper's own call, one utterance after the other, with the language found first, as Emilia-Pipe does it; and its
loop of DNSMOS over windows that move on by a second. Quote the ratios, not the figures.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import speech_corpus
from benchmarks.speech_score import Score, Truth, Utterance, condition, edits, groups, truths, words
from operators.apply import SPLIT, Step, apply
from operators.document import loaded
from operators.models.dnsmos import LENGTH, Dnsmos, Listener
from operators.read.recording import read_recording
from operators.read.span import Span
from operators.speech.codec import decode_at
from operators.speech.separate import Separate
from operators.speech.spool import RATE as SAMPLES
from operators.speech.spool import release_all, samples_of
from operators.speech.standardise import Standardise
from workflows.recipe import Params, load_workflow

SEEDS = (1, 2, 3, 4)
MINUTES = 8
LANGUAGES = ("en", "es", "fr", "it", "ru")
PEER_UTTERANCES = 40
RATE = 16_000  # of what models hear
WORD_ERRORS = {"en": 0.10, "fr": 0.20, "it": 0.30, "es": 0.35}


def steps(only: Iterable[str], params: Mapping[str, Any]) -> list[list[Step]]:
    """Those of the workflow's stages of the given names, with their operators' parameters."""
    stages = {stage.name: stage for stage in load_workflow("speech")(Params(params)).chain()}
    return [list(stages[name].steps) for name in only]


def row(path: Path, name: str) -> pa.Table:
    """A recording as the workflow's first step is given it."""
    span = Span(str(path), name, "audio", 0, -1, path.stat().st_size, None, 0, 1.0)
    return next(read_recording(span)).docs


def main() -> None:
    packages = Path(sys.argv[1]) if len(sys.argv) > 1 else speech_corpus.CACHE
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for seed in SEEDS:
            speech_corpus.build(folder, seed, MINUTES, packages)
        measure(folder)


def measure(folder: Path) -> None:
    """Print all of it, for a corpus."""
    known = truths(folder / "truth")
    cut, heard = steps(("segment", "transcribe"), {"transcribe": {"languages": LANGUAGES}})
    score, spent, kept, audio, fate = Score(), Counter[str](), [], 0.0, Counter[str]()
    for name, truth in known.items():
        first = apply(cut, row(folder / "audio" / name, name))
        second = apply(heard, first.kept)
        for count in (*first.counts, *second.counts):
            spent[count.name] += count.cpu_seconds
        audio += truth.seconds
        add(score, truth, first.dropped, first.kept, second)
        for dropped in (first.dropped, second.dropped):
            fate.update(seconds_by_reason(dropped))
        fate["kept"] += sum(found.end - found.start for found in utterances(second.kept))
        if second.kept.num_rows:
            kept.append((truth, second.kept))
    print(f"{len(known)} recordings, {audio / 60:.1f} minutes, seeds {', '.join(map(str, SEEDS))}\n")
    print("seconds of audio a CPU second")
    for name, seconds in spent.items():
        print(f"  {name:24} {audio / seconds:8.1f}   {seconds:6.1f} CPU s")
    total = sum(spent.values())
    print(f"  {'end to end':24} {audio / total:8.1f}   {total:6.1f} CPU s   (target: 3, aim: 5)\n")
    print("seconds of the recordings, by what became of them")
    for reason, seconds in fate.most_common():
        print(f"  {reason:36} {seconds:8.1f}")
    print()
    show(score)
    quality(folder, known)
    peers(kept)


def add(score: Score, truth: Truth, dropped: pa.Table, cut: pa.Table, heard: Any) -> None:
    """Add what was found in a recording to the score."""
    for parent in dropped.to_pylist():
        if parent["drop_reason"] == f"segment/{SPLIT}":
            timeline = parent["timeline"] or []
            speech = [(one["start"], one["end"]) for one in timeline if one["kind"] == "speech"]
            turns = [(one["start"], one["end"], str(one["speaker"])) for one in timeline if one["kind"] == "turn"]
            score.listened(truth, speech, turns)
    score.cut(truth, list(utterances(cut)))
    if {clip.language for clip in truth.said} <= set(LANGUAGES):
        score.named(truth, [*utterances(heard.kept), *utterances(heard.dropped)])
        score.transcribed(truth, list(utterances(heard.kept)))


def utterances(table: pa.Table) -> Iterator[Utterance]:
    wanted = [name for name in Utterance._fields if name in table.column_names]
    for found in table.select(wanted).to_pylist():
        yield Utterance(**{name: value for name, value in found.items() if value is not None})


def seconds_by_reason(dropped: pa.Table) -> Counter[str]:
    seconds: Counter[str] = Counter()
    for one in dropped.to_pylist():
        if not one["drop_reason"].endswith(f"/{SPLIT}"):
            seconds[one["drop_reason"]] += (one.get("samples") or 0) / 24_000
    return seconds


def line(what: str, value: float, target: str = "", met: bool | None = None) -> None:
    verdict = "" if met is None else "met" if met else "MISSED"
    print(f"  {what:36} {value:8.3f}   {target:12} {verdict}")


def show(score: Score) -> None:
    """The score beside its targets."""
    print("score                                             target")
    line("speech recall", score.recall.value, ">= 0.90", score.recall.value >= 0.90)
    line("speech precision", score.precision.value, ">= 0.95", score.precision.value >= 0.95)
    line("false alarm over music, s", score.music_false_alarm, "<= 0.5", score.music_false_alarm <= 0.5)
    line("diarisation error rate", score.errors.rate, "<= 0.10", score.errors.rate <= 0.10)
    line("  without overlap", score.errors_without_overlap.rate)
    for what in ("missed", "false_alarm", "confused"):
        line(f"  {what.replace('_', ' ')}", getattr(score.errors, what) / score.errors.speech)
    line("speakers, largest difference", score.speaker_error(), "<= 1", score.speaker_error() <= 1)
    line("purity of utterances", score.purity.value, ">= 0.95", score.purity.value >= 0.95)
    line("coverage of speech", score.coverage.value, ">= 0.90", score.coverage.value >= 0.90)
    for language in LANGUAGES:
        right = score.language[language].value
        line(f"language right, {language}", right, ">= 0.95", right >= 0.95)
    for language in LANGUAGES:
        clean, most = score.word_error(language, "clean"), WORD_ERRORS.get(language)
        line(
            f"word error rate, {language}, clean",
            clean,
            f"<= {most:.2f}" if most else "",
            clean <= most if most else None,
        )
        line("  all that was kept", score.word_error(language))
    for under, mean in sorted(score.dnsmos.items()):
        line(f"DNSMOS of utterances, {under}", mean.value)
    for name, real, found, rate in score.speakers:
        if real != found or rate > 0.1:
            print(f"  {name}: {found} speakers of {real}, diarisation error rate {rate:.3f}")
    print()


def quality(folder: Path, known: Mapping[str, Truth]) -> None:
    """DNSMOS of clips over each bed, as recorded and with the music taken away."""
    listener: Listener = loaded(Dnsmos())
    found: dict[tuple[str, bool], list[float]] = {}
    for name, truth in known.items():
        if "-beds-" not in name:
            continue
        docs = Standardise()(row(folder / "audio" / name, name))
        for enhanced in (False, True):
            if enhanced:
                docs = Separate()(docs)
            spool = samples_of(docs["id"][0].as_py())
            for clip in truth.said:
                samples = spool.read_at(RATE, round(clip.start * SAMPLES), round(clip.end * SAMPLES))
                if len(samples) >= 3 * RATE:
                    opinion = listener.opinion(windows(samples)).overall
                    found.setdefault((condition([clip]), enhanced), []).append(opinion)
        release_all()
    print("DNSMOS over beds (en, fr)              recorded   separated")
    for under in sorted({under for under, _ in found}):
        before, after = (float(np.mean(found[under, enhanced])) for enhanced in (False, True))
        print(f"  {under:36} {before:8.2f}   {after:8.2f}   {after - before:+.2f}")
    print("  targets: clean >= 3.1, each bed < 2.8 as recorded, +0.8 at 10 dB of music\n")


def windows(samples: np.ndarray, hop: int = RATE) -> list[np.ndarray]:
    """As Emilia-Pipe hears an utterance: over and over until it is long enough, then windows a second apart."""
    while len(samples) < LENGTH:
        samples = np.append(samples, samples)
    count = int(np.floor(len(samples) / RATE) - LENGTH / RATE) + 1
    pieces = (samples[n * hop : n * hop + LENGTH] for n in range(count))
    return [piece.astype(np.float32) for piece in pieces if len(piece) == LENGTH]


def peers(kept: Sequence[tuple[Truth, pa.Table]]) -> None:
    """Our operators and what Emilia-Pipe calls, on the same utterances."""
    from faster_whisper import WhisperModel

    from operators.models.weights import WHISPER_BASE, find

    some: list[tuple[Truth, pa.Table]] = []
    for truth, table in kept:
        if sum(one.num_rows for _, one in some) < PEER_UTTERANCES and "-beds-" not in truth.recording:
            some.append((truth, table))
    clips = [decode_at(payload, RATE) for _, table in some for payload in table["payload"].to_pylist()]
    audio = sum(map(len, clips)) / RATE
    print(f"peers, on {len(clips)} utterances, {audio:.0f} s           audio s / CPU s   word error rate")
    (step, scored) = steps(("transcribe",), {"transcribe": {"languages": LANGUAGES}})[0][:2]
    added = {"text", "language", "language_score", "utterance_key", "dnsmos", "dnsmos_sig", "dnsmos_bak"}
    bare = [table.drop_columns([name for name in table.column_names if name in added]) for _, table in some]

    def rate(texts: Iterable[str]) -> float:
        wrong = total = 0
        given = iter(texts)
        for truth, table in some:
            found = [one._replace(text=next(given)) for one in utterances(table)]
            for said, held in groups(truth.said, found):
                reference = [word for clip in said for word in words(clip.text)]
                wrong += edits(reference, [word for one in held for word in words(one.text)])
                total += len(reference)
        return wrong / total

    def timed(what: str, work: Any, score: Any) -> float:
        begun = time.process_time()
        result = work()
        taken = time.process_time() - begun
        print(f"  {what:44} {audio / taken:8.1f}   {score(result):8.3f}")
        return taken

    model = WhisperModel(str(find(WHISPER_BASE[0]).parent), compute_type="int8", cpu_threads=1)

    def one_by_one(beam: int) -> list[str]:
        texts = []
        for clip in clips:
            language = model.detect_language(clip)[0]
            settings = {"without_timestamps": True, "condition_on_previous_text": False, "beam_size": beam}
            texts.append(" ".join(part.text for part in model.transcribe(clip, language=language, **settings)[0]))
        return texts

    ours = timed(
        "transcribe, ours",
        lambda: [text or "" for table in bare for text in step.operator(table)["text"].to_pylist()],
        rate,
    )
    theirs = {
        beam: timed(f"faster-whisper one by one, beam {beam}", lambda beam=beam: one_by_one(beam), rate)
        for beam in (1, 5)
    }
    listener: Listener = loaded(Dnsmos())
    texted = [step.operator(table) for table in bare]
    scores: list[np.ndarray] = []

    def mean(found: Sequence[float]) -> float:
        scores.append(np.array(found, float))
        return float(np.mean(scores[-1]))

    print(f"{'':46} audio s / CPU s   mean DNSMOS")
    mine = timed(
        "DNSMOS, ours", lambda: [x for table in texted for x in scored.operator(table)["dnsmos"].to_pylist()], mean
    )
    loop = timed(
        "DNSMOS, windows a second apart", lambda: [listener.opinion(windows(clip)).overall for clip in clips], mean
    )
    apart = np.abs(scores[0] - scores[1])
    print(f"  apart at most {apart.max():.3f}, on average {apart.mean():.3f}")
    ratios = ", ".join(f"x{seconds / ours:.1f} of beam {beam}" for beam, seconds in theirs.items())
    print(f"  transcription {ratios}; DNSMOS x{loop / mine:.1f}")


if __name__ == "__main__":
    main()
