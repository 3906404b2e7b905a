"""Upper bounds per channel, as equalization makes them of Relu6: a Min of codes behind the operator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.edit import AttributeValue
from qcompiler.passes.lower.emitter import Emitter
from qcompiler.passes.lower.products import exact_real
from qcompiler.passes.lower.site import Codes, NoIntegerForm, Site
from qcompiler.quant.annotations import Annotation, annotate

__all__ = ["clamped_per_channel"]


def clamped_per_channel(site: Site, write: Callable[[Site], ir.Value], emitter: Emitter) -> ir.Value:
    """A result whose absorbed Min has a bound per channel: the operator clamps to the other bounds, a Min follows.

    Clamps commute as long as no upper bound is below the lower one.

    Raises:
        NoIntegerForm: One is.
    """
    bounds = [(node, real) for node in site.absorbed if (real := _several_bounds(node)) is not None]
    remaining = tuple(node for node in site.absorbed if not any(node is other for other, _ in bounds))
    inner = dataclasses.replace(site, absorbed=remaining)
    codes = [(node, _codes_of(real, site.output)) for node, real in bounds]
    low, _ = inner.clamp()
    for node, array in codes:
        if (array < low).any():
            raise NoIntegerForm(f"{node.name} (Min) has bounds below the least result")
    result = write(inner)
    for node, array in codes:
        result = _minimum(result, array, site, node, emitter)
    return result


def _several_bounds(node: ir.Node) -> NDArray[np.float64] | None:
    """The bounds of a Min where they are more than one."""
    if node.op_type != "Min":
        return None
    real = next((found for item in node.inputs if (found := exact_real(item)) is not None), None)
    return real if real is not None and real.size > 1 else None


def _codes_of(real: NDArray[np.float64], output: Codes) -> NDArray[np.int64]:
    """The codes that QuantizeLinear gives real numbers."""
    return np.array([output.code_of(item) for item in real.reshape(-1)], np.int64).reshape(real.shape)


def _minimum(result: ir.Value, codes: NDArray[np.int64], site: Site, node: ir.Node, emitter: Emitter) -> ir.Value:
    """A standard Min; on 16-bit codes by way of 32, because ONNX Runtime compares no int16."""
    dtype, shape, of = site.output.dtype, site.output.value.shape, site.output.of
    narrow = dtype is ir.DataType.INT8
    kind = ir.DataType.INT8 if narrow else ir.DataType.INT32
    bound = emitter.constant(f"{node.name}_bound", codes.astype(kind.numpy()))

    def standard(op_type: str, inputs: list[ir.Value], kind: ir.DataType, to: int | None = None) -> ir.Value:
        attributes: dict[str, AttributeValue] = {} if to is None else {"to": to}
        return emitter.emit(op_type, inputs, attributes, name=of, dtype=kind, shape=shape, domain="")

    if narrow:
        least = standard("Min", [result, bound], kind)
    else:
        least = standard("Min", [standard("Cast", [result], kind, kind.value), bound], kind)
        least = standard("Cast", [least], dtype, dtype.value)
    annotate(least, Annotation(of, site.output.scale, site.output.zero_point))
    return least
