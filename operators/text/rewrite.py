"""Says documents again in another style, by a language model behind a server, as WRAP does (Maini et al. 2024,
arXiv:2401.16380).

A document goes to the model in chunks, as models leave things out of long ones. A rewriting has to stand between two
marks and be like its source in length, language and matter, but not in its words (rewrite_rules.py); where it is not,
the original stays. Answers are kept before they are judged, so that other bounds cost no call. The chunks of a document
go one after the other, so that no more are asked about once it is known to stay as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from operators.dedup.words import simplify
from operators.document import Operator, drop, loaded, parameters, with_columns
from operators.models.chat import (
    ASKED_COLUMN,
    PROVENANCE,
    Answer,
    Asker,
    Chat,
    Turn,
    Unanswered,
    asked_column,
    counted_of,
    template_of,
)
from operators.models.fasttext import FastText
from operators.text.chunks import chunks, words
from operators.text.rewrite_prompts import STYLES, Style, has_marks, new_text, prompt
from operators.text.rewrite_rules import Bounds, Text, Violation, violation

NOTHING, MARKED = Violation("no_words"), Violation("has_marks")  # of what is not asked about
TOKENS = 1.5  # of a word, about
Share = Annotated[float, Field(ge=0, le=1)]


class Rewritten(NamedTuple):
    """What became of one document."""

    text: str | None  # null: the original stays
    answers: tuple[Answer, ...]  # all that were given
    taken: tuple[str, ...]  # names of those that are in the text
    fallback: Violation | None  # why the original stays


@parameters
class Rewrite(Operator):
    """Replaces `text`; adds `rewritten`, `rewrite_fallback` (why the original stayed, else null), `rewrite_from` (the
    model, null where the original stayed) and, with `keep_original`, `source_text`.

    A document stays as it was where more than `max_violations` of its chunks break a rule; up to that, these chunks
    do. `on_violation: drop` drops such documents, for the first rule that is broken."""

    name: ClassVar[str] = "rewrite"
    model: Chat
    style: Style | None = None
    instructions: Annotated[str, Field(min_length=1, max_length=10_000)] | None = None  # in the place of a style
    max_words: Annotated[int, Field(ge=20, le=10_000)] = 225  # of a chunk: some 300 tokens, as in WRAP
    min_ratio: Annotated[float, Field(gt=0)] = 0.3  # words written for each of the source
    max_ratio: Annotated[float, Field(gt=0)] = 3.0
    max_repeated: Share = 0.3  # of the runs of five words written, those that stood before
    max_copied: Share = 0.5  # of them, those that stand in the source
    min_shared: Share = 0.2  # of the topical words, those that source and rewriting have in common
    max_violations: Share = 0.0  # of a document's chunks
    on_violation: Literal["keep", "drop"] = "keep"
    keep_original: bool = False
    revision: Literal[1] = 1

    @model_validator(mode="after")
    def _fields_fit_together(self) -> Self:
        if (self.style is None) == (self.instructions is None):
            raise ValueError(f"style: name one of {', '.join(STYLES)}, or give instructions, and not both")
        if self.min_ratio > self.max_ratio:
            raise ValueError(f"min_ratio: {self.min_ratio:g} is more than max_ratio, {self.max_ratio:g}")
        least = math.ceil(TOKENS * self.max_words * self.max_ratio)
        if self.model.max_tokens < least:
            raise ValueError(
                f"model.max_tokens: {self.model.max_tokens} is no room for {self.max_ratio:g} (max_ratio) times "
                f"{self.max_words} words (max_words), which take {least} at {TOKENS} a word"
            )
        return self

    @property
    def adds(self) -> tuple[str, ...]:
        return ("rewritten", "rewrite_fallback", "rewrite_from", *(("source_text",) if self.keep_original else ()))

    def counted(self, marked: pa.Table) -> Mapping[str, int]:
        """What was asked, documents rewritten, and for each reason those that stayed as they were."""
        kept = (
            pc.value_counts(marked["rewrite_fallback"].drop_null()).to_pylist() if self.on_violation == "keep" else []
        )
        return {
            **counted_of(marked),
            "rewritten": pc.sum(marked["rewritten"]).as_py() or 0,
            **{f"kept_{entry['values']}": entry["counts"] for entry in kept},
        }

    def __call__(self, docs: pa.Table) -> pa.Table:
        texts = pc.fill_null(docs["text"], "").to_pylist()
        asker: Asker = loaded(self.model)
        loaded(FastText())  # before many threads want it
        instructions = self.instructions if self.style is None else STYLES[self.style]
        template = template_of(prompt(str(instructions), ""))

        def ask(source: str) -> Answer | Unanswered:
            try:
                return asker.ask([Turn("user", (prompt(str(instructions), source),))], template)
            except Unanswered as error:
                return error

        found = asker.each(lambda text: self._rewritten(chunks(text, self.max_words), ask), texts)
        return self._marked(docs, found, template)

    def _rewritten(self, parts: list[str], ask: Callable[[str], Answer | Unanswered]) -> Rewritten:
        """The document of these chunks; of those without words nothing is asked, and they stay as they are."""
        sources = [part.strip() for part in parts]
        spoken = [k for k, count in enumerate(words(sources)) if count]
        broken = {k: MARKED for k in spoken if has_marks(sources[k])}
        texts, answers, taken = list(parts), [], []
        for k in (k for k in spoken if k not in broken):
            if len(broken) > self.max_violations * len(spoken):
                break
            said = ask(sources[k])
            answer = said.answer if isinstance(said, Unanswered) else said
            answers += [] if answer is None else [answer]
            (found,) = self.judged([sources[k]], [said])
            if isinstance(found, Violation):
                broken[k] = found
            elif answer is not None:
                taken.append(answer.key)
                texts[k] = parts[k].replace(sources[k], found, 1)
        if not taken or len(broken) > self.max_violations * len(spoken):
            why = broken[min(broken)] if broken else NOTHING
            return Rewritten(None, tuple(answers), (), why)
        return Rewritten("".join(texts), tuple(answers), tuple(taken), None)

    def judged(self, sources: list[str], answers: list[Answer | Unanswered]) -> list[str | Violation]:
        """For each chunk what was written in its place, or why that is not taken."""
        found = [
            Violation(one.reason) if isinstance(one, Unanswered) else new_text(one.text, source)
            for source, one in zip(sources, answers, strict=True)
        ]
        at = [k for k, one in enumerate(found) if isinstance(one, str)]
        bounds = Bounds(self.min_ratio, self.max_ratio, self.max_repeated, self.max_copied, self.min_shared)
        written = [str(found[k]) for k in at]
        for k, before, after in zip(at, _known([sources[k] for k in at]), _known(written), strict=True):
            found[k] = violation(before, after, bounds) or found[k]
        return found

    def _marked(self, docs: pa.Table, found: list[Rewritten], template: str) -> pa.Table:
        old = docs["text"].cast(pa.large_string())
        new = pa.array([one.text for one in found], pa.large_string())
        rewritten = new.is_valid()
        made_by = [
            None if one.text is None else {"model": self.model.model, "template": template, "answers": one.taken}
            for one in found
        ]
        why = [one.fallback for one in found]
        reason = pa.array([one and one.reason for one in why], pa.string())
        marked = with_columns(
            docs,
            {
                "text": pc.if_else(rewritten, new, old),
                "rewritten": rewritten,
                "rewrite_fallback": reason,
                "rewrite_from": pa.array(made_by, PROVENANCE),
                ASKED_COLUMN: asked_column([one.answers for one in found]),
                **({"source_text": pc.if_else(rewritten, old, None)} if self.keep_original else {}),
            },
        )
        if self.on_violation == "keep":
            return marked
        value, threshold = (
            np.array([getattr(one, name, None) for one in why], np.float64) for name in ("value", "threshold")
        )
        return drop(marked, reason, value, threshold, [one and one.detail for one in why])


def _known(texts: list[str]) -> list[Text]:
    """What rules look at."""
    plain = simplify(pa.array(texts, pa.large_string())).to_pylist()
    languages, scores = loaded(FastText()).best(texts)
    return [Text(*one) for one in zip([text.split() for text in plain], languages, scores.round(4), strict=True)]
