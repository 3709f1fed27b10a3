from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from operators.caption.fingerprint import WORDS, WORDS_A_SECOND, words_of
from operators.dedup.acoustic import LEAST_WORDS, SHORT, flat, keys_of, likeness
from operators.dedup.similar_audio import SimilarAudio
from operators.phases import Index, Phase, run_in_memory
from tests.operators.dedup.rows import Repartitioned, documents, fates
from tests.operators.dedup.test_nights import Corpus

OVERLAP = 1.0  # seconds: short, so that examples can be
NEAR = SimilarAudio(min_overlap=OVERLAP)
Words = NDArray[np.uint32]


def clips(words: Sequence[Words | None], ids: Sequence[str] | None = None, priority: Sequence[int] = ()) -> pa.Table:
    """Documents with these fingerprints."""
    rows = [{"id": name, "text": None} for name in ids or [f"r{k}" for k in range(len(words))]]
    for row, value in zip(rows, priority, strict=False):
        row["priority"] = value
    return documents(rows).append_column("fingerprint", pa.array(words, WORDS))


def noise(seed: int, count: int) -> Words:
    """Words of a recording that is like no other."""
    return np.random.default_rng(seed).integers(1, 2**32, count, np.uint32)


def flipped(words: Words, share: float, seed: int = 0) -> Words:
    """The words with that share of their bits turned over."""
    bits = np.random.default_rng(seed).random((len(words), 32)) < share
    return words ^ np.packbits(bits, axis=1, bitorder="little").view("<u4")[:, 0]


def dropped(table: pa.Table, operator: SimilarAudio = NEAR) -> dict[str, str]:
    return {i: kept for i, reason, kept, *_ in fates(operator, [table]) if reason}


@pytest.mark.parametrize(
    ("words", "gone"),
    [
        ([noise(1, 200), noise(1, 200)], {"r1": "r0"}),
        ([noise(1, 200), noise(2, 200)], {}),
        ([noise(1, 400)[:200], noise(1, 400)[100:]], {"r1": "r0"}),  # 1.6 s are in both
        ([noise(1, 400)[:200], noise(1, 400)[150:]], {}),  # 0.8 s
        ([noise(1, 400)[:50], noise(1, 400)], {"r1": "r0"}),  # all of what is shorter
        ([noise(1, 400)[:50], noise(1, 400)[12:]], {}),  # 76 % of it
        ([noise(1, 30), noise(1, 30)], {}),  # too short to tell
        ([noise(1, 400), flipped(noise(1, 400), 0.05)], {"r1": "r0"}),
        ([None, None], {}),
        ([np.zeros(300, np.uint32), np.zeros(300, np.uint32)], {}),
        ([np.full(300, 7, np.uint32), np.full(300, 7, np.uint32)], {}),  # one word, again and again: no time in it
    ],
)
def test_who_goes(words: list[Words | None], gone: dict[str, str]) -> None:
    assert dropped(clips(words)) == gone


def test_the_keeper_rule() -> None:
    one = noise(1, 200)
    assert dropped(clips([one, one, one], ["b", "c", "a"])) == {"b": "a", "c": "a"}
    assert dropped(clips([one, one, one], ["b", "c", "a"], [0, 5, 0])) == {"b": "c", "a": "c"}


def test_a_chain_does_not_take_away_what_is_like_nothing_left() -> None:
    """Of clips that overlap one after the other every second one stays."""
    recording = noise(1, 2000)
    chain = [recording[at : at + 200] for at in range(0, 1000, 120)]
    found = fates(NEAR, [clips(chain)])
    assert {i for i, reason, *_ in found if reason} == {"r1", "r3", "r5", "r7"}
    assert {(cluster, size) for *_, cluster, size in found} == {("r0", len(chain))}


def test_many_copies_and_one_stays() -> None:
    """More than are compared with one another."""
    copies = [flipped(noise(1, 300), 0.02, seed) for seed in range(60)]
    names = [f"c{n:02}" for n in np.random.default_rng(1).permutation(60)]
    assert dropped(clips(copies, names)) == {f"c{n:02}": "c00" for n in range(1, 60)}


def test_a_word_that_is_in_everything() -> None:
    """The same second of sound in a thousand clips makes neither pairs with the square of that nor copies."""
    jingle = noise(1, 40)
    table = clips([np.concatenate([jingle, noise(2 + k, 160)]) for k in range(1000)])
    phases = {phase.name: phase for phase in NEAR.phases(1000) if isinstance(phase, Phase)}
    docs = table.append_column("doc", pa.array(np.arange(1000, dtype=np.uint64)))
    (keys_map,), (hits_map, known_map) = phases["keys"].maps.values(), phases["hits"].maps.values()
    shared = phases["keys"].reduce({"documents": keys_map(docs)})
    met = phases["hits"].reduce({"documents": hits_map(docs, shared), "keys": known_map(shared)})
    keys = len(np.unique(shared["shared"]))
    assert keys >= 4
    assert met.num_rows <= 4 * 1000 * (keys + 1)
    assert dropped(table) == {}


def test_the_value_is_the_similarity() -> None:
    one = noise(1, 200)
    other = one ^ np.where(np.arange(200) % 4 == 0, np.uint32(0xFF), np.uint32(0))  # a sixteenth of the bits
    [_, gone] = sorted(run_in_memory(NEAR, [clips([one, other])]).to_pylist(), key=lambda row: row["doc"])
    assert (gone["drop_reason"], gone["drop_value"], gone["drop_threshold"]) == ("duplicate", 0.9375, 0.8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_error": 0.5}, r"(?s)max_error.*input_value=0.5"),
        ({"max_error": 0}, r"(?s)max_error.*input_value=0"),
        ({"min_overlap": 0.2}, r"(?s)min_overlap.*input_value=0.2"),
        ({"scope": "all"}, r"(?s)scope.*'all'"),
        ({"threshold": 1}, "threshold"),
    ],
)
def test_bad_parameters(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        SimilarAudio(**fields)


@given(st.lists(st.lists(st.integers(0, 9), max_size=30), max_size=8))
def test_keys_are_chosen_by_the_word_alone(lists: list[list[int]]) -> None:
    """Each clip gives every key once, where it comes first; a word is a key in all clips or in none; 0 never is."""
    column = pa.chunked_array([pa.array(lists, WORDS)])
    words, offsets = flat(column)
    keys, clip, place = keys_of(words, offsets)
    found = {(c, lists[c][p], p) for c, p in zip(clip.tolist(), place.tolist(), strict=True)}
    chosen = {word for _, word, _ in found}
    assert 0 not in chosen
    assert found == {(c, w, own.index(w)) for c, own in enumerate(lists) for w in set(own) & chosen}
    assert len(set(keys.tolist())) == len(chosen)


def alike(one: Words, other: Words, lag: int) -> tuple[float, int]:
    """(share of equal bits, words compared) with `other` that much later, in plain Python."""
    equal, count = 0, 0
    for at, word in enumerate(other.tolist()):
        if 0 <= at - lag < len(one) and word and int(one[at - lag]):
            equal += 32 - (word ^ int(one[at - lag])).bit_count()
            count += 1
    return (equal / (32 * count) if count else 0.0), count


@given(seed=st.integers(0, 2**32), sizes=st.tuples(st.integers(0, 120), st.integers(0, 120)), lag=st.integers(-40, 40))
@settings(max_examples=60, deadline=None)
def test_likeness_against_plain_python(seed: int, sizes: tuple[int, int], lag: int) -> None:
    random = np.random.default_rng(seed)
    base = random.integers(0, 2**32, 300, np.uint32) * (random.random(300) < 0.9)
    one = base[50 : 50 + sizes[0]].astype(np.uint32)
    start = 50 - lag if random.random() < 0.5 else 100
    other = flipped(base[start : start + sizes[1]].astype(np.uint32), 0.1 * random.random(), seed)
    best, count = max((alike(one, other, lag + step) for step in (-1, 0, 1)), key=lambda found: found[0])
    enough = max(min(40.0, SHORT * min((one > 0).sum(), (other > 0).sum())), LEAST_WORDS)
    pair = (np.zeros(1, np.int64), np.zeros(1, np.int64), np.array([lag], np.int32))
    [found] = likeness((one, np.array([0, len(one)])), (other, np.array([0, len(other)])), pair, 40.0)
    assert found == (round(best, 4) if count >= enough else 0.0)


def corpus(seed: int, count: int, share: float) -> pa.Table:
    """Clips of a few recordings, cut anywhere, with some bits turned over; some without a fingerprint."""
    random = np.random.default_rng(seed)
    recordings = [noise(seed % 1000 + k, 500) for k in range(4)]
    words: list[Words | None] = []
    for k in range(count):
        start, size = random.integers(0, 380), random.integers(30, 200)
        clip = flipped(recordings[random.integers(4)][start : start + size], share * random.random(), k)
        words.append(None if random.random() < 0.1 else clip)
    names = [f"d{n}" for n in random.permutation(count)]
    return clips(words, names, random.integers(0, 2, count).tolist())


@given(
    seed=st.integers(0, 2**32),
    bounds=st.lists(st.integers(0, 20), max_size=3),
    partitions=st.lists(st.integers(1, 5), min_size=7, max_size=7),
)
@settings(max_examples=10, deadline=None)
def test_verdicts_do_not_depend_on_units_and_partitions(seed: int, bounds: list[int], partitions: list[int]) -> None:
    table = corpus(seed, 20, 0.1)
    expected = fates(NEAR, [table])
    order = np.random.default_rng(seed).permutation(20)
    shuffled = table.take(pa.array(order))
    ends = sorted({0, 20, *bounds})
    units = [shuffled.slice(a, b - a) for a, b in zip(ends, ends[1:], strict=False)]
    assert fates(Repartitioned(NEAR, partitions), units) == expected


@given(seed=st.integers(0, 2**32), nights=st.lists(st.integers(0, 2), min_size=8, max_size=8))
@settings(max_examples=10, deadline=None)
def test_nights(seed: int, nights: list[int]) -> None:
    """Clips are dropped for one that stays, or is published, and is like them; whatever stays is like no other; nobody
    published goes. What is remembered does not depend on units."""
    table = corpus(seed, len(nights), 0.0)
    words = dict(
        zip(
            table["id"].to_pylist(),
            (np.array(w or [], np.uint32) for w in table["fingerprint"].to_pylist()),
            strict=True,
        )
    )
    whole, cut_up = Corpus(NEAR), Corpus(Repartitioned(NEAR, [3, 2, 4]))
    kept: list[str] = []
    for night in range(3):
        new = table.filter(pa.array([n == night for n in nights]))
        found = whole.night([new])
        assert found == cut_up.night([new.slice(0, 1), new.slice(1)])
        assert remembered(whole.history[-1]) == remembered(cut_up.history[-1])
        gone = {i: fate for i, fate in found.items() if fate[0]}
        stay = [i for i in new["id"].to_pylist() if i not in gone]
        for i, (reason, detail, keeper, *_) in gone.items():
            assert reason == "duplicate"
            assert keeper in (kept if detail == "published" else stay)
            assert overlap(words[i], words[keeper])
        kept += stay
    for k, one in enumerate(kept):
        assert not any(overlap(words[one], words[other]) for other in kept[:k])


def remembered(index: Index) -> dict[str, list[str]]:
    """What an index holds: order and repetitions do not count."""
    return {phase: sorted({str(row) for row in table.to_pylist()}) for phase, table in index.items()}


def overlap(one: Words, other: Words) -> bool:
    """Whether enough of both is the same; both are parts of noise without a word twice."""
    least = max(min(OVERLAP * WORDS_A_SECOND, SHORT * min(len(one), len(other))), LEAST_WORDS)
    return len(np.intersect1d(one, other)) >= least


def test_a_copy_of_a_published_clip_goes() -> None:
    nights = Corpus(NEAR)
    assert nights.night([clips([noise(1, 300), noise(2, 300)], ["old", "other"])]) == {}
    found = nights.night([clips([flipped(noise(1, 300)[50:], 0.05), noise(3, 300)], ["a copy", "new"], [9, 0])])
    assert {i: fate[:3] for i, fate in found.items()} == {"a copy": ("duplicate", "published", "old")}
    alone = Corpus(SimilarAudio(min_overlap=OVERLAP, scope="build"), nights.history)
    assert alone.night([clips([noise(1, 300)], ["again"])]) == {}


def test_prompts_of_one_voice_and_music_are_never_alike() -> None:
    """No two of the sample are above the bound at any lag, whether keys would find them or not."""
    pytest.importorskip("av")
    pytest.importorskip("soxr")
    from operators.speech.spool import RATE
    from tests.operators.caption.sounds import tracks, words_of_prompts

    every = [*words_of_prompts(), *(words_of(track[: 10 * RATE]) for track in tracks())]
    assert len(every) == 52
    assert dropped(clips(every), SimilarAudio()) == {}
    packed = flat(pa.chunked_array([pa.array(every, WORDS)]))
    pairs = [
        (a, b, lag) for b in range(len(every)) for a in range(b) for lag in range(1 - len(every[a]), len(every[b]), 3)
    ]
    left, right, lags = np.array(pairs).T
    found = likeness(packed, packed, (left, right, lags.astype(np.int32)), 3 * WORDS_A_SECOND)
    assert 0.5 < found.max() < 0.65


def test_copies_of_real_clips_are_found() -> None:
    pytest.importorskip("av")
    pytest.importorskip("soxr")
    pytest.importorskip("soundfile")
    from operators.speech.spool import RATE
    from tests.operators.caption.sounds import COPIES, prompts, tracks

    originals = [*prompts()[::8], *(track[at * RATE : (at + 10) * RATE] for track in tracks() for at in (0,))]
    words = [words_of(samples) for samples in originals]
    names = [f"{k:02}" for k in range(len(words))]
    for change in COPIES.values():
        changed = [words_of(change(samples)) for samples in originals]
        table = clips([*words, *changed], [*names, *(f"{name}/copy" for name in names)])
        assert dropped(table, SimilarAudio()) == {f"{name}/copy": name for name in names}
