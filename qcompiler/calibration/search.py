"""Ranges from histograms: percentile, least squared error, least divergence.

Squared error. An element ``x`` in a bin of width ``w`` around ``c`` has the quantization error ``d(x)``, its distance
to the nearest representable number. With a step much wider than a bin, the mean of ``d²`` over the bin is
``d(c)² + w²/12``; with a step narrower than a bin it is ``step²/12`` inside the range. ``d`` is 1-Lipschitz, so the
estimate from centres is off by at most ``w·d(c) + w²/4``: a clipped range is taken only where it beats the min-max
range by more than both bounds together, so it is never worse on the calibration data, whatever their distribution.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration import power_of_two
from qcompiler.calibration.histogram import Histogram
from qcompiler.quant.format import BYTE, QFormat
from qcompiler.quant.params import QParams, params_from_range

__all__ = ["FINER", "entropy", "least_squares", "narrow_least_squares", "percentile", "squared_errors"]

FINER = 16
"""The error search counts in bins this much finer than asked for, so that its bound is tight."""

_SEARCH_BINS = 1024
_FRACTIONS = np.concatenate([np.linspace(0.02, 0.5, 13), np.linspace(0.53, 1.0, 27)])
_REFINE = np.linspace(0.95, 1.05, 9)


def percentile(histogram: Histogram, share: float) -> tuple[float, float]:
    """The range that keeps ``share`` percent of the elements, cutting ``(100 - share) / 2`` percent on each side."""
    cumulated = np.cumsum(histogram.counts)
    total = cumulated[-1]
    tail = total * (100.0 - share) / 200.0
    edges = (histogram.first + np.arange(histogram.counts.size + 1)) * histogram.width
    levels = np.concatenate([[0.0], cumulated])
    low = float(np.interp(tail, levels, edges))
    high = float(np.interp(total - tail, levels, edges))
    low, high = max(low, histogram.low), min(high, histogram.high)
    # A tail that holds nothing cuts nothing: the exact extremum is better than the edge of its bin.
    if tail < histogram.counts[0]:
        low = histogram.low if tail < 1 else low
    if tail < histogram.counts[-1]:
        high = histogram.high if tail < 1 else high
    return low, max(low, high)


def least_squares(histogram: Histogram, form: QFormat) -> tuple[float, float]:
    """The range with the least mean squared quantization error in ``form``; min-max unless another is surely better."""
    full = (histogram.low, histogram.high)
    whole = _per_tensor(form)
    span = max(-min(histogram.low, 0.0), max(histogram.high, 0.0))
    if span == 0.0:
        return full
    if form.power_of_two:
        return power_of_two.least_squares(histogram, whole, squared_errors)
    shift = max(histogram.bins.bit_length() - 1 - (_SEARCH_BINS.bit_length() - 1), 0)
    coarse = histogram.coarser(histogram.exponent + shift)
    best = _descend(coarse, whole, full)
    candidates = np.array([full, best])
    errors, bounds = squared_errors(histogram, whole, candidates[:, 0], candidates[:, 1])
    return best if errors[1] + bounds[1] < errors[0] - bounds[0] else full


def narrow_least_squares(histogram: Histogram, form: QFormat) -> tuple[float, float]:
    """``least_squares`` where steps are coarse, that is below 8 bits; min-max from there on."""
    return least_squares(histogram, form) if form.bits < BYTE else (histogram.low, histogram.high)


def _per_tensor(form: QFormat) -> QFormat:
    return form.along(None)


def _descend(histogram: Histogram, form: QFormat, full: tuple[float, float]) -> tuple[float, float]:
    """Search one end of the range at a time, first on a grid of fractions, then around the best."""
    if form.symmetric:
        bound = max(-full[0], full[1])
        for grid in (_FRACTIONS, _REFINE):
            bounds = np.minimum(bound * grid, max(-full[0], full[1]))
            errors, _ = squared_errors(histogram, form, -bounds, bounds)
            bound = float(bounds[np.argmin(errors)])
        return max(-bound, full[0]) if full[0] < 0 else full[0], min(bound, full[1])
    low, high = full
    for grid in (_FRACTIONS, _FRACTIONS, _REFINE):
        if full[1] > 0:
            ends = np.minimum(grid * (full[1] if grid is _FRACTIONS else high), full[1])
            errors, _ = squared_errors(histogram, form, np.full(ends.shape, low), ends)
            high = float(ends[np.argmin(errors)])
        if full[0] < 0:
            ends = np.maximum(grid * (full[0] if grid is _FRACTIONS else low), full[0])
            errors, _ = squared_errors(histogram, form, ends, np.full(ends.shape, high))
            low = float(ends[np.argmin(errors)])
    return low, high


def squared_errors(
    histogram: Histogram, form: QFormat, low: NDArray[np.float64], high: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimated mean squared error of every candidate range, and how far the estimate may be off."""
    params: QParams = params_from_range(low, high, form)
    used = histogram.counts > 0
    counts, centres, width = histogram.counts[used], histogram.centres()[used], histogram.width
    share = counts / counts.sum()
    scale = params.scale.astype(np.float64)
    zero = params.zero_point.astype(np.float64)
    errors, bounds = np.empty(scale.shape), np.empty(scale.shape)
    for index in range(scale.size):
        step, middle = scale[index], zero[index]
        bottom, top = (form.minimum - middle) * step, (form.maximum - middle) * step
        if width > step / 2:  # bins too wide to see the steps
            outside = centres - np.clip(centres, bottom, top)
            squares, distance = outside * outside + step * step / 12, np.abs(outside) + step / 2
        else:
            codes = np.clip(np.rint(centres / step), form.minimum - middle, form.maximum - middle)
            distance = np.abs(centres - codes * step)
            squares = distance * distance + width * width / 12
        errors[index] = share @ squares
        bounds[index] = share @ distance * width + width * width / 4
    return errors, bounds


def entropy(histogram: Histogram, form: QFormat) -> tuple[float, float]:
    """The range ``[max(low, -t), min(high, t)]`` whose quantized distribution is nearest (KL) to the true one.

    Source: the calibration of TensorRT (S. Migacz, GTC 2017), generalised to ranges that are not symmetric. Exact
    zeros, which a Relu makes in masses, are exact in every range: their bin counts no more than its neighbours.
    """
    width, first, counts = histogram.width, histogram.first, histogram.counts.copy()
    if 0 <= -first < counts.size:
        beside = np.delete(counts[max(-first - 1, 0) : -first + 2], min(-first, 1))
        counts[-first] = min(counts[-first], beside.max(initial=1.0))
    last = first + counts.size
    furthest = max(-first, last)
    levels = form.maximum - form.minimum + 1
    least = min(furthest, max(levels // 2, 8))
    best, best_divergence = furthest, np.inf
    for bins in np.unique(np.linspace(least, furthest, 128).astype(int)):
        start, stop = max(first, -int(bins)), min(last, int(bins))
        if start >= stop:
            continue
        inside = counts[start - first : stop - first]
        divergence = _divergence(inside, counts[: start - first].sum(), counts[stop - first :].sum(), levels)
        if divergence <= best_divergence:  # of equals the widest: nothing is clipped without gain
            best, best_divergence = int(bins), divergence
    return max(histogram.low, -best * width), min(histogram.high, best * width)


def _divergence(inside: NDArray[np.float64], below: float, above: float, levels: int) -> float:
    """KL divergence of the clipped distribution from what ``levels`` levels can express of it."""
    true = inside.copy()
    true[0] += below
    true[-1] += above
    starts = np.unique((np.arange(min(levels, inside.size)) * inside.size) // min(levels, inside.size))
    filled = inside > 0
    sums = np.add.reduceat(inside, starts)
    number = np.maximum(np.add.reduceat(filled.astype(np.float64), starts), 1.0)
    model = np.repeat(sums / number, np.diff([*starts, inside.size])) * filled
    total, expressed = true.sum(), model.sum()
    if expressed == 0:
        return np.inf
    p, q = true / total, np.maximum(model / expressed, 1e-9)
    kept = p > 0
    return float((p[kept] * np.log(p[kept] / q[kept])).sum())
