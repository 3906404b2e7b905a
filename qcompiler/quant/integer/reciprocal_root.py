"""One over the square root of an integer, in integer multiplications and shifts.

Derivation. ``1 / sqrt(v)`` for ``1 <= v < 2^62`` in four steps, each with the names of the code below.

1. *Normalize.* Multiply ``v`` by ``4^k`` so that ``2^60 <= m < 2^62``. ``k``, the pairs of leading zeros, is the number
   of thresholds ``4^30, 4^29, … 4^1`` that are greater than ``v``: comparisons and a sum, no loop, no logarithm. Then
   ``1 / sqrt(v) = 2^k / sqrt(m)``, and what is wanted is ``r = 2^60 / sqrt(m)``, between ``2^29`` and ``2^30``.
2. *Look up.* The 7 leading bits of ``m`` (32 to 127) select the root of the middle of their cell. A cell is at most
   ``1/32`` of its lower end wide, so the entry is at most ``sqrt(32.5 / 32) - 1 < 0.0078`` off.
3. *Iterate* twice ``r <- r (3 - m r^2 / 2^120) / 2`` (Newton's method for ``1 / r^2 = m / 2^120``). A relative error
   ``e`` becomes ``-(3 e^2 + e^3) / 2``: 0.0078, then 9.2e-5, then 1.3e-8. With ``a = m >> 31`` and
   ``t = (r r) >> 29``, both at most about ``2^31``, ``m r^2 / 2^120`` is ``a t / 2^60``; ``u = (3 * 2^60 - a t) >> 31``
   is about ``2^30``, and the next ``r`` is ``(r u) >> 30``.
4. *Error.* The four shifts truncate: ``a`` and ``t`` lose less than ``2^-29`` each, which reaches ``r`` halved, ``u``
   loses less than ``2^-30`` and the last product less than ``2^-29``: together below ``5 * 2^-30 < 4.7e-9``. With
   Newton's 1.3e-8 the result is within ``1.8e-8 < 2^-25`` of the truth, relatively.

Every product stays below ``2^62``. Roundings: ``floor`` in each shift. No division: the table is a constant.
"""

from __future__ import annotations

from math import isqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.integer.dyadic import Overflow

__all__ = ["ROOT_BITS", "TABLE", "THRESHOLDS", "leading_pairs", "reciprocal_root"]

ROOT_BITS: Final = 60
"""``1 / sqrt(v)`` is the root times ``2^(k - ROOT_BITS)``."""

THRESHOLDS: Final = tuple(4**power for power in range(30, 0, -1))
"""``k`` is the number of these that are greater than ``v``."""

_CELL: Final = 55
"""Bits of ``m`` below its 7 leading ones."""

TABLE: Final = tuple(isqrt((1 << 120) // ((2 * cell + 1) << (_CELL - 1))) for cell in range(32, 128))
"""``2^60 / sqrt(middle of the cell)`` for the 96 cells, rounded down; computed in integers, so equal everywhere."""


def leading_pairs(value: NDArray[Any]) -> NDArray[np.int64]:
    """``k``: by how many factors of 4 a number from 1 to ``2^62 - 1`` stays below ``2^62`` and reaches ``2^60``."""
    greater = np.asarray(value, np.int64)[..., None] < np.array(THRESHOLDS, np.int64)
    pairs: NDArray[np.int64] = greater.sum(axis=-1, dtype=np.int64)
    return pairs


def reciprocal_root(value: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``1 / sqrt(value)`` as ``root * 2^(k - 60)``, relative error below ``2^-25``.

    Args:
        value: int64 of any shape, from 1 to ``2^62 - 1``.

    Returns:
        ``root``, within ``2^-25`` (relatively) of ``[2^29, 2^30]``, and ``k``, in ``[0, 30]``; both int64.

    Raises:
        Overflow: A number is outside its range.
    """
    wide = np.asarray(value, np.int64)
    if wide.size and not 1 <= wide.min() <= wide.max() < 1 << 62:
        raise Overflow(f"a reciprocal root of {wide.min()} to {wide.max()}: the range is 1 to 2^62 - 1")
    pairs = leading_pairs(wide)
    normal = wide << (2 * pairs)
    root = np.array(TABLE, np.int64)[(normal >> _CELL) - 32]
    leading = normal >> 31
    for _ in range(2):
        square = (root * root) >> 29
        correction = ((3 << 60) - leading * square) >> 31
        root = (root * correction) >> 30
    return root, pairs
