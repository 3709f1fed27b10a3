"""Captions, written and verified, as AudioSetCaps refines them (Bai et al. 2024, arXiv:2411.18953): a language model
writes from what was heard, CLAP compares with the sound, and what is not accepted is written anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from operators.caption.best import Judged, Kept, best_of
from operators.caption.facts import known_facts
from operators.caption.grammar import MOST_WORDS
from operators.caption.lint import Rejected, lint
from operators.caption.prompts import Clip
from operators.caption.verifiers import Evidence, Similarity, Verifier, VerifierModel, heard
from operators.caption.writers import Draft, Grammar, Remote, Writer, WriterModel, writer_of
from operators.document import Operator, drop, loaded, parameters, with_columns
from operators.models.chat import ASKED_COLUMN, PROVENANCE, Answer, Asker, Chat, asked_column, counted_of
from operators.models.clap import Clap

FLOORS = {"evidence": 0.8, "clap": 0.1}  # CLAP's similarity to an unrelated text is about 0


class Composed(NamedTuple):
    """What came of a clip: a caption, or why there is none, or none to keep."""

    text: str | None = None
    judged: Judged | None = None
    attempts: int = 0
    written_by: str | None = None
    answer: Answer | None = None
    rejected: Rejected | None = None
    asked: Sequence[Answer] = ()


@parameters
class Compose(Operator):
    """Adds `text`, the caption, its `caption_score`, how many `attempts` it took, whether it was `accepted`, who wrote
    and verified it, and, with CLAP, the `label_score` that it had to reach. If none of `attempts` is accepted, the best
    is kept, or what the grammar writes as `fallback`, if that is better: neither counts as accepted. Drops as
    `unverified` what scores less than `floor`, and what was never written for the reason of the last try: see lint.py
    and chat.Unanswered.

    `writer`: grammar, smollm2 or a server (see Chat). `verifier`: evidence or a folder (see Clap). Mode `published` is
    AudioSetCaps's: its prompt for a server, its treatment of texts for CLAP, two attempts, no floor, no lint, no
    fallback; but it keeps the best."""

    name: ClassVar[str] = "compose"
    mode: Literal["default", "published"] = "default"
    writer: WriterModel = "grammar"
    verifier: VerifierModel = "evidence"
    attempts: Annotated[int, Field(ge=1, le=20)] | None = None  # 3; in mode published 2; of a server without chance 1
    accept: Annotated[float, Field(gt=0, le=1)] | None = None  # score by evidence that is enough: 1
    floor: Annotated[float, Field(ge=-1, le=1)] | None = None  # 0.8 by evidence, 0.1 by CLAP; in mode published none
    fallback: Literal["grammar", "off"] | None = None  # grammar; in mode published off
    revision: Literal[1] = 1

    @model_validator(mode="after")
    def _fields_fit_together(self) -> Self:
        if self.mode == "published":
            if not isinstance(self.writer, Chat) or not isinstance(self.verifier, Clap):
                raise ValueError("mode: published writes by a server and verifies by CLAP")
            if self.fallback is not None:
                raise ValueError(f"fallback: {self.fallback} has no meaning in mode published")
        if self.writer == "grammar" and self.fallback is not None:
            raise ValueError(f"fallback: {self.fallback} has no meaning where the grammar is the writer")
        if self._says_the_same and self._attempts > 1:
            raise ValueError(f"attempts: {self._attempts} at temperature 0 of the writer, which says the same again")
        if isinstance(self.verifier, Clap) and self.accept is not None:
            raise ValueError(f"accept: {self.accept:g} has no meaning with CLAP, whose rule compares with the labels")
        if self.accept is not None and self._floor > self.accept:
            raise ValueError(f"floor: {self._floor:g} is more than accept, {self.accept:g}")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        heard = isinstance(self.writer, Chat) and isinstance(self.verifier, Clap) and not self._fallback
        sound = ("payload",) if isinstance(self.verifier, Clap) else ()
        return ("labels", "answers", *(() if heard else ("facts",)), *sound)

    @property
    def adds(self) -> tuple[str, ...]:
        return ("caption_score", "label_score", "attempts", "accepted", "written_by", "verified_by", "caption_from")

    @property
    def gpu(self) -> bool:
        """Whether a worker with a GPU does this faster."""
        return isinstance(self.verifier, Clap)

    @property
    def measures(self) -> tuple[str, ...]:
        return ("caption_score", "attempts", *(("label_score",) if isinstance(self.verifier, Clap) else ()))

    @property
    def cuts(self) -> Mapping[str, tuple[float, ...]]:
        return {"caption_score": (self._floor,)} if self._floor > -1 else {}

    def counted(self, marked: pa.Table) -> Mapping[str, int]:
        """Captions accepted, in all and at each attempt, kept though they were not, and written by the grammar instead;
        what was asked of a server."""
        alive = pc.is_null(marked["drop_reason"])
        accepted = marked.filter(pc.and_(alive, marked["accepted"]))
        fallback = pc.and_(alive, pc.and_(pc.invert(marked["accepted"]), pc.equal(marked["written_by"], Grammar.name)))
        fallbacks = pc.sum(fallback).as_py() or 0 if self._fallback else 0
        tries = pc.value_counts(accepted["attempts"]).to_pylist()
        return {
            "accepted": len(accepted),
            **{f"accepted_at_{entry['values']}": entry["counts"] for entry in tries},
            "fallback": fallbacks,
            "best_of_all": (pc.sum(alive).as_py() or 0) - len(accepted) - fallbacks,
            **counted_of(marked),
        }

    def __call__(self, docs: pa.Table) -> pa.Table:
        writer, verifier = writer_of(self.writer, self.mode == "published"), self._verifier()
        clips = self._clips(docs)

        def composed(clip: Clip) -> Composed:
            return self._composed(clip, writer, verifier)

        if isinstance(self.writer, Chat):
            asker: Asker = loaded(self.writer)
            found = asker.each(composed, clips)
        else:
            found = list(map(composed, clips))
        columns = _columns(found, verifier.name)
        template = writer.template if isinstance(writer, Remote) else None
        sources = [
            one.answer and {"model": writer.name, "template": template, "answers": [one.answer.key]} for one in found
        ]
        columns["caption_from"] = pa.array(sources, PROVENANCE)
        columns[ASKED_COLUMN] = asked_column([one.asked for one in found])
        rejected = [one.rejected for one in found]
        return drop(
            with_columns(docs, columns),
            [one and one.reason for one in rejected],
            np.array([np.nan if one is None else one.value for one in rejected]),
            np.array([np.nan if one is None else one.threshold for one in rejected]),
            [one and one.detail for one in rejected],
        )

    @property
    def _says_the_same(self) -> bool:
        """Whether the writer has one caption for a clip, so that further tries would only cost."""
        return isinstance(self.writer, Chat) and self.writer.temperature == 0

    @property
    def _attempts(self) -> int:
        return self.attempts or (1 if self._says_the_same else 2 if self.mode == "published" else 3)

    @property
    def _floor(self) -> float:
        if self.floor is not None:
            return self.floor
        if self.mode == "published":
            return -1.0
        standard = FLOORS["clap" if isinstance(self.verifier, Clap) else "evidence"]
        return standard if self.accept is None else min(standard, self.accept)

    @property
    def _fallback(self) -> bool:
        """Whether the grammar writes in a writer's place."""
        return self.mode == "default" and self.fallback != "off" and self.writer != "grammar"

    def _verifier(self) -> Verifier:
        if isinstance(self.verifier, Clap):
            return Similarity(loaded(self.verifier), self.mode == "published")
        return Evidence(1.0 if self.accept is None else self.accept)

    def _clips(self, docs: pa.Table) -> list[Clip]:
        labels, answers = docs["labels"].to_pylist(), docs["answers"].to_pylist()
        rows = zip(docs["id"].to_pylist(), known_facts(docs), labels, answers, strict=True)
        clips = [Clip(name, facts or (), tags or (), told or {}) for name, facts, tags, told in rows]
        return heard(clips, docs["payload"], loaded(self.verifier)) if isinstance(self.verifier, Clap) else clips

    def _composed(self, clip: Clip, writer: Writer, verifier: Verifier) -> Composed:
        asked: list[Answer] = []

        def write(attempt: int, by: Writer = writer) -> Draft | Rejected:
            draft = by.write(clip, attempt, asked)
            return draft if isinstance(draft, Rejected) else self._problem(draft.text, clip) or draft

        def judge(draft: Draft) -> Judged:
            return verifier.judge(clip, draft.text)

        kept, by = best_of(write, judge, self._attempts), writer.name
        if self._fallback and not (kept.best and kept.best[1].accepted):
            other = best_of(lambda attempt: write(attempt, Grammar()), judge, self._attempts)
            if other.best and (kept.best is None or other.best[1].score > kept.best[1].score):
                draft, judged = other.best
                kept, by = Kept((draft, judged._replace(accepted=False)), kept.attempts, None), Grammar.name
        if kept.best is None:
            return Composed(attempts=kept.attempts, rejected=kept.rejected, asked=asked)
        draft, judged = kept.best
        low = None if judged.score >= self._floor else Rejected("unverified", judged.score, self._floor)
        return Composed(draft.text, judged, kept.attempts, by, draft.answer, low, asked)

    def _problem(self, text: str, clip: Clip) -> Rejected | None:
        """What is wrong with a text; the script asks for no more than that there is one."""
        if self.mode == "published":
            return None if text else Rejected("empty", 0, 1)
        return lint(text, MOST_WORDS, clip.labels)


def _columns(found: Sequence[Composed], verifier: str) -> dict[str, Any]:
    return {
        "text": pa.array([one.text for one in found], pa.large_string()),
        "caption_score": pa.array([one.judged and one.judged.score for one in found], pa.float32()),
        "label_score": pa.array([one.judged and one.judged.label_score for one in found], pa.float32()),
        "attempts": pa.array([one.attempts for one in found], pa.int32()),
        "accepted": pa.array([one.judged is not None and one.judged.accepted for one in found], pa.bool_()),
        "written_by": pa.array([one.written_by for one in found], pa.string()),
        "verified_by": pa.array([verifier if one.judged else None for one in found], pa.string()),
    }
