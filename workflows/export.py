"""Copy a build's cleaned text out as a dataset folder that the `datasets` library loads by its path."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cluster.audio_formats import AUDIO_FORMATS, read_documents
from cluster.shards import TEXT_FORMAT, shard_name, write_with_audio
from cluster.storage import Store
from workflows.corpus import shard_record
from workflows.profile import OTHER
from workflows.recipe import RecipeError
from workflows.stage import Manifest, add_counts


def export_hf(store: Store, manifest: Manifest, destination: Path) -> list[Path]:
    """Parquet files by split below `data/`, with their audio if they have any, and a dataset card. The destination must
    not exist or be empty."""
    shards = [shard for shard in manifest["shards"] if shard["format"] == TEXT_FORMAT]
    if not shards:
        raise RecipeError(f"build {manifest['build_id']} has no shards of format {TEXT_FORMAT}")
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise RecipeError(f"{destination} is not empty")
    (destination / "data").mkdir(parents=True, exist_ok=True)
    written = []
    splits: dict[str, dict[str, int]] = {}
    tars = tars_of(manifest)
    for shard in shards:
        target = destination / "data" / Path(shard["path"]).name
        tar = tars.get(shard_name(shard["path"]), [])
        with store.local(shard["path"], *tar) as root:
            if tar:
                folder = f"builds/{manifest['build_id']}/shards"
                write_with_audio(target, read_documents(root, folder, shard_record(shard)))
            else:
                shutil.copyfile(root / shard["path"], target)
        written.append(target)
        split = splits.setdefault(shard["split"], {"documents": 0, "bytes": 0})
        split["documents"] += shard["documents"]
        split["bytes"] += target.stat().st_size
    card = destination / "README.md"
    card.write_text(dataset_card(manifest, splits), "utf-8")
    return [*written, card]


def tars_of(manifest: Manifest) -> dict[str, list[str]]:
    """The tar that the Parquet of each shard refers to, by the name of the shard."""
    found: dict[str, list[str]] = {}
    for shard in manifest["shards"]:
        if shard["format"] in AUDIO_FORMATS:
            found.setdefault(shard_name(shard["path"]), [shard["path"]])
    return found


def dataset_card(manifest: Manifest, splits: dict[str, dict[str, int]]) -> str:
    """The card: what is in it, where it came from, what was removed and why."""
    environment = Environment(
        loader=PackageLoader("workflows"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    dropped = add_counts(stage["dropped"] for stage in manifest["stages"])
    languages: dict[str, Any] = next(
        (
            s["profile"]["kept"]["languages"]
            for s in reversed(manifest["stages"])
            if s["profile"]["kept"].get("languages")
        ),
        {},
    )
    languages = {name: n for name, n in languages.items() if name != OTHER}
    return environment.get_template("dataset_card.md.j2").render(
        manifest=manifest, splits=splits, dropped=dropped, languages=languages
    )
