"""Conv becomes QConv, ConvTranspose becomes QConvTranspose; 1 to 3 spatial axes, groups, dilations, any padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.edit import AttributeValue
from qcompiler.ir.patterns import integer, integers
from qcompiler.passes.lower.emitter import Emitter
from qcompiler.passes.lower.linear import added_constants, check_order, layer
from qcompiler.passes.lower.linear_results import Layout, emit
from qcompiler.passes.lower.site import Lowering, NoIntegerForm, Site

__all__ = ["LOWERINGS"]


@dataclass(frozen=True, slots=True)
class _Geometry:
    """Attributes of a convolution, defaults filled in; one entry per spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    automatic: str
    sizes: tuple[int | None, ...]

    @property
    def reach(self) -> list[int]:
        """Inputs between the first and the last that one output sees."""
        return [dilation * (size - 1) for dilation, size in zip(self.dilations, self.kernel, strict=True)]


def lower_conv(site: Site, emitter: Emitter) -> ir.Value:
    """Conv."""
    found = layer(site)
    shape = found.product.weight.codes.shape
    geometry = _geometry(site, shape[2:])
    attributes: dict[str, AttributeValue] = {
        "strides": geometry.strides,
        "dilations": geometry.dilations,
        "pads": _conv_pads(site.node, geometry),
        "group": integer(site.node, "group", 1),
        "x_zero_point": site.codes(0).zero_point,
    }
    channels = _channels(shape[0], geometry)
    bias = found.bias(_bias(site, channels), channels)
    return emit(found, "QConv", Layout(tuple(shape), turned=False, as_stored=True), bias, channels, attributes, emitter)


def lower_conv_transpose(site: Site, emitter: Emitter) -> ir.Value:
    """ConvTranspose."""
    found = layer(site)
    shape = found.product.weight.codes.shape
    geometry = _geometry(site, shape[2:])
    group = integer(site.node, "group", 1)
    pads, more = _transpose_pads(site.node, geometry)
    attributes: dict[str, AttributeValue] = {
        "strides": geometry.strides,
        "dilations": geometry.dilations,
        "pads": pads,
        "output_padding": more,
        "group": group,
        "x_zero_point": site.codes(0).zero_point,
    }
    channels = _channels(shape[1] * group, geometry)
    bias = found.bias(_bias(site, channels), channels)
    layout = Layout((channels[0], shape[0] // group, *geometry.kernel), turned=False, as_stored=False)
    return emit(found, "QConvTranspose", layout, bias, channels, attributes, emitter)


LOWERINGS: Final[Mapping[str, Lowering]] = MappingProxyType({"Conv": lower_conv, "ConvTranspose": lower_conv_transpose})


def _geometry(site: Site, kernel: Sequence[int]) -> _Geometry:
    node, rank = site.node, len(kernel)
    automatic = node.attributes.get("auto_pad")
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    known = list(shape)[2:] if shape is not None and len(shape) == rank + 2 else [None] * rank
    return _Geometry(
        tuple(kernel),
        integers(node, "strides") or (1,) * rank,
        integers(node, "dilations") or (1,) * rank,
        "NOTSET" if automatic is None else automatic.as_string(),
        tuple(size if isinstance(size, int) else None for size in known),
    )


def _channels(count: int, geometry: _Geometry) -> tuple[int, ...]:
    return (count, *(1 for _ in geometry.kernel))


def _bias(site: Site, channels: Sequence[int]) -> NDArray[np.float64]:
    """The real bias, one number per channel: the operator's own and constants added behind it."""
    check_order(site)
    total = np.zeros(tuple(channels))
    for index, constant in enumerate(added_constants(site)):
        own = index == 0 and len(site.node.inputs) > 2 and site.node.inputs[2] is not None
        spread = constant.reshape(-1, *channels[1:]) if own else constant
        batchless = spread.reshape(spread.shape[1:]) if spread.ndim > len(channels) and spread.shape[0] == 1 else spread
        if np.broadcast_shapes(batchless.shape, tuple(channels)) != tuple(channels):
            raise NoIntegerForm(f"a constant of shape {constant.shape} is added to it: not one number per channel")
        total = total + batchless
    return total


# -- padding -------------------------------------------------------------------------------------------------------


def _conv_pads(node: ir.Node, geometry: _Geometry) -> tuple[int, ...]:
    """Padding at the begin of every axis, then at the end of every axis."""
    rank = len(geometry.kernel)
    if geometry.automatic == "NOTSET":
        return _not_negative(integers(node, "pads") or (0,) * (2 * rank))
    if geometry.automatic == "VALID":
        return (0,) * (2 * rank)
    totals = []
    for size, stride, reach in zip(geometry.sizes, geometry.strides, geometry.reach, strict=True):
        if stride == 1:
            totals.append(reach)
        elif size is None:
            raise NoIntegerForm(f"auto_pad {geometry.automatic} depends on a size that only a run can tell")
        else:
            totals.append(max((-(-size // stride) - 1) * stride + reach + 1 - size, 0))
    return _shared_out(totals, upper=geometry.automatic == "SAME_UPPER")


def _transpose_pads(node: ir.Node, geometry: _Geometry) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What is cut away at the begin and the end of every axis, and what is added at its end."""
    rank = len(geometry.kernel)
    more = integers(node, "output_padding") or (0,) * rank
    wanted = integers(node, "output_shape")
    if wanted is None and geometry.automatic in ("NOTSET", "VALID"):
        pads = integers(node, "pads") if geometry.automatic == "NOTSET" else None
        return _not_negative(pads or (0,) * (2 * rank)), more
    totals = []
    for axis, (size, stride, reach) in enumerate(zip(geometry.sizes, geometry.strides, geometry.reach, strict=True)):
        if size is None:
            raise NoIntegerForm("its padding depends on a size that only a run can tell")
        result = size * stride if wanted is None else wanted[-rank:][axis]
        totals.append(stride * (size - 1) + more[axis] + reach + 1 - result)
    if min(totals, default=0) < 0:
        raise NoIntegerForm("its output_shape or auto_pad asks for more than the convolution reaches")
    return _shared_out(totals, upper=geometry.automatic == "SAME_UPPER"), more


def _shared_out(totals: Sequence[int], *, upper: bool) -> tuple[int, ...]:
    """Half of the padding on either side, the odd one at the end (``upper``) or at the begin."""
    begins = [total // 2 if upper else total - total // 2 for total in totals]
    return (*begins, *(total - begin for total, begin in zip(totals, begins, strict=True)))


def _not_negative(pads: tuple[int, ...]) -> tuple[int, ...]:
    if min(pads, default=0) < 0:
        raise NoIntegerForm("its pads are negative")
    return pads
