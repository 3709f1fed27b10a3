"""Questions about a clip and their answers, as AudioSetCaps has some three of to a caption: from what is known of the
clip, or by a language model that reads its caption.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from pydantic import BaseModel, Field

from operators.caption.evidence import Claim, claimable, claims, consistency, due
from operators.caption.facts import Fact, known_facts
from operators.caption.grammar import listed, write
from operators.caption.vocabulary import SAID
from operators.document import SCRATCH_COLUMN, Operator, loaded, parameters, with_columns
from operators.models.chat import (
    ASKED_COLUMN,
    Answer,
    Asker,
    Chat,
    Turn,
    Unanswered,
    asked_column,
    counted_of,
    template_of,
)

QA = pa.list_(pa.struct([("question", pa.string()), ("answer", pa.string())]))
MISSED_COLUMN = f"{SCRATCH_COLUMN}missed"  # of a server's pairs, those left out; and whether there were none at all
MISSED = pa.struct([("unsupported", pa.int32()), ("unanswered", pa.bool_())])
NO = "No."
YES_OR_NO = re.compile(r"(?:(yes|yeah|yep|correct|indeed)|no|nope)\b[,.! ]*", re.IGNORECASE)
MOST_LETTERS = 300  # of a question or an answer
SYSTEM = (
    "You write questions about sounds, with their answers, for people who hear a sound and do not see its description. "
    "You use nothing but the description."
)
PROMPT = """Description: {caption}

Write {most} different questions that this description answers, and the answers. Ask about what is heard, and not about
the description. Answer in a few words or one short sentence, in plain English."""
TEMPLATE = template_of(SYSTEM, PROMPT)


class Pair(BaseModel):
    """A question and its answer."""

    question: str
    answer: str


class Pairs(BaseModel):
    """What a server is asked for."""

    pairs: list[Pair]


class Found(NamedTuple):
    """Of a clip: pairs, how many of a server's were left out, whether it failed, and what it answered."""

    pairs: Sequence[Pair]
    unsupported: int = 0
    unanswered: bool = False
    answers: Sequence[Answer] = ()


@parameters
class Questions(Operator):
    """Adds `qa`, at most `most` questions with their answers, perhaps none. `writer`: unset, they are made from facts
    that are certain; else a server (see Chat) makes them from the caption, and those that claim more than facts and
    caption do, in the question or in the answer, are left out. Where it gives no answer, they are made from facts."""

    name: ClassVar[str] = "questions"
    writer: Chat | None = None
    most: Annotated[int, Field(ge=1, le=10)] = 3
    revision: Literal[1] = 1

    @property
    def needs(self) -> tuple[str, ...]:
        return ("text", *(() if self.writer else ("facts",)))

    @property
    def adds(self) -> tuple[str, ...]:
        return ("qa",)

    def counted(self, marked: pa.Table) -> Mapping[str, int]:
        """Pairs, clips without any, a server's pairs left out, clips that it did not answer for, and what it was
        asked."""
        pairs, missed = pc.list_value_length(marked["qa"]), marked[MISSED_COLUMN]
        return {
            "pairs": pc.sum(pairs).as_py() or 0,
            "without_pairs": pc.sum(pc.equal(pairs, 0)).as_py() or 0,
            **{field.name: pc.sum(pc.struct_field(missed, field.name)).as_py() or 0 for field in MISSED},
            **counted_of(marked),
        }

    def __call__(self, docs: pa.Table) -> pa.Table:
        known = (facts or () for facts in known_facts(docs))
        rows = list(zip(docs["id"].to_pylist(), docs["text"].to_pylist(), known, strict=True))
        if self.writer is None:
            found = [Found(from_facts(name, facts, self.most)) for name, _, facts in rows]
        else:
            asker: Asker = loaded(self.writer)
            found = asker.each(lambda row: self._asked(asker, *row), rows)
        columns = {
            "qa": pa.array([[pair.model_dump() for pair in one.pairs] for one in found], QA),
            MISSED_COLUMN: pa.array(
                [{"unsupported": one.unsupported, "unanswered": one.unanswered} for one in found], MISSED
            ),
            ASKED_COLUMN: asked_column([one.answers for one in found]),
        }
        return with_columns(docs, columns)

    def _asked(self, asker: Asker, name: str, caption: str, facts: Sequence[Fact]) -> Found:
        turns = [Turn("system", (SYSTEM,)), Turn("user", (PROMPT.format(caption=caption, most=self.most),))]
        try:
            answer = asker.ask(turns, TEMPLATE, Pairs)
        except Unanswered as error:
            answers = [error.answer] if error.answer else []
            return Found(from_facts(name, facts, self.most), unanswered=True, answers=answers)
        granted = claims(caption)
        kept = [pair for pair in answer.value.pairs if supported(pair, facts, granted)]
        return Found(kept[: self.most], len(answer.value.pairs) - len(kept), answers=[answer])


def from_facts(name: str, facts: Sequence[Fact], most: int) -> list[Pair]:
    """At most so many pairs that the facts answer for certain, no more than one of them with "no", chosen and worded by
    the clip's name."""

    def drawn(options: Sequence[str], seed: int) -> int:
        return xxhash.xxh3_64_intdigest((name + options[0]).encode(), seed)

    known = sorted(_known(facts), key=lambda known: drawn(known[0], 0))
    denied = [answers for _, answers in known if answers[0] == NO]
    known = [(asked, answers) for asked, answers in known if answers not in denied[1:]]
    return [
        Pair(question=asked[drawn(asked, 1) % len(asked)], answer=answers[drawn(answers, 2) % len(answers)])
        for asked, answers in known[:most]
    ]


def _known(facts: Sequence[Fact]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Ways to ask, and to answer."""
    told: dict[str, list[str]] = {}
    for fact in due(facts):
        told.setdefault(fact.kind, []).append(fact.value)
    sounds = told.get("sound", [])
    doubtful = {fact.value for fact in facts if fact.kind == "sound"}
    for sound, asked, yes, no in (
        ("speech", ("Is anyone speaking?", "Can speech be heard?"), "somebody speaks", "nobody speaks"),
        ("singing", ("Does anyone sing?", "Is there any singing?"), "somebody sings", "nobody sings"),
        ("music", ("Is there music?", "Can music be heard?"), "music plays", "there is no music"),
    ):
        if sound in sounds or (told and sound not in doubtful):  # of what no expert has heard at all
            yield asked, ("Yes.", f"Yes, {yes}.") if sound in sounds else (NO, f"No, {no}.")
    for gender in [told.get("gender", [])]:
        who = listed([SAID["gender", one][0] for one in sorted(gender, reverse=True)])
        if gender and "speech" in sounds:
            yield ("Who is speaking?", "Who can be heard speaking?"), (f"{who.capitalize()}.",)
        elif gender:
            yield ("Who is singing?", "Who can be heard singing?"), (f"{who.capitalize()}.",)
    if "language" in told:
        tongues = listed([SAID["language", code][0] for code in told["language"]])
        yield (
            ("Which language is spoken?", "What language can be heard?"),
            (f"{tongues}.", f"The speech is in {tongues}."),
        )
    for quality in told.get("quality", []):
        yield ("Is the speech clean or noisy?", "How is the speech recorded?"), (f"It is {quality}.",)
    for tempo in told.get("tempo", []):
        yield (
            ("Is the music slow or fast?", "What is the tempo of the music?"),
            (f"{tempo.capitalize()}.", f"It is {tempo}."),
        )
    if "genre" in told:
        genres = listed(told["genre"])
        yield (
            ("What kind of music is it?", "What is the genre of the music?"),
            (f"{genres.capitalize()}.", f"It is {genres} music."),
        )
    if "instrument" in told:
        instruments = listed([SAID["instrument", one][0] for one in told["instrument"]])
        yield ("Which instruments can be heard?", "What is played?"), (f"{instruments.capitalize()}.",)
    if "event" in told:
        events = [fact for fact in due(facts) if fact.kind in ("event", "pitch")]
        yield (
            ("What kind of sound is heard?", "How does it sound?"),
            tuple(write(events, variant) for variant in (0, 1, 2)),
        )


def supported(pair: Pair, facts: Sequence[Fact], granted: Collection[Claim] = ()) -> bool:
    """Whether a pair is one, and claims no more than is known: a "yes" what its question asks for, a "no" that some of
    it is not there, and any other answer what it says itself, of what its question takes for granted."""
    question, answer = pair.question.strip(), pair.answer.strip()
    if not all(0 < len(text) <= MOST_LETTERS for text in (question, answer)):
        return False
    asked = consistency(question, facts, granted)
    wrong = [claim for claim in asked.unsupported if not _a_choice(question, claim, asked.unsupported)]
    polar = YES_OR_NO.match(answer)
    rest = consistency(answer[polar.end() :] if polar else answer, facts, granted)
    if rest.unsupported:
        return False
    if polar and not polar[1]:
        return any(_may_be_denied(claim, facts, granted) for claim in wrong)
    return not wrong and (asked.score if polar else rest.score) > 0


def _a_choice(question: str, claim: Claim, wrong: Collection[Claim]) -> bool:
    """Whether a claim is one of several that a question lets choose from, another of which is right: "slow or fast"."""
    others = [other for other in claims(question) if other.kind == claim.kind and other != claim]
    return " or " in question and any(other not in wrong for other in others)


def _may_be_denied(claim: Claim, facts: Sequence[Fact], granted: Collection[Claim]) -> bool:
    """Whether it is known that something is not there: the caption says so, or experts, who always listen for sounds,
    have heard something and none of it, or, of another kind, something else."""
    if claim._replace(present=False) in granted:
        return True
    if not claim.present or any(fact[:2] == claim[:2] for fact in facts):
        return False
    return any(claim.kind in ("sound", fact.kind) for fact in claimable(facts))
