"""Write the operator of a layer: its weight in the layout it reads, packed where it can be, and its rescale."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import constants
from qcompiler.ir.edit import AttributeValue
from qcompiler.ir.transformed import transformed
from qcompiler.passes.lower.channel_bounds import clamped_per_channel
from qcompiler.passes.lower.emitter import Emitter
from qcompiler.passes.lower.linear import Layer, weight_codes
from qcompiler.passes.lower.products import rows_of
from qcompiler.passes.lower.site import NoIntegerForm, Site
from qcompiler.quant import packing
from qcompiler.quant.format import BYTE

__all__ = ["Layout", "emit"]


@dataclass(frozen=True, slots=True)
class Layout:
    """How an operator reads its weight.

    Attributes:
        shape: Shape with output channels first.
        turned: Whether an unpacked weight is a matrix with output channels last instead.
        as_stored: Whether the node reads its weight in the same layout.
    """

    shape: tuple[int, ...]
    turned: bool
    as_stored: bool


def _weight(found: Layer, layout: Layout, emitter: Emitter) -> tuple[ir.Value, dict[str, AttributeValue]]:
    """The weight, and the attributes that describe it: packed where codes of 4 bits are stored."""
    weight, rows = found.product.weight, found.product.rows
    stored = weight_codes(found.product.site)
    bits = packing.least_bits(rows) if weight.bits < BYTE else None
    if bits is not None:
        width = packing.packed_width(rows.shape[1], bits)
        pack = functools.partial(packing.pack, bits=bits)
        packed = _derived(found, pack, (rows.shape[0], width), ir.DataType.UINT8, emitter)
        return emitter.edit.constant(f"{weight.name}_packed", packed), {"bits": bits, "weight_shape": layout.shape}
    if layout.as_stored and stored.dtype is ir.DataType.INT8 and not weight.zero_point.any():
        return stored, {}
    size = tuple(reversed(layout.shape)) if layout.turned else layout.shape
    arranged = _derived(found, functools.partial(_arranged, layout), size, ir.DataType.INT8, emitter)
    return emitter.edit.constant(f"{weight.name}_arranged", arranged), {}


def _arranged(layout: Layout, rows: NDArray[Any]) -> NDArray[Any]:
    return rows.T if layout.turned else rows.reshape(layout.shape)


def _derived(
    found: Layer,
    arrange: Callable[[NDArray[Any]], NDArray[Any]],
    size: tuple[int, ...],
    dtype: ir.DataType,
    emitter: Emitter,
) -> ir.TensorProtocol:
    """A tensor made from the rows of the weight: at once, or when it is read where weights are large."""
    stored = weight_codes(found.product.site)
    tensor = constants.tensor(stored)
    if tensor is None:
        raise NoIntegerForm("its weight is no constant in codes")
    weight, node = found.product.weight, found.product.site.node
    axes = [-1 if weight.zero_point.size > 1 and axis == weight.axis else 1 for axis in range(weight.codes.ndim)]
    zero = weight.zero_point.reshape(axes) + (128 if tensor.dtype is ir.DataType.UINT8 else 0)

    def derive(codes: NDArray[Any]) -> NDArray[Any]:
        return arrange(rows_of(node, (codes.astype(np.int16) - zero).astype(np.int8)))

    return transformed(emitter.edit, tensor, derive, size, dtype)


def emit(
    found: Layer,
    base: str,
    layout: Layout,
    bias: NDArray[Any],
    channels: Sequence[int],
    attributes: dict[str, AttributeValue],
    emitter: Emitter,
) -> ir.Value:
    """Write the operator of a layer.

    Args:
        found: The layer.
        base: Operator without endings.
        layout: How it reads its weight.
        bias: Its bias.
        channels: Shape of one number per channel, as the accumulator has it.
        attributes: Its attributes, those of packing and clamp excepted.
        emitter: Where nodes and constants go.
    """
    site = found.product.site
    weight, packed = _weight(found, layout, emitter)
    operands = [site.codes(0).value, weight, emitter.constant(f"{site.output.of}_bias", bias)]
    name = base + ("Wide" if found.wide else "") + ("Packed" if packed else "")

    def write(clamped: Site) -> ir.Value:
        factor = found.factor(channels)
        return emitter.rescaled(
            name, operands, factor, bound=found.bound, site=clamped, attributes={**attributes, **packed}
        )

    return clamped_per_channel(site, write, emitter)
