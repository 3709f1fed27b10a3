"""Raw web pages, documents and text files to clean, unique tokens.

The cascade that Yi describes (section 2.1: rules on URL, language, length, symbols and repetition, then deduplication
of documents, paragraphs, passages and meanings), with the published rule sets of Gopher, C4 and FineWeb.
"""

from __future__ import annotations

from operators.dedup.decontaminate import Decontaminate
from operators.dedup.exact import ExactDedup
from operators.dedup.lines import LineDedup
from operators.dedup.minhash import MinHashDedup
from operators.dedup.semantic import SemanticDedup
from operators.dedup.substring import ExactSubstring
from operators.dedup.unique_id import UniqueId
from operators.selection.only_ids import OnlyIds
from operators.selection.select import Select
from operators.text.c4 import C4
from operators.text.extract import Extract
from operators.text.fineweb import FineWeb
from operators.text.gopher_quality import GopherQuality
from operators.text.gopher_repetition import GopherRepetition
from operators.text.language import Language
from operators.text.normalize import Normalize
from operators.text.url_filter import UrlFilter
from operators.tokens.pack import Pack
from operators.tokens.tokenizer import Tokenizer
from workflows.recipe import Params
from workflows.stage import Stage, TokenStage


def text(params: Params) -> Stage:
    """Pages to token shards, in four durable stages, and one more where documents are selected."""
    use = params.use
    pages = Stage("read", None, (use(UrlFilter), use(Extract), use(Normalize)))
    # C4's rule on terminal punctuation removes most lists and tables; FineWeb measured that leaving it out is better.
    c4 = use(C4, require_terminal_punctuation=False)
    rules = (use(Language), use(GopherRepetition), use(GopherQuality), c4, use(FineWeb))
    clean = Stage("clean", pages, (use(OnlyIds, default="off"), *rules))
    unique = Stage(
        "dedup",
        clean,
        (
            UniqueId(),
            use(ExactDedup, "exact_dedup_url", default="off", field="url"),
            use(ExactDedup),
            use(LineDedup, default="off"),
            use(MinHashDedup),
            use(ExactSubstring, default="off"),
            use(SemanticDedup, default="off"),
            use(Decontaminate, default="off"),
        ),
    )
    chosen = unique.then(
        "select",
        use(Select, "select_quality", default="off", by="quality_score", keep=0.1),
        use(Select, default="off"),
    )
    return TokenStage("tokens", chosen, (use(Tokenizer),), pack=use(Pack))
