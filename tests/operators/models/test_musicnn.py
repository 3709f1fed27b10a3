from __future__ import annotations

import numpy as np
import pytest
import soxr

from operators.models.musicnn import (
    BANDS,
    BLOCK,
    HOP,
    MSD,
    MTT,
    PATCH,
    RATE,
    Musicnn,
    Network,
    Tagger,
    log_mel,
    patches,
)
from operators.models.weights import MUSICNN_MSD, MUSICNN_MTT, find
from operators.speech import spool
from tests.operators.speech import recordings

try:
    Musicnn().check()
except ValueError as missing:
    WHY = str(missing)
else:
    WHY = ""

SHAPES = [(7, 38, 204), (7, 67, 204), (128, 1, 51), (64, 1, 51), (32, 1, 51), (7, 561, 64), (7, 64, 64), (7, 64, 64)]


def music(seconds: float) -> np.ndarray:
    return soxr.resample(recordings.music(seconds), spool.RATE, RATE)


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    if WHY:
        pytest.skip(WHY)
    return Musicnn().load()


def drawn() -> dict[str, np.ndarray]:
    """A network's tensors, at random: its form without its weights."""
    random = np.random.default_rng(4)

    def some(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[:-1])))).astype(np.float32)

    tensors: dict[str, np.ndarray] = {}
    for number, (high, wide, filters) in enumerate(SHAPES):
        name = f"conv2d_{number}" if number else "conv2d"
        tensors |= {f"{name}/kernel": some(high, wide, 1, filters), f"{name}/bias": some(filters)}
    for name, inputs, outputs in (("dense", 1506, 200), ("dense_1", 200, 50)):
        tensors |= {f"{name}/kernel": some(inputs, outputs), f"{name}/bias": some(outputs)}
    for number, width in enumerate((1, *(filters for *_, filters in SHAPES), 1506, 200)):
        name = f"batch_normalization_{number}" if number else "batch_normalization"
        tensors |= {f"{name}/{part}": some(width) for part in ("gamma", "beta", "moving_mean")}
        tensors[f"{name}/moving_variance"] = some(width) ** 2 + np.float32(0.5)
    return tensors


def told_again(tensors: dict[str, np.ndarray], patch: np.ndarray) -> np.ndarray:
    """The network as its paper and code tell it, in double precision: convolution, ReLU, batch normalisation, and the
    most over all bands, one after the other."""
    wide = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}

    def normal(heard: np.ndarray, number: int) -> np.ndarray:
        name = f"batch_normalization_{number}" if number else "batch_normalization"
        spread = np.sqrt(wide[f"{name}/moving_variance"] + 1e-3)
        return (heard - wide[f"{name}/moving_mean"]) / spread * wide[f"{name}/gamma"] + wide[f"{name}/beta"]

    def layer(heard: np.ndarray, number: int) -> np.ndarray:
        name = f"conv2d_{number}" if number else "conv2d"
        kernel = wide[f"{name}/kernel"][:, :, 0]
        left = (len(kernel) - 1) // 2
        padded = np.pad(heard, ((left, len(kernel) - 1 - left), (0, 0)))
        seen = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:2])
        convolved = np.einsum("tbhw,hwf->tbf", seen, kernel, optimize=True) + wide[f"{name}/bias"]
        return normal(np.maximum(convolved, 0), number + 1).max(axis=1)

    heard = normal(patch.astype(np.float64), 0)
    front = np.concatenate([layer(heard, number) for number in range(5)], axis=1)
    first = layer(front, 5)
    second = layer(first, 6) + first
    third = layer(second, 7) + second
    features = np.concatenate([front, first, second, third], axis=1)
    pooled = normal(np.stack([features.max(axis=0), features.mean(axis=0)], axis=1).ravel(), 9)
    hidden = normal(np.maximum(pooled @ wide["dense/kernel"] + wide["dense/bias"], 0), 10)
    return np.asarray(1 / (1 + np.exp(-(hidden @ wide["dense_1/kernel"] + wide["dense_1/bias"]))))


def test_network_is_what_it_is_told_to_be() -> None:
    tensors = drawn()
    patch = log_mel(np.random.default_rng(5).standard_normal(20 * HOP).astype(np.float32))
    expected = told_again(tensors, patch)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(Network(tensors)(patch), expected, atol=1e-5)


def test_log_mel_is_librosas() -> None:
    """librosa 0.11: log10(10000 * melspectrogram(sr=16000, n_fft=512, hop_length=256, n_mels=96) + 1), every twelfth
    band of two frames."""
    found = log_mel(music(10))
    assert found.shape == (626, BANDS)
    known = {
        0: [0.0069, 0.0020, 0.0003, 0.0040, 0.0053, 0.0033, 0.0003, 0.0001],
        100: [2.7062, 3.4182, 0.7278, 0.7476, 0.2641, 0.2366, 0.2743, 0.2719],
    }
    for frame, values in known.items():
        assert found[frame, ::12] == pytest.approx(values, abs=2e-4)


def test_spectra_do_not_depend_on_blocks() -> None:
    samples = np.random.default_rng(7).standard_normal((BLOCK + 20) * HOP).astype(np.float32)
    later = (BLOCK - 40) * HOP
    np.testing.assert_allclose(log_mel(samples)[BLOCK - 20 :], log_mel(samples[later:])[20:], atol=1e-5)


@pytest.mark.parametrize(("seconds", "count"), [(0, 1), (0.5, 1), (3, 1), (4, 1), (5, 2), (10, 3), (30, 10)])
def test_patches_cover_a_clip(seconds: float, count: int) -> None:
    found = patches(np.arange(round(seconds * RATE), dtype=np.float32))
    assert [patch.shape for patch in found] == [(PATCH, BANDS)] * count


def test_tags_of_a_piece(tagger: Tagger) -> None:
    """As the authors' graph gives them in PyTorch: piano, guitar and drums of "Morning Coffee"."""
    found = tagger.tags(music(10))
    assert list(found) == [*(f"mtt/{tag}" for tag in MTT), *(f"msd/{tag}" for tag in MSD)]
    known = {"mtt/guitar": 0.4233, "mtt/drums": 0.2878, "mtt/slow": 0.2293, "mtt/piano": 0.1483, "mtt/opera": 0.0005}
    known |= {"msd/rock": 0.1713, "msd/jazz": 0.1693, "msd/blues": 0.1321, "msd/Hip-Hop": 0.0007}
    assert {tag: found[tag] for tag in known} == pytest.approx(known, abs=1e-3)
    assert max(found, key=lambda tag: found[tag]) == "mtt/guitar"


def test_a_clip_is_the_mean_of_its_patches(tagger: Tagger) -> None:
    """Each for itself, whatever it is heard with: only spectra at the seam are others."""
    samples = music(6)
    parts = [samples[: PATCH * HOP], samples[len(samples) - PATCH * HOP :]]
    together, apart = tagger.tags(np.concatenate(parts)), [tagger.tags(part) for part in parts]
    for tag, probability in together.items():
        assert probability == pytest.approx((apart[0][tag] + apart[1][tag]) / 2, abs=0.02), tag


def test_silence_and_noise_are_heard_without_a_warning(tagger: Tagger) -> None:
    noise = np.random.default_rng(6).uniform(-1, 1, RATE).astype(np.float32)
    for samples in (np.zeros(0, np.float32), np.zeros(RATE, np.float32), noise):
        assert all(0 <= probability <= 1 for probability in tagger.tags(samples).values())


def test_other_weights_are_refused() -> None:
    if WHY:
        pytest.skip(WHY)
    index, data = MUSICNN_MTT
    find.cache_clear()
    with pytest.raises(ValueError, match=r"MTT\.data: sha256 is 041f"):
        Musicnn(mtt=(index, data._replace(sha256="0"))).check()
    with pytest.raises(ValueError, match=r"musicnn/none: .*install-captions"):
        Musicnn(msd=(MUSICNN_MSD[0], data._replace(path="musicnn/none"))).check()
