"""Clips of evaluation sets, by name and by ear."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.caption import heard_sets
from operators.caption.decontaminate import DecontaminateClips
from operators.caption.decontaminate_audio import DecontaminateAudio
from operators.caption.fingerprint import WORDS
from operators.caption.listed_file import videos
from tests.operators.dedup.test_similar_audio import flipped, noise

AUDIOSET = """# Segments csv created Sun Mar  5 10:54:25 2017
# num_ytids=20371, num_segs=20371
# YTID, start_seconds, end_seconds, positive_labels
--4gqARaEJE, 0.000, 10.000, "/m/068hy,/m/07q6cd_,/m/0bt9lr,/m/0jbk"
Y_iUX8CibZ8, 30.000, 40.000, "/m/09x0r"
_a-b_c-d_e-, 50.000, 60.000, "/m/09x0r"
"""


def held(operator: DecontaminateClips, *recordings: str) -> list[str | None]:
    docs = pa.table({"recording": list(recordings)})
    marked = operator(docs)
    assert set(marked["drop_reason"].to_pylist()) <= {None, "held_out"}
    assert marked["drop_reason"].is_valid() == marked["drop_detail"].is_valid()
    return marked["drop_detail"].to_pylist()


@pytest.fixture
def audioset(tmp_path: Path) -> str:
    path = tmp_path / "eval_segments.csv"
    path.write_text(AUDIOSET)
    return str(path)


@pytest.mark.parametrize(
    ("recording", "entry"),
    [
        ("--4gqARaEJE.wav", "--4gqARaEJE"),
        ("eval/Y--4gqARaEJE.FLAC", "--4gqARaEJE"),
        ("--4gqARaEJE_0.000_10.000.mp3", "--4gqARaEJE"),
        ("Y--4gqARaEJE_0_10.mp3", "--4gqARaEJE"),
        ("--4gqARaEJE_000120.mp4", "--4gqARaEJE"),  # another clip of the video
        ("--4gqARaEJE", "--4gqARaEJE"),  # no ending
        ("Y_iUX8CibZ8.wav", "Y_iUX8CibZ8"),  # an id that begins with Y
        ("YY_iUX8CibZ8_30.wav", "Y_iUX8CibZ8"),
        ("_a-b_c-d_e-_50.wav", "_a-b_c-d_e-"),
        ("_iUX8CibZ8.wav", None),  # ten characters
        ("--4gqarAEJE.wav", None),  # case counts
        ("x--4gqARaEJE.wav", None),  # a part of another name
        ("--4gqARaEJEx.wav", None),
        ("--4gqARaEJE_intro.wav", None),
        ("--4gqARaEJE/001.wav", None),  # a folder
        ("--4gqARaEJE_0_10_20.wav", None),
        ("", None),
    ],
)
def test_ids_of_youtube(audioset: str, recording: str, entry: str | None) -> None:
    detail = None if entry is None else f"audioset: {entry}"
    assert held(DecontaminateClips(sets={"audioset": audioset}), recording) == [detail]


def test_offsets(audioset: str) -> None:
    operator = DecontaminateClips(sets={"audioset": audioset}, offsets="overlap")
    names = ["Y_iUX8CibZ8_30_40.wav", "Y_iUX8CibZ8_000039.wav", "Y_iUX8CibZ8_40_50.wav", "YY_iUX8CibZ8_20.000.wav"]
    listed = "audioset: Y_iUX8CibZ8"
    assert held(operator, *names, "Y_iUX8CibZ8.wav") == [listed, listed, None, None, listed]


@pytest.mark.parametrize(
    ("start", "kept"),
    [("40", True), ("nan", False), ("inf", False), ("-9", False), ("20000", False), ("", False), ("soon", False)],
)
def test_starts_that_are_none_keep_nothing(tmp_path: Path, start: str, kept: bool) -> None:
    (tmp_path / "a.csv").write_text(f"ytid,start_seconds\n7fmOlUlwoNg,{start}\n")
    operator = DecontaminateClips(sets={"a": str(tmp_path / "a.csv")}, offsets="overlap")
    assert held(operator, "7fmOlUlwoNg_30_40.wav") == [None if kept else "a: 7fmOlUlwoNg"]


@pytest.mark.parametrize("said", ["30000_40000", "30000", "0_10000", "0_60", "60_30", "9" * 400, "0_" + "9" * 400])
def test_names_whose_start_is_not_certain_go(audioset: str, said: str) -> None:
    """In milliseconds, as AudioSet's strong labels and some downloads are, or longer than a clip of those sets."""
    operator = DecontaminateClips(sets={"audioset": audioset}, offsets="overlap")
    assert held(operator, f"Y_iUX8CibZ8_{said}.wav") == ["audioset: Y_iUX8CibZ8"]


def test_names_are_the_same_however_accents_are_written(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "\u00e9t\u00e9.wav") for form in ("NFC", "NFD")]
    for listed in names:
        (tmp_path / "a.txt").write_text(listed, "utf-8")
        assert None not in held(DecontaminateClips(sets={"a": str(tmp_path / "a.txt")}), *names)


def test_held_out_is_counted_by_set(tmp_path: Path) -> None:
    for name, content in (("a", "x\ny"), ("b", "z\nx"), ("c", "w.wav;1")):
        (tmp_path / f"{name}.txt").write_text(content)
    operator = DecontaminateClips(sets={name: str(tmp_path / f"{name}.txt") for name in "abc"})
    marked = operator(pa.table({"recording": ["x.wav", "y.wav", "z.wav", "w.wav"]}))
    assert operator.counted(marked) == {"held_out/a": 2, "held_out/b": 1, "held_out/c": 0}


LISTS: dict[str, Any] = {
    "audiocaps.csv": 'audiocap_id,youtube_id,start_time,caption\n103549,7fmOlUlwoNg,130,"A bang,\nthen rattling"\n',
    "vggsound.csv": '7fmOlUlwoNg,130,"people marching",test\n---g-f_I2yQ,1,"dog barking",test\n',
    "ids.txt": "# held out\n\nY7fmOlUlwoNg_130.000_140.000.wav\r\n---g-f_I2yQ\n",
    "named.txt": "youtube_id\n7fmOlUlwoNg_130\n",
    "bare.csv": '7fmOlUlwoNg, 30.000, 40.000, "/m/068hy,/m/07q6cd_"\n',
    "raw.jsonl": '{"caption": "a\u2028b\x85c", "ytid": "7fmOlUlwoNg"}\n',
    "quoted.csv": 'caption,ytid\n"a\n# b",7fmOlUlwoNg\n',
    "ids.tsv": "name\tfile_name\nx\t7fmOlUlwoNg.wav\n",
    "ids.jsonl": '{"caption": "a", "ytid": "7fmOlUlwoNg"}\n{"ytid": "7fmOlUlwoNg", "start_time": 130}\n',
    "own.jsonl": '{"clip": "7fmOlUlwoNg", "id": "zzzzzzzzzzz"}\n',
}


@pytest.mark.parametrize("name", LISTS)
def test_forms_of_lists(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(LISTS[name], "utf-8")
    one: Any = {"path": str(path), "column": "clip"} if name == "own.jsonl" else str(path)
    found = held(DecontaminateClips(sets={"a set": one}), "a/Y7fmOlUlwoNg_120_130.wav", "zzzzzzzzzzz.wav")
    assert [detail is not None and "7fmOlUlwoNg" in detail for detail in found] == [True, False]


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.tsv"])
def test_names_may_begin_as_comments_do_and_hold_what_ends_lines_elsewhere(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("# held out\n#\n#1.wav\na\u2028b.wav\n" + "a\x0cb.wav\n", "utf-8")
    operator = DecontaminateClips(sets={"a": str(tmp_path / name)})
    names = ["#1.wav", "a\u2028b.wav", "a\x0cb.wav", "a.wav", "b.wav", "held out.wav", "# held out.wav"]
    assert [detail is not None for detail in held(operator, *names)] == [True] * 3 + [False] * 4


def test_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1], "Youtube_ID": ["7fmOlUlwoNg"]}), tmp_path / "a.parquet")
    operator = DecontaminateClips(sets={"a": str(tmp_path / "a.parquet")})
    assert held(operator, "7fmOlUlwoNg.wav", "1.wav") == ["a: 7fmOlUlwoNg", None]


def test_file_names_are_nothing_but_themselves(tmp_path: Path) -> None:
    """Clotho's. One that looks like an id of YouTube is none among others that do not."""
    path = tmp_path / "clotho_captions_evaluation.csv"
    path.write_text('file_name,caption_1\n"Santa Motor, close.wav",a\nrain_street.wav,b\n01 A pug struggles.wav,c\n')
    names = [
        "Santa Motor, close.flac",
        "in/rain_street.wav",
        "rain_street_2.wav",
        "Yrain_street.wav",
        "Santa Motor.wav",
    ]
    details = ["clotho: Santa Motor, close", "clotho: rain_street", None, None, None]
    assert held(DecontaminateClips(sets={"clotho": str(path)}), *names) == details


IDS = st.text("Yab0_-", min_size=11, max_size=11)


@given(
    name=IDS,
    start=st.integers(0, 999),
    y=st.booleans(),
    form=st.sampled_from(["", "_{0}", "_{0}.500_{1}.500", "_{0}.500_{0}.750", "_{0:06}"]),
)
def test_every_form_of_an_id_is_read(name: str, start: int, y: bool, form: str) -> None:
    found = dict(videos("Y" * y + name + form.format(start, start + 10)))
    assert found[name] == (start + (form[4:8] == ".500") / 2 if form else None)
    assert len(found) <= 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "\n# nothing\n", "sets.a: .*a.txt: no entry"),
        ("a.csv", "x,file_name\n", "no entry"),
        ("a.jsonl", "{", "sets.a"),
        ("a.csv", "\n", "sets.a: .*: no line"),
        ("a.csv", "x" * 200_000, "sets.a: .*: field larger than field limit"),
        ("a.jsonl", "[1]", "no JSON object"),
        ("a.jsonl", '{"x": 1}', "none of the columns youtube_id"),
        ("a.parquet", "PAR1", "sets.a"),
        ("a.txt", "\xff", "sets.a"),
        ("a.csv", "file;start\nfoo.wav;1\n", "none of the columns .* first cell is no recording: file;start"),
        ("a.csv", "foo.wav;1\nbar.wav;2\n", "none of the columns .*: foo.wav;1"),
        ("a.csv", "clip,of\n7fmOlUlwoNg,30\n", "none of the columns .*: clip, of"),
        ("a.csv", "ytid,caption\n7fmOlUlwoNg,a,b\n", "sets.a: .*Expected 2 columns"),
    ],
)
def test_bad_lists(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, "latin-1")
    with pytest.raises(pydantic.ValidationError, match=message):
        DecontaminateClips(sets={"a": str(tmp_path / name)})


def test_bad_columns(tmp_path: Path, audioset: str) -> None:
    (tmp_path / "a.txt").write_text("x")
    for path, message in ((audioset, "no column 'x'"), (str(tmp_path / "a.txt"), "list of lines")):
        with pytest.raises(pydantic.ValidationError, match=message):
            DecontaminateClips(sets={"a": {"path": path, "column": "x"}})
    with pytest.raises(pydantic.ValidationError, match="no such file"):
        DecontaminateClips(sets={"a": str(tmp_path / "b")})


def test_audio_of_evaluation_sets(tmp_path: Path) -> None:
    heard_sets.write(tmp_path / "one.parquet", ["x.wav", "y.wav"], [noise(1, 600), noise(2, 600)])
    heard_sets.write(tmp_path / "two.parquet", ["z.wav"], [noise(3, 600)])
    operator = DecontaminateAudio(sets={"one": str(tmp_path / "one.parquet"), "two": str(tmp_path / "two.parquet")})
    clips = [
        noise(9, 600),
        noise(2, 600)[100:400],
        np.concatenate([noise(8, 100), flipped(noise(3, 600), 0.05)[:400]]),
        noise(1, 600)[:100],  # shorter than 3 s, all of it
        np.concatenate([noise(1, 600)[:150], noise(7, 300)]),  # 2.4 s
        None,
    ]
    marked = operator(pa.table({"fingerprint": pa.array(clips, WORDS)}))
    details = [None, "one: y.wav", "two: z.wav", "one: x.wav", None, None]
    assert marked["drop_detail"].to_pylist() == details
    assert marked["drop_reason"].to_pylist() == [detail and "held_out" for detail in details]
    values = marked["drop_value"].to_pylist()
    assert values[1] == values[3] == 1.0
    assert 0.94 < values[2] < 0.96
    assert marked["drop_threshold"].to_pylist()[1] == 0.7
    empty = pa.table({"fingerprint": pa.array([], WORDS)})
    assert operator(empty).num_rows == 0


def test_the_most_similar_clip_is_named(tmp_path: Path) -> None:
    copies = [flipped(noise(1, 600), 0.1), noise(1, 600), noise(1, 600)]
    heard_sets.write(tmp_path / "a.parquet", ["first", "second", "third"], copies)
    operator = DecontaminateAudio(sets={"a": str(tmp_path / "a.parquet")})
    marked = operator(pa.table({"fingerprint": pa.array([noise(1, 600)], WORDS)}))
    assert marked["drop_detail"].to_pylist() == ["a: second"]


def test_what_many_clips_have_in_common_finds_few(tmp_path: Path) -> None:
    """A jingle; a copy of one that has it is found by the rest, and one that is the jingle alone by it."""
    jingle = noise(0, 200)
    clips = [np.concatenate([jingle, noise(n, 300)]) for n in range(1, 101)]
    heard_sets.write(tmp_path / "a.parquet", [f"{n}" for n in range(101)], [*clips, jingle])
    operator = DecontaminateAudio(sets={"a": str(tmp_path / "a.parquet")})
    asked = [clips[98], flipped(clips[50], 0.05), jingle, np.concatenate([jingle, noise(500, 900)]), noise(501, 600)]
    marked = operator(pa.table({"fingerprint": pa.array(asked, WORDS)}))
    assert marked["drop_detail"].to_pylist()[:2] == ["a: 98", "a: 50"]
    assert marked["drop_value"].to_pylist()[2] == 1.0
    assert marked["drop_reason"].to_pylist()[2:] == ["held_out", "held_out", None]
    assert operator.counted(marked) == {"held_out/a": 4}
    keys = heard_sets.HeardSets((("a", operator.sets["a"]),)).load()._keys
    assert np.unique(keys, return_counts=True)[1].max() == heard_sets.MOST


def test_bad_fingerprints(tmp_path: Path) -> None:
    (tmp_path / "rubbish.parquet").write_bytes(b"PAR1")
    words, meaning = pa.array([noise(1, 9)], WORDS), {heard_sets.KIND: heard_sets.WORDS_ARE}
    null = pa.array([[1, None]], WORDS)
    tables = {
        "strange": pa.table({"name": ["a"], "fingerprint": words}),
        "unnamed": pa.table({"fingerprint": words}),
        "long": pa.table({"name": ["a"], "fingerprint": words.cast(pa.list_(pa.int64()))}),
        "text": pa.table({"name": ["a"], "fingerprint": ["1"]}),
        "null word": pa.table({"name": ["a"], "fingerprint": null}),
        "null name": pa.table({"name": pa.array([None], pa.string()), "fingerprint": words}),
    }
    for name, table in tables.items():
        if name != "strange":
            table = table.replace_schema_metadata(meaning)
        pq.write_table(table, tmp_path / f"{name}.parquet")
    messages = {"rubbish": "", **dict.fromkeys(tables, "not written by this version")}
    messages |= dict.fromkeys(("null word", "null name"), "a name, a fingerprint or a word is null")
    for name, message in messages.items():
        with pytest.raises(pydantic.ValidationError, match=f"sets.x: .*{name}.parquet: .*{message}"):
            DecontaminateAudio(sets={"x": str(tmp_path / f"{name}.parquet")})
