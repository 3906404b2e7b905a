"""Weights that a user gives to samples, or to positions of samples.

An array ``qcompiler.weights`` beside the inputs, of shape ``(samples,)`` or ``(samples, positions)``, says how much
each counts in everything that is fitted. The name is one no exporter gives to an input; a model that has such an input
all the same is fed with it. Positions are the tokens of a sample: the axis behind that of samples. A sample that weighs
0 throughout is left out before anything is counted, so that it is as if the data did not hold it. Only the ratios of
weights count: they are divided by the mean of those above 0, so that sums stay in the range of float32 and above the
least divisors whatever unit the user counts in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import DataError

if TYPE_CHECKING:
    from qcompiler.calibration.checks import InputSpec
    from qcompiler.calibration.columns import Column

__all__ = ["WEIGHTS", "checked", "notes"]

WEIGHTS: Final = "qcompiler.weights"
"""Name of the array."""

_FORM: Final = f"'{WEIGHTS}' takes one number per sample, or one per sample and position"


def checked(
    given: NDArray[Any], inputs: Mapping[str, InputSpec], columns: Mapping[str, Column], count: int, source: str
) -> NDArray[np.float32] | None:
    """Weights as float32, of the shape they were given in, 1 on average where not 0; ``None`` where all are equal.

    Args:
        given: What the array holds.
        inputs: What the model declares.
        columns: The samples of every input.
        count: Number of samples.
        source: Where the data came from.

    Raises:
        DataError: Wrong shape or element type, a number that is negative or not finite, or nothing that counts.
    """
    where = f"{source}, {WEIGHTS}"
    if given.dtype.kind not in "fiub":
        raise DataError(f"weights are {given.dtype}, not numbers", where=where, hint=_FORM)
    if given.ndim not in (1, 2) or len(given) != count:
        raise DataError(f"weights of shape {given.shape} do not fit {count} samples", where=where, hint=_FORM)
    weights = given.astype(np.float64)
    if given.ndim == 2:
        lengths = {length for name, spec in inputs.items() for length in _lengths(columns[name].shapes(), spec)}
        if lengths != {given.shape[1]}:
            known = " or ".join(map(str, sorted(lengths))) or "no"
            text = f"weights of {given.shape[1]} positions do not fit samples of {known} positions"
            raise DataError(text, where=where, hint=_FORM)
    for text, wrong in (("not finite", ~np.isfinite(weights)), ("negative", weights < 0)):
        if wrong.any():
            number = int(np.argwhere(wrong)[0][0])
            raise DataError(f"the weight of sample {number} is {text}", where=where, hint="0 leaves a row out")
    if not weights.any():
        raise DataError("every sample weighs 0", where=where, hint="leave the array out to count all alike")
    weights /= weights.max()  # first: sums of large weights are not finite, and equal weights become exactly 1
    relative = (weights / weights[weights > 0].mean()).astype(np.float32)
    return None if (relative == 1).all() else relative


def _lengths(shapes: Iterable[tuple[int, ...]], spec: InputSpec) -> list[int]:
    """Sizes of the axis behind the batch axis, whether samples carry that one or not."""
    found = []
    for shape in shapes:
        whole = spec.shape is not None and len(shape) == len(spec.shape)
        axes = shape[1:] if whole and shape[:1] == (1,) else () if whole else shape
        found += list(axes[:1])
    return found


def notes(weights: NDArray[np.float32], left_out: int) -> tuple[str, ...]:
    """What a report says of weights."""
    rows = "samples" if weights.ndim == 1 else "positions of samples"
    text = f"{rows} are weighted ('{WEIGHTS}', {weights.min():.3g} to {weights.max():.3g} times their mean)"
    return (text + (f"; {left_out} samples of weight 0 are left out" if left_out else ""),)
