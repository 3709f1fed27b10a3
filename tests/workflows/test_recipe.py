"""Recipes: what is wrong is named by file, line and key, and nothing else is let through."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import pytest

from operators.document import Operator, PinnedFile, identity, parameters
from workflows.recipe import ParameterError, Params, RecipeError, load_recipe, load_workflow


@parameters
class Rule(Operator):
    name: ClassVar[str] = "rule"
    words: int = 5
    share: float = 0.5
    keep: tuple[str, ...] = ()
    file: PinnedFile | None = None


def recipe(tmp_path: Path, body: str) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(body, "utf-8")
    return path


def test_a_short_recipe_gets_the_defaults(tmp_path: Path) -> None:
    loaded, _ = load_recipe(recipe(tmp_path, "inputs: [a.jsonl]\noutput: out\n"))
    assert loaded.inputs[0].path == "a.jsonl"
    assert (loaded.workflow, loaded.shards.formats) == ("text", ["megatron", "parquet"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("output: o\n", "r.yaml:1: inputs: required key missing"),
        (
            "inputs: [a]\noutput: o\nshard: {}\n",
            "r.yaml:3: shard: unknown key 'shard'; did you mean 'shards'? allowed:",
        ),
        ("inputs: [a]\noutput: o\nshards:\n  format: [x]\n", "r.yaml:4: shards.format: unknown key 'format'; did you"),
        ("inputs: [a]\noutput: 5\n", "r.yaml:2: output: Input should be a valid string, got 5"),
        ("inputs:\n  - {path: a, prio: 1}\noutput: o\n", "r.yaml:2: inputs.0.prio: unknown key 'prio'; did you mean"),
        (
            "inputs: [a]\noutput: o\nshards: {formats: [meg]}\n",
            "r.yaml:3: shards.formats.0: Input should be 'megatron'",
        ),
        ("inputs: [a]\noutput: o\noutput: p\n", "r.yaml:3: found duplicate key"),
        ("inputs: [a\noutput: o\n", "r.yaml:2: "),
        ("inputs: &x [a]\noutput: o\nfields: *x\n", "r.yaml:1: anchors and aliases are not allowed"),
        ("inputs: !!python/object/apply:os.system [ls]\noutput: o\n", "r.yaml:1: tags are not allowed"),
        ("inputs: [a]\noutput: !x o\n", "r.yaml:2: tags are not allowed"),
        ("- a\n", "a recipe is a mapping"),
        ("inputs: a\noutput: o\n", "r.yaml:1: inputs: Input should be a list, got 'a'"),
        ("inputs: [a]\noutput: o\nfields: 3\n", "r.yaml:3: fields: Input should be a mapping, got 3"),
        ("inputs: [a]\noutput: o\nsplits: {train: 0.1}\n", "r.yaml:3: splits: 'train' is no name for a split"),
        (
            "inputs: [a]\noutput: o\ngates: {max_drop_share: .nan}\n",
            "r.yaml:3: gates.max_drop_share: expected a finite",
        ),
        (
            "inputs: [a]\noutput: o\nparams:\n  c4: [1, -.inf]\n",
            "r.yaml:4: params.c4.1: expected a finite number, got -inf",
        ),
        ("inputs: [a]\noutput: 590295810358705651712\n", "r.yaml:2: output: a number of more than 64 bits"),
        ("inputs: [a]\noutput: " + "1" * 5000 + "\n", "r.yaml: Exceeds the limit"),
        ("inputs: [a]\noutput: 0x" + "f" * 5000 + "\n", "r.yaml:2: output: a number of more than 64 bits"),
        ("inputs: [a]\noutput: 2024-99-99\n", "r.yaml: month must be in 1..12"),
        ('inputs: [a]\noutput: "\\ud800"\n', r"r.yaml:2: output: not Unicode text: '\ud800'"),
        ('inputs: [a]\noutput: o\n"\\ud800": 1\n', r"r.yaml:3: \ud800: not Unicode text: '\ud800'"),
        ("inputs: [a]\noutput: o\nx: " + "[" * 3000 + "]" * 3000, "r.yaml:3: lists and mappings more than 32 deep"),
        ("<<: {inputs: 5}\noutput: o\n", "r.yaml:1: inputs: Input should be a list, got 5"),
    ],
)
def test_a_wrong_recipe_names_line_key_and_value(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(recipe(tmp_path, body))
    assert message in str(error.value)


def test_everything_wrong_is_told_a_line_each_unknown_keys_first(tmp_path: Path) -> None:
    path = recipe(tmp_path, "output: 5\nshards: []\ninput: [a]\n")
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    unknown, *others = str(error.value).splitlines()
    assert unknown.startswith(f"{path}:3: input: unknown key 'input'; did you mean 'inputs'? allowed: ")
    assert others == [
        f"{path}:1: inputs: required key missing",
        f"{path}:1: output: Input should be a valid string, got 5",
        f"{path}:2: shards: Input should be a mapping, got []",
    ]


def test_a_long_wrong_value_is_cut(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(recipe(tmp_path, f"inputs: {'a' * 5000}\noutput: o\n"))
    assert str(error.value).endswith("a…")
    assert len(str(error.value)) < len(str(tmp_path)) + 200


def test_yaml_words_stay_words(tmp_path: Path) -> None:
    body = "inputs: [a]\noutput: no\nparams: {language: {keep: [no, en]}, c4: off}\n"
    loaded, _ = load_recipe(recipe(tmp_path, body))
    assert (loaded.output, loaded.params) == ("no", {"language": {"keep": ["no", "en"]}, "c4": "off"})


def test_a_huge_recipe_is_not_parsed(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="at most"):
        load_recipe(recipe(tmp_path, "x: " + "[" * 2_000_000))


@pytest.mark.parametrize("off", ["off", False])
def test_an_operator_can_be_off(off: object) -> None:
    assert Params({"rule": off}).use(Rule) is None


@pytest.mark.parametrize("default", ["on", "off"])
@pytest.mark.parametrize("on", ["on", True, None, {}])
def test_an_operator_whose_key_is_left_blank_has_its_defaults(on: object, default: Literal["on", "off"]) -> None:
    assert Params({"rule": on}).use(Rule, default=default) == ("rule", Rule())


def test_an_operator_that_is_off_by_default_can_be_on() -> None:
    assert Params({}).use(Rule, default="off") is None
    assert Params({"rule": "on"}).use(Rule, default="off") == ("rule", Rule())
    assert Params({"rule": {"words": 7}}).use(Rule, default="off") == ("rule", Rule(words=7))


def test_each_use_has_its_own_name_and_the_recipe_wins_over_the_workflow() -> None:
    params = Params({"rule_strict": {"words": 9}})
    assert params.use(Rule, share=0.1) == ("rule", Rule(share=0.1))
    assert params.use(Rule, "rule_strict", words=8) == ("rule_strict", Rule(words=9))


@pytest.mark.parametrize(
    ("values", "path", "message"),
    [
        ({"rule": {"wrods": 1}}, ("rule", "wrods"), "did you mean 'words'? allowed: file, keep, share, words"),
        ({"rule": {"words": "many"}}, ("rule", "words"), "got 'many'"),
        ({"rule": {"words": "7"}}, ("rule", "words"), "valid integer"),
        ({"rule": {"keep": "en"}}, ("rule", "keep"), "got 'en'"),
        ({"rule": {"file": "/no/such"}}, ("rule", "file"), "no such file: /no/such"),
        ({"rule": 5}, ("rule",), "expected parameters"),
        ({"rule": 1}, ("rule",), "expected parameters"),
        ({"rule": 0}, ("rule",), "expected parameters"),
        ({"rule": {"keep": 1}}, ("rule", "keep"), "Input should be a list, got 1"),
        ({"rule": {"words": "7", "shar": 1}}, ("rule", "shar"), "\nparams.rule.words: Input should be a valid integer"),
        ({"ruel": {}}, ("ruel",), "unknown key 'ruel'; did you mean 'rule'? allowed: rule"),
    ],
)
def test_a_wrong_parameter_is_named_by_its_path(values: dict[str, object], path: tuple[str, ...], message: str) -> None:
    def use_all(params: Params) -> None:
        params.use(Rule)
        params.check_all_used()

    with pytest.raises(ParameterError) as error:
        use_all(Params(values))
    assert error.value.path == path
    assert message in str(error.value)


def test_a_pinned_file_is_known_by_its_content(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    for path in (one, two):
        path.write_text("same")
    a, b = (Params({"rule": {"file": str(path)}}).use(Rule) for path in (one, two))
    assert a is not None
    assert b is not None
    assert identity(a.operator) == identity(b.operator)
    two.write_text("other")
    changed = Params({"rule": {"file": str(two)}}).use(Rule)
    assert changed is not None
    assert identity(changed.operator) != identity(a.operator)
    with pytest.raises(ValueError, match="sha256"):
        b.operator.file.read()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("txet", "allowed: captions, order, speech, text"),
        ("no/such.py:f", "no such file"),
        ("x.yaml:f", "allowed"),
        ("{file}:g", "no function 'g'"),
    ],
)
def test_a_workflow_that_is_not_there_is_named(tmp_path: Path, name: str, message: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def f(params): ...\n")
    with pytest.raises(RecipeError, match=message):
        load_workflow(name.format(file=file))
