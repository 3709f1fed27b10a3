"""What is known of a clip, and how language models are asked for a caption of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from operators.caption.evidence import claimable
from operators.caption.facts import Fact
from operators.caption.grammar import NAMES, listed, names
from operators.caption.vocabulary import SAID
from operators.models import smollm
from operators.models.chat import Turn

SMALL_SYSTEM = "You turn facts about a sound into one plain sentence. Use only the facts."
SMALL_SHOTS = (
    ("a woman speaking in German", "A woman speaks in German."),
    ("a woman speaking in Greek clearly", "A woman speaks clearly in Greek."),
    ("fast rock music with an electric bass", "Fast rock music plays with an electric bass."),
    ("slow music with a harp", "Slow music plays, in which a harp can be heard."),
    (
        "a man speaking in Polish; folk music with a violin",
        "A man speaks in Polish while folk music with a violin plays in the background.",
    ),
    ("somebody speaking in Dutch; music", "Somebody speaks in Dutch while music plays in the background."),
    ("somebody speaking; silence", "Somebody speaks, and there is silence."),
    ("music", "Music plays."),
    ("a series of short sounds", "A series of short sounds is heard."),
    ("a steady hum, high-pitched", "A steady, high-pitched hum is heard."),
    ("a steady noise", "A steady noise is heard."),
)
SYSTEM = (
    "You write captions for sounds that you cannot hear, from what others noted down about them. You use only their "
    "notes, and where they disagree, what was measured. You never guess."
)
PROMPT = """What a listener said:
{answers}
What was measured: {facts}
What people tagged it with: {labels}

Write one caption of at most fifty words that says what can be heard, in plain English sentences.
Name all that was measured. Do not mention what is said, only that somebody speaks, who, and in which language.
Do not quote the tags or list them. Do not mention that there are notes, tags, measurements or numbers."""
PUBLISHED_SYSTEM = (
    "I'm currently doing crowd-sourced labeling of audio data. I want you to act as a professional worker to write the "
    "final caption for the audio. The most important thing is to follow my instructions! Now, let's get started."
)
_INDENT = " " * 24  # the lines of the script's prompt are continued so
PUBLISHED_PROMPT = (
    "Details:\n1 Crowd-sourced workers:{{{answers}}}\n2 The ground truth labels:{{{labels}}}\nMy instructions:\n"
    f"{_INDENT}Do not mention the specific content of speech! Do not mention the specific content of speech!"
    f"{_INDENT}Do not output the ground truth labels in the caption!"
    " Do not output the ground truth labels in the caption!"
    f"{_INDENT}\nOutput your caption (Within 50 words):"
)
TOLD = 200  # characters of why a server gave no answer
ABSENT = {"speech": ("no speech", "does not", "is not"), "music": ("no music", "does not", "is not")}  # in answers


class Clip(NamedTuple):
    """What is known of a clip."""

    id: str
    facts: Sequence[Fact]
    labels: Sequence[str]
    answers: Mapping[str, str | None]  # to the three questions
    sound: Any = None  # its embedding, where the verifier compares it


def small_turns(clip: Clip) -> list[smollm.Turn]:
    """A small model is shown how others were done."""
    turns: list[smollm.Turn] = [("system", SMALL_SYSTEM)]
    for facts, caption in SMALL_SHOTS:
        turns += [("user", f"Facts: {facts}"), ("assistant", caption)]
    return [*turns, ("user", f"Facts: {noted(clip.facts)}.")]


def noted(facts: Sequence[Fact]) -> str:
    """Facts that may be claimed, as notes: "a man speaking in French; slow jazz music with piano"."""
    said: dict[str, list[str]] = {}
    for fact in claimable(facts):
        said.setdefault(fact.kind, []).append(fact.value)
    sounds, notes = said.get("sound", []), []
    if doing := [word for sound, word in (("speech", "speaking"), ("singing", "singing")) if sound in sounds]:
        genders = sorted(said.get("gender", []), reverse=True)  # "male" first
        who = listed([SAID["gender", gender][0] for gender in genders]) or "somebody"
        tongues = [f"in {SAID['language', code][0]}" for code in said.get("language", [])]
        how = [{"clean": "clearly", "noisy": "over background noise"}[quality] for quality in said.get("quality", [])]
        notes.append(" ".join([who, listed(doing), *tongues, *how]))
    instruments = [SAID["instrument", one][0] for one in said.get("instrument", [])]
    if "music" in sounds:
        kind = [*said.get("tempo", []), *([listed(said["genre"])] if "genre" in said else []), "music"]
        notes.append(" ".join([*kind, *([f"with {listed(instruments)}"] if instruments else [])]))
    elif instruments:
        notes.append(f"the sound of {listed(instruments)}")
    if "event" in said:
        pitch = [f"{pitch}-pitched" for pitch in said.get("pitch", [])]
        notes.append(", ".join([listed([f"a {NAMES[event]}" for event in said["event"]]), *pitch]))
    if "silence" in sounds:
        notes.append("silence")
    return "; ".join(notes) or "nothing"


def turns_of(clip: Clip) -> list[Turn]:
    """The question of mode default."""
    told = "\n".join(f"{name}: {text}" for name, text in clip.answers.items() if text) or "nothing"
    labels = ", ".join(clip.labels) or "nothing"
    prompt = PROMPT.format(answers=told, facts=noted(clip.facts) if clip.facts else "nothing", labels=labels)
    return [Turn("system", (SYSTEM,)), Turn("user", (prompt,))]


def published_turns(clip: Clip) -> list[Turn]:
    """AudioSetCaps's: an answer that has one of the words ABSENT is left out."""
    lines = [f"Description: {clip.answers.get('description') or ''}\n"]
    for name, end in (("speech", "\n"), ("music", "")):
        line = f"{name.capitalize()}: {text}{end}" if (text := clip.answers.get(name)) else ""
        lines.append("" if any(word in line for word in ABSENT[name]) else line)
    prompt = PUBLISHED_PROMPT.format(answers="".join(lines), labels=label_text(clip))
    return [Turn("system", (PUBLISHED_SYSTEM,)), Turn("user", (prompt,))]


def label_text(clip: Clip) -> str:
    """The labels as AudioSetCaps's tables have them; of a clip that has none, the names of its sounds."""
    return ", ".join(clip.labels or names(clip.facts))
