"""Noise that looks like data: spectra that fall with frequency, and the ranges in which pictures are given.

The power of natural pictures falls like one over the square of the frequency (Field 1987), and colours of a pixel go
together. Pictures come in few encodings; each bounds the input, which no statistic behind the first layer can tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["ENCODINGS", "Encoding", "coloured", "spectrum", "standardised", "whitened"]

Floats = NDArray[np.float32]

_MEAN: Final = 0.45
_DEVIATION: Final = 0.27
"""Level and spread of photographs, of a range from 0 (black) to 1 (white)."""

_IMAGENET: Final = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Encoding:
    """How intensities in 0 … 1 become an input: ``(intensity - offset) / scale``, one of each per channel.

    Attributes:
        text: What a report calls it.
        offset: Subtracted.
        scale: Divided by.
    """

    text: str
    offset: tuple[float, float, float]
    scale: tuple[float, float, float]

    def limits(self, channels: int) -> tuple[Floats, Floats]:
        """Black and white, each of shape ``(1, channels, 1, 1)``."""
        offset, scale = self._parts(channels)
        return -offset / scale, (1 - offset) / scale

    def usual(self, channels: int) -> tuple[Floats, Floats]:
        """Level and spread of photographs in this encoding."""
        offset, scale = self._parts(channels)
        return (np.float32(_MEAN) - offset) / scale, np.float32(_DEVIATION) / scale

    def _parts(self, channels: int) -> tuple[Floats, Floats]:
        pair = (np.array(item[:channels], np.float32).reshape(1, channels, 1, 1) for item in (self.offset, self.scale))
        offset, scale = pair
        return offset, scale


def _plain(text: str, offset: float, scale: float) -> Encoding:
    return Encoding(text, (offset,) * 3, (scale,) * 3)


ENCODINGS: Final = (
    _plain("0 … 1", 0.0, 1.0),
    _plain("-1 … 1", 0.5, 0.5),
    _plain("-0.5 … 0.5", 0.5, 1.0),
    _plain("0 … 255", 0.0, 1 / 255),
    _plain("-128 … 127", 128 / 255, 1 / 255),
    Encoding("ImageNet's mean and deviation", *_IMAGENET),
    Encoding("0 … 255 less the mean, blue first", (103.939 / 255, 116.779 / 255, 123.68 / 255), (1 / 255,) * 3),
)


def spectrum(height: int, width: int, fall: float) -> Floats:
    """Amplitudes of frequencies, falling like ``frequency ** -fall``, with mean power 1; of ``rfft2``'s shape."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    amplitude = np.maximum(frequency, 1 / max(height, width)) ** -fall
    return np.asarray(amplitude / np.sqrt(np.mean(amplitude**2)), np.float32)


def standardised(intensities: Floats) -> Floats:
    """Intensities as noise: level and spread of photographs become 0 and 1."""
    return np.asarray((intensities - _MEAN) / _DEVIATION, np.float32)


def whitened(noise: Floats, amplitude: Floats) -> Floats:
    """What ``coloured`` makes ``noise`` of."""
    size = (noise.shape[-2], noise.shape[-1])
    return np.asarray(np.fft.irfft2(np.fft.rfft2(noise) / amplitude, s=size), np.float32)


def coloured(white: Floats, amplitude: Floats) -> Floats:
    """Noise filtered by a spectrum along its last two axes; its own transpose, because the filter is even."""
    size = (white.shape[-2], white.shape[-1])
    return np.asarray(np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=size), np.float32)
