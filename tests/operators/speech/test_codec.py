"""Utterances as bytes: FLAC exact, MP3 of the right length, both the same every time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("av")
pytest.importorskip("soxr")

from operators.speech.codec import BIT_RATES, decode, decode_at, encode_flac, encode_mp3  # noqa: E402
from operators.speech.spool import RATE  # noqa: E402
from tests.operators.speech.sounds import recording, tone  # noqa: E402


def speech(length: int) -> NDArray[np.float32]:
    return np.resize(tone(2.0), length).astype(np.float32) / np.float32(32768)


@settings(max_examples=40, deadline=None)
@given(values=st.lists(st.integers(-32768, 32767), min_size=1, max_size=3000))
def test_flac_gives_back_what_went_in(values: list[int]) -> None:
    samples = np.array(values, np.float32) / np.float32(32768)
    data = encode_flac(samples)
    assert np.array_equal(decode(data), samples)
    assert encode_flac(samples) == data


@pytest.mark.parametrize("length", [1, 2, 46, 47, 48, 575, 576, 577, 600, 622, 623, 1152, 24_001, 100_000])
def test_an_mp3_is_as_long_as_what_went_in(length: int) -> None:
    data = encode_mp3(speech(length))
    assert len(decode(data)) == length
    assert encode_mp3(speech(length)) == data


def test_an_mp3_sounds_like_what_went_in() -> None:
    samples = speech(5 * RATE)
    found = decode(encode_mp3(samples, 64))
    assert np.corrcoef(samples, found)[0, 1] > 0.995  # which no shift by a sample would leave


@pytest.mark.parametrize("bit_rate", BIT_RATES)
def test_an_mp3_is_of_the_bit_rate_asked_for(bit_rate: int) -> None:
    assert len(encode_mp3(speech(10 * RATE), bit_rate)) * 8 / 10_000 == pytest.approx(bit_rate, rel=0.03)


def test_bit_rates_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="no bit rate 320"):
        encode_mp3(speech(RATE), 320)


@pytest.mark.parametrize("encode", [encode_flac, encode_mp3])
def test_nothing_is_no_utterance(encode) -> None:
    with pytest.raises(ValueError, match="without samples"):
        encode(np.zeros(0, np.float32))


def test_too_loud_is_clipped() -> None:
    found = decode(encode_flac(np.array([2, 1, -1, -2, np.float32(0.5)], np.float32)))
    assert (found * 32768).tolist() == [32767, 32767, -32768, -32768, 16384]


@pytest.mark.parametrize("rate", [8000, 16_000, 24_000, 44_100])
def test_other_rates_have_the_length_that_belongs_to_them(rate: int) -> None:
    for length in (1, 100, 24_001):
        assert len(decode_at(encode_flac(speech(length)), rate)) == round(length * rate / RATE)
    found = decode_at(encode_flac(speech(RATE)), rate)
    assert np.argmax(np.abs(np.fft.rfft(found))) == 220
    assert found.dtype == np.float32


@pytest.mark.parametrize("data", [b"", b"RIFF", bytes(1000), recording("8k.wav", 0.2), recording("6.flac", 0.2)])
def test_what_is_no_utterance_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="no utterance"):
        decode(data)


def test_other_programs_read_both(tmp_path) -> None:
    samples = speech(RATE)
    for name, data in (("a.flac", encode_flac(samples)), ("a.mp3", encode_mp3(samples))):
        (tmp_path / name).write_bytes(data)
        told = soundfile.info(tmp_path / name)
        assert (told.samplerate, told.channels, told.frames) == (RATE, 1, RATE)
