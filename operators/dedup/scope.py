"""What a build is compared with, of what earlier builds remember."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Builds = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
Scope = Literal["history", "build"] | Builds
"""`build`: nothing else. `history`: the published builds, in `nightly`. A list: these builds, by their ids."""


def recalls(scope: Scope) -> bool | tuple[str, ...]:
    """`GlobalOperator.recalls` of that scope."""
    return scope if isinstance(scope, tuple) else scope == "history"
