"""Any audio to clips with captions that were checked against what is heard: AudioSetCaps (Bai et al. 2024,
arXiv:2411.18953).

The three steps of the paper's figure: an audio language model answers a chain of questions, a language model writes the
caption, and what does not fit the audio is written again. Experts that listen (speech, music, language, voice,
instruments) give the same answers without a server, and facts that captions are checked against. Copies and clips of
evaluation sets go before anything is listened to, so that nobody is paid for them.
"""

from __future__ import annotations

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
from operators.speech.standardise import Standardise
from operators.tokens.pack import Pack
from operators.tokens.tokenizer import Tokenizer
from workflows.recipe import ParameterError, Params
from workflows.stage import Stage, TokenStage


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
    for operator in (Standardise, Clip, Compose):
        if operator.name not in {step.name for stage in told.chain() for step in stage.steps}:
            raise ParameterError((operator.name,), "without it there are no captions: it cannot be off")
    return TokenStage("tokens", told, (use(Tokenizer),), pack=use(Pack))
