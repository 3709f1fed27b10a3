"""Take documents out of a corpus for good.

The log names the set of all ids that were ever retracted; it only grows. The shards that hold such documents are
written again from the shards themselves, in all formats, one at a time; the others are left as they are. A build's new
manifest reads as if its last stage had ended with an operator `retract`. Nothing of this is visible before the log
entry is there, and all names come from content: killed half-way, the same command ends with the same bytes.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cluster import commit
from cluster.artefacts import keep, on_disk
from cluster.audio_formats import AUDIO_FORMATS, read_documents
from cluster.commit import LogEntry
from cluster.flat_formats import ShardError
from cluster.mds import write_indexes
from cluster.shard_reader import read_sequences, verify_shard
from cluster.shards import TEXT_FORMAT, shard_name
from cluster.storage import Store
from cluster.tables import Entry, TableWriter, read_entry
from operators.apply import Step, apply
from operators.document import Pinned, identity, loaded
from operators.ordering.order import BY_LIKENESS, Order
from operators.retracted import IdFile, Ids, Retracted, recordings_of
from operators.tokens.pack import Pack, unpacked
from workflows import profile
from workflows.corpus import committed_build, save_build, shard_record
from workflows.map_stage import explained
from workflows.recipe import RecipeError
from workflows.shard_task import ShardWriter, Written, links_of
from workflows.stage import TIMES, Manifest, Stage, StageError, TokenStage, add_counts, check_conservation
from workflows.training_plan import write_plan

STEP = "retract"  # the operator with which a build's last stage ends when documents were taken out of it
RETRACTED_FROM = "retracted_from"  # in its manifest: the sha256 of those it was made from, the oldest first
Found = dict[int, pa.Table]
"""Of a build's files of kept documents, by number: the rows (id, shard, tokens) of those that are to go."""


def with_tombstones(stage: Stage, entry: LogEntry | None) -> Stage:
    """The stages with all documents left out of the last one that were retracted up to that entry of the log."""
    if entry is None or entry.tombstones is None or not isinstance(stage, TokenStage):
        return stage
    step = Step(Retracted.name, Retracted())
    learned = {**stage.learned, step.name: entry.tombstones}
    return dataclasses.replace(stage, steps=(step, *stage.steps), learned=learned)


def tombstones(store: Store, entry: LogEntry) -> Ids:
    """All ids that were retracted up to that entry."""
    if entry.tombstones is None:
        return Ids(pa.array([], pa.large_string()))
    ids: Ids = loaded(IdFile(_pinned(store, entry.tombstones)))
    return ids


def retracted_ids(store: Store) -> Ids:
    """All ids that were retracted up to now."""
    entry = commit.head(store)
    return Ids(pa.array([], pa.large_string())) if entry is None else tombstones(store, entry)


def _pinned(store: Store, sha256: str) -> Pinned:
    return Pinned(str(on_disk(store, sha256)), sha256)


def retract(store: Store, ids: pa.Array | pa.ChunkedArray, dry_run: bool = False) -> dict[str, Any]:
    """Take the documents with those ids out of all builds that readers see, and keep them out of later ones.

    The result, as `retract --json` prints it. Raises RecipeError where there is no build, StageError where a shard is
    not what its manifest says, CommitLost where somebody else committed first.
    """
    head = commit.head(store)
    if head is None:
        raise RecipeError(f"{store.url}: there is no build here")
    before, asked = tombstones(store, head), Ids(ids).sorted
    known = before.has(asked)
    both = Ids(pa.concat_arrays([before.sorted, asked.filter(pa.array(~known))]))
    found = {
        build: held(store, committed_build(store, build, digest), both) for build, digest in head.manifests.items()
    }
    columns = [column for own in found.values() for rows in own.values() for column in (rows["id"], rows["recording"])]
    columns = [column.cast(pa.large_string()) for column in columns]
    seen = Ids(pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.large_string()))
    unknown = asked.filter(pa.array(~known & ~seen.has(asked)))
    told = {
        "asked": len(asked),
        "already": int(known.sum()),
        "unknown": unknown.to_pylist(),
        "builds": [tell(build, rows) for build, rows in found.items() if rows],
        "dry_run": dry_run,
    }
    if dry_run or (len(both) == len(before) and not told["builds"]):
        return told | {"committed": False, "log_number": head.number}
    sha256 = keep(store, both.to_bytes()) if len(both) > len(before) else str(head.tombstones)
    manifests = {build: without(store, build, digest, found[build], sha256) for build, digest in head.manifests.items()}
    entry = commit.append(store, head, "retract", manifests, sha256)
    return told | {"committed": True, "log_number": entry.number}


def held(store: Store, manifest: Manifest, ids: Ids) -> Found:
    """The documents of a build that have one of the ids, or are utterances of a recording that has."""
    found: Found = {}
    heard = profile.hears(manifest["stages"])
    for number, entry in enumerate(manifest["stages"][-1]["files"]["kept"]):
        rows = read_entry(store, entry, ["id", "shard", "tokens"])
        whole = recordings_of(rows["id"]) if heard else pa.chunked_array([pa.nulls(rows.num_rows, pa.string())])
        gone = ids.has(rows["id"]) | ids.has(whole)
        if gone.any():
            found[number] = rows.append_column("recording", whole).filter(pa.array(gone))
    return found


def tell(build: str, found: Found) -> dict[str, Any]:
    """What goes of a build, for people and programs."""
    rows = pa.concat_tables(found.values())
    tokens = pc.sum(rows["tokens"]).as_py() if "tokens" in rows.column_names else None
    shards = len(pc.unique(rows["shard"]))
    return {"build_id": build, "documents": rows.num_rows, "tokens": tokens, "shards": shards}


def without(store: Store, build: str, digest: str, found: Found, sha256: str) -> str:
    """Write a build again without the documents `found` in it; `digest` is the sha256 of its manifest, `sha256` that of
    all retracted ids. The sha256 of the new manifest; the same where nothing was found. Raises StageError."""
    if not found:
        return digest
    if "interleaved" in committed_build(store, build, digest)["stages"][-1]:
        told = (
            "its documents are made of several utterances: take their recordings out of the inputs and build it again"
        )
        raise StageError(f"build {build}: {told}")
    removal = _Removal(store, committed_build(store, build, digest), Step(STEP, Retracted(ids=_pinned(store, sha256))))
    try:
        return save_build(store, removal.run(digest, found))[1]
    except ShardError as error:
        raise StageError(f"build {build}: {error}") from error


class _Removal:
    """One build written again, a shard at a time; sums up what goes."""

    def __init__(self, store: Store, manifest: Manifest, step: Step) -> None:
        self.store, self.manifest, self.step = store, manifest, step
        self.stage: Manifest = manifest["stages"][-1]
        self.folder = f"builds/{manifest['build_id']}"
        self.tokenizer: dict[str, Any] | None = manifest["tokenizer"]
        steps = [one["parameters"] for one in self.stage["steps"] if one["parameters"]["type"] == Pack.__qualname__]
        self.pack = Pack(**{name: value for own in steps for name, value in own.items() if name != "type"})
        self.shards: dict[str, list[dict[str, Any]]] = {}  # its records, one a format, by the name of a shard
        for record in manifest["shards"]:
            self.shards.setdefault(shard_name(record["path"]), []).append(record)
        self.gone: Counter[str] = Counter(tokens=0)
        self.contexts = self.stage["contexts"]
        steps = [one["parameters"] for stage in manifest["stages"] for one in stage["steps"]]
        orders = [one for one in steps if one["type"] == Order.__qualname__]
        self.linked = any(one["method"] in BY_LIKENESS for one in orders)
        self.before: list[Written] = []  # of the shards that are written again
        self.after: list[Written] = []
        self.splits: dict[str, Counter[str]] = {split: Counter(told) for split, told in manifest["splits"].items()}
        self.profiles: list[profile.Profile] = []
        self.drop_profiles: list[profile.Profile] = []

    def run(self, digest: str, found: Found) -> Manifest:
        """Write files and shards; the build's new manifest."""
        files = self.stage["files"]
        kept = [[entry] for entry in files["kept"]]
        with TableWriter(self.store, f"{self.folder}/retracted/dropped", len(files["dropped"])) as dropped:
            for number, rows in found.items():
                kept[number] = self._file(number, Counter(rows["shard"].to_pylist()), dropped)
        files = files | {
            "kept": [e for entries in kept for e in entries],
            "dropped": files["dropped"] + dropped.entries,
        }
        return self._retold(digest, files)

    def _file(self, number: int, losing: Mapping[str, int], dropped: TableWriter) -> list[Entry]:
        """Write one file of kept documents again, and the shards that lose some."""
        rows = read_entry(self.store, self.stage["files"]["kept"][number])
        with TableWriter(self.store, f"{self.folder}/retracted/kept", number) as kept:
            for path in pc.unique(rows["shard"]).to_pylist():
                if path in losing:
                    self._shard(path, losing[path], kept, dropped)
                else:
                    kept.write(rows.filter(pc.equal(rows["shard"], path)))
        return kept.entries

    def _shard(self, path: str, losing: int, kept: TableWriter, dropped: TableWriter) -> None:
        name = shard_name(path)
        split = self.shards[name][0]["split"]
        docs = self._documents(self.shards[name])
        result = apply((self.step,), docs)
        del docs  # of a large shard, one copy is enough
        if result.dropped.num_rows != losing:
            raise StageError(f"{path}: has {result.dropped.num_rows} of {losing} documents that are listed in it")
        written = Written()
        writer = self._writer(result.kept.column_names)
        writer.write(result.kept, split, name.removeprefix(f"{split}-"), kept, written)
        self.after.append(written)
        self.shards[name] = written.shards
        if any(context["shard"] == name for context in self.contexts):
            self.contexts = written.contexts
        dropped.write(explained(result.dropped, text=False))
        tokens = pc.sum(result.dropped["tokens"]).as_py() if self.tokenizer else 0
        self.gone.update(documents=losing, characters=result.counts[0].chars_dropped, tokens=tokens)
        self.splits[split].subtract({"documents": losing, "tokens": tokens})
        self.profiles.append(profile.profile(result.dropped))
        self.drop_profiles.append(profile.drop_profile(result.dropped))

    def _documents(self, records: list[dict[str, Any]]) -> pa.Table:
        """The documents of a shard with their tokens and audio, from its text and the first of its formats of each."""
        shards = [shard_record(record) for record in records]
        text = next(shard for shard in shards if shard.format == TEXT_FORMAT)
        sound = next((shard for shard in shards if shard.format in AUDIO_FORMATS), None)
        source = next((shard for shard in shards if shard.format not in (TEXT_FORMAT, *AUDIO_FORMATS)), None)
        read = [shard for shard in (text, sound, source) if shard]
        keys = [path for record in read for path in (record.path, *(sidecar.path for sidecar in record.sidecars))]
        with self.store.local(*keys) as root:
            for record in read:
                verify_shard(root, record)  # or damage would get a new name and a right checksum
            docs = pa.concat_tables(read_documents(root, f"{self.folder}/shards", text))
            if self.tokenizer is None:
                return docs
            bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(docs["tokens"].to_numpy())])
            payload = np.array(read_sequences(root, source).tokens) if source else None
        tokens, links = _stand_in(bounds, self.tokenizer), links_of(docs) if self.linked else None
        if payload is not None:
            empty = self.pack(tokens, bounds, self.tokenizer["pad_id"], links)
            if len(empty.tokens) != len(payload):
                raise StageError(f"{text.path}: the tokens beside it are not those of its documents")
            tokens = unpacked(payload, empty, bounds)
        tokens = tokens.astype(self.tokenizer["dtype"], copy=False)
        packed = self.pack(tokens, bounds, self.tokenizer["pad_id"], links)
        if payload is not None and not np.array_equal(packed.tokens, payload):
            raise StageError(f"{text.path}: the tokens beside it are not those of its documents")
        self.before.append(Written())
        self.before[-1].count(docs)
        if self.pack.layout == "windows":
            self.before[-1].pack(packed)
        ids = pa.LargeListArray.from_arrays(pa.array(bounds), pa.array(tokens))
        return docs.append_column("input_ids", ids)

    def _writer(self, columns: Iterable[str]) -> ShardWriter:
        """Writes shards and their index as the token stage does."""
        formats = tuple(self.manifest["recipe"]["shards"]["formats"])
        folder = f"{self.folder}/shards"
        return ShardWriter(self.store, folder, self.pack, self.tokenizer, formats, frozenset(columns), self.linked)

    def _retold(self, digest: str, files: dict[str, list[Entry]]) -> Manifest:
        """The build's manifest as if its last stage ended with the step."""
        stage, gone = self.stage, self.gone
        dropped = {f"{self.step.name}/tombstone": gone["documents"]}
        told = {"name": self.step.name, "parameters": identity(self.step.operator)}
        counts = stage["characters"]
        characters = {"kept": counts["kept"] - gone["characters"], "dropped": counts["dropped"] + gone["characters"]}
        profiles = stage["profile"]
        laid_out = self._laid_out()
        shards = [record for records in self.shards.values() for record in records]
        totals = {
            "tokens": None if stage["tokens"] is None else stage["tokens"] - gone["tokens"],
            "padding": laid_out["packing"].get("padding", 0),
            "splits": {split: dict(rest) for split, rest in self.splits.items()},
            "shards": shards,
            "indexes": write_indexes(self.store, shards),
            "plans": write_plan(self.store, f"{self.folder}/shards", shards, laid_out["sources"], self.pack),
        }
        stage = (
            stage
            | laid_out
            | totals
            | {
                "kept": stage["kept"] - gone["documents"],
                "dropped": add_counts([stage["dropped"], dropped]),
                "characters": counts | characters,
                "operators": self._operators(dropped),
                "steps": [step for step in stage["steps"] if step["name"] != self.step.name] + [told],
                "profile": profiles
                | {
                    "kept": less(profiles["kept"], profile.merge(self.profiles)),
                    "dropped": profile.merge([profiles["dropped"], *self.drop_profiles]),
                },
                "files": files,
            }
        )
        check_conservation(stage)
        stages = [*self.manifest["stages"][:-1], stage]
        before = [*self.manifest.get(RETRACTED_FROM, []), digest]
        return self.manifest | totals | {"documents": stage["kept"], "stages": stages, RETRACTED_FROM: before}

    def _laid_out(self) -> dict[str, Any]:
        """What the manifest says of packing, contexts and sources, of the shards as they are now."""
        names = sorted(self.stage["sources"])
        took = {name: add_counts(one.sources.get(name, {}) for one in self.before) for name in names}
        gave = {name: add_counts(one.sources.get(name, {}) for one in self.after) for name in names}
        packing = _exchanged(self.stage["packing"], [b.packing for b in self.before], [a.packing for a in self.after])
        return {
            "packing": packing,
            "contexts": self.contexts,
            "sources": {n: _exchanged(self.stage["sources"][n], [took[n]], [gave[n]]) for n in names},
        }

    def _operators(self, dropped: dict[str, int]) -> list[dict[str, Any]]:
        """The last stage's operators, the step among them; what it dropped earlier, it drops still."""
        others = [one for one in self.stage["operators"] if one["name"] != self.step.name]
        kept, chars = self.stage["kept"], self.stage["characters"]["kept"]
        own = {"name": self.step.name, "dropped": {}, "rows_in": kept, "created": 0, "chars_in": chars}
        own |= {"chars_dropped": 0, "chars_out": chars, "chars_cut": 0, **dict.fromkeys(TIMES, 0.0)}
        own = next((one for one in self.stage["operators"] if one["name"] == self.step.name), own)
        gone = self.gone["characters"]
        after = {"chars_dropped": own["chars_dropped"] + gone, "chars_out": own["chars_out"] - gone}
        return [*others, own | after | {"dropped": add_counts([own["dropped"], dropped])}]


def _exchanged(
    total: Mapping[str, Any], took: Iterable[Mapping[str, Any]], gave: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """The total with one part of it put in place of another."""
    less, more = add_counts(map(dict, took)), add_counts(map(dict, gave))
    return {key: n - less.get(key, 0) + more.get(key, 0) for key, n in total.items()}


def _stand_in(bounds: NDArray[np.int64], tokenizer: Mapping[str, Any]) -> NDArray[np.int64]:
    """Ids in place of those that no format of the build holds: only their numbers are written."""
    end = int(tokenizer["eos_id"])
    ids = np.full(bounds[-1], 0 if end else 1)
    ids[bounds[1:] - 1] = end
    return ids


def less(total: profile.Profile, part: profile.Profile) -> profile.Profile:
    """The profile of the documents that are left of those of `total` without those of `part`, exact as `merge` is.

    A name that `total` does not list, or lists with fewer documents, is among the others there.
    """
    rest: profile.Profile = _less(total, part)
    while rest["lengths"] and not rest["lengths"][-1]:
        rest["lengths"].pop()
    for key in ("languages", "sources"):
        names = total[key]
        taken = {name: min(n, names.get(name, 0)) for name, n in part[key].items() if name != profile.OTHER}
        left = {name: n - taken.get(name, 0) for name, n in names.items() if name != profile.OTHER}
        other = sum(names.values()) - sum(part[key].values()) - sum(left.values())
        rest[key] = {name: n for name, n in (*left.items(), (profile.OTHER, other)) if n}
    return rest


def _less(total: Any, part: Any) -> Any:
    if isinstance(total, dict):
        return {key: _less(value, part[key]) if key in part else value for key, value in total.items()}
    if isinstance(total, list):
        return [a - b for a, b in zip_longest(total, part, fillvalue=0)]
    return total - part
