"""What the report tells of captions: how many tries they took, what was heard, and what servers were asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from operators.caption.compose import Compose
from operators.caption.facts import KINDS
from operators.caption.listen import Facts
from workflows.stage import Manifest

ASKED = ("calls", "cached", "prompt_tokens", "completion_tokens")
ACCEPTED = "accepted_at_"
FATES = {"best_of_all": "the best of all tries", "fallback": "written by the grammar instead"}


class Share(NamedTuple):
    """Clips of which something is true."""

    what: str
    clips: int


class Asked(NamedTuple):
    """What an operator asked a server; tokens are those of calls."""

    operator: str
    calls: int
    cached: int
    prompt_tokens: int
    completion_tokens: int


class Captions(NamedTuple):
    writer: str
    verifier: str
    clips: int  # that captions were written for
    fates: list[Share]
    heard: list[tuple[str, list[Share]]]  # by kind of fact
    asked: list[Asked]


def captions_of(stages: Sequence[Manifest]) -> Captions | None:
    """None for a build without captions."""
    operators = {one["name"]: one for stage in stages for one in stage["operators"]}
    parameters = {step["name"]: step["parameters"] for stage in stages for step in stage["steps"]}
    composed = operators.get(Compose.name)
    if composed is None or "caption_score" not in composed["measured"]:
        return None
    heard = operators.get(Facts.name, {"counted": {}})["counted"]
    return Captions(
        writer=_named(parameters[Compose.name]["writer"]),
        verifier=_named(parameters[Compose.name]["verifier"]),
        clips=composed["rows_in"],
        fates=list(_fates(composed)),
        heard=[(kind, found) for kind in KINDS if (found := _heard(kind, heard))],
        asked=[
            Asked(name, *(one["counted"][key] for key in ASKED))
            for name, one in operators.items()
            if set(ASKED) <= one["counted"].keys() and (one["counted"]["calls"] or one["counted"]["cached"])
        ],
    )


def _named(model: Any) -> str:
    """A backend as a manifest has it."""
    if isinstance(model, Mapping):
        return str(model.get("model") or model.get("type"))
    return str(model)


def _fates(composed: Manifest) -> Iterator[Share]:
    counted = composed["counted"]
    tries = sorted(int(name.removeprefix(ACCEPTED)) for name in counted if name.startswith(ACCEPTED))
    yield from (Share(f"accepted at try {number}", counted[f"{ACCEPTED}{number}"]) for number in tries)
    yield from (Share(told, counted[name]) for name, told in FATES.items() if counted.get(name))
    yield from (Share(f"dropped: {reason.partition('/')[2]}", n) for reason, n in composed["dropped"].items())


def _heard(kind: str, counted: Mapping[str, int]) -> list[Share]:
    """The facts of a kind that may be told, most clips first."""
    found = [Share(name.partition("/")[2], n) for name, n in counted.items() if name.startswith(f"{kind}/")]
    return sorted(found, key=lambda one: (-one.clips, one.what))
