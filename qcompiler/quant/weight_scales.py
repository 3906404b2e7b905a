"""Scales of weight-only blocks: integer multiples of one scale per row, chosen before codes are rounded.

``QMatMulWeightOnly`` stores the scale of a block as ``scale[n] * m[n, b]`` with ``1 <= m <= 2047``. Here a float scale
per block, as any calibration finds it, becomes such a product::

    scale[n] = float32 with 13 significant bits >= max_b s[n, b] / 2047,    m[n, b] near s[n, b] / scale[n]

13 and 11 bits make 24, so ``scale * m`` is a float32 without rounding: a plan that lists the scales of blocks says
exactly what the file will hold, and :func:`split` finds both factors again.

What it costs. A scale moves by at most half a unit of ``m``: 2^-12 in the widest blocks of a row, more in narrow ones.
But codes are rounded afterwards, to the scale as it is. So the loss is only that a block's steps are a little finer or
coarser than the best ones; of the two neighbouring multipliers the one with less squared error is taken
(:func:`neighbours`, ``calibrate-weights``). Blocks narrower than 1/4094 of the widest one of their row get steps that
are coarser than wished, and still finer than half a 2047th of that one's.

Measured on the 36 weights of stories260k in blocks of 32, against the float scales that they come from: the SQNR of the
weights is the same to 0.002 dB at 2, 3 and 4 bits, and 0.03 dB better at 8 (a scale of the full range is not yet the
best one, and there are two to choose from).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.integer.weight_only import GREATEST_MULTIPLIER

__all__ = ["neighbours", "row_scales", "split"]

_SIGNIFICANT: Final = 13
"""Bits of a row's scale: with those of a multiplier the 24 of a float32."""


def row_scales(scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scale of each row, of which its blocks' scales are to be multiples.

    Args:
        scale: Scales ``[N, B]``, positive.

    Returns:
        float32 ``[N]`` of 13 significant bits; for one block per row its own scale.
    """
    greatest = scale.max(axis=1).astype(np.float64)
    if scale.shape[1] == 1:
        return np.asarray(greatest, np.float32)
    mantissa, exponent = np.frexp(greatest / GREATEST_MULTIPLIER)
    units = np.ceil(np.ldexp(mantissa, _SIGNIFICANT))
    return np.asarray(np.ldexp(units, exponent - _SIGNIFICANT), np.float32)


def neighbours(scale: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The multiples of the row's scale just below and just above each scale, 1 to 2047 times it.

    The widest block of a row gets 2047, by which :func:`split` recognizes the scale of the row.

    Args:
        scale: Scales ``[N, B]``, positive.
    """
    base = row_scales(scale)[:, None].astype(np.float64)
    ratio = np.where(scale == scale.max(axis=1, keepdims=True), GREATEST_MULTIPLIER, scale / base)
    if scale.shape[1] == 1:
        return scale, scale
    lower, upper = (np.clip(rounded, 1, GREATEST_MULTIPLIER) for rounded in (np.floor(ratio), np.ceil(ratio)))
    return (lower * base).astype(np.float32), (upper * base).astype(np.float32)


def split(scale: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Scale per row and multiplier per block.

    Exact for scales that :func:`neighbours` gave; others go to the nearest multiplier.

    Args:
        scale: Scales ``[N, B]``, positive.

    Returns:
        float32 ``[N]`` and uint16 ``[N, B]``.
    """
    base = row_scales(scale)
    if scale.shape[1] == 1:
        return base, np.ones(scale.shape, np.uint16)
    multiplier = np.clip(np.rint(scale / base[:, None].astype(np.float64)), 1, GREATEST_MULTIPLIER)
    return base, multiplier.astype(np.uint16)
