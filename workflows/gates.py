"""What a build must satisfy: bounds on what single rules drop, checked stage by stage, and on what is left."""

from __future__ import annotations

from cluster.storage import Store
from operators.apply import SPLIT
from workflows.explain import dropped_samples
from workflows.recipe import Recipe, RecipeError
from workflows.stage import Manifest, Stage

EXAMPLES = 5


class GateRefused(RuntimeError):
    """The build is whole but not good enough to be committed. The command exits with 3."""


def check_names(recipe: Recipe, stage: Stage) -> None:
    """Raises RecipeError where a bound is on an operator that the workflow does not have."""
    names = {step.name for one in stage.chain() for step in one.steps}
    for rule in recipe.gates.max_drop:
        if rule.partition("/")[0] not in names:
            have = ", ".join(sorted(names))
            raise RecipeError(f"gates.max_drop.{rule}: no operator of that name is on; there are: {have}")


def split_by(operator: Manifest) -> int:
    """Documents that an operator replaced by their parts: neither kept nor lost."""
    n: int = operator["dropped"].get(f"{operator['name']}/{SPLIT}", 0)
    return n


def documents_of(stages: list[Manifest]) -> int:
    """Documents that there were, with the parts of those that were split in their place."""
    operators = [operator for stage in stages for operator in stage["operators"]]
    created: int = sum(stage["created"] for stage in stages)
    rows: int = stages[0]["rows_in"]
    return rows + created - sum(map(split_by, operators))


def check_rules(recipe: Recipe, store: Store, manifest: Manifest) -> None:
    """Raises GateRefused where an operator, or one of its rules, dropped a larger share of the documents that it was
    given than `gates.max_drop` allows. The stage is done all the same: with another bound the build goes on from it."""
    for rule, most in recipe.gates.max_drop.items():
        name, _, reason = rule.partition("/")
        for operator in (found for found in manifest["operators"] if found["name"] == name):
            lost = {key: n for key, n in operator["dropped"].items() if not key.endswith(f"/{SPLIT}")}
            gone = {key: n for key, n in lost.items() if not reason or key == rule}
            rows = operator["rows_in"] + operator["created"] - split_by(operator)
            share = sum(gone.values()) / (rows or 1)
            if share > most:
                n, some = sum(gone.values()), "\n".join(_examples(store, manifest, gone))
                told = f"{rule} dropped {n} of {rows} documents ({share:.1%}), at most {most:.1%} may go"
                raise GateRefused(f"gates.max_drop: {told}. Some of them:\n{some}")


def _examples(store: Store, manifest: Manifest, reasons: dict[str, int]) -> list[str]:
    samples = dropped_samples(store, {"stages": [manifest]})
    ranked = sorted(reasons, key=lambda reason: (-reasons[reason], reason))
    rows = [(reason, row) for reason in ranked for row in samples.get(reason, ())]
    lines = []
    for reason, row in rows[:EXAMPLES]:
        value = "" if row["value"] is None else f", {row['value']:.4g}"
        bound = "" if row["threshold"] is None else f" where the bound is {row['threshold']:.4g}"
        detail = "" if row["detail"] is None else f" ({row['detail'][:80]})"
        lines.append(f"  {row['id']}: {reason}{value}{bound}{detail}")
    return lines


def check_gates(recipe: Recipe, manifest: Manifest) -> None:
    """Raises GateRefused naming the gate, its bound and the value."""
    rows, kept = documents_of(manifest["stages"]), manifest["documents"]
    if kept < recipe.gates.min_kept:
        raise GateRefused(f"gates.min_kept: {kept} documents were kept, at least {recipe.gates.min_kept} must be")
    share = 1 - kept / rows if rows else 0.0
    if share > recipe.gates.max_drop_share:
        bound = recipe.gates.max_drop_share
        raise GateRefused(f"gates.max_drop_share: {share:.4f} of {rows} documents were dropped, at most {bound} may be")
    tokens = manifest["tokens"] or 0
    if recipe.gates.min_tokens is not None and tokens < recipe.gates.min_tokens:
        raise GateRefused(f"gates.min_tokens: {tokens} tokens, at least {recipe.gates.min_tokens} must be")
    if recipe.gates.max_tokens is not None and tokens > recipe.gates.max_tokens:
        raise GateRefused(f"gates.max_tokens: {tokens} tokens, at most {recipe.gates.max_tokens} may be")
