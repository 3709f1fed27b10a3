"""Who writes a caption from what is known of a clip: the grammar, a small language model, or one behind a server."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Protocol

import xxhash
from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag

from operators.caption import grammar
from operators.caption.evidence import claimable
from operators.caption.lint import Rejected
from operators.caption.prompts import (
    PROMPT,
    PUBLISHED_PROMPT,
    PUBLISHED_SYSTEM,
    SYSTEM,
    TOLD,
    Clip,
    published_turns,
    small_turns,
    turns_of,
)
from operators.document import loaded
from operators.models.chat import Answer, Asker, Chat, Unanswered, template_of
from operators.models.smollm import SmolLM
from operators.models.smollm import Writer as Small

MOST_TOKENS = 64  # of SmolLM2's caption: twice fifty words would be no caption
NO_FACTS = Rejected("no_facts", 0, 1, final=True)
TRIES, SEEDS = 32, 1 << 24  # at most, of a clip; and how many clips have seeds of their own


class Draft(NamedTuple):
    """A caption, and the answer of a server that it was taken from."""

    text: str
    answer: Answer | None = None


class Caption(BaseModel):
    """What a server is asked for."""

    caption: Annotated[str, Field(description="the caption, at most fifty words")]


class Writer(Protocol):
    """Writes captions."""

    @property
    def name(self) -> str:
        """What `written_by` says."""

    def write(self, clip: Clip, attempt: int, asked: list[Answer]) -> Draft | Rejected:
        """A caption, another for each attempt. `asked` gets what a server answered, be it of use or not."""


class Grammar:
    """See grammar.py; each clip and attempt has a variant of its own."""

    name: ClassVar[str] = "grammar"

    def write(self, clip: Clip, attempt: int, asked: list[Answer]) -> Draft | Rejected:  # noqa: ARG002
        if not claimable(clip.facts):
            return NO_FACTS
        return Draft(grammar.write(clip.facts, xxhash.xxh3_64_intdigest(clip.id.encode(), attempt)))


class SmallModel:
    """SmolLM2, with examples."""

    name: ClassVar[str] = "smollm2"

    def __init__(self, model: SmolLM) -> None:
        self._model: Small = loaded(model)

    def write(self, clip: Clip, attempt: int, asked: list[Answer]) -> Draft | Rejected:  # noqa: ARG002
        if not claimable(clip.facts):
            return NO_FACTS
        said = self._model.write(small_turns(clip), attempt, MOST_TOKENS)
        return Draft(tidy(said.partition("\n")[0]))


class Remote:
    """A model behind a server; `published`: asked as AudioSetCaps asks, for text, else for JSON."""

    def __init__(self, chat: Chat, published: bool) -> None:
        self.name, self._published, self._by_chance = chat.model, published, chat.temperature > 0
        self._asker: Asker = loaded(chat)
        self.template = template_of(*((PUBLISHED_SYSTEM, PUBLISHED_PROMPT) if published else (SYSTEM, PROMPT)))

    def write(self, clip: Clip, attempt: int, asked: list[Answer]) -> Draft | Rejected:
        if not self._published and not (claimable(clip.facts) or clip.labels or any(clip.answers.values())):
            return NO_FACTS
        turns = published_turns(clip) if self._published else turns_of(clip)
        schema = None if self._published else Caption
        # Clips of which the same is known send the same prompt: by chance they are to get other captions.
        draw = TRIES * (xxhash.xxh3_64_intdigest(clip.id.encode()) % SEEDS) if self._by_chance else 0
        try:
            answer = self._asker.ask(turns, self.template, schema, draw + attempt)
        except Unanswered as error:
            asked += [error.answer] if error.answer else []
            return Rejected(error.reason, detail=str(error)[:TOLD])
        asked.append(answer)
        return Draft(answer.text if self._published else ended(tidy(answer.value.caption)), answer)


def _backend(value: Any) -> str | None:
    """Which of the writers a recipe means."""
    if value == "grammar" or value == "smollm2":
        return str(value)
    if isinstance(value, SmolLM):
        return "smollm2"
    return "class Chat" if isinstance(value, Chat) or (isinstance(value, dict) and "endpoint" in value) else None


def _small(value: object) -> object:
    SmolLM().check()
    return SmolLM() if value == "smollm2" else value


WriterModel = Annotated[
    Annotated[Literal["grammar"], Tag("grammar")]
    | Annotated[SmolLM, BeforeValidator(_small, json_schema_input_type=Literal["smollm2"]), Tag("smollm2")]
    | Annotated[Chat, Tag("class Chat")],
    Discriminator(
        _backend,
        custom_error_type="writer",
        custom_error_message="must be grammar, smollm2 or {endpoint: URL, model: NAME}",
    ),
]
"""Field type for who writes."""


def writer_of(model: Literal["grammar"] | SmolLM | Chat, published: bool) -> Writer:
    """The writer that a recipe names."""
    if isinstance(model, Chat):
        return Remote(model, published)
    return SmallModel(model) if isinstance(model, SmolLM) else Grammar()


def tidy(text: str) -> str:
    """Without quotation marks around all of it, or line ends."""
    text = re.sub(r"\s+", " ", text).strip()
    quoted = len(text) > 2 and (text[0], text[-1]) in (('"', '"'), ("'", "'"), ("\u201c", "\u201d"))
    return text[1:-1].strip() if quoted and text[0] not in text[1:-1] else text


def ended(text: str) -> str:
    """With the full stop that small models leave out; as the JSON around it was closed, the text is whole."""
    return f"{text}." if text[-1:].isalnum() else text
