"""Raw web pages, documents and text files to clean, unique, chosen tokens.

The cascade that Yi describes (arXiv 2403.04652, section 2.1): rules on URL, language, length, symbols and repetition,
with the published sets of Gopher, C4 and FineWeb or bounds of one's own; rule-based correction; learned scorers of
perplexity, quality, coherence and safety; deduplication of documents, paragraphs, passages and meanings; clusters of
topics. Scorers run on what the rules leave; what they say is acted on after deduplication, so that no budget is spent
on copies. A language model may say again what is left (WRAP, arXiv 2401.16380), which so is asked about nothing that
goes, and In-Context Pretraining (arXiv 2310.10638) may give it an order.
"""

from __future__ import annotations

from operators.dedup.decontaminate import Decontaminate
from operators.dedup.exact import ExactDedup
from operators.dedup.lines import LineDedup
from operators.dedup.minhash import MinHashDedup
from operators.dedup.semantic import SemanticDedup
from operators.dedup.substring import ExactSubstring
from operators.dedup.unique_id import UniqueId
from operators.ordering.order import Order
from operators.selection.only_ids import OnlyIds
from operators.selection.select import Select
from operators.selection.topic import Topic
from operators.text.c4 import C4
from operators.text.coherence import Coherence
from operators.text.correct import Correct
from operators.text.embed import Embed
from operators.text.extract import Extract
from operators.text.fineweb import FineWeb
from operators.text.gopher_quality import GopherQuality
from operators.text.gopher_repetition import GopherRepetition
from operators.text.language import Language
from operators.text.normalize import Normalize
from operators.text.perplexity import Perplexity
from operators.text.pii import Pii
from operators.text.quality import Quality
from operators.text.rewrite import Rewrite
from operators.text.segmenting import Segment
from operators.text.text_rules import TextRules
from operators.text.toxicity import Toxicity
from operators.text.url_filter import UrlFilter
from operators.tokens.pack import Pack
from operators.tokens.tokenizer import Tokenizer
from workflows.order import in_windows
from workflows.recipe import Params
from workflows.stage import Stage, TokenStage


def text(params: Params) -> Stage:
    """Pages to token shards, in four durable stages, and further ones for embeddings, likeness, selection, rewriting,
    order."""
    use = params.use
    pages = Stage("read", None, (use(UrlFilter), use(Extract), use(Normalize)))
    clean = Stage(
        "clean",
        pages,
        (
            use(Language),
            use(GopherRepetition),
            use(GopherQuality),
            use(Correct, default="off"),
            # C4's rule on terminal punctuation removes most lists and tables; FineWeb measured that none is better.
            use(C4, require_terminal_punctuation=False),
            use(FineWeb),
            use(TextRules, default="off"),
            use(Segment, default="off"),
            use(OnlyIds, default="off"),  # lists name the parts of segmented documents
            use(Pii, default="off"),
            use(Perplexity, default="off"),
            use(Quality, default="off"),
            use(Quality, "preselect", default="off", column="preselect_score", label="predictive_strength"),
            use(Coherence, default="off"),
            use(Toxicity, default="off"),
        ),
    )
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
            use(Decontaminate, default="off"),
        ),
    )
    distinct = unique.then("embed", use(Embed, default="off")).then("semantic", use(SemanticDedup, default="off"))
    chosen = distinct.then(
        "select",
        use(Topic, default="off"),
        use(
            Select,
            "select_perplexity",
            default="off",
            by="perplexity",
            prefer="lowest",
            keep=0.6,
            per="language",
            missing="keep",
        ),
        use(Select, "select_coherence", default="off", by="coherence_score", min=0.1, missing="keep"),
        use(Select, "select_toxicity", default="off", by="toxicity_score", prefer="lowest", max=0.5, missing="keep"),
        use(Select, "select_topic", default="off", per="topic", missing="keep"),
        use(Select, "select_quality", default="off", by="quality_score", keep=0.1),
        use(Select, default="off"),
    )
    rewritten = chosen.then("rewrite", use(Rewrite, default="off"))
    ordered = rewritten.then("order", use(Order, default="off"))
    pack = use(Pack) if ordered is rewritten else in_windows(params)
    return TokenStage("tokens", ordered, (use(Tokenizer),), pack=pack)
