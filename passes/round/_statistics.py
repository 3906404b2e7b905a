"""What a layer's problem is made of, taken from samples: moments of its inputs, and rows to judge by.

The mean is over rows, and a sample only gives so many: a convolution of 56 × 56 places has thousands of patches per
image that say almost the same. A row of weight ``w`` is multiplied by ``sqrt(w)``, so that every square of it counts
``w`` times. All sums are products of float32 matrices of one sample, added up in float64 or, for sums of many products,
whose moments are large, in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.passes.round._layers import RoundLayer
from qcompiler.passes.round._patches import chosen_rows, input_rows, row_count
from qcompiler.passes.round._problem import Problem, damped
from qcompiler.passes.round._walk import Visit
from qcompiler.quant.format import BYTE

__all__ = ["SINGULAR", "Held", "Rows", "Statistics", "take"]

SINGULAR: Final = 1.0
"""Damping where rows are fewer than inputs, as behind global pooling: codes answer these rows and no others else.
mobilenetv1_025, 98 rows for the 256 inputs of its classifier, GPTQ: a plan at the bytes of 3 bits loses 0.70 instead of
0.89, with a tenth of this damping 0.76; all layers at 3 bits lose 1.18 instead of 1.26, as codes of the classifier
were worse than nearest ones on samples left out and are not now. Codes of 8 bits have little to overfit with, and make
up for activations: there it cost (w8a8, divergence 0.0114 instead of 0.0104)."""

_Part = tuple[NDArray[np.float32], NDArray[np.float32] | None, float]

_DOUBLE: Final = 1200
"""Sums of more products are solved in float32."""
_TOGETHER: Final = 2048
"""Rows that are multiplied at once, at most about."""


@dataclass(frozen=True, slots=True)
class Rows:
    """How many rows are looked at.

    Attributes:
        fit: Per sample, for the moments.
        held: Of all samples left out together, for the judgement.
    """

    fit: int
    held: int


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Rows that nothing is fitted on; with weights, errors are right up to a factor that all share.

    Attributes:
        inputs: ``X'``, ``(groups, rows, columns)``.
        difference: ``X - X'``, of the same shape; ``None`` where it is 0.
    """

    inputs: NDArray[np.float32]
    difference: NDArray[np.float32] | None

    def error(self, weights: NDArray[Any], real: NDArray[Any]) -> float:
        """Mean squared error of the outputs with weights ``real`` (``(groups, columns, rows)``) for ``weights``."""
        missing = np.matmul(self.inputs, np.asarray(weights - real, np.float32))
        if self.difference is not None:
            missing += np.matmul(self.difference, np.asarray(weights, np.float32))
        return float(np.square(missing, dtype=np.float64).mean())

    def power(self, weights: NDArray[Any]) -> float:
        """Mean square of the float outputs (without bias)."""
        inputs = self.inputs if self.difference is None else self.inputs + self.difference
        return float(np.square(np.matmul(inputs, np.asarray(weights, np.float32)), dtype=np.float64).mean())


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """A layer's moments, and rows left out of them.

    Attributes:
        weights: The real weights, ``(groups, columns, rows)``.
        hessian: ``H`` without damping.
        linear: ``C``; ``None`` in the symmetric case.
        held: ``None`` where no sample was left out.
        rows: Rows that the moments are of.
    """

    weights: NDArray[Any]
    hessian: NDArray[Any]
    linear: NDArray[Any] | None
    held: Held | None
    rows: int

    def problem(self, damping: float, bits: int) -> Problem:
        """The layer's problem; below 8 bits moments of fewer rows than inputs are damped by ``SINGULAR`` at least."""
        few = self.rows < self.hessian.shape[1] and bits < BYTE
        return Problem(self.weights, damped(self.hessian, max(damping, SINGULAR) if few else damping), self.linear)


def take(visit: Visit, layer: RoundLayer, fitted: int, rows: Rows) -> Statistics:
    """Moments over the first ``fitted`` samples, and rows of the others.

    Args:
        visit: The layer's inputs.
        layer: The layer.
        fitted: Samples to fit on.
        rows: How many rows of each are looked at.
    """
    dtype = np.float64 if layer.columns <= _DOUBLE else np.float32
    weights = np.ascontiguousarray(layer.real_weights().transpose(0, 2, 1))
    hessian = np.zeros((layer.groups, layer.columns, layer.columns), dtype)
    linear: NDArray[Any] | None = None
    total, count = 0.0, 0
    for inputs, difference, weight in _together(visit, layer, fitted, rows.fit):
        turned = inputs.transpose(0, 2, 1)
        hessian += np.matmul(turned, inputs)
        if difference is not None:
            missing = np.matmul(turned, np.matmul(difference, weights)).astype(dtype)
            linear = missing if linear is None else linear + missing
        total += weight
        count += inputs.shape[1]
    hessian /= total or 1
    if linear is not None:
        linear /= total or 1
    return Statistics(weights.astype(dtype), hessian, linear, _held(visit, layer, fitted, rows.held), count)


def _rows(visit: Visit, layer: RoundLayer, sample: int, limit: int) -> _Part:
    """Rows of one sample: of the simulation, how the float model's differ, and how much they count together."""
    real, simulated = visit.samples[sample]
    count = row_count(layer, real.shape)
    weights = visit.weights_of(sample, layer)
    chosen = chosen_rows(count, limit, sample, weights)
    inputs = input_rows(layer, simulated, chosen)
    difference = None if real is simulated else input_rows(layer, real - simulated, chosen)
    if weights is None or (weights[chosen] == 1).all():
        return inputs, difference, float(chosen.size)
    root = np.sqrt(weights[chosen])[:, None]
    difference = None if difference is None else difference * root
    return inputs * root, difference, float(weights[chosen].sum(dtype=np.float64))


def _together(visit: Visit, layer: RoundLayer, fitted: int, limit: int) -> Iterator[_Part]:
    """Rows of several samples at a time, as many as there are columns: products of few rows are slow."""
    parts: list[_Part] = []
    for sample in range(fitted):
        parts.append(_rows(visit, layer, sample, limit))
        if sum(inputs.shape[1] for inputs, _, _ in parts) >= min(layer.columns, _TOGETHER) or sample == fitted - 1:
            inputs = np.concatenate([inputs for inputs, _, _ in parts], axis=1)
            differences = [difference for _, difference, _ in parts if difference is not None]
            weight = sum(weight for _, _, weight in parts)
            yield inputs, np.concatenate(differences, axis=1) if differences else None, weight
            parts = []


def _held(visit: Visit, layer: RoundLayer, fitted: int, limit: int) -> Held | None:
    left = range(fitted, len(visit.samples))
    if not left:
        return None
    parts = [_rows(visit, layer, sample, max(1, limit // len(left))) for sample in left]
    inputs = np.concatenate([inputs for inputs, _, _ in parts], axis=1)
    differences = [difference for _, difference, _ in parts if difference is not None]
    return Held(inputs, np.concatenate(differences, axis=1) if differences else None)
