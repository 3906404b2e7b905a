"""Integer-exact reference of the affine arithmetic, with every rounding named.

Quantization. The real number ``x`` is stored as the code ``q`` with ``x ≈ scale * (q - zero_point)``. Solving for
``q`` gives ``x / scale + zero_point``; ONNX QuantizeLinear fixes the details, and so do we:

* the division is done in float32 (IEEE, one rounding, ``half_even``),
* the quotient is rounded to an integer by ``half_even`` (ties go to the even integer),
* the zero point is added to the *rounded* quotient, then the sum saturates to the codes of the format.

Dequantization subtracts in integers (exact) and multiplies once in float32 (one rounding, ``half_even``).
Both are bit for bit what ONNX Runtime computes wherever ONNX has the type; formats without an ONNX type
(3, 5, 6, 7 bits) use the next wider storage with their own saturation limits.

Codes of a ``log`` format are found in two steps: 16-bit codes as above, at the scale of the grid and zero point 0, then
their place among the grid's thresholds. They are dequantized by the grid's table, then as above.

Scales per axis vary along one axis; scales per block also repeat ``block`` times along it, the last block may be short.
"""

from __future__ import annotations

import math
from typing import Any, Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.format import QFormat
from qcompiler.quant.integer.logarithmic import log_dequantize, log_quantize
from qcompiler.quant.log_grids import Grid
from qcompiler.quant.params import QParams

__all__ = ["WORDS", "dequantize", "expand", "quantize", "quantize_bias", "storage_dtype"]

SLAB: Final = 8 << 20
"""Bytes of a tensor that are quantized at a time."""

WORDS: Final = QFormat(16, symmetric=True)
"""What a tensor is before it gets codes of a ``log`` format, and what those are decoded to."""

_STORAGE: dict[tuple[int, bool], Any] = {
    (4, True): ml_dtypes.int4,
    (4, False): ml_dtypes.uint4,
    (8, True): np.int8,
    (8, False): np.uint8,
    (16, True): np.int16,
    (16, False): np.uint16,
    (32, True): np.int32,
}


def storage_dtype(form: QFormat) -> np.dtype[Any]:
    """The NumPy type (``ml_dtypes`` below 8 bits) that stores one code of ``form``."""
    dtype: np.dtype[Any] = np.dtype(_STORAGE[form.storage_bits, form.signed])
    return dtype


def expand(parameter: NDArray[Any], shape: tuple[int, ...], form: QFormat) -> NDArray[Any]:
    """Broadcast scales or zero points of ``form`` against a tensor of ``shape``.

    Args:
        parameter: Shape ``()`` per tensor, ``(shape[axis],)`` per axis, or ``shape`` with that axis over the block.
        shape: Shape of the tensor.
        form: The format that says which of the three it is.
    """
    if form.axis is None:
        return parameter
    axis = form.axis % len(shape)
    if form.block is None:
        if parameter.shape != (shape[axis],):
            raise ValueError(f"{parameter.shape} parameters for axis {axis} of a tensor of shape {shape}")
        return parameter.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return np.repeat(parameter, form.block, axis=axis).take(range(shape[axis]), axis=axis)


def quantize(array: NDArray[Any], params: QParams, form: QFormat) -> NDArray[Any]:
    """Codes of a real tensor.

    Args:
        array: float32 tensor; every element finite.
        params: Scale and zero point, shaped for ``form``.
        form: Storage format.

    Returns:
        Codes in the storage type of ``form`` (roundings: ``half_even`` twice, then saturation).

    Source: ONNX operator QuantizeLinear-21.
    """
    if form.logarithmic:
        return log_quantize(quantize(array, params, WORDS), _grid(params, form).thresholds())
    real = np.asarray(array, np.float32)
    scale = expand(params.scale, real.shape, form)
    zero = expand(params.zero_point, real.shape, form)
    stored: NDArray[Any] = np.empty(real.shape, storage_dtype(form))
    for rows in _slabs(real.shape, real.itemsize):
        stored[rows] = _codes(real[rows], _slab(scale, rows), _slab(zero, rows), form)
    return stored


def _codes(
    real: NDArray[np.float32], scale: NDArray[np.float32], zero: NDArray[np.int32], form: QFormat
) -> NDArray[np.int32]:
    quotient = real / scale  # float32
    # A quotient beyond int64 is far outside every format: saturate before the conversion, which would wrap.
    bounded = np.clip(np.rint(quotient), -(2.0**40), 2.0**40).astype(np.int64)
    codes: NDArray[np.int32] = np.clip(bounded + zero, form.minimum, form.maximum).astype(np.int32)
    return codes


def _slabs(shape: tuple[int, ...], itemsize: int) -> list[tuple[slice, ...]]:
    """Ranges of the first axis that hold about ``SLAB`` bytes each: intermediate results of a large tensor are many."""
    if not shape:
        return [()]
    row = max(1, math.prod(shape[1:]) * itemsize)
    step = max(1, SLAB // row)
    return [(slice(start, start + step),) for start in range(0, shape[0], step)]


def _slab(parameter: NDArray[Any], rows: tuple[slice, ...]) -> NDArray[Any]:
    """The part of broadcastable parameters that belongs to some rows."""
    varies = parameter.ndim > 0 and parameter.shape[0] > 1
    part: NDArray[Any] = parameter[rows] if varies else parameter
    return part


def dequantize(codes: NDArray[Any], params: QParams, form: QFormat) -> NDArray[np.float32]:
    """Real numbers of a tensor of codes: ``float32(q - zero_point) * scale``, one rounding (``half_even``).

    Source: ONNX operator DequantizeLinear-21.
    """
    if form.logarithmic:
        return dequantize(log_dequantize(codes, _grid(params, form).decoded()), params, WORDS)
    wide = codes.astype(np.int32)
    zero = expand(params.zero_point, wide.shape, form)
    scale = expand(params.scale, wide.shape, form)
    real: NDArray[np.float32] = (wide - zero).astype(np.float32) * scale
    return real


def _grid(params: QParams, form: QFormat) -> Grid:
    if params.grid is None or params.grid.bits != form.bits:
        raise ValueError(f"{form} needs a grid of {1 << form.bits} values, not {params.grid}")
    return params.grid


def quantize_bias(bias: NDArray[Any], scale: NDArray[np.float32]) -> NDArray[np.int32]:
    """Codes of a bias at the accumulator's scale ``s_x * s_w``.

    Args:
        bias: float tensor of shape ``(C,)``.
        scale: float32 of shape ``()`` or ``(C,)``.

    Returns:
        int32 codes; division in float64, rounding ``half_even``, saturated to 32 bits.
    """
    quotient = np.asarray(bias, np.float64) / np.asarray(scale, np.float64)
    return np.clip(np.rint(quotient), -(2.0**31), 2.0**31 - 1).astype(np.int64).astype(np.int32)
