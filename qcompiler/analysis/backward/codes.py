"""QuantizeLinear and DequantizeLinear with the straight-through estimator.

Codes are kept as floats, which hold them exactly. Rounding has slope 0 almost everywhere; the straight-through
estimator takes it as 1 where the code does not saturate and 0 where it does (Bengio, Léonard and Courville, "Estimating
or Propagating Gradients Through Stochastic Neurons for Conditional Computation", 2013, section 4). So in
``q = clip(rint(x / s) + z)`` the gradient is ``∂q / s`` inside, and in ``x̂ = (q - z) s`` it is ``∂x̂ · s``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx_ir as ir

from qcompiler.analysis.backward.rule import (
    Array,
    Gradients,
    Inputs,
    Node,
    Pullback,
    Rule,
    UnknownFormError,
    given,
    optional,
)
from qcompiler.quant.arithmetic import expand
from qcompiler.quant.format import QFormat

__all__ = ["RULES"]


def _spread(node: Node, parameter: Array, shape: tuple[int, ...]) -> Array:
    """A scale or zero point against a tensor of ``shape``."""
    if parameter.size == 1:
        return parameter.reshape(())
    block = node.integer("block_size", 0) or None
    return expand(parameter, shape, QFormat(8, axis=node.integer("axis", 1), block=block))


def _limits(dtype: ir.DataType) -> tuple[int, int]:
    """Least and greatest code; types narrower than a byte are NumPy's only by name."""
    low = -(1 << (dtype.bitwidth - 1)) if dtype.is_signed() else 0
    return low, low + (1 << dtype.bitwidth) - 1


def _quantize(node: Node, inputs: Inputs) -> tuple[Array, Pullback]:
    data, zero = given(inputs, 0), optional(inputs, 2)
    stated = ir.DataType(node.integer("output_dtype", 0) or ir.DataType.UINT8)
    low, high = _limits(stated if zero is None else ir.DataType.from_numpy(zero.dtype))
    scale = _spread(node, given(inputs, 1), data.shape).astype(data.dtype, copy=False)
    quotient = data / scale
    codes = np.rint(quotient, out=quotient)
    if zero is not None:
        codes += _spread(node, zero, data.shape).astype(data.dtype)
    inside = (codes >= low) & (codes <= high)
    np.clip(codes, low, high, out=codes)

    def pullback(gradient: Array, wanted: Sequence[bool]) -> Gradients:
        if any(wanted[1:]):
            raise UnknownFormError("gradients of scales")
        return [gradient * inside / scale, *(None for _ in wanted[1:])]

    return codes, pullback


def _dequantize(node: Node, inputs: Inputs) -> tuple[Array, Pullback]:
    codes, zero = given(inputs, 0), optional(inputs, 2)
    dtype = codes.dtype if codes.dtype.kind == "f" else given(inputs, 1).dtype
    scale = _spread(node, given(inputs, 1), codes.shape).astype(dtype, copy=False)
    # Integers of 32 bits minus their zero point need more digits than a float32 has.
    wide = codes.astype(np.int64) if codes.dtype.kind != "f" else codes
    real = wide if zero is None else wide - _spread(node, zero, codes.shape).astype(wide.dtype)
    result = real.astype(dtype, copy=False) * scale

    def pullback(gradient: Array, wanted: Sequence[bool]) -> Gradients:
        if any(wanted[1:]):
            raise UnknownFormError("gradients of scales")
        return [gradient * scale, *(None for _ in wanted[1:])]

    return np.asarray(result), pullback


RULES: Final[dict[str, Rule]] = {"DequantizeLinear": _dequantize, "QuantizeLinear": _quantize}
