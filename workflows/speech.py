"""Raw recordings to transcribed utterances: Emilia-Pipe (He et al. 2024, arXiv 2407.05361, section 3).

The six steps of the paper's figure 1, in its order: standardise, separate the voice from music, diarise, segment by
voice activity, transcribe, filter. Recordings travel as references until they are cut; what is cut carries its audio.
Ours separates only where there is music, merges without loss, drops what two speakers say at once, and judges the pace
of speech by language; `mode: emilia` of each step is the published behaviour. With separation, diarisation and
transcription off it is the curation of IndicWav2Vec (Javed et al. 2021, arXiv 2111.03945, section 3.1).
"""

from __future__ import annotations

from typing import Any, Literal

from operators.dedup.exact import ExactDedup
from operators.dedup.unique_id import UniqueId
from operators.speech.diarise import Diarise
from operators.speech.dnsmos import Dnsmos
from operators.speech.filter import SpeechFilter
from operators.speech.segment import Segment
from operators.speech.separate import Separate
from operators.speech.snr import Snr
from operators.speech.standardise import Standardise
from operators.speech.transcribe import Transcribe
from operators.speech.units import Units
from operators.speech.vad import Vad
from operators.tokens.interleave import Interleave
from operators.tokens.pack import Pack
from operators.tokens.tokenizer import Tokenizer
from workflows.recipe import ParameterError, Params
from workflows.stage import Stage, TokenStage


def speech(params: Params) -> Stage:
    """Recordings to shards of utterances, in four durable stages."""
    use = params.use
    said = params.said("segment")
    whose: Literal["on", "off"] = "off" if said.get("mode") == "chunks" else "on"  # chunks have no speakers
    limits: dict[str, Any] = {key: said[key] for key in ("min_seconds", "max_seconds") if said.get(key) is not None}
    steps = (use(Standardise), use(Separate), use(Vad), use(Diarise, default=whose), use(Segment), use(Snr))
    for operator, step in ((Standardise, steps[0]), (Segment, steps[4])):
        if step is None:
            raise ParameterError((operator.name,), "without it there are no utterances: it cannot be off")
    cut = Stage("segment", None, steps)
    transcribe = use(Transcribe)
    spoken: Literal["on", "off"] = "on" if transcribe else "off"  # without words there is nothing to tell apart by them
    dnsmos = use(Dnsmos)
    heard = cut.then("transcribe", transcribe, dnsmos, use(Units, default="off"))
    limits |= {} if dnsmos else {"min_dnsmos": None}
    limits |= {} if transcribe else {"min_characters": None, "per": None}
    kept = Stage(
        "filter",
        heard,
        (
            UniqueId(),
            use(ExactDedup, "exact_dedup_audio", field="audio_key"),  # the same recording under two names
            use(SpeechFilter, **limits),
            use(ExactDedup, "exact_dedup_utterance", default=spoken, field="utterance_key", normalize="words"),
        ),
    )
    tokenize = use(Tokenizer, default=spoken)
    if tokenize and not transcribe:
        raise ParameterError(("tokenizer",), "there is no text to encode with `transcribe: off`")
    return TokenStage("tokens", kept, (tokenize,), pack=use(Pack), compose=use(Interleave, default="off"))
