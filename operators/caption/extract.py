"""Three answers on a clip, to AudioSetCaps's questions (Bai et al. 2024, arXiv:2411.18953): what is heard, what the
speech is like, what the music is like.

Without a model the experts' facts answer. With one, an audio language model behind a server is asked, in one chat whose
first message holds the clip. The published chain asks everything of every clip, and models like to answer: of speech or
music that no expert has heard at all, the default does not ask, which saves calls and inventions. Answers are kept by
whoever keeps them (models/answers.py) before they are judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from operators.caption import grammar
from operators.caption.chain import QUESTIONS, Said, Told, at_once, in_turn, template
from operators.caption.facts import ANSWERS, Fact, known_facts
from operators.caption.prompts import ABSENT, TOLD
from operators.document import SCRATCH_COLUMN, Operator, drop, loaded, parameters, with_columns
from operators.models import weights
from operators.models.chat import (
    ASKED_COLUMN,
    PROVENANCE,
    Answer,
    Asker,
    Chat,
    Sound,
    Unanswered,
    asked_column,
    counted_of,
    sound_of,
)

HEARD = {"speech": ("speech", "singing"), "music": ("music", "singing")}  # sounds that a question is about
SHORTEST, LONGEST = 100, 500  # characters of the published text, for which another try is made
MISSING_COLUMN = f"{SCRATCH_COLUMN}missing"


class Extracted(NamedTuple):
    """What became of one clip. Without `said`, why: a reason and a detail."""

    said: Said | None = None
    keys: tuple[str, ...] = ()  # of the answers that it is
    missing: int = 0  # questions without an answer
    fits: bool = True  # else another try may be better
    reason: str | None = None
    detail: str | None = None


@parameters
class Extract(Operator):
    """Adds `answers` and, `answers_from`, which model's they are; null where facts answered. `model`: a server (see
    Chat). Of what it denies there is no answer.

    Mode `published` asks all three questions, up to `tries` times until the whole has from 100 to 500 characters, and
    keeps the last answers if it never has; the default asks of speech and music where `facts` know of any, or there are
    none, and again only where it got no answer. `structured` asks one question, for JSON. What stays unanswered is
    dropped or, with `fallback: facts`, answered from those. By default, a clip that has a description is kept whatever
    came of the other questions."""

    name: ClassVar[str] = "extract"
    model: Chat | None = None
    mode: Literal["default", "published"] = "default"
    structured: bool = False
    tries: Annotated[int, Field(ge=1, le=10)] | None = None  # 2; at temperature 0 of the model 1
    fallback: Literal["facts"] | None = None
    revision: Literal[1] = 1

    @model_validator(mode="after")
    def _fields_fit_together(self) -> Self:
        for name in ("mode", "structured", "tries", "fallback"):
            value = getattr(self, name)
            if self.model is None and value != type(self).__dataclass_fields__[name].default:
                raise ValueError(f"{name}: {value} has no meaning without a model")
        if self.structured and self.mode == "published":
            raise ValueError("structured: true has no meaning in mode published, which asks three questions for text")
        if self._says_the_same and self._tries > 1:
            raise ValueError(f"tries: {self._tries} at temperature 0 of the model, which says the same again")
        if self.model is not None:
            weights.needs("soundfile", "soxr")
        return self

    @property
    def _says_the_same(self) -> bool:
        """Whether further tries would only cost."""
        return self.model is not None and self.model.temperature == 0

    @property
    def _tries(self) -> int:
        return self.tries or (1 if self._says_the_same else 2)

    @property
    def needs(self) -> tuple[str, ...]:
        return (*(("payload",) if self.model else ()), *(("facts",) if self.fallback or not self.model else ()))

    @property
    def adds(self) -> tuple[str, ...]:
        return ("answers", "answers_from")

    def counted(self, marked: pa.Table) -> Mapping[str, int]:
        """What was asked, how many questions on clips that have a description got no answer, and how many clips have
        their answers from facts."""
        from_facts = pc.sum(pc.and_(pc.is_valid(marked["answers"]), pc.is_null(marked["answers_from"]))).as_py() or 0
        if self.model is None:
            return {"from_facts": from_facts}
        missing = pc.sum(marked[MISSING_COLUMN]).as_py() or 0
        return {**counted_of(marked), "unanswered": missing, "from_facts": from_facts}

    def __call__(self, docs: pa.Table) -> pa.Table:
        known = known_facts(docs)
        if self.model is None:
            return self._marked(docs, known, [Extracted(grammar.answer(facts or ())) for facts in known])
        asker: Asker = loaded(self.model)
        asked: list[list[Answer]] = [[] for _ in known]

        def of(row: int) -> Extracted:
            sound = sound_of(docs["payload"][row].as_py())
            return self._extracted(asker, sound, self._wanted(known[row]), asked[row])

        found = asker.each(of, range(docs.num_rows))
        missing = pa.array([one.missing for one in found], pa.int32())
        return with_columns(
            self._marked(docs, known, found), {ASKED_COLUMN: asked_column(asked), MISSING_COLUMN: missing}
        )

    def _wanted(self, facts: Sequence[Fact] | None) -> list[str]:
        """Names of the questions to be asked."""
        if facts is None or self.mode == "published":
            return list(QUESTIONS)
        sounds = {fact.value for fact in facts if fact.kind == "sound"}
        return [name for name in QUESTIONS if name not in HEARD or sounds & set(HEARD[name])]

    def _extracted(self, asker: Asker, sound: Sound, wanted: Sequence[str], asked: list[Answer]) -> Extracted:
        """The first try that fits, or else the last one with an answer, as the script has it. `asked` gets all that a
        server answered."""
        found = Extracted()
        for attempt in range(self._tries):
            try:
                if self.structured:
                    told = at_once(asker, sound, attempt, asked)
                else:
                    told = in_turn(asker, sound, wanted, attempt, asked, self.mode == "published")
            except Unanswered as error:
                asked += [error.answer] if error.answer else []
                found = found if found.said else Extracted(reason=error.reason, detail=str(error)[:TOLD])
                if error.reason in ("refused", "server_error"):  # which has been tried often enough
                    break
                continue
            judged = self._judged(told)
            found = judged if judged.said or not found.said else found
            if judged.said and judged.fits:
                break
        return found

    def _judged(self, told: Told) -> Extracted:
        """Without what is denied; a reason where it is no description."""
        said = told.said
        if not said["description"]:
            return Extracted(reason="malformed", detail="the answer is empty")
        length = len("\n".join(f"{name.capitalize()}: {text}" for name, text in said.items()))
        fits = self.mode == "default" or SHORTEST <= length <= LONGEST
        kept = {name: None if self._denied(name, text) else text for name, text in said.items()}
        return Extracted(kept, told.keys, told.missing, fits)

    def _denied(self, name: str, text: str | None) -> bool:
        """Whether an answer says that there is nothing to say, by the published words."""
        text = (text or "") if self.mode == "published" else (text or "").lower()
        return not text or any(word in text for word in ABSENT.get(name, ()))

    def _made_by(self, one: Extracted) -> dict[str, Any] | None:
        if self.model is None or not one.keys:
            return None
        return {"model": self.model.model, "template": template(self.structured), "answers": one.keys}

    def _marked(self, docs: pa.Table, known: Sequence[Any], found: Sequence[Extracted]) -> pa.Table:
        if self.fallback:
            found = [
                Extracted(grammar.answer(facts)) if one.said is None and facts else one
                for facts, one in zip(known, found, strict=True)
            ]
        columns = {
            "answers": pa.array([one.said for one in found], ANSWERS),
            "answers_from": pa.array([self._made_by(one) for one in found], PROVENANCE),
        }
        reasons, details = [one.reason for one in found], [one.detail for one in found]
        return drop(with_columns(docs, columns), reasons, detail=details)
