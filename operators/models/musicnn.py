"""What listeners would call a piece of music: musicnn (Pons and Serra 2019, arXiv:1909.06654), in numpy alone.

Two networks of the same form, one taught with MagnaTagATune (Law et al. 2009), one with the tags of the Million Song
Dataset (Bertin-Mahieux et al. 2011), each give probabilities of 50 tags for three seconds: 187 spectra in 96 mel
bands. The front end is musically motivated: kernels of many bands and seven spectra hear timbre, those of one band and
up to two seconds rhythm; of each the strongest place in the bands counts. Three convolutions over time follow, then the
most and the mean over time, and two dense layers.

The weights are the authors', out of their package musicnn (ISC), which no code of is run (see weights.py). They had
spectra in 16 bits, where what is loud becomes infinite; here all is in 32. A patch is computed alone, so what is said
of it does not depend on others. Other processors may round differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from operators.models import tensor_bundle
from operators.models.dvector import mel_filters
from operators.models.weights import MUSICNN_MSD, MUSICNN_MTT, Weight, find

RATE = 16_000
FFT, HOP = 512, 256  # samples
BANDS = 96
PATCH = 187  # spectra: three seconds
BLOCK = 2048  # spectra that are made at once
EPSILON = 1e-3  # of TensorFlow's batch normalisation
MTT = (
    *("guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano", "ambient"),
    *("beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing", "vocals", "no vocals"),
    *(
        "harpsichord",
        "loud",
        "quiet",
        "flute",
        "woman",
        "male vocal",
        "no vocal",
        "pop",
        "soft",
        "sitar",
        "solo",
        "man",
    ),
    *("classic", "choir", "voice", "new age", "dance", "male voice", "female vocal", "beats", "harp", "cello"),
    *("no voice", "weird", "country", "metal", "female voice", "choral"),
)
MSD = (
    *("rock", "pop", "alternative", "indie", "electronic", "female vocalists", "dance", "00s", "alternative rock"),
    *("jazz", "beautiful", "metal", "chillout", "male vocalists", "classic rock", "soul", "indie rock", "Mellow"),
    *("electronica", "80s", "folk", "90s", "chill", "instrumental", "punk", "oldies", "blues", "hard rock", "ambient"),
    *("acoustic", "experimental", "female vocalist", "guitar", "Hip-Hop", "70s", "party", "country", "easy listening"),
    *(
        "sexy",
        "catchy",
        "funk",
        "electro",
        "heavy metal",
        "Progressive rock",
        "60s",
        "rnb",
        "indie pop",
        "sad",
        "House",
    ),
    "happy",
)

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Musicnn:
    """The weights of both networks, an index and its data each, in the folder of models."""

    mtt: tuple[Weight, Weight] = MUSICNN_MTT
    msd: tuple[Weight, Weight] = MUSICNN_MSD

    def check(self) -> None:
        """Raises ValueError, naming what brings it, where a file is missing or another than was pinned."""
        for weight in (*self.mtt, *self.msd):
            find(weight)

    def load(self) -> Tagger:
        return Tagger(_network(*self.mtt), _network(*self.msd))


class Tagger:
    """The loaded model."""

    def __init__(self, mtt: Network, msd: Network) -> None:
        self._networks = {"mtt": (mtt, MTT), "msd": (msd, MSD)}

    def tags(self, samples: Array) -> dict[str, float]:
        """The mean probability of each tag (mtt/guitar, msd/rock) over samples at RATE, to four decimals. Patches lie
        evenly in them, one for each three seconds; what is shorter is heard again and again."""
        heard = patches(samples)
        return {
            f"{name}/{tag}": round(float(probability), 4)
            for name, (network, tags) in self._networks.items()
            for tag, probability in zip(tags, np.mean([network(patch) for patch in heard], axis=0), strict=True)
        }


def patches(samples: Array) -> list[Array]:
    """PATCH spectra each."""
    shortest = (PATCH - 1) * HOP
    if len(samples) < shortest:
        samples = np.resize(samples, shortest)  # over and over; zeros where there are none
    spectra = log_mel(samples)
    starts = np.linspace(0, len(spectra) - PATCH, max(1, round(len(spectra) / PATCH))).round().astype(int)
    return [spectra[start : start + PATCH] for start in starts]


def log_mel(samples: Array) -> Array:
    """(1 + samples // HOP, BANDS): log10(10000 * power + 1) in bands of librosa's melspectrogram, spectra centred on
    every HOP-th sample."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(samples, FFT // 2), FFT)[::HOP]
    window = np.hanning(FFT + 1)[:-1].astype(np.float32)
    bands = mel_filters(BANDS).T
    found = np.empty((len(windows), BANDS), np.float32)
    for start in range(0, len(windows), BLOCK):
        spectra = np.fft.rfft(windows[start : start + BLOCK] * window)
        found[start : start + BLOCK] = (spectra.real**2 + spectra.imag**2).astype(np.float32) @ bands
    return np.log10(10_000 * found + 1)


class Network:
    """One of the two networks. Its batch normalisations are folded into the layers at load."""

    def __init__(self, tensors: Mapping[str, Array]) -> None:
        self._input = _normalisation(tensors, 0)
        layers = [_Convolution(tensors, number) for number in range(8)]
        self._front, self._middle = layers[:5], layers[5:]
        self._hidden, self._output = _dense(tensors, "dense", 9), _dense(tensors, "dense_1", 10)

    def __call__(self, patch: Array) -> Array:
        """Probabilities of the tags of a patch (spectra, BANDS)."""
        scale, shift = self._input
        patch = patch * scale + shift
        front = np.concatenate([layer(patch) for layer in self._front], axis=1)
        first = self._middle[0](front)
        second = first + self._middle[1](first)
        third = second + self._middle[2](second)
        features = np.concatenate([front, first, second, third], axis=1)
        pooled = np.stack([features.max(axis=0), features.mean(axis=0)], axis=1).ravel()
        (weights, bias), (output, last_bias) = self._hidden, self._output
        logits = np.maximum(pooled @ weights + bias, 0) @ output + last_bias
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


class _Convolution:
    """A convolution over time and bands, ReLU, batch normalisation, and then what is most at any place in the bands.

    A kernel is laid at one place in the bands after another, at all times at once: a matrix product each. Where the
    normalisation is negative the least counts, which is the most once signs are turned: only it is normalised."""

    def __init__(self, tensors: Mapping[str, Array], number: int) -> None:
        name = f"conv2d_{number}" if number else "conv2d"
        kernel = tensors[f"{name}/kernel"]
        self._high, self._wide, _, filters = kernel.shape
        self._scale, self._shift = _normalisation(tensors, number + 1)
        self._sign = np.where(self._scale < 0, np.float32(-1), np.float32(1))
        self._kernel = kernel.reshape(-1, filters) * self._sign
        self._bias = tensors[f"{name}/bias"]

    def __call__(self, heard: Array) -> Array:
        """(times, filters) of (times, bands); before and after there are zeros, as many as TensorFlow has."""
        before = (self._high - 1) // 2
        padded = np.pad(heard, ((before, self._high - 1 - before), (0, 0)))
        views = np.lib.stride_tricks.sliding_window_view(padded, (self._high, self._wide))  # time, band, high, wide
        most = np.full((len(heard), self._kernel.shape[1]), -np.inf, np.float32)
        for band in range(views.shape[1]):
            np.maximum(most, views[:, band].reshape(len(heard), -1) @ self._kernel, out=most)
        return np.asarray(np.maximum(most * self._sign + self._bias, 0) * self._scale + self._shift)


def _normalisation(tensors: Mapping[str, Array], number: int) -> tuple[Array, Array]:
    """What a batch normalisation multiplies by, and adds then."""
    name = f"batch_normalization_{number}" if number else "batch_normalization"
    scale = tensors[f"{name}/gamma"] / np.sqrt(tensors[f"{name}/moving_variance"] + np.float32(EPSILON))
    return scale, tensors[f"{name}/beta"] - tensors[f"{name}/moving_mean"] * scale


def _dense(tensors: Mapping[str, Array], name: str, normalisation: int) -> tuple[Array, Array]:
    """Weights and bias of a layer that a batch normalisation is before."""
    weights = tensors[f"{name}/kernel"]
    scale, shift = _normalisation(tensors, normalisation)
    return scale[:, None] * weights, tensors[f"{name}/bias"] + shift @ weights


def _network(index: Weight, data: Weight) -> Network:
    return Network(tensor_bundle.read(find(index).read_bytes(), find(data).read_bytes()))
