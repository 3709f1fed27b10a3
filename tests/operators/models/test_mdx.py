from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="needs the extra corpusmill[speech]")
pytest.importorskip("soxr", reason="needs the extra corpusmill[speech]")

from operators.document import Pinned
from operators.models import mdx
from operators.models.mdx import CHUNK, MODEL_RATE, SHAPE, TRIM, WINDOW, Mdx, MdxSeparator
from tests.operators.models.onnx_file import network


def pinned(folder: Path, data: bytes) -> Pinned:
    (path := folder / "model.onnx").write_bytes(data)
    return Pinned(str(path), hashlib.sha256(data).hexdigest())


def separator(folder: Path, operator: str, operand: np.ndarray | str | None = None) -> MdxSeparator:
    return Mdx(pinned(folder, network(operator, ["batch", *SHAPE], operand))).load()


def left(model: MdxSeparator, samples: np.ndarray) -> np.ndarray:
    """What is left of samples at the model's own rate."""
    return np.concatenate(list(model._stream(iter([samples]))))[: len(samples)]


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise without the band that the network does not see."""
    noise = np.random.default_rng(seed).normal(size=round(seconds * MODEL_RATE) + 17)
    return (np.convolve(noise, np.hanning(18) / 9, "valid")[: round(seconds * MODEL_RATE)] / 10).astype(np.float32)


def test_spectrum_and_back() -> None:
    windows = sound(WINDOW / MODEL_RATE)[None]
    planes = mdx.spectrogram(windows)
    assert planes.shape == (1, 2, 3072, 256)
    tone = np.cos(2 * np.pi * 100 * np.arange(WINDOW) / 6144).astype(np.float32)[None]  # band 100
    found = mdx.spectrogram(tone)[0, :, :, 128]
    assert np.hypot(*found).argmax() == 100
    assert np.hypot(*found)[100] == pytest.approx(6144 / 4, rel=1e-3)  # half of the sum of the window
    assert np.abs(mdx.waveform(planes) - windows)[:, TRIM:-TRIM].max() < 1e-5


def test_no_instruments_is_the_mixture_and_all_is_nothing(tmp_path: Path) -> None:
    samples = sound(1)
    assert (left(separator(tmp_path, "Mul", np.zeros(1, np.float32)), samples) == samples).all()
    assert np.abs(left(separator(tmp_path, "Identity"), samples)).max() < 1e-5


def test_what_it_says_of_both_signs_is_averaged(tmp_path: Path) -> None:
    samples = sound(2)
    assert (left(separator(tmp_path, "Abs"), samples) == samples).all()  # even: the same for both, and cancels


def test_layout_of_chunks_and_windows_is_the_published_one(tmp_path: Path) -> None:
    """By a network that takes more of later frames: what it takes shows where each window lay."""
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(1, 1, 1, 256)
    model = separator(tmp_path, "Mul", ramp)
    samples = sound(CHUNK / MODEL_RATE + 0.5)
    assert np.abs(left(model, samples) - (samples - published(samples, ramp))).max() < 1e-5


def published(samples: np.ndarray, ramp: np.ndarray) -> np.ndarray:
    """Emilia's `demix` and `demix_base`, of a whole recording."""
    margin, step = 44_100, 254_976
    mix = np.pad(samples, (0, -len(samples) % CHUNK))
    starts, found = range(0, len(mix), CHUNK), []
    for start in starts:
        chunk = mix[max(0, start - margin) : min(start + CHUNK + margin, len(mix))]
        fill = step - len(chunk) % step
        padded = np.concatenate((np.zeros(3072), chunk, np.zeros(fill), np.zeros(3072))).astype(np.float32)
        windows = np.array([padded[i : i + 261_120] for i in range(0, len(chunk) + fill, step)])
        signal = mdx.waveform(mdx.spectrogram(windows) * ramp)[:, 3072:-3072].reshape(-1)[:-fill]
        found.append(signal[margin if start else 0 : len(signal) if start == starts[-1] else -margin])
    return np.concatenate(found)[: len(samples)]


def test_a_stream_keeps_its_length_and_place(tmp_path: Path) -> None:
    model = separator(tmp_path, "Mul", np.full(1, 0.25, np.float32))
    samples = np.convolve(sound(1.2), np.hanning(8) / 4, "same")[:48_011].astype(np.float32)  # now at 24 kHz
    found = np.concatenate(list(model.speech(np.array_split(samples, 5), 24_000)))
    assert found.shape == samples.shape
    assert np.abs(found - 0.75 * samples)[500:-500].max() < 1e-3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no network", "model.onnx: "),
        (network("Identity", ["batch", 4, 2048, 256]), r"takes \[\['batch', 4, 2048, 256\]\], not one of"),
        (network("Identity", ["batch", 4]), r"takes \[\['batch', 4\]\], not one of"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mdx(pinned(tmp_path, data)).check()


def test_a_file_that_changed_is_refused(tmp_path: Path) -> None:
    model = Mdx(pinned(tmp_path, network("Identity", ["batch", *SHAPE])))
    model.check()
    pinned(tmp_path, network("Abs", ["batch", *SHAPE]))
    with pytest.raises(ValueError, match="the recipe was validated with"):
        model.load()
