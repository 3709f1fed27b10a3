"""AudioSetCaps's questions to a model that listens (Bai et al. 2024, arXiv:2411.18953), and ours that is all in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, Field

from operators.models.chat import Answer, Asker, Sound, Turn, template_of

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


class Answers(BaseModel):
    """All three."""

    description: Annotated[str, Field(min_length=1)]
    speech: str | None
    music: str | None


def template(structured: bool) -> str:
    """The name of the prompts."""
    return template_of(AT_ONCE) if structured else template_of(*QUESTIONS.values())


def in_turn(asker: Asker, sound: Sound, wanted: Sequence[str], attempt: int, asked: list[Answer]) -> Said:
    """The answers to the questions `wanted`, asked in one chat; `asked` gets each as it comes. Raises Unanswered."""
    said: Said = dict.fromkeys(QUESTIONS)
    turns: list[Turn] = []
    for name in wanted:
        turns.append(Turn("user", (QUESTIONS[name],) if turns else (sound, QUESTIONS[name])))
        answer = asker.ask(turns, template(structured=False), attempt=attempt)
        asked.append(answer)
        turns.append(Turn("assistant", (answer.text,)))
        said[name] = answer.text
        if not said["description"]:  # there is nothing to go on from
            break
    return said


def at_once(asker: Asker, sound: Sound, attempt: int, asked: list[Answer]) -> Said:
    """The same by one question, for JSON."""
    answer = asker.ask([Turn("user", (sound, AT_ONCE))], template(structured=True), Answers, attempt)
    asked.append(answer)
    value: Answers = answer.value
    return value.model_dump()
