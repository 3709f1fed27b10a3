"""AudioSetCaps's questions to a model that listens (Bai et al. 2024, arXiv:2411.18953), and ours that is all in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple

from pydantic import BaseModel, Field

from operators.models.chat import Answer, Asker, Sound, Turn, Unanswered, template_of

QUESTIONS = {
    "description": "Describe this audio according to the sounds in it within 50 words.",
    "speech": (
        "Based on the QAs, give some information about the speech, such as the emotion of the speaker, the gender of "
        "the speaker, and the spoken language, only if speech is present in this audio."
    ),
    "music": (
        "Based on the QAs, give some information about the music, such as music genre and music instruments, only if "
        "music is present in this audio."
    ),
}
AT_ONCE = (
    "Describe this audio according to the sounds in it within 50 words. If speech is present in this audio, give some "
    "information about the speech, such as the emotion of the speaker, the gender of the speaker, and the spoken "
    "language, else null. If music is present in this audio, give some information about the music, such as music "
    "genre and music instruments, else null."
)

Said = dict[str, str | None]  # by the names of QUESTIONS


class Told(NamedTuple):
    """What a model said of a clip."""

    said: Said
    keys: tuple[str, ...]  # of the answers that it is
    missing: int = 0  # questions that got no answer, or an empty one


class Answers(BaseModel):
    """All three."""

    description: Annotated[str, Field(min_length=1)]
    speech: str | None
    music: str | None


def template(structured: bool) -> str:
    """The name of the prompts."""
    return template_of(AT_ONCE) if structured else template_of(*QUESTIONS.values())


def in_turn(asker: Asker, sound: Sound, wanted: Sequence[str], attempt: int, asked: list[Answer], whole: bool) -> Told:
    """The answers to the questions `wanted`, asked in one chat; `asked` gets each as it comes. What is answered by
    nothing does not enter the chat, as servers refuse empty messages. Raises Unanswered, for the description or, if
    the `whole` has to be answered, for any of them."""
    said: Said = dict.fromkeys(QUESTIONS)
    turns: list[Turn] = []
    keys: list[str] = []
    for name in wanted:
        question = Turn("user", (QUESTIONS[name],) if turns else (sound, QUESTIONS[name]))
        try:
            answer = asker.ask([*turns, question], template(structured=False), attempt=attempt)
        except Unanswered as error:
            if whole or not turns:
                raise
            asked += [error.answer] if error.answer else []
            continue
        asked.append(answer)
        said[name] = answer.text
        if answer.text:
            turns += [question, Turn("assistant", (answer.text,))]
            keys.append(answer.key)
        elif not turns:  # there is nothing to go on from
            break
    return Told(said, tuple(keys), sum(not said[name] for name in wanted))


def at_once(asker: Asker, sound: Sound, attempt: int, asked: list[Answer]) -> Told:
    """The same by one question, for JSON."""
    answer = asker.ask([Turn("user", (sound, AT_ONCE))], template(structured=True), Answers, attempt)
    asked.append(answer)
    value: Answers = answer.value
    return Told(value.model_dump(), (answer.key,))
