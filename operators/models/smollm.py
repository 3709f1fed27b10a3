"""SmolLM2-135M-Instruct (Allal et al. 2025, arXiv:2502.02737), a small language model, by CTranslate2 on one thread.

The weights are those of a GGUF of 4 bits, written once in CTranslate2's format (see gguf_folder.py), and calculated
with in float32: 8 bits for what flows between the layers, which would be 1.5 times as fast, turn every ninth token.

Further attempts are drawn, which CTranslate2 can't do again the same (it reads a seed once in a thread's life). So
tokens are drawn here from the probabilities of the text that goes on with the likeliest: up to the first that is drawn
otherwise, that was the text. From there the likeliest goes on anew: the distribution is that of drawing one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from operators.models import weights

EXTRA = "corpusmill[captions]"
Turn = tuple[str, str]  # who (system, user, assistant) says what

START, END = "<|im_start|>", "<|im_end|>"
SYSTEM: Turn = ("system", "You are a helpful AI assistant named SmolLM, trained by Hugging Face")  # where none is given
CONTEXT = 8192  # tokens
TEMPERATURE, TOP_P = 0.7, 0.9  # of further attempts
PREFIXES = 4  # states of so many turns before the last are kept: 46 kB a token


@dataclass(frozen=True)
class SmolLM:
    """The model of `python -m operators.models.weights captions`."""

    def check(self) -> Path:
        """Its folder. Raises ValueError, naming what brings them, where CTranslate2 or a file is missing or changed."""
        weights.needs("ctranslate2", extra=EXTRA)
        return [weights.find(weight) for weight in weights.SMOLLM][0].parent

    def load(self) -> Writer:
        return Writer(self.check())


class Writer:
    """The loaded model."""

    def __init__(self, folder: Path) -> None:
        import ctranslate2  # here, because most builds do without it

        self._model = ctranslate2.Generator(str(folder), compute_type="float32", inter_threads=1, intra_threads=1)
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.encode_special_tokens = True  # a text that spells a mark does not become it
        numbers: dict[str, int] = self._tokenizer.get_vocab()
        self._names = {number: name for name, number in numbers.items()}
        self._start, self._end = numbers[START], numbers[END]
        self._prefixes: set[tuple[int, ...]] = set()

    def write(self, turns: Sequence[Turn], attempt: int = 0, most_tokens: int = 64) -> str:
        """The reply to (role, text) pairs, stripped; cut off after `most_tokens`. Attempt 0 takes the likeliest tokens;
        further ones draw, the same each time for the same turns. What was made of the turns before the last is kept for
        the next call. Raises ValueError for turns that are longer than what the model reads."""
        if turns[0][0] != "system":
            turns = (SYSTEM, *turns)
        before = tuple(token for turn in turns[:-1] for token in self._turn(*turn))
        prompt = [*self._turn(*turns[-1]), self._start, *self._tokens("assistant\n")]
        if (length := len(before) + len(prompt) + most_tokens) > CONTEXT:
            raise ValueError(f"{length} tokens are more than the {CONTEXT} that the model reads and writes")
        if not attempt:
            return self._text(self._likeliest(before, prompt, most_tokens)[0])
        random = np.random.default_rng([attempt, *before, *prompt])
        written: list[int] = []
        while len(written) < most_tokens and written[-1:] != [self._end]:
            left = most_tokens - len(written)
            likeliest, logits = self._likeliest(before, [*prompt, *written], left, drawing=True)
            for token, of_all in zip(likeliest, logits, strict=True):
                written.append(_draw(of_all, random))
                if written[-1] != token:
                    break
        return self._text(written)

    def _likeliest(
        self, before: tuple[int, ...], prompt: list[int], most: int, drawing: bool = False
    ) -> tuple[list[int], list[NDArray[np.float32]]]:
        """The likeliest tokens, with the mark at the end if they reach it, and, for drawing, the logits at each."""
        if len(self._prefixes) < PREFIXES:
            self._prefixes.add(before)
        (found,) = self._model.generate_batch(
            [[self._names[token] for token in prompt]],
            max_length=most,
            static_prompt=[self._names[token] for token in before],
            cache_static_prompt=before in self._prefixes,
            include_prompt_in_result=False,
            end_token=END,
            return_end_token=True,
            return_logits_vocab=drawing,
        )
        logits: list[Any] = found.logits[0] if drawing else []
        return found.sequences_ids[0], [np.array(of_all) for of_all in logits]

    def _turn(self, role: str, text: str) -> list[int]:
        return [self._start, *self._tokens(f"{role}\n{text}"), self._end, *self._tokens("\n")]

    def _tokens(self, text: str) -> list[int]:
        tokens: list[int] = self._tokenizer.encode(text).ids
        return tokens

    def _text(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids)
        return text.strip()


def _draw(logits: NDArray[np.float32], random: np.random.Generator) -> int:
    """A token of the likeliest that make up TOP_P."""
    scaled = (logits.astype(np.float64) - logits.max()) / TEMPERATURE
    order = np.argsort(-scaled, kind="stable")
    total = np.cumsum(np.exp(scaled[order]))
    total = total[: np.searchsorted(total, TOP_P * total[-1]) + 1]
    return int(order[np.searchsorted(total, random.random() * total[-1], side="right")])
