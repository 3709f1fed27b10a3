"""Any bytes give samples or a reason; nothing but the given file is opened."""

import io
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

av = pytest.importorskip("av")
pytest.importorskip("soxr")

from operators.speech import containers, decode  # noqa: E402
from operators.speech.decode import Decoder, Undecodable  # noqa: E402
from operators.speech.frames import to_int16  # noqa: E402
from operators.speech.spool import RATE  # noqa: E402
from tests.operators.speech.sounds import KINDS, encoded, recording, tone  # noqa: E402

PADDED = {
    "m4a": 0.03,
    "aac": 0.05,
    "mkv": 0.03,
    "mp4": 0.03,
    "ts": 0.03,
    "wma": 0.03,
}  # seconds that codecs add or lose


def decoded(data: bytes, name: str = "", max_seconds: float = 3600) -> tuple[NDArray[np.int16], Decoder]:
    with Decoder(io.BytesIO(data), name) as decoder:
        blocks = list(decoder.blocks(max_seconds))
    assert all(len(block) <= 24 * decode.CHUNK + RATE for block in blocks)
    return np.concatenate([np.zeros(0, np.int16), *blocks]), decoder


@cache
def made(kind: str) -> bytes:
    return recording(kind, 0.6)


def wav(
    data: bytes, rate: int = RATE, channels: int = 1, bits: int = 16, code: int = 1, stated: int | None = None
) -> bytes:
    """A WAV file whose header may say anything."""
    step = max(1, channels * bits // 8)
    form = struct.pack("<HHIIHH", code, channels, rate, rate * step % 2**32, step % 2**16, bits)
    size = len(data) if stated is None else stated
    return b"RIFF" + struct.pack("<I", 0) + b"WAVEfmt \x10\0\0\0" + form + b"data" + struct.pack("<I", size) + data


@pytest.mark.parametrize("kind", KINDS)
def test_every_container_gives_the_sound_that_went_in(kind: str) -> None:
    found, decoder = decoded(recording(kind), f"a.{kind}")
    assert abs(len(found) / RATE - 1) <= PADDED.get(kind, 0)
    assert not decoder.truncated
    assert decoder.source.sample_rate == KINDS[kind].get("rate", RATE)
    spectrum = np.abs(np.fft.rfft(found[2400:21600] / 32768.0)) / 9600
    assert np.argmax(spectrum) == 220 * 19200 // RATE
    assert spectrum.max() == pytest.approx(0.4, rel=0.08)  # LAME makes it 5 % quieter


def test_sixteen_bits_at_24_khz_come_through_as_they_are() -> None:
    samples = np.random.default_rng(1).integers(-32768, 32768, 100_000).astype(np.int16)
    for data in (wav(samples.tobytes()), encoded(samples[None], "flac", "flac")):
        found, decoder = decoded(data)
        assert np.array_equal(found, samples)
        assert decoder.seconds == pytest.approx(100_000 / RATE)


def test_channels_are_mixed_by_their_mean() -> None:
    samples = np.random.default_rng(2).integers(-32768, 32768, (6, 5000)).astype(np.int16)
    found, _ = decoded(encoded(samples, "flac", "flac", layout="5.1"))
    assert np.abs(found - samples.mean(axis=0)).max() <= 0.51


@pytest.mark.parametrize(("layout", "channels"), [("6.1", 7), ("7.1", 8), ("hexadecagonal", 16)])
def test_eight_planes_and_more(layout: str, channels: int) -> None:
    samples = np.stack([tone(0.5) // (k + 1) for k in range(channels)])
    for form, codec in (("mp4", "aac"), ("matroska", "wavpack"), ("wav", "pcm_s16le")):
        found, decoder = decoded(encoded(samples, form, codec, layout=layout))
        assert decoder.source.channels == channels
        assert not decoder.lost
        assert np.corrcoef(found[: len(samples[0])], samples.mean(axis=0))[0, 1] > 0.99


@pytest.mark.parametrize("kind", ["mp3", "6.flac", "8k.wav", "ogg"])
def test_the_size_of_chunks_changes_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = decoded(made(kind))
    for chunk in (1000, 4097):
        monkeypatch.setattr(decode, "CHUNK", chunk)
        assert np.array_equal(decoded(made(kind))[0], whole)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_and_its_bytes_are_one_whatever_the_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.g722" if kind == "g722" else "a.srt")
    path.write_bytes(made(kind))
    with path.open("rb") as file, Decoder(file, path.name) as decoder:
        found = np.concatenate(list(decoder.blocks(3600)))
    named, other = decoded(made(kind), f"b.{kind}")
    assert np.array_equal(found, named)
    assert decoder.source == other.source


def test_rate_and_channels_may_change_on_the_way() -> None:
    first = encoded(tone(1.0, 44_100)[None], "adts", "aac", 44_100)
    second = encoded(np.tile(tone(1.0, 32_000), (2, 1)), "adts", "aac", 32_000, "stereo")
    found, decoder = decoded(first + second)
    assert len(found) / RATE == pytest.approx(2, abs=0.15)
    assert decoder.seconds == pytest.approx(len(found) / RATE, abs=0.001)
    spectrum = np.abs(np.fft.rfft(found[-21600:-2400] / 32768.0))
    assert np.argmax(spectrum) == 220 * 19200 // RATE


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "aiff", "ogg", "webm"])
def test_a_file_that_ends_early_says_so(kind: str) -> None:
    data = recording(kind, 3.0)
    found, decoder = decoded(data[: len(data) * 2 // 3 + 1])
    assert 0.9 < len(found) / RATE < 2.2  # Ogg has a page a second
    assert decoder.truncated


def test_what_is_missing_in_the_middle_is_told() -> None:
    data = bytearray(recording("flac", 3.0))
    data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
    found, decoder = decoded(bytes(data))
    assert 2.0 < len(found) / RATE < 3
    assert decoder.truncated


def test_samples_that_are_no_numbers_are_silent_and_counted() -> None:
    samples = np.array([0.5, np.nan, np.inf, -np.inf, 1e38, -3.0] * 1000, "<f4")
    found, decoder = decoded(wav(samples.tobytes(), bits=32, code=3))
    assert decoder.not_finite == 3000
    assert decoder.decoded == 6000
    assert found[:6].tolist() == [16384, 0, 0, 0, 32767, -32768]


REFUSED: dict[str, tuple[bytes | Callable[[], bytes], str]] = {
    "empty": (b"", "unreadable"),
    "one byte": (b"R", "unreadable"),
    "zeros": (bytes(100_000), "unreadable"),
    "text": (b"hello world\n" * 1000, "unreadable"),
    "noise": (np.random.default_rng(3).bytes(100_000), "unreadable"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(1000), "unreadable"),
    "subtitles": (b"1\n00:00:00,000 --> 00:00:10,000\nHi\n" * 20, "unreadable"),
    "1 Hz": (wav(bytes(2000), rate=1), "unreadable"),
    "10 MHz": (wav(bytes(2000), rate=10_000_000), "unreadable"),
    "4 GHz": (wav(bytes(2000), rate=4_000_000_000), "unreadable"),
    "no channels": (wav(bytes(2000), channels=0), "unreadable"),
    "255 channels": (wav(bytes(51_000), channels=255), "unreadable"),
    "no bits": (wav(bytes(2000), bits=0), "unreadable"),
    "an unknown codec": (wav(bytes(2000), code=0x4242), "unreadable"),
    "video alone": (lambda: _video(), "no_audio"),
    "nothing that decodes": (lambda: made("flac")[:200] + bytes(9000), "unreadable"),
}


def _video() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        black = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(black.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize("suffix", ["mp3", "wav", "m3u8", "flac", "mp4"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_recording_gives_a_reason(name: str, suffix: str) -> None:
    data, reason = REFUSED[name]
    with pytest.raises(Undecodable) as caught:
        decoded(data if isinstance(data, bytes) else data(), f"a.{suffix}")
    assert caught.value.reason == reason
    assert str(caught.value)


@pytest.mark.parametrize("stated", [0, 10, 2**31 - 1, 2**32 - 16, 2**32 - 1])
def test_headers_that_lie_about_the_length(stated: int) -> None:
    samples = tone(0.5)
    found, _ = decoded(wav(samples.tobytes(), stated=stated))
    assert np.array_equal(found, samples[: stated // 2 or None])


LISTS: dict[str, Callable[[str], str]] = {
    "hls": lambda other: f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{other}\n#EXT-X-ENDLIST\n",
    "concat": lambda other: f"ffconcat version 1.0\nfile '{other}'\n",
    "dash": lambda other: f'<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{other}</BaseURL></MPD>',
    "sdp": lambda other: (
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns={other}\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"
    ),
}


@pytest.mark.parametrize("suffix", ["mp3", "m3u8", "ffconcat", "g723", "wav"])
@pytest.mark.parametrize("form", LISTS)
def test_a_list_of_other_files_is_refused(form: str, suffix: str, tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes(made("wav"))
    for other in (str(tmp_path / "secret.wav"), f"file://{tmp_path}/secret.wav", "http://127.0.0.1:9/secret.wav"):
        with pytest.raises(Undecodable) as caught:
            decoded(LISTS[form](other).encode(), f"a.{suffix}")
        assert caught.value.reason == "unreadable"


@pytest.mark.parametrize("form", [*LISTS, "image2", "lavfi", "s16le", "srt", "png_pipe"])
def test_only_containers_of_sound_are_allowed_even_by_their_name(form: str, tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes(made("wav"))
    text = LISTS.get(form, LISTS["concat"])("secret.wav")
    (path := tmp_path / "a.txt").write_text(text)
    if form in ("concat", "s16le"):  # they would open, and the list its file, if the white list did not stop them
        with av.open(str(path), format=form) as container:
            assert container.streams.audio
    with pytest.raises(av.error.ArgumentError):
        av.open(str(path), format=form, container_options=containers.OPTIONS)


def test_recordings_are_not_longer_than_asked_for() -> None:
    with pytest.raises(Undecodable) as caught:
        decoded(made("wav"), max_seconds=0.5)
    assert (caught.value.reason, caught.value.threshold) == ("too_long", 0.5)
    assert caught.value.value > 0.5
    assert len(decoded(made("wav"), max_seconds=0.6)[0]) == 0.6 * RATE


def test_a_small_file_of_endless_silence_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(np.zeros((1, 60 * RATE), np.int16), "flac", "flac")
    assert len(decoded(data)[0]) == 60 * RATE
    monkeypatch.setattr(decode, "MOST_DECODED", 1 << 20)
    monkeypatch.setattr(decode, "MOST_RATIO", 2 * 30 * RATE // len(data))
    with pytest.raises(Undecodable, match="bytes of samples a byte"):
        decoded(data)


class Failing(io.BytesIO):
    """A file whose store fails after a while."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > 500_000:
            raise ConnectionResetError(104, "Connection reset by peer")
        return super().read(size)


def test_a_store_that_fails_makes_no_shorter_recording() -> None:
    with Decoder(Failing(recording("aiff", 30.0))) as decoder, pytest.raises(ConnectionResetError, match="by peer"):
        list(decoder.blocks(3600))


def test_a_transport_stream_with_streams_that_come_up_late() -> None:
    early, late = made("ts"), encoded(tone(0.5, 44_100)[None], "mpegts", "aac", 44_100, video=True)
    other = bytearray(late)
    for at in range(0, len(other), 188):  # other programs and streams: packet ids of their own
        if other[at + 1] & 0x1F or other[at + 2]:
            other[at + 2] ^= 0x30
    found, _ = decoded(early * 2 + bytes(other) + early)
    assert len(found) > 0.6 * RATE


def test_sound_that_begins_long_after_the_pictures() -> None:
    samples = np.tile(tone(1.0, 44_100), (2, 1))
    data = encoded(samples, "mpegts", "aac", 44_100, "stereo", video=True, after=20)
    with Decoder(io.BytesIO(data)) as decoder:
        assert decoder.source[:2] == (None, None)  # FFmpeg does not look that far
        found = np.concatenate(list(decoder.blocks(3600)))
        assert decoder.source[:3] == (44_100, 2, "aac")
    assert len(found) / RATE == pytest.approx(1, abs=0.05)
    assert not decoder.truncated


def test_rounding_is_to_the_nearest_and_clips() -> None:
    steps = np.array([0.4, 0.6, -0.4, -0.6, 32767.4, 40000, -40000]) / 32768
    assert to_int16(steps.astype(np.float32)).tolist() == [0, 1, 0, -1, 32767, 32767, -32768]


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["set", "cut", "double", "end"]),
        st.floats(0, 1),
        st.binary(min_size=1, max_size=9),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg", "m4a", "mkv", "wma", "ts"])
@settings(max_examples=40, deadline=None)
@given(edits=EDITS)
def test_changed_bytes_give_samples_or_a_reason(kind: str, edits: list[tuple[str, float, bytes, bool]]) -> None:
    data = bytearray(made(kind))
    for what, where, new, early in edits:
        at = int(where * (min(len(data), 300) if early else len(data)))
        if what == "set":
            data[at : at + len(new)] = new
        elif what == "cut":
            del data[at : at + 100 * len(new)]
        elif what == "double":
            data[at:at] = data[at : at + 100 * len(new)]
        else:
            del data[max(1, at) :]
    try:
        found, decoder = decoded(bytes(data), f"a.{kind}")
    except Undecodable as error:
        found, why = None, error
    if found is None:
        assert why.reason in ("unreadable", "no_audio", "too_long")
        assert str(why)
    else:
        assert len(found) / RATE == pytest.approx(decoder.seconds, abs=0.01)
