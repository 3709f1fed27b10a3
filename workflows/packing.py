"""What goes to a cluster with a recipe: the files that it names, and the recipe with the paths they have there.

A job runs in a folder that looks like the current directory here, with nothing in it but what is sent: the recipe, the
files that operators' parameters name, a workflow of the user's with the modules that it imports from its own folder,
and what `--with` names. Inputs and output are never sent: the nodes must reach them by themselves.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from cluster.inputs import shown
from cluster.packages import MAX_BYTES, Package
from cluster.session import PACKAGES
from operators.document import Pinned
from workflows.recipe import Located, Recipe, RecipeError, read_tree, user_modules, write_recipe
from workflows.stage import Stage

ELSEWHERE = "_elsewhere"  # what lies outside of the current directory goes below it
SHOWN = 3  # of the largest files, when they are too many


class Packing:
    """Collects the files of one recipe. With `shared` none is: every node sees this machine's files under their paths.

    `reachable` says whether the nodes see at least the inputs and the output by paths of this machine.
    """

    def __init__(self, path: Path, located: Located, shared: bool, reachable: bool) -> None:
        self._path, self._located = path, located
        self._shared, self._reachable = shared, reachable or shared
        self._files: dict[str, Path | bytes] = {}

    def pack(self, recipe: Recipe, stage: Stage, also: Sequence[Path]) -> tuple[str, Package]:
        """The recipe's path on the nodes, and what is sent. Raises RecipeError."""
        tree = read_tree(self._path)
        for number, given in enumerate(tree["inputs"]):
            if isinstance(given, str):
                tree["inputs"][number] = self._reached(given, ("inputs", number))
            else:
                given["path"] = self._reached(given["path"], ("inputs", number, "path"))
        tree["output"] = self._reached(tree["output"], ("output",))
        if ":" in recipe.workflow:
            tree["workflow"] = self._workflow(recipe.workflow)
        for name, operator in (step for one in stage.chain() for step in one.steps):
            if isinstance(tree.get("params"), dict) and isinstance(given := tree["params"].get(name), dict):
                tree["params"][name] = self._named_files(given, {os.path.realpath(path) for path in _pinned(operator)})
        for path in also:
            if not path.exists():
                raise RecipeError(f"--with {path}: no such file or folder")
            self._send(str(path))
        text = io.StringIO()
        write_recipe(tree, text)
        name = _name(str(self._path))
        files = {**self._files, name: text.getvalue().encode()}
        _check_size(files)
        return name, Package("the recipe and its files", files)

    def _reached(self, value: str, where: tuple[str | int, ...]) -> str:
        """An input or the output, as the nodes find it."""
        if "://" in value:
            return value
        if self._reachable:
            return os.path.abspath(value)
        raise self._located(
            where,
            f"{value!r} is a path of this machine, and the cluster is elsewhere: name s3://bucket/path, "
            "or say --shared if every node sees this path",
        )

    def _workflow(self, workflow: str) -> str:
        file, _, function = workflow.rpartition(":")
        for module in user_modules(Path(file).resolve().parent):
            if module.__file__ is not None:
                self._send(module.__file__)
        return f"{self._send(os.path.realpath(file))}:{function}"

    def _named_files(self, given: Any, files: set[str]) -> Any:
        """The parameters of an operator with the files that it pinned under the paths they have on the nodes, be they
        named as they are or after a kind, as in `hf:tokenizer.json`."""
        if isinstance(given, dict):
            return {key: self._named_files(value, files) for key, value in given.items()}
        if isinstance(given, list):
            return [self._named_files(value, files) for value in given]
        if not isinstance(given, str):
            return given
        kind, colon, rest = given.partition(":")
        for before, path in (("", given), (kind + colon, rest)):
            if path and os.path.realpath(path) in files:
                return before + self._send(path)
        return given

    def _send(self, given: str) -> str:
        """A file, or a folder with all that is not hidden in it; its path on the nodes."""
        path = os.path.abspath(given)
        if self._shared:
            return path
        name = _name(path)
        if name.partition("/")[0].removesuffix(".py") in PACKAGES:
            raise RecipeError(f"{given}: a file of this name would hide one of ours on the nodes: rename it")
        root = Path(path)
        if root.is_dir():
            found = (file for file in sorted(root.rglob("*")) if file.is_file())
            below = ((file.relative_to(root).as_posix(), file) for file in found)
            self._files |= {f"{name}/{rel}": file for rel, file in below if shown(rel) and "__pycache__" not in rel}
        else:
            self._files[name] = root
        return name


def _name(path: str) -> str:
    """Where a file of this machine lies in the job's folder."""
    absolute = Path(os.path.abspath(path))
    here = Path.cwd()
    inside = absolute.relative_to(here) if absolute.is_relative_to(here) else Path(ELSEWHERE, *absolute.parts[1:])
    return inside.as_posix()


def _pinned(value: Any) -> Iterator[str]:
    """Paths of the files and folders that are pinned anywhere in an operator."""
    if isinstance(value, Pinned):
        yield value.path
    elif is_dataclass(value):
        for field in fields(value):
            yield from _pinned(getattr(value, field.name))
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _pinned(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _pinned(inner)


def _check_size(files: dict[str, Path | bytes]) -> None:
    sizes = {name: len(file) if isinstance(file, bytes) else file.stat().st_size for name, file in files.items()}
    if (total := sum(sizes.values())) <= MAX_BYTES:
        return
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:SHOWN]
    names = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in largest)
    raise RecipeError(
        f"the recipe's files have {total / 1e6:.0f} MB, and a job carries {MAX_BYTES / 1e6:.0f} MB at most: {names}. "
        "Put them at the same path on every node, and say --shared"
    )
