"""Specification of QLogQuantize and QLogDequantize: codes on a grid whose steps grow, and what they stand for.

A uniform grid of few bits spends nearly all of its codes where a Softmax or a Gelu has nearly no values: most lie near
zero and a few near the greatest. Grids whose steps grow with the value (powers of a base, also less a shift) serve
both. A grid of ``n + 1`` values is two constants of integers, made when the model is compiled
(:mod:`qcompiler.quant.log_grids`):

* ``values``, ascending, int16, in the units of the code that is decoded to: ``decoded = values[code]``;
* ``thresholds``, ascending, one less, in the units of the code that is encoded: the border between neighbours.

Encoding counts: ``code = |{i : thresholds[i] <= x}|``, so there is no logarithm at run time and every grid is served
by one operator. Where ``thresholds[i] = ceil((values[i] + values[i + 1]) / 2)`` in common units, ``code`` is that of
the nearest value, ties upwards. Decoding looks up. Neither rounds, neither can overflow: a code is below 128, and
what is decoded are int16 codes of the same scale for all values: ``QMatMulWide`` multiplies them like any others.

Sources of the grids: log2 and shift-uniform-log2, I&S-ViT (arXiv:2311.10126, section 3.2); searched bases with decoding
by a table, AdaLog (arXiv:2407.12951, section 3.2).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["GREATEST_CODE", "log_dequantize", "log_quantize"]

GREATEST_CODE: Final = 127
"""Codes are int8 from 0 on."""


def log_quantize(x: NDArray[Any], thresholds: NDArray[Any]) -> NDArray[np.int8]:
    """How many thresholds do not exceed each code.

    Args:
        x: int8 or int16 of any shape.
        thresholds: 1 to 127 ascending numbers (equal ones are skipped), of the type of ``x``.

    Returns:
        int8 codes, 0 to the number of thresholds.

    Raises:
        ValueError: Wrong types or sizes, or thresholds that are not ascending.
    """
    if x.dtype not in (np.int8, np.int16) or thresholds.dtype != x.dtype:
        raise ValueError(f"codes and thresholds are both int8 or both int16, not {x.dtype} and {thresholds.dtype}")
    if thresholds.ndim != 1 or not 1 <= thresholds.size <= GREATEST_CODE:
        raise ValueError(f"there are 1 to {GREATEST_CODE} thresholds, not {thresholds.shape}")
    if (thresholds[1:] < thresholds[:-1]).any():
        raise ValueError("thresholds must ascend")
    return np.searchsorted(thresholds, x, side="right").astype(np.int8)


def log_dequantize(x: NDArray[Any], values: NDArray[Any]) -> NDArray[np.int16]:
    """``values[x]``; codes below 0 read the first value and codes beyond the last the last one.

    Args:
        x: int8 of any shape.
        values: 2 to 128 values, int16.

    Returns:
        int16 of the shape of ``x``.

    Raises:
        ValueError: Wrong types or sizes.
    """
    if x.dtype != np.int8 or values.dtype != np.int16:
        raise ValueError(f"codes are int8 and values int16, not {x.dtype} and {values.dtype}")
    if values.ndim != 1 or not 2 <= values.size <= GREATEST_CODE + 1:
        raise ValueError(f"there are 2 to {GREATEST_CODE + 1} values, not {values.shape}")
    found: NDArray[np.int16] = values[np.clip(x.astype(np.int64), 0, values.size - 1)]
    return found
