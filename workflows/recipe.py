"""Recipes: YAML in, validated parameters out, and an error that names file, line, key and value for anything else."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, TextIO, TypeVar, cast, get_args

import orjson
import pydantic
from pydantic import BaseModel, ConfigDict, Field
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

from cluster.audio_formats import AUDIO_FORMATS
from cluster.placement import Ask
from operators.apply import Step
from workflows.refused import secret_key, secret_value, unsafe_setting

MAX_RECIPE_BYTES = 1 << 20
MOST_MDS_TOKENS = 500_000_000  # of a shard, with their ids
MAX_DEPTH = 32  # of lists and mappings in each other
MAX_SHOWN = 100  # characters of a wrong value
MISSING = ("missing", "missing_argument", "missing_keyword_only_argument")
UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
YAML_NAMES = {  # what users call what pydantic calls arrays, tuples, objects and dictionaries
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "dataclass_type": "a mapping",
}
M = TypeVar("M", bound=BaseModel)
Place = tuple[str | int, ...]  # of a value: the keys and list numbers that lead to it
WORKFLOWS = ("captions", "order", "speech", "text")  # each a module of this package with a function of its name


class RecipeError(ValueError):
    """The recipe or the arguments are wrong: nothing was done. The command exits with 2."""


class Checked(BaseModel):
    """Base of what a file of the user's may say: nothing else, and no value of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Input(Checked):
    """One place to read from, and what its documents carry along."""

    path: str
    source: str | None = None
    priority: int = 0
    weight: float = 1.0


class FieldNames(Checked):
    """The user's column names in tabular input; unnamed ones are looked for under their usual names."""

    text: str | Literal[False] | None = None  # false: Parquet without text, ready embeddings for instance
    id: str | None = None
    url: str | None = None
    date: str | None = None


Format = Literal["megatron", "datatrove", "olmo", "mds", "tokens_parquet", "parquet", "webdataset", "lhotse"]


class Shards(Checked):
    """What trainers get."""

    formats: Annotated[list[Format], Field(min_length=1)] = ["megatron", "parquet"]
    tokens_per_shard: Annotated[int, Field(ge=1000)] = 100_000_000
    bytes_per_shard: Annotated[int, Field(ge=1_000_000)] = 1_000_000_000  # of audio, before it becomes MP3
    audio: Literal["flac", "mp3"] = "flac"  # what the audio of speech becomes

    @pydantic.model_validator(mode="after")
    def _mds_shards_end_at_4_gib(self) -> Shards:
        if "mds" in self.formats and self.tokens_per_shard > MOST_MDS_TOKENS:
            raise ValueError(
                f"tokens_per_shard: {self.tokens_per_shard} of mds, which ends at 4 GiB: 500,000,000 at most"
            )
        return self

    def unfit(self, *, tokens: bool, audio: bool) -> tuple[str, str] | None:
        """(field, message) of what documents with or without tokens and audio cannot be written as."""
        other = [name for name in self.formats if name not in ("parquet", *AUDIO_FORMATS)]
        if other and not tokens:
            return "formats", f"{', '.join(other)} need a tokenizer, got {self.formats}"
        if not audio and any(name in AUDIO_FORMATS for name in self.formats):
            told = f"{' and '.join(AUDIO_FORMATS)} need audio, which this workflow does not give, got {self.formats}"
            return "formats", told
        for name, field in type(self).model_fields.items():
            if name in ("bytes_per_shard", "audio") and not audio and getattr(self, name) != field.default:
                return name, f"there is no audio in what this workflow gives, got {getattr(self, name)!r}"
        return None


LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?"
LABEL_KEY = rf"^(?:(?=.{{1,253}}/){LABEL}(?:\.{LABEL})*/)?{LABEL}$"
SELECTOR = rf"^!?(?:{LABEL}|in\({LABEL}(?:, ?{LABEL})*\))$"


def _selects(labels: dict[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        if not re.fullmatch(LABEL_KEY, key):
            raise ValueError(f"{_shown(key)} is no label: one is name or prefix/name, of letters, digits, _ . -")
        if not re.fullmatch(SELECTOR, value):
            raise ValueError(f"{key}: {_shown(value)} is none of value, !value, in(a,b), !in(a,b)")
    return labels


Labels = Annotated[dict[str, str], pydantic.AfterValidator(_selects)]


class Workers(Checked):
    """Placement: changes how long a build takes and what memory it needs, never its result."""

    cpus: Annotated[int, Field(ge=1)] | None = None
    unit_bytes: Annotated[int, Field(ge=1 << 10)] | None = None  # of input a unit; default: by size and CPUs
    memory_bytes: Annotated[int, Field(ge=1 << 26)] | None = None  # of rows that a deduplicating process holds; 2 GiB
    gpus: Annotated[float, Field(ge=0, le=64)] = 0  # for each process of an operator that can use one
    processes: Annotated[int, Field(ge=1)] | None = None  # at once, at most; default: as many as nodes have room for
    reserve_bytes: Annotated[int, Field(ge=1 << 20)] | None = None  # of memory that Ray keeps for each process
    labels: Labels = {}  # of the nodes for processes without a GPU: value, !value, in(a,b) or !in(a,b)
    gpu_labels: Labels = {}  # of the nodes for processes with one

    @pydantic.field_validator("gpus")
    @classmethod
    def _parts_of_one_or_whole_ones(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError("more than one GPU is a whole number of them")
        return gpus

    @pydantic.model_validator(mode="after")
    def _no_gpu_labels_without_gpus(self) -> Workers:
        if self.gpu_labels and not self.gpus:
            raise ValueError(f"gpu_labels: {self.gpu_labels} say nothing while gpus is 0")
        return self

    def ask(self, gpu: bool = False) -> Ask:
        """What a process needs of its node, one of an operator that can use a GPU or another."""
        gpus = self.gpus if gpu else 0
        labels = self.gpu_labels if gpus else self.labels
        return Ask(gpus=gpus, memory=self.reserve_bytes or 0, labels=labels, most=self.processes)


class Gates(Checked):
    """What a build must satisfy to be committed."""

    min_kept: Annotated[int, Field(ge=0)] = 1
    max_drop_share: Annotated[float, Field(ge=0, le=1)] = 0.999
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    max_drop: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}  # of its rows, by operator or operator/reason


def _input(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


class Recipe(Checked):
    """One build: a workflow, its inputs and output, the parameters of its operators."""

    workflow: str = "text"
    inputs: Annotated[
        list[Annotated[Input, pydantic.BeforeValidator(_input, json_schema_input_type=str | Input)]],
        Field(min_length=1),
    ]
    output: str
    fields: FieldNames = FieldNames()
    params: dict[str, Any] = {}
    shards: Shards = Shards()
    splits: dict[str, Annotated[float, Field(gt=0, lt=1)]] = {}
    gates: Gates = Gates()
    workers: Workers = Workers()
    dropped_text: bool = False
    on_bad_file: Literal["fail", "skip"] = "fail"
    on_changed_input: Literal["refuse", "rebuild"] = "refuse"  # of `nightly`: an input that changed in place

    @pydantic.field_validator("splits")
    @classmethod
    def _splits_leave_room(cls, splits: dict[str, float]) -> dict[str, float]:
        for name in splits:
            if name == "train" or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]*", name):
                raise ValueError(f"{name!r} is no name for a split; `train` is what the others leave")
        if sum(splits.values()) >= 1:
            raise ValueError(f"shares add up to {sum(splits.values()):g} and leave nothing for train")
        return splits


class Params:
    """The recipe's `params` as a workflow takes them, operator by operator. What no operator took is an error."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)
        self.used: dict[str, type] = {}

    def use(
        self, operator: type, name: str | None = None, *, default: Literal["on", "off"] = "on", **fields: Any
    ) -> Step | None:
        """The operator with the recipe's parameters under its name, `fields` where the recipe is silent, or None
        when it is off. Raises pydantic.ValidationError with the path of the parameter."""
        name = name or str(operator.name)  # type: ignore[attr-defined]
        self.used[name] = operator
        given = self._values.get(name, default)
        if given is False or given == "off":
            return None
        if given is None or given is True or given == "on":
            given = {}
        if not isinstance(given, dict):
            raise ParameterError((name,), f"expected parameters, `on` or `off`, got {given!r}")
        try:
            adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(operator)
            return Step(name, adapter.validate_json(orjson.dumps({**fields, **given}), strict=True))
        except pydantic.ValidationError as error:
            raise ParameterError.of(_problems(error, (name,), operator)) from error

    def said(self, name: str) -> Mapping[str, Any]:
        """What the recipe itself says of an operator's fields."""
        given = self._values.get(name)
        return given if isinstance(given, dict) else {}

    def check_all_used(self) -> None:
        for name in self._values:
            if name not in self.used:
                raise ParameterError((name,), _unknown(name, self.used))


class _Recording(Params):
    """Only notes what a workflow asks for, and its own defaults: its steps have operators without fields."""

    def __init__(self) -> None:
        super().__init__({})
        self.defaults: dict[str, dict[str, Any]] = {}

    def use(
        self, operator: type, name: str | None = None, *, default: Literal["on", "off"] = "on", **fields: Any
    ) -> Step | None:
        name = name or str(operator.name)  # type: ignore[attr-defined]
        self.used[name], self.defaults[name] = operator, fields
        return Step(name, object.__new__(operator)) if default == "on" else None


def recipe_schema(workflow: str) -> dict[str, Any]:
    """JSON schema of recipes for a workflow: the recipe's own keys, and under `params` those of its operators."""
    recording = _Recording()
    load_workflow(workflow)(recording)
    schema = Recipe.model_json_schema()
    properties: dict[str, Any] = {}
    for name, operator in recording.used.items():
        own = pydantic.TypeAdapter(operator).json_schema()
        schema.setdefault("$defs", {}).update(own.pop("$defs", {}))
        own.get("properties", {}).pop("revision", None)
        for key, value in recording.defaults[name].items():
            own["properties"][key]["default"] = value
        properties[name] = {"anyOf": [own, {"enum": ["on", "off", True, False, None]}]}
    schema["properties"]["params"] = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema


class ParameterError(ValueError):
    """A parameter that does not fit, with its path below `params`."""

    def __init__(self, path: Place, message: str) -> None:
        super().__init__(message)
        self.path = path

    @classmethod
    def of(cls, problems: list[tuple[Place, str]]) -> ParameterError:
        """The first of several, the others told below it, one a line."""
        (path, message), *others = problems
        return cls(path, "\n".join([message, *(f"{_dotted(('params', *where))}: {told}" for where, told in others)]))


def fields_of(model: type) -> list[str]:
    """Names of the parameters of an operator or of a part of the recipe; `revision` is the code's own."""
    fields: dict[str, Any] = getattr(model, "__pydantic_fields__", {})
    return [field.alias or name for name, field in fields.items() if name != "revision"]


Located = Callable[[Place, str], RecipeError]
"""Makes the error for a path in a file: file, line, key, message."""


def load_recipe(path: str | Path) -> tuple[Recipe, Located]:
    """The recipe in a file, and what makes errors of it."""
    if unsafe := unsafe_setting(os.environ):
        raise RecipeError(unsafe)
    plain, located = load_yaml(path)
    return checked(Recipe, plain, located), located


def write_recipe(recipe: Mapping[str, Any], file: TextIO) -> None:
    """Write a recipe as YAML."""
    YAML().dump(recipe, file)


def load_yaml(path: str | Path) -> tuple[dict[str, Any], Located]:
    """The mapping in a file, of plain values without secrets, and what makes errors of it."""
    tree = read_tree(path)

    def located(where: Place, message: str) -> RecipeError:
        return RecipeError(f"{path}:{_line(tree, where)}: {_dotted(where)}: {message}")

    plain: dict[str, Any] = _plain(tree, (), located)
    return plain, located


def checked(model: type[M], plain: dict[str, Any], located: Located) -> M:
    """The mapping as `model` has it. Raises RecipeError with all that does not fit."""
    try:
        return model.model_validate_json(orjson.dumps(plain))
    except pydantic.ValidationError as error:
        problems = _problems(error, (), model)
        raise RecipeError("\n".join(str(located(*problem)) for problem in problems)) from error


def read_tree(path: str | Path) -> CommentedMap:
    """The mapping in a file with its comments and places, nothing in it checked."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_RECIPE_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from error
    return _parse(str(path), text)


def _parse(path: str, text: str) -> CommentedMap:
    if len(text) > MAX_RECIPE_BYTES:
        raise RecipeError(f"{path}: a recipe of more than {MAX_RECIPE_BYTES} characters; at most that many are read")
    depth = 0
    try:
        for event in YAML().parse(text):
            line = event.start_mark.line + 1 if event.start_mark else 0
            depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise RecipeError(f"{path}:{line}: lists and mappings more than {MAX_DEPTH} deep")
            if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
                raise RecipeError(f"{path}:{line}: anchors and aliases are not allowed")
            if not isinstance(event, ScalarEvent) and getattr(event, "tag", None):
                raise RecipeError(f"{path}:{line}: tags are not allowed: {event.tag}")
            if isinstance(event, ScalarEvent) and event.tag and str(event.tag).startswith(("!", "tag:")):
                raise RecipeError(f"{path}:{line}: tags are not allowed: {event.tag}")
    except YAMLError as error:
        raise _unreadable(path, error) from error
    try:
        tree = YAML().load(text)
    except (YAMLError, ValueError, OverflowError) as error:  # numbers and dates that are none
        raise _unreadable(path, error) from error
    if not isinstance(tree, CommentedMap):
        raise RecipeError(f"{path}: a recipe is a mapping of keys, got {type(tree).__name__}")
    return tree


def _unreadable(path: str, error: Exception) -> RecipeError:
    mark = getattr(error, "problem_mark", None)
    at = f":{mark.line + 1}" if mark else ""
    told = str(getattr(error, "problem", None) or error)
    return RecipeError(f"{path}{at}: {told.partition(' with value ')[0]}")  # the value may be a secret


def _plain(node: Any, where: Place, located: Callable[[Place, str], RecipeError]) -> Any:
    """Plain Python values for ruamel's round-trip ones, refusing those that JSON has no way to write; dates stay the
    strings they were written as. Refuses secrets, too, before anything else can repeat them."""
    if isinstance(node, CommentedMap):
        for key in node:
            if wrong := secret_key(str(key)) or secret_value(str(key)):
                raise located(where, wrong)
        return {_text(str(k), (*where, k), located): _plain(v, (*where, k), located) for k, v in node.items()}
    if isinstance(node, CommentedSeq):
        return [_plain(value, (*where, number), located) for number, value in enumerate(node)]
    if node is None or isinstance(node, bool):
        return node
    if isinstance(node, int):
        if not -(1 << 63) <= node < 1 << 63:
            raise located(where, "a number of more than 64 bits")
        return int(node)
    if isinstance(node, float):
        if not math.isfinite(node):
            raise located(where, f"expected a finite number, got {float(node)}")
        return float(node)
    return _text(str(node), where, located)


def _text(text: str, where: Place, located: Callable[[Place, str], RecipeError]) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise located(where, f"not Unicode text: {_shown(text)}") from None
    if wrong := secret_value(text):
        raise located(where, wrong)
    return text


def _line(tree: CommentedMap, where: Place) -> int:
    node: Any = tree
    line = 1
    for key in where:
        if isinstance(node, CommentedMap) and key in node:
            line = node.lc.key(key)[0] + 1 if key in node.lc.data else line  # a merged key has no place of its own
        elif isinstance(node, CommentedSeq) and isinstance(key, int) and key < len(node):
            line = node.lc.item(key)[0] + 1
        else:
            break
        node = node[key]
    return int(line)


def _dotted(where: Place) -> str:
    return ".".join(str(key).encode(errors="backslashreplace").decode() for key in where)


def _problems(error: pydantic.ValidationError, prefix: Place, model: type) -> list[tuple[Place, str]]:
    """(place, message) of everything wrong, once a place; unknown keys first, for they explain the missing ones."""
    found: dict[Place, str] = {}
    for problem in sorted(error.errors(include_url=False), key=lambda problem: problem["type"] not in UNKNOWN):
        *above, last = problem["loc"] or ("",)
        # names of union members and functions in pydantic's path are no keys
        where = tuple(p for p in above if isinstance(p, int) or p.isidentifier())
        if problem["type"] in UNKNOWN:
            names = fields_of(_part(model, above))
            found.setdefault((*prefix, *where, last), _unknown(str(last), names))
        else:
            where += (last,) if isinstance(last, int) or last.isidentifier() else ()
            found.setdefault((*prefix, *where), _message(problem))
    return list(found.items())


def _message(problem: Any) -> str:
    kind, value = problem["type"], problem["input"]
    if kind in MISSING:
        return "required key missing"
    if kind == "value_error":
        told = str(problem["ctx"]["error"])
        return told if isinstance(value, dict | list) else f"{told}, got {_shown(value)}"
    told = f"Input should be {YAML_NAMES[kind]}" if kind in YAML_NAMES else problem["msg"].replace("Tuple", "List")
    return f"{told}, got {_shown(value)}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _part(model: Any, keys: list[str | int]) -> type:
    """The model that says which keys may stand below `keys`."""
    annotation = model
    for key in keys:
        fields = getattr(model, "__pydantic_fields__", {})
        if key in fields:
            annotation = fields[key].annotation
            model = next(_models(annotation), model)
        else:  # the tag of one member of a union
            model = next((one for one in _models(annotation) if key == f"class {one.__name__}"), model)
    found: type = model
    return found


def _models(annotation: Any) -> Iterator[type]:
    """The models named in a type."""
    if hasattr(annotation, "__pydantic_fields__"):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _unknown(name: str, allowed: Iterable[str]) -> str:
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, 1)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown key {name!r}; {guess}allowed: {', '.join(names)}"


def load_workflow(name: str) -> Callable[..., Any]:
    """The function that a recipe's `workflow` names: one of ours, or `file.py:function` of the user's."""
    if name in WORKFLOWS:
        module = importlib.import_module(f"workflows.{name}")
        return cast(Callable[..., Any], getattr(module, name))
    file, _, function = name.rpartition(":")
    if not file.endswith(".py"):
        raise RecipeError(f"workflow: unknown {name!r}; allowed: {', '.join(WORKFLOWS)}, or file.py:function")
    path = Path(file)
    if not path.is_file():
        raise RecipeError(f"workflow: no such file: {file}")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as for a script: it may import its neighbours
    module_name = f"corpusmill_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path.resolve())
    if spec is None or spec.loader is None:
        raise RecipeError(f"workflow: {file} cannot be loaded")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = loaded
    try:
        spec.loader.exec_module(loaded)
    except (SyntaxError, ImportError) as error:
        raise RecipeError(f"workflow: {file}: {type(error).__name__}: {error}") from error
    found = getattr(loaded, function, None)
    if not callable(found):
        raise RecipeError(f"workflow: {file} has no function {function!r}")
    _ship_by_value(folder)
    return cast(Callable[..., Any], found)


def _ship_by_value(folder: str) -> None:
    """Workers cannot import the user's files: what was imported from their folder travels with the tasks."""
    from ray import cloudpickle

    for module in user_modules(folder):
        cloudpickle.register_pickle_by_value(module)


def user_modules(folder: str | Path) -> list[ModuleType]:
    """Modules imported from a user's folder: neither installed packages nor our own."""
    found = []
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        own = file is not None and Path(file).is_relative_to(folder) and "site-packages" not in file
        if own and module.__name__.split(".")[0] not in ("operators", "cluster", "workflows"):
            found.append(module)
    return found
