"""Functions of two lines that meet at zero: LeakyRelu, PRelu, Abs.

With 8-bit codes and one slope a table is exact and cheapest. With 16-bit codes no table follows the kink, and slopes
per channel would need a table per channel; there each half is a rescale of its own that the other half clamps to
nothing::

    y = clip(max(rescale(x), 0) + sign * min(rescale(|slope| * x), 0) + zero)

Only one of the two terms is not zero, so the result has one rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.passes.lower.emitter import Emitter
from qcompiler.passes.lower.site import Lowering, NoIntegerForm, Site
from qcompiler.passes.lower.tables import lower_function
from qcompiler.quant.annotations import Annotation, annotate
from qcompiler.quant.integer.table_design import Function

__all__ = ["LOWERINGS"]

_INT32: Final = ir.DataType.INT32


def _lower_leaky(site: Site, emitter: Emitter) -> ir.Value:
    return _kinked(site, emitter, np.asarray(site.node.attributes.get_float("alpha", 0.01), np.float64))


def _lower_abs(site: Site, emitter: Emitter) -> ir.Value:
    return _kinked(site, emitter, np.asarray(-1.0))


def _lower_prelu(site: Site, emitter: Emitter) -> ir.Value:
    slope = site.constant(1)
    if slope is None:
        raise NoIntegerForm("its slope is not a constant")
    return _kinked(site, emitter, slope.astype(np.float64))


LOWERINGS: Final[Mapping[str, Lowering]] = MappingProxyType(
    {"Abs": _lower_abs, "LeakyRelu": _lower_leaky, "PRelu": _lower_prelu}
)


def _kinked(site: Site, emitter: Emitter, slope: NDArray[np.float64]) -> ir.Value:
    """``x`` where it is positive, ``slope * x`` elsewhere."""
    if site.codes(0).dtype is ir.DataType.INT8 and slope.size == 1:
        return lower_function(site, emitter, _line(float(slope.reshape(()))))
    if not np.isfinite(slope).all():
        raise NoIntegerForm("its slope is not finite")
    return _halves(site, emitter, slope)


def _line(slope: float) -> Function:
    return lambda x: np.where(x >= 0, x, slope * x)


def _halves(site: Site, emitter: Emitter, slope: NDArray[np.float64]) -> ir.Value:
    out, shape = site.output, site.output.value.shape
    low, high = site.clamp()
    zero = out.zero_point
    upper = _rescaled(site, emitter, np.ones(()), zero, (zero, max(high, zero)))
    sign = np.sign(slope).astype(np.int32)
    # The terms of a negative slope may be as large below zero as the result may be above.
    reach = min(low - zero, zero - high if (sign < 0).any() else 0, 0)
    lower = _rescaled(site, emitter, np.where(sign == 0, 1.0, np.abs(slope)), 0, (reach, 0))

    def standard(op_type: str, inputs: list[ir.Value]) -> ir.Value:
        return emitter.emit(op_type, inputs, {}, name=f"{out.of}_sum", dtype=_INT32, shape=shape, domain="")

    if (sign != 1).any():
        lower = standard("Mul", [lower, emitter.constant(f"{out.of}_sign", sign)])
    total = standard("Add", [upper, lower])
    if (sign < 0).any() or low > zero or high < zero:
        bounds = [emitter.constant(f"{out.of}_{name}", np.array(code, np.int32)) for name, code in
                  (("low", low), ("high", high))]  # fmt: skip
        total = standard("Clip", [total, *bounds])
    result = emitter.emit(
        "Cast", [total], {"to": out.dtype.value}, name=out.of, dtype=out.dtype, shape=shape, domain=""
    )
    annotate(result, Annotation(out.of, out.scale, zero))
    return result


def _rescaled(site: Site, emitter: Emitter, slope: NDArray[np.float64], zero: int, clamp: tuple[int, int]) -> ir.Value:
    """``slope * x`` at the output's scale, as int32."""
    source, out = site.codes(0), site.output
    constants = emitter.dyadic(slope * source.scale / out.scale, source.magnitude, site, out.of)
    attributes = {
        "x_zero_point": source.zero_point,
        "y_zero_point": zero,
        "to": _INT32.value,
        "low": clamp[0],
        "high": clamp[1],
    }
    return emitter.emit(
        "RequantizeShift" if site.arithmetic.shifts_only else "Requantize",
        [source.value, *constants],
        attributes,
        name=f"{out.of}_half",
        dtype=_INT32,
        shape=out.value.shape,
    )
