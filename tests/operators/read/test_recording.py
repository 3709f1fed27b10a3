"""Recordings are rows that say where they lie, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from operators.read.reader import cut, joined, read
from operators.read.recording import URL, open_recording
from operators.read.span import Batch, Fields, Span, fallback_id


def span(path: Path) -> Span:
    return Span(str(path), f"radio:{path.name}", "audio", 0, -1, 9, "radio", 2, 0.5)


def nowhere(url: str) -> None:
    raise AssertionError(f"{url} was opened")


def test_a_recording_is_one_row_that_nobody_has_opened(tmp_path: Path) -> None:
    one = span(tmp_path / "a.mp3")
    assert cut(one, nowhere, 1, Fields()) == [one]  # type: ignore[arg-type]
    ((docs, bad),) = read(one, nowhere, Fields())  # type: ignore[arg-type]
    (row,) = docs.to_pylist()
    assert (row["id"], row["recording"], row[URL]) == (fallback_id("radio:a.mp3", 0), "radio:a.mp3", one.url)
    assert (row["source"], row["priority"], row["weight"], row["text"]) == ("radio", 2, 0.5, None)
    assert bad.num_rows == 0


def test_each_is_done_with_before_the_next_is_read(tmp_path: Path) -> None:
    begun: list[str] = []

    def batches() -> Iterator[Batch]:
        for name in ("a.mp3", "b.mp3"):
            begun.append(name)
            yield from read(span(tmp_path / name), nowhere, Fields())  # type: ignore[arg-type]

    for number, batch in enumerate(joined(batches()), 1):
        assert batch.docs.num_rows == 1
        assert len(begun) == number


def test_it_is_opened_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(b"sound")
    with open_recording(str(tmp_path / "a.mp3")) as file:
        assert file.read() == b"sound"
