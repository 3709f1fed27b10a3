"""Labels come from a file to the clips that it speaks of."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
import pytest

from operators.apply import Applied, Step, apply
from operators.caption.label import Label

AUDIOSET = """# Segments csv created Sun Mar  5 10:54:25 2017
# num_ytids=3, num_segs=3, num_unique_labels=3, num_positive_labels=4
# YTID, start_seconds, end_seconds, positive_labels
--4gqARaEJE, 0.000, 10.000, "/m/068hy,/m/0k4j"
Y_abcdefghi, 30.000, 40.000, "/t/dd00003"
_123456789Y, 30.000, 40.000, "/m/0k4j"
"""
NAMES = """index,mid,display_name
0,/m/068hy,"Domestic animals, pets"
1,/m/0k4j,"Car"
2,/t/dd00003,"Male singing"
"""


def clips(*rows: tuple[str, float, float] | str) -> pa.Table:
    """Recordings, or clips of them with their times."""
    whole = all(isinstance(row, str) for row in rows)
    table = pa.table({"id": [str(n) for n in range(len(rows))]})
    table = table.append_column("recording", pa.array([row if isinstance(row, str) else row[0] for row in rows]))
    if whole:
        return table
    for at, name in ((1, "start"), (2, "end")):
        table = table.append_column(name, pa.array([float(row[at]) for row in rows]))
    return table


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    """Rows of a file of labels, in the format that its name says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    else:
        told = [[*rows[0]], *([str(value) for value in row.values()] for row in rows)]
        between = "," if path.suffix == ".csv" else "\t"
        path.write_text("".join(between.join(f'"{field}"' for field in row) + "\n" for row in told), "utf-8")
    return str(path)


def labelled(docs: pa.Table, **fields: Any) -> Applied:
    return apply([Step("label", Label(**fields))], docs)


def labels(docs: pa.Table, **fields: Any) -> list[list[str] | None]:
    found: list[list[str] | None] = labelled(docs, **fields).kept["labels"].to_pylist()
    return found


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_formats(kind: str, tmp_path: Path) -> None:
    rows = [
        {"recording": "a/x.wav", "labels": " Dog; Bark,  loud ;;"},
        {"recording": "y.wav", "labels": "Rain,Wind"},
        {"recording": "z", "labels": "Piano"},
        {"recording": "none", "labels": ""},
    ]
    file = written(tmp_path / f"labels.{kind}", rows)
    docs = clips("in/a/x.wav", "in/b/x.wav", "in/y.wav", "y.flac", "deep/down/z.mp3", "none.wav")
    assert labels(docs, file=file) == [["Dog", "Bark, loud"], None, ["Rain", "Wind"], None, ["Piano"], None]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Male speech, man speaking", ["Male speech, man speaking"]),
        ("Male speech, man speaking;Dog", ["Male speech, man speaking", "Dog"]),
        ("Male speech, man speaking,Dog,", ["Male speech, man speaking", "Dog"]),
        ("Whoosh, swoosh, swish", ["Whoosh, swoosh, swish"]),
        ("Dog;a,b", ["Dog", "a,b"]),
        (",,a,,b", ["a", "b"]),
        (",,", None),
    ],
)
def test_names_that_hold_commas_stay_whole(text: str, found: list[str] | None, tmp_path: Path) -> None:
    file = written(tmp_path / "l.jsonl", [{"recording": "x", "labels": text}])
    assert labels(clips("x.wav"), file=file) == [found]


def test_names_are_the_same_however_accents_are_written(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "\u00e9t\u00e9.wav") for form in ("NFC", "NFD")]
    for listed in names:
        file = written(tmp_path / "l.csv", [{"recording": listed, "labels": "Rain"}])
        assert labels(clips(*names), file=file) == [["Rain"], ["Rain"]]


def test_names_that_could_be_numbers_or_dates(tmp_path: Path) -> None:
    names = ("000123", "2012-08-01", "1e3", "nan")
    for kind in ("csv", "jsonl", "parquet"):
        file = written(tmp_path / f"l.{kind}", [{"recording": name, "labels": "Rain"} for name in names])
        assert labels(clips(*names, "123"), file=file) == [["Rain"]] * 4 + [None]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_lists_are_taken_as_they_are(kind: str, tmp_path: Path) -> None:
    rows = [{"recording": "x", "labels": ["Female speech, woman speaking", "Dog", "", None]}]
    file = written(tmp_path / f"labels.{kind}", rows)
    assert labels(clips("x.wav"), file=file) == [["Female speech, woman speaking", "Dog"]]


def test_the_longest_name_counts(tmp_path: Path) -> None:
    names = ("x", "x.wav", "b/x", "b/x.wav", "a/b/x.wav")
    file = written(tmp_path / "l.csv", [{"recording": name, "labels": name} for name in names])
    docs = clips("in/a/b/x.wav", "b/x.wav", "c/x.wav", "b/x.mp3", "x.mp3", "x", "b.x.wav")
    assert labels(docs, file=file) == [["a/b/x.wav"], ["b/x.wav"], ["x.wav"], ["b/x"], ["x"], ["x"], None]


def test_times(tmp_path: Path) -> None:
    rows = [
        {"recording": "x", "labels": "all", "start": None, "end": None},
        {"recording": "x", "labels": "from 18", "start": 18.0, "end": None},
        {"recording": "x", "labels": "moment", "start": 12.0, "end": 12.0},
        {"recording": "x", "labels": "edge", "start": 9.0, "end": 10.5},
        {"recording": "x", "labels": "start", "start": 0.0, "end": 5.0},
    ]
    file = written(tmp_path / "l.jsonl", rows)
    docs = clips(("x", 0, 10), ("x", 10, 20), ("x", 20, 25), ("x", 4, 24))
    assert labels(docs, file=file) == [
        ["all", "edge", "start"],  # of `edge` two thirds
        ["all", "moment"],
        ["all", "from 18"],
        ["all", "moment", "edge"],  # 6 of 20 s are no half
    ]
    everything = ["all", "from 18", "moment", "edge", "start"]
    assert labels(docs, file=file, times="source") == [everything] * 4
    assert labels(clips("x.wav"), file=file) == [everything]  # not cut: all of it


def test_half_is_enough(tmp_path: Path) -> None:
    file = written(tmp_path / "l.jsonl", [{"recording": "x", "labels": "here", "start": 5, "end": 100}])
    assert labels(clips(("x", 0, 10), ("x", 0, 9.9), ("x", 95, 105), ("x", 95.1, 105)), file=file) == [
        ["here"],
        None,
        ["here"],
        None,
    ]


@pytest.fixture
def audioset(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "segments.csv").write_text(AUDIOSET, "utf-8")
    (tmp_path / "names.csv").write_text(NAMES, "utf-8")
    return {"file": str(tmp_path / "segments.csv"), "names": str(tmp_path / "names.csv")}


def test_audioset(audioset: dict[str, Any]) -> None:
    docs = clips(
        ("--4gqARaEJE.wav", 0, 10),
        ("in/Y--4gqARaEJE.flac", 0, 10),
        ("Y_abcdefghi.wav", 0, 10),
        ("YY_abcdefghi_30.000_40.000.wav", 0, 10),
        ("_123456789Y_30_40.wav", 0, 10),
        ("_123456789Y_other.wav", 0, 10),
        ("Z_123456789Y.wav", 0, 10),
    )
    expected = [*[["Domestic animals, pets", "Car"]] * 2, *[["Male singing"]] * 2, ["Car"], None, None]
    assert labels(docs, **audioset) == expected
    assert labels(docs, times="recording", **audioset)[2:5] == [None] * 3  # 30 to 40 s of a recording of 10
    (count,) = labelled(docs, **audioset).counts
    assert count.counted == {"labelled": 5, "unlabelled": 2, "labelled_twice": 0}


def test_what_is_said_twice_counts_once_and_is_told_of(tmp_path: Path) -> None:
    rows = [{"recording": name, "labels": said} for name, said in (("x", "a;b"), ("y", "c"), ("x", "b;d"))]
    found = labelled(clips("x.wav", "y.wav", "z.wav"), file=written(tmp_path / "l.csv", rows))
    assert found.kept["labels"].to_pylist() == [["a", "b", "d"], ["c"], None]
    assert found.counts[0].counted == {"labelled": 2, "unlabelled": 1, "labelled_twice": 1}


def test_without_a_file_nothing_is_known() -> None:
    found = labelled(clips("x.wav"))
    assert found.kept["labels"].to_pylist() == [None]
    assert found.kept["labels"].type == pa.list_(pa.string())
    assert found.counts[0].counted == {}


def test_rows_do_not_depend_on_each_other(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [
        {"recording": f"{random.integers(20)}", "labels": f"l{n}", "start": float(n % 7), "end": float(n % 7 + 3)}
        for n in range(200)
    ]
    file = written(tmp_path / "l.parquet", rows)
    docs = clips(*((f"in/{n % 25}.wav", n % 5, n % 5 + 2) for n in range(100)))
    together = labels(docs, file=file)
    assert [labels(docs.slice(n, 1), file=file)[0] for n in range(100)] == together
    for row, found in zip(docs.to_pylist(), together, strict=True):
        name, start, end = row["recording"], row["start"], row["end"]
        near = [
            line["labels"]
            for line in rows
            if f"in/{line['recording']}.wav" == name
            and min(line["end"], end) - max(line["start"], start) >= (end - start) / 2
        ]
        assert (found or []) == near


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("l.csv", "recording,label\nx,y\n", r"l.csv: 0 columns 'labels'; there are: recording, label"),
        ("l.csv", "recording,labels,labels\nx,y,z\n", "2 columns 'labels'"),
        ("l.csv", "recording,labels,start,end\nx,y,soon,1\n", "l.csv: .*soon"),
        ("l.csv", "recording,labels,start,end\nx,y,3,1\n", "from 3 to 1 s: x"),
        ("l.csv", "recording,labels,start,end\nx,y,-3,1\n", "from -3 to 1 s: x"),
        ("l.csv", "recording,labels,start,end\nx,y,inf,inf\n", "from inf to inf s: x"),
        ("l.csv", "", "l.csv: no line"),
        ("l.csv", "recording,labels\nx,y,z\n", "l.csv: .*Expected 2 columns"),
        ("l.csv", f"recording,labels\nx,{'y' * 201}\n", "a label of 201 characters: yyy"),
        ("l.jsonl", "", "l.jsonl: "),
        ("l.jsonl", '{"recording": "x", "labels": {"a": 1}}\n', "l.jsonl: "),
        ("l.jsonl", '{"recording": "x", "labels": "y"\n', "l.jsonl: "),
        ("l.jsonl", '{"recording": "x", "labels": "y"}\n{"recording": "x", "labels": ["y"]}\n', "l.jsonl: "),
        ("l.parquet", "recording,labels\nx,y\n", "l.parquet: "),
        ("l.txt", "x y\n", "a file of labels is one of .csv, .tsv, .jsonl, .parquet"),
    ],
)
def test_a_bad_file_is_told_of_when_the_recipe_is_read(name: str, content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(pydantic.ValidationError, match=told):
        Label(file=str(tmp_path / name))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    for rows in (1, 100_000):  # near the header and far from it
        (tmp_path / "l.csv").write_bytes(b"recording,labels\n" + rows * b"x,y\n" + b"x,caf\xe9\n")
        with pytest.raises(pydantic.ValidationError, match="l.csv: .*(utf-8|UTF8)"):
            Label(file=str(tmp_path / "l.csv"))


def test_bad_names(audioset: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(pydantic.ValidationError, match="these are AudioSet's; `names` has to be"):
        Label(file=audioset["file"])
    Path(audioset["names"]).write_text(NAMES.replace("/m/068hy", "/m/0"), "utf-8")
    with pytest.raises(pydantic.ValidationError, match="'/m/068hy' is not in the file of names"):
        Label(**audioset)
    Path(audioset["names"]).write_text("index,mid\n0,/m/068hy\n", "utf-8")
    with pytest.raises(pydantic.ValidationError, match="names: .*names.csv: .*display_name"):
        Label(**audioset)
    for fields in ({"names": audioset["names"]}, {"times": "source"}):
        with pytest.raises(pydantic.ValidationError, match=f"{next(iter(fields))}: of no use without `file`"):
            Label(**fields)
    with pytest.raises(pydantic.ValidationError, match="no such file"):
        Label(file=str(tmp_path / "absent.csv"))
