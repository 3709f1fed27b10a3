"""A store publishes whole objects or nothing, and finds inputs by path, folder and glob."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.inputs import list_inputs
from cluster.storage import AlreadyExists, StorageError, open_store


def test_a_written_key_is_read_back_listed_and_deleted(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write("a/b.json", b"1")
    assert store.read("a/b.json") == b"1"
    assert [stored[:2] for stored in store.list("a")] == [("a/b.json", 1)]
    store.delete(["a/b.json", "not there"])
    assert not store.exists("a/b.json")


def test_if_absent_takes_the_first_and_refuses_the_second(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write("k", b"first", if_absent=True)
    with pytest.raises(AlreadyExists):
        store.write("k", b"second", if_absent=True)
    assert store.read("k") == b"first"


def test_what_fails_before_it_is_published_leaves_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))

    def fail_half_way() -> None:
        with store.scratch() as folder:
            (folder / "k").write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert list(store.list("")) == []


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "a\0b"])
def test_a_key_cannot_leave_the_root(tmp_path: Path, key: str) -> None:
    with pytest.raises(StorageError):
        open_store(str(tmp_path)).write(key, b"")


def test_an_address_that_is_no_folder_is_refused() -> None:
    with pytest.raises(StorageError, match="ftp://x"):
        open_store("ftp://x/y")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a/1.txt", "a/b/2.txt", "a/b/3.html", "a/.hidden/4.txt", ".5.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a", ["1.txt", "b/2.txt", "b/3.html"]),
        ("a/1.txt", ["1.txt"]),
        ("a/*.txt", ["1.txt"]),
        ("a/*/*.txt", ["b/2.txt"]),
        ("a/**/*.txt", ["1.txt", "b/2.txt"]),
        ("**", ["a/1.txt", "a/b/2.txt", "a/b/3.html"]),
        ("a/b/[23].*", ["2.txt", "3.html"]),
    ],
)
def test_inputs_are_found_by_path_folder_and_glob(tree: Path, pattern: str, expected: list[str]) -> None:
    assert [item.rel for item in list_inputs(str(tree / pattern))] == expected


@pytest.mark.parametrize("pattern", ["nothing", "a/*.csv"])
def test_inputs_that_are_not_there_are_an_error(tree: Path, pattern: str) -> None:
    with pytest.raises(FileNotFoundError):
        list_inputs(str(tree / pattern))
