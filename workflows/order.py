"""Documents, or their embeddings alone, in an order that puts related ones into one context.

The end of the text workflow over any Parquet, JSONL or text: In-Context Pretraining (Shi et al. 2024, arXiv
2310.10638), whose input is taken to be clean.
"""

from __future__ import annotations

from operators.apply import Step
from operators.dedup.exact import ExactDedup
from operators.dedup.minhash import MinHashDedup
from operators.dedup.semantic import SemanticDedup
from operators.dedup.unique_id import UniqueId
from operators.ordering.order import Order
from operators.text.embed import Embed
from operators.tokens.pack import Pack
from operators.tokens.tokenizer import Tokenizer
from workflows.recipe import Params
from workflows.stage import Stage, TokenStage


def order(params: Params) -> Stage:
    """Documents to token shards that keep their order; without a tokenizer, to Parquet in that order."""
    use = params.use
    documents = Stage("read", None, ())
    unique = Stage(
        "dedup", documents, (UniqueId(), use(ExactDedup, default="off"), use(MinHashDedup, default="off"))
    ).then("embed", use(Embed, default="off"))
    distinct = unique.then("semantic", use(SemanticDedup, default="off"))
    ordered = distinct.then("order", use(Order))
    return TokenStage("tokens", ordered, (use(Tokenizer),), pack=in_windows(params))


def in_windows(params: Params) -> Step | None:
    """Windows of whole documents, unless the recipe wants none: they keep an order through readers, which shuffle
    documents."""
    if params.said(Pack.name).get("layout") == "documents":
        return params.use(Pack)
    return params.use(Pack, layout="windows", mode="icp_fit")


def recipe_of(
    inputs: list[str],
    output: str,
    *,
    columns: dict[str, str | bool | None],
    order: dict[str, object],
    tokenizer: str | None,
    pack: dict[str, object],
    formats: list[str] | None,
) -> dict[str, object]:
    """The recipe that a command line asks for; what it does not say is left to the operators."""

    def said(values: dict[str, object]) -> dict[str, object]:
        return {name: value for name, value in values.items() if value is not None}

    params: dict[str, object] = {"order": said(order)}
    params |= {"tokenizer": {"name": tokenizer}, "pack": said(pack)} if tokenizer else {"tokenizer": "off"}
    shards = {"formats": formats} if formats else {} if tokenizer else {"formats": ["parquet"]}
    return {
        "workflow": "order",
        "inputs": inputs,
        "output": output,
        "fields": said(dict(columns)),
        "params": params,
        "shards": shards,
    }
