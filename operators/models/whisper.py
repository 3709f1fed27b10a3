"""Whisper (Radford et al. 2022, arXiv:2212.04356) through CTranslate2: language, text and word times of utterances.

The encoder runs once for an utterance: the language is heard, the text decoded and the words aligned from what it
gave. Whisper was trained on windows of 30 s, but its encoder takes shorter ones, at a cost that grows with their
length: an utterance gets a window of its own length and some silence, of at least `SHORTEST`, and a second hearing in
a window of 30 s where the first gave what looks invented (it sometimes repeats itself in a short window).

On the processor one utterance is a call of its own, on one thread: its text does not depend on those beside it. On a
GPU `batch` utterances share a call, whose rounding can, rarely, turn a word; the same table gives the same batches.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from operators.models import weights
from operators.models.whisper_folder import WhisperFolder

RATE = 16_000
WINDOW = 30 * RATE  # samples: the longest utterance that is heard at once
HOP = 160  # samples a frame of the spectrogram; the encoder halves the frames
SHORTEST = 10 * RATE  # shorter windows make the model repeat itself
STEP = 2 * RATE  # lengths of windows are multiples of it
SILENCE = RATE  # at least so much follows the utterance: the model ends better
MEDIAN = 7  # frames, of the filter over attention (OpenAI's value)
PROMPT = 223  # tokens of a prompt: half of what the decoder takes
FRAME = 2 * HOP / RATE  # seconds that a step of the alignment is
UNSPACED = frozenset(
    {"zh", "ja", "th", "lo", "my", "yue"}
)  # written without blanks: a word is a piece of the alignment
HALVES = ("float16", "bfloat16", "int8_float16")

Samples = NDArray[np.float32]


Compute = Literal["int8", "float32", "float16", "bfloat16", "int8_float16"]


class Word(NamedTuple):
    """A word with the punctuation around it; `start` and `end` in seconds of the utterance."""

    word: str
    start: float
    end: float


class Heard(NamedTuple):
    """What was made of an utterance. `text` is None where `wanted` refused the language."""

    language: str
    language_score: float  # probability, four decimals
    text: str | None = None
    words: tuple[Word, ...] | None = None
    log_probability: float = 0.0  # of a token, on average
    repetition: float = 0.0  # characters to a byte of the compressed text. Whisper counts bytes: twice in Cyrillic
    no_speech: float = 0.0  # probability


@dataclass(frozen=True)
class Hearing:
    """How to listen. `wanted(language, probability)` says what is worth decoding; `doubted(heard)`, what is heard again
    in a window of 30 s. Without `short_windows` every window is of 30 s."""

    wanted: Callable[[str, float], bool]
    doubted: Callable[[Heard], bool]
    beam: int = 1
    prompt: str | None = None
    words: bool = False
    short_windows: bool = True


@dataclass(frozen=True)
class Whisper:
    """A model of faster-whisper in a folder; none: the multilingual base model of the extra. `compute`: the numbers
    that it calculates with, of which halves need a GPU. `batch`: utterances a call, on a GPU."""

    path: WhisperFolder | None = None
    compute: Compute = "int8"
    batch: int = 16

    @property
    def folder(self) -> Path:
        """Where the files lie, unchecked."""
        return self.path.folder if self.path else weights.models_folder() / weights.WHISPER_BASE[0].path.split("/")[0]

    @property
    def languages(self) -> frozenset[str]:
        """Codes of the languages that the model was trained to tell apart. Raises ValueError for no such model."""
        if not self.path:
            for weight in weights.WHISPER_BASE:
                if not (weights.models_folder() / weight.path).is_file():
                    weights.find(weight)  # raises, and says what brings it
        return _languages(self.folder / "tokenizer.json")

    def load(self) -> Recogniser:
        """Raises ValueError for other files than those that were pinned, and for halves without a GPU."""
        if self.path:
            return Recogniser(self.path.check(), self)
        return Recogniser([weights.find(weight) for weight in weights.WHISPER_BASE][0].parent, self)


@functools.cache
def _languages(file: Path) -> frozenset[str]:
    if not file.is_file():
        raise ValueError(f"no such file: {file}")
    tokens = [token["content"] for token in orjson.loads(file.read_bytes())["added_tokens"]]
    if "<|startoftranscript|>" not in tokens or "<|translate|>" not in tokens:
        raise ValueError(f"{file}: not the tokenizer of a multilingual Whisper")
    listed = tokens[tokens.index("<|startoftranscript|>") + 1 : tokens.index("<|translate|>")]
    return frozenset(token[2:-2] for token in listed)


class Recogniser:
    """The loaded model."""

    def __init__(self, folder: Path, whisper: Whisper) -> None:
        import ctranslate2  # here, because most builds do without them
        import faster_whisper.tokenizer
        import faster_whisper.transcribe
        import tokenizers
        from faster_whisper.feature_extractor import FeatureExtractor

        gpu = ctranslate2.get_cuda_device_count() > 0
        if whisper.compute in HALVES and not gpu:
            raise ValueError(f"compute: {whisper.compute} needs a GPU, and there is none")
        self._view = ctranslate2.StorageView.from_array
        self._model = ctranslate2.models.Whisper(
            str(folder),
            device="cuda" if gpu else "cpu",
            compute_type=whisper.compute,
            intra_threads=1,  # a worker is given one core
            inter_threads=1,
        )
        self.batch = whisper.batch if gpu else 1
        self._mel = FeatureExtractor(feature_size=self._model.n_mels)
        vocabulary = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer = functools.cache(
            lambda language: faster_whisper.tokenizer.Tokenizer(
                vocabulary, self._model.is_multilingual, task="transcribe", language=language
            )
        )
        self._suppressed = list(faster_whisper.transcribe.get_suppressed_tokens(self._tokenizer("en"), [-1]))

    def hear(self, clips: Sequence[Samples], hearing: Hearing) -> list[Heard]:
        """What is said in each clip of at most WINDOW samples at RATE; `batch` of them at once."""
        lengths = [_window(len(clip)) if hearing.short_windows else WINDOW for clip in clips]
        heard = self._hear(clips, lengths, hearing)
        again = [k for k, found in enumerate(heard) if lengths[k] < WINDOW and hearing.doubted(found)]
        for k, found in zip(again, self._hear([clips[k] for k in again], [WINDOW] * len(again), hearing), strict=True):
            heard[k] = heard[k] if found.text is None else found
        return heard

    def _hear(self, clips: Sequence[Samples], lengths: Sequence[int], hearing: Hearing) -> list[Heard]:
        found: dict[int, Heard] = {}
        for length in sorted(set(lengths)):
            same = [k for k, one in enumerate(lengths) if one == length]
            for start in range(0, len(same), self.batch):
                part = same[start : start + self.batch]
                found.update(zip(part, self._batch([clips[k] for k in part], length, hearing), strict=True))
        return [found[k] for k in range(len(clips))]

    def _batch(self, clips: Sequence[Samples], length: int, hearing: Hearing) -> list[Heard]:
        """Clips in windows of one length: one call of the encoder."""
        mel = np.stack([self._mel(np.pad(clip, (0, length - len(clip))), padding=HOP) for clip in clips])
        encoded = self._model.encode(self._view(np.ascontiguousarray(mel[..., : length // HOP], np.float32)))
        heard = self._languages(encoded, len(clips))
        if not any(hearing.wanted(one.language, one.language_score) for one in heard):
            return heard
        tokenizers = [self._tokenizer(one.language) for one in heard]
        results = self._model.generate(
            encoded,
            [_prompt(tokenizer, hearing.prompt) for tokenizer in tokenizers],
            beam_size=hearing.beam,
            return_scores=True,
            return_no_speech_prob=True,
            suppress_tokens=self._suppressed,
        )
        tokens = [result.sequences_ids[0] for result in results]
        for k, (one, tokenizer, result) in enumerate(zip(heard, tokenizers, results, strict=True)):
            if hearing.wanted(one.language, one.language_score):
                text = tokenizer.decode(tokens[k]).strip()
                heard[k] = one._replace(
                    text=text,
                    log_probability=round(result.scores[0] * len(tokens[k]) / (len(tokens[k]) + 1), 4),
                    repetition=repetition(text),
                    no_speech=round(result.no_speech_prob, 4),
                )
        if hearing.words:
            self._align(encoded, clips, tokens, heard)
        return heard

    def _languages(self, encoded: Any, count: int) -> list[Heard]:
        if not self._model.is_multilingual:
            return [Heard("en", 1.0)] * count
        best = [found[0] for found in self._model.detect_language(encoded)]
        return [Heard(token[2:-2], round(probability, 4)) for token, probability in best]

    def _align(self, encoded: Any, clips: Sequence[Samples], tokens: list[list[int]], heard: list[Heard]) -> None:
        """Sets the words of what was decoded. An alignment is begun by one language, and is made of a whole batch."""
        frames = [max(2 * MEDIAN, -(-len(clip) // HOP)) for clip in clips]  # of fewer, nothing is aligned
        for language in sorted({one.language for one in heard if one.text is not None}):
            tokenizer = self._tokenizer(language)
            texts = [[token for token in row if token < tokenizer.eot] for row in tokens]
            aligned = self._model.align(encoded, tokenizer.sot_sequence, texts, frames, median_filter_width=MEDIAN)
            for k, one in enumerate(heard):
                if one.text is not None and one.language == language:
                    pairs = np.array(aligned[k].alignments, np.int64).reshape(-1, 2)
                    heard[k] = one._replace(words=self._words(language, texts[k], pairs, len(clips[k]) / RATE))

    def _words(self, language: str, tokens: list[int], pairs: NDArray[np.int64], seconds: float) -> tuple[Word, ...]:
        """Words from the frame at which each token begins; the text is made of them and of blanks."""
        if not tokens:
            return ()
        tokenizer = self._tokenizer(language)
        words, parts = tokenizer.split_to_word_tokens([*tokens, tokenizer.eot])
        begins = pairs[np.diff(pairs[:, 0], prepend=-1) > 0, 1] * FRAME  # of each token, and of the end
        edges = np.minimum(begins, seconds)[np.cumsum([0, *map(len, parts[:-1])])]
        found: list[Word] = []
        apart = True  # from the word before
        for piece, start, end in zip(words[:-1], edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            apart |= any(map(str.isalnum, piece)) if language in UNSPACED else piece.startswith(" ")
            if not piece.strip():
                continue
            if apart or not found:
                found.append(Word(piece.strip(), round(start, 3), round(end, 3)))
            else:
                found[-1] = Word(found[-1].word + piece.rstrip(), found[-1].start, round(end, 3))
            apart = False
        return tuple(found)


def repetition(text: str) -> float:
    """Characters to a byte of the compressed text, four decimals."""
    return round(len(text) / len(zlib.compress(text.encode())), 4)


def _window(samples: int) -> int:
    """Of how many samples the window is that an utterance is heard in."""
    return min(WINDOW, max(SHORTEST, -(-(samples + SILENCE) // STEP) * STEP))


def _prompt(tokenizer: Any, text: str | None) -> list[int]:
    """What decoding goes on from: perhaps what seems to have been said before, then language and task."""
    before = [tokenizer.sot_prev, *tokenizer.encode(f" {text.strip()}")[-PROMPT:]] if text else []
    return [*before, *tokenizer.sot_sequence, tokenizer.no_timestamps]
