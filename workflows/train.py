"""`corpusmill train …`: models of the user's own, from the user's own files, for the scorers of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

app = typer.Typer(no_args_is_help=True, help=__doc__)

Files = Annotated[list[str], typer.Option(help="a path, folder or quoted glob, local or s3://; may be repeated")]
Model = Annotated[Path, typer.Option(help="where the model goes, .ftz or .bin; its card gets the ending .json")]
Text = Annotated[str, typer.Option(metavar="FIELD", help="the column of the text in tabular files")]
Epochs = Annotated[int | None, typer.Option(min=1, max=1000, help="default: 25, above 100,000 examples 3")]
Rate = Annotated[float | None, typer.Option(help="default: 0.5, above 100,000 examples 0.1")]
Ngrams = Annotated[int, typer.Option(min=1, max=5, help="the longest run of words that is a feature")]
Dimensions = Annotated[int, typer.Option(min=2, max=1000, help="of the vectors of words")]
HeldOut = Annotated[float, typer.Option(help="share of the texts to measure on")]
MinAuc = Annotated[float, typer.Option(help="below it on held-out texts, no model is written (exit code 3)")]
Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1)]
Quantize = Annotated[
    bool | None, typer.Option(help="a small file, a little less exact; default: where the model is .ftz")
]
Json = Annotated[bool, typer.Option("--json", help="the card on standard output")]


@app.command()
def quality(  # noqa: PLR0913
    positive: Files,
    negative: Files,
    output: Model,
    text: Text = "text",
    label: Annotated[str, typer.Option(help="of the positive texts")] = "hq",
    epochs: Epochs = None,
    learning_rate: Rate = None,
    word_ngrams: Ngrams = 2,
    dimensions: Dimensions = 16,
    held_out: HeldOut = 0.1,
    min_auc: MinAuc = 0.6,
    seed: Seed = 1,
    quantize: Quantize = None,
    json: Json = False,
) -> None:
    """Train a fastText classifier of texts of any two kinds, for `quality` or `toxicity` in a recipe."""
    from operators.models.classifier_training import Settings
    from workflows.train_classifier import train_quality

    settings = Settings(
        label=label,
        epochs=epochs,
        learning_rate=learning_rate,
        word_ngrams=word_ngrams,
        dimensions=dimensions,
        held_out=held_out,
        seed=seed,
        quantize=_quantized(output, quantize),
    )
    _tell(train_quality(positive, negative, output, settings, min_auc, text), json)


@app.command()
def preselect(  # noqa: PLR0913
    texts: Files,
    output: Model,
    losses: Annotated[
        Path | None, typer.Option(help="Parquet: `id`, and a column for each model with its loss on that document")
    ] = None,
    benchmarks: Annotated[Path | None, typer.Option(help="CSV or JSON: the score of each model")] = None,
    family: Annotated[Literal["n-gram"] | None, typer.Option(help="small models in place of real ones")] = None,
    reference: Annotated[list[str] | None, typer.Option(help="what the family learns from, as --texts")] = None,
    text: Text = "text",
    domains: Annotated[int, typer.Option(min=1, help="how many of the most frequent hosts or sources to take")] = 3000,
    per_domain: Annotated[int, typer.Option(min=1, help="documents of each")] = 300,
    epochs: Epochs = None,
    learning_rate: Rate = None,
    word_ngrams: Ngrams = 2,
    dimensions: Dimensions = 16,
    held_out: HeldOut = 0.1,
    min_auc: MinAuc = 0.6,
    seed: Seed = 1,
    quantize: Quantize = None,
    json: Json = False,
) -> None:
    """Train a fastText classifier of texts whose loss ranks language models as benchmarks do (PreSelect)."""
    from operators.models.classifier_training import Settings
    from workflows.train_preselect import sources_of, train_preselect

    sources = sources_of(losses, benchmarks, family, reference)
    settings = Settings(
        epochs=epochs,
        learning_rate=learning_rate,
        word_ngrams=word_ngrams,
        dimensions=dimensions,
        held_out=held_out,
        seed=seed,
        quantize=_quantized(output, quantize),
    )
    _tell(train_preselect(texts, output, sources, (domains, per_domain), settings, min_auc, text), json)


def _quantized(output: Path, asked: bool | None) -> bool:
    return output.suffix == ".ftz" if asked is None else asked


def _tell(card: dict[str, Any], json: bool) -> None:
    """The card of a classifier, or what matters of it."""
    import orjson

    if json:
        typer.echo(orjson.dumps(card, option=orjson.OPT_INDENT_2))
        return
    counts, chosen, held = card["counts"], card["parameters"], card["held_out"]
    unread = "".join(f"not read, {reason}: {n}\n" for reason, n in sorted(card["unread"].items()))
    precision = "none scores so high" if held["precision"] is None else f"{held['precision']:.3f}"
    typer.echo(
        f"{counts['positive_lines']} positive and {counts['negative_lines']} negative texts"
        f" ({counts['in_both']} that were both left out), {held['positives']} and {held['negatives']} held out\n"
        f"{unread}"
        f"{chosen['epochs']} epochs at {chosen['learning_rate']}, word n-grams up to {chosen['word_ngrams']},"
        f" {chosen['dimensions']} dimensions, {chosen['buckets']} buckets\n"
        f"held out: AUC {held['auc']:.4f}; at 0.5 precision {precision}, recall {held['recall']:.3f}"
    )
    for name in ("positive_quantiles", "negative_quantiles"):
        spread = "  ".join(f"{share}: {value:.3f}" for share, value in held[name].items())
        typer.echo(f"{name.replace('_', ' ')}  {spread}")
    label = card["labels"]["positive"]
    typer.echo(f"{card['model']}: {card['bytes']} bytes, label {label}, sha256 {card['sha256']}")
    if label == "domain_affinity":
        typer.echo("its score is likeness to the reference collection, not a prediction of what models learn")


@app.command()
def perplexity(  # noqa: PLR0913
    files: Annotated[list[str], typer.Argument(help="paths, folders or quoted globs of good text, local or s3://")],
    output: Annotated[Path, typer.Option(help="where the model goes: .arpa or .arpa.gz")],
    order: Annotated[int, typer.Option(min=2, max=6, help="words in the longest n-grams")] = 5,
    prune: Annotated[str, typer.Option(help="n-grams left out by order: those with so many occurrences")] = "0 0 1",
    vocabulary: Annotated[int, typer.Option(min=1, help="the most frequent words to know")] = 1_000_000,
    tokens: Annotated[Literal["words", "characters"], typer.Option(help="what n-grams are made of")] = "words",
    text: Text = "text",
    only: Annotated[
        str | None, typer.Option(metavar="COLUMN=VALUE", help="train on these rows of tabular files")
    ] = None,
    memory: Annotated[int, typer.Option(min=1 << 26, help="bytes of rows that a process holds")] = 2 << 30,
    work: Annotated[str | None, typer.Option(help="folder or s3:// address that all workers reach")] = None,
    address: Annotated[str | None, typer.Option(help="of a Ray cluster; default: Ray on this machine")] = None,
    json: Json = False,
) -> None:
    """Train an n-gram language model (modified Kneser-Ney) of good text, for `perplexity` in a recipe."""
    from workflows.train_perplexity import run, settings

    model = settings(order, prune, vocabulary, tokens)
    _tell_perplexity(run(files, output, model, text, only, memory, work, address), json)


def _tell_perplexity(card: dict[str, Any], json: bool) -> None:
    import orjson

    if json:
        typer.echo(orjson.dumps(card, option=orjson.OPT_INDENT_2))
        return
    unread = f", {card['quarantined']} could not be read" if card["quarantined"] else ""
    typer.echo(
        f"{card['documents']} documents{unread}, {card['lines']} lines, {card['tokens']} tokens\n"
        f"n-grams by order: {', '.join(map(str, card['ngrams']))}"
    )
    if orders := [str(order) for order, found in enumerate(card["discounts"], 2) if found is None]:
        typer.echo(f"too few different counts for discounts of order {', '.join(orders)}: fixed ones were taken")
    typer.echo(f"{card['model']}: {card['bytes']} bytes, sha256 {card['sha256']}")


@app.command()
def units(
    files: Annotated[list[str], typer.Argument(help="paths, folders or quoted globs of recordings, local or s3://")],
    output: Annotated[Path, typer.Option("--output", "-o", help="where the codebook goes: .npz")],
    clusters: Annotated[int, typer.Option(help="how many different units, from 2 to 65536")] = 256,
    rate: Annotated[float, typer.Option(help="units a second: 12.5, 25 or 50")] = 12.5,
    stretches: Annotated[int, typer.Option(help="of speech to learn from at most; 320 bytes each")] = 200_000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    json: Json = False,
) -> None:
    """Train a codebook of discrete units of speech (k-means over log-mel), for `units` in a recipe."""
    import orjson

    from workflows.train_units import train_units

    card = train_units(files, output, clusters, rate, stretches, seed)
    if json:
        typer.echo(orjson.dumps(card, option=orjson.OPT_INDENT_2))
        return
    unread = "".join(f", {n} {reason}" for reason, n in card["unread"].items())
    typer.echo(
        f"{card['files']} recordings{unread}, {card['seconds']:.0f} s of sound, {card['stretches']} stretches of it\n"
        f"{card['codebook']}: {card['clusters']} units, {card['rate']:g} a second, {card['bytes']} bytes,"
        f" sha256 {card['sha256']}"
    )
