"""The power-of-two scale with the least squared error of what a histogram counted.

There is little to choose from: the least power of two that covers every value, or one of the next smaller ones, which
halve the step each time and clip what no longer fits. A format with a free zero point may put the smaller window
anywhere between "nothing is clipped below" and "nothing is clipped above"; a few places between are tried.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.histogram import Histogram
from qcompiler.quant.format import QFormat
from qcompiler.quant.params import params_from_range

__all__ = ["HALVINGS", "least_squares", "windows"]

HALVINGS = 4
"""Scales tried: the covering one and those 2, 4 and 8 times as fine."""
_PLACES = np.linspace(0.0, 1.0, 9)

Errors = Callable[
    [Histogram, QFormat, NDArray[np.float64], NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]
]
"""Mean squared errors of ranges, and how far they may be off."""


def least_squares(histogram: Histogram, form: QFormat, errors: Errors) -> tuple[float, float]:
    """The window of codes with the least mean squared error; the covering one unless another is surely better.

    Args:
        histogram: What was counted; not empty.
        form: The format, per tensor, with power-of-two scales.
        errors: Estimates the error of windows.

    Returns:
        A range from which :func:`params_from_range` makes exactly the scale and zero point that were found.
    """
    found = windows(histogram.low, histogram.high, form)
    estimates, bounds = errors(histogram, form, found[:, 0], found[:, 1])
    best = int(np.argmin(estimates))
    surely = estimates[best] + bounds[best] < estimates[0] - bounds[0]
    low, high = found[best if surely else 0]
    return float(low), float(high)


def windows(low: float, high: float, form: QFormat) -> NDArray[np.float64]:
    """What the codes can hold at the scales worth trying, ``(candidates, 2)``; the first covers ``[low, high]``."""
    full = params_from_range(low, high, form)
    scale, zero = float(full.scale), int(full.zero_point)
    found = [(scale, zero)]
    for halving in range(1, HALVINGS):
        step = scale / 2.0**halving
        found += [(step, place) for place in _places(min(low, 0.0) / step, max(high, 0.0) / step, form)]
    return np.array([_window(step, place, form) for step, place in found])


def _places(low: float, high: float, form: QFormat) -> list[int]:
    """Zero points to try for a range given in steps."""
    if form.symmetric:
        return [0 if form.signed else (form.maximum + 1) // 2]
    first, last = form.minimum - low, form.maximum - high
    places = np.rint(first + (last - first) * _PLACES)
    return [int(place) for place in dict.fromkeys(np.clip(places, form.minimum, form.maximum))]


def _window(scale: float, zero: int, form: QFormat) -> tuple[float, float]:
    """The range that gives this scale and zero point back."""
    reach = form.maximum - zero
    least = -reach if form.symmetric else form.minimum - zero
    return least * scale, reach * scale
