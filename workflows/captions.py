"""Any audio to clips with captions that were checked against what is heard: AudioSetCaps (Bai et al. 2024,
arXiv:2411.18953).

The three steps of the paper's figure: an audio language model answers a chain of questions, a language model writes the
caption, and what does not fit the audio is written again. Experts that listen (speech, music, language, voice,
instruments) give the same answers without a server, and facts that captions are checked against. Copies and clips of
evaluation sets go before anything is listened to, so that nobody is paid for them.
"""

from __future__ import annotations

from collections.abc import Sequence

from operators.apply import Step
from operators.caption.clip import Clip
from operators.caption.compose import Compose
from operators.caption.decontaminate import DecontaminateClips
from operators.caption.decontaminate_audio import DecontaminateAudio
from operators.caption.extract import Extract
from operators.caption.fingerprint import Fingerprint
from operators.caption.label import Label
from operators.caption.listen import Facts
from operators.caption.questions import Questions
from operators.dedup.exact import ExactDedup
from operators.dedup.similar_audio import SimilarAudio
from operators.dedup.unique_id import UniqueId
from operators.document import Operator
from operators.speech.standardise import Standardise
from operators.tokens.pack import Pack
from operators.tokens.tokenizer import Tokenizer
from workflows.recipe import ParameterError, Params
from workflows.stage import Stage, TokenStage

# Operators that cannot be off, and what makes that no burden.
ALWAYS: dict[type[Operator], str] = {
    Standardise: "",
    Clip: "",
    Label: ", and without a `file` it adds no labels",
    Extract: ", and without a `model` it asks nobody",
    Compose: "",
}
# Operators that can, the column that is missing then, and how those that need it do without.
WITHOUT: dict[type[Operator], tuple[str, dict[type, str]]] = {
    Fingerprint: ("fingerprint", {SimilarAudio: "off, too", DecontaminateAudio: "left out"}),
    Facts: (
        "facts",
        {
            Extract: "with a `model` and no `fallback`",
            Compose: "with a server as `writer`, CLAP as `verifier` and `fallback: off`",
            Questions: "with a server as `writer`, or off",
        },
    ),
}


def captions(params: Params) -> Stage:
    """Recordings to shards of clips and captions, in five durable stages."""
    use = params.use
    cut = Stage(
        "clip",
        None,
        (
            use(DecontaminateClips, default="off"),
            use(Standardise),
            use(Clip),
            use(Label),
            use(Fingerprint),
            use(DecontaminateAudio, default="off"),
        ),
    )
    distinct = Stage(
        "unique",
        cut,
        (
            UniqueId(),
            use(ExactDedup, "exact_dedup_audio", field="audio_key"),  # the same recording under two names
            use(SimilarAudio),
        ),
    )
    heard = distinct.then("listen", use(Facts), use(Extract))
    told = Stage("caption", heard, (use(Compose), use(Questions)))
    _check_off([step for stage in told.chain() for step in stage.steps])
    return TokenStage("tokens", told, (use(Tokenizer),), pack=use(Pack))


def _check_off(steps: Sequence[Step]) -> None:
    """Raises ParameterError for an operator that is off where the others need it."""
    on = {step.name for step in steps}
    for operator, also in ALWAYS.items():
        if operator.name not in on:
            raise ParameterError((operator.name,), f"without it there are no captions: it cannot be off{also}")
    for operator, (column, otherwise) in WITHOUT.items():
        needing = [step.operator for step in steps if operator.name not in on and column in step.operator.needs]
        if needing:
            told = "; ".join(f"{one.name} {otherwise[type(one)]}" for one in needing)
            names = ", ".join(one.name for one in needing)
            message = f"off, which leaves {names} without `{column}`: leave it on, or do without: {told}"
            raise ParameterError((operator.name,), message)
