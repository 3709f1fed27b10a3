"""The last stage of a build whose utterances become documents of speech and text (operators/tokens/interleave.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.audio_formats import AUDIO_FORMATS
from cluster.flat_formats import FLAT_FORMATS
from cluster.storage import Store
from operators.speech.units import Units
from operators.tokens.compose import NEEDS, Composer
from operators.tokens.interleave import Interleave
from operators.tokens.tokenizer import Tokenizer
from workflows.learned import Learned
from workflows.recipe import ParameterError
from workflows.stage import Stage, TokenStage


def check_interleaving(stage: Stage, formats: Sequence[str]) -> None:
    """Raises ParameterError, naming what is missing or in the way, where the stage cannot compose documents."""
    if not isinstance(stage, TokenStage) or stage.compose is None:
        return
    name = stage.compose.name
    interleave: Interleave = stage.compose.operator
    steps = [step for one in stage.chain() for step in one.steps]
    added = {column for step in steps for column in step.operator.adds}
    if missing := [column for column in ("units", "words") if column not in added]:
        made = {"units": "switch on `units`", "words": "set params.transcribe.words: true"}[missing[0]]
        raise ParameterError((name,), f"no column {missing[0]!r} of {', '.join(NEEDS)}: {made}")
    if not any(isinstance(step.operator, Tokenizer) for step in stage.steps):
        raise ParameterError((name,), "needs a tokenizer, and it is off")
    if heard := sorted(set(formats) & set(AUDIO_FORMATS)):
        raise ParameterError((name,), f"shards.formats: {heard[0]} holds audio, and documents have none")
    if interleave.masks and (flat := sorted(set(formats) & set(FLAT_FORMATS))):
        told = "has no place for what is not to be learned: use tokens_parquet or mds"
        raise ParameterError((name,), f"mode {interleave.mode}: shards.formats: {flat[0]} {told}")


@dataclass(frozen=True)
class Composing:
    """What makes a stage's documents of utterances, wherever its tokenizer comes from."""

    interleave: Interleave
    tokenizer: Learned
    clusters: int  # how many different units there are

    def composer(self, store: Store) -> Composer:
        """Ready to work, on this machine."""
        return Composer(self.interleave, self.tokenizer.step(store).operator, self.clusters)


def composing(stage: TokenStage, steps: Sequence[Learned]) -> Composing | None:
    """What makes the stage's documents, where it composes any; `steps` are its own."""
    if stage.compose is None:
        return None
    above = [step.operator for one in stage.chain() for step in one.steps]
    units: Units = next(operator for operator in above if isinstance(operator, Units))
    tokenizer = next(step for step in steps if isinstance(step.operator, Tokenizer))
    return Composing(stage.compose.operator, tokenizer, units.clusters)
