"""A layer with a constant weight in integers: what Conv, ConvTranspose, Gemm and MatMul have in common.

An operator of the set computes ``bias + sum(x * w)`` on codes. Its integer bias holds everything that is constant:
the real bias at the accumulator's scale ``s_x * s_w``, and what the zero point of the activation contributes,
``-z_x * sum(w)``. The weights' own zero point, where they have one, is subtracted from the codes beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis.code_ranges import CodeRanges
from qcompiler.passes.lower.products import STORED, Product, exact_real, product_of
from qcompiler.passes.lower.site import NoIntegerForm, Site, dequantizer
from qcompiler.quant.integer.dyadic import Overflow
from qcompiler.quant.integer.linear import WIDE_DEPTH
from qcompiler.quant.operators import BIAS_INPUT, WEIGHT_INPUT

__all__ = ["Layer", "added_constants", "check_order", "layer", "weight_codes"]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A layer with a constant weight, in integers.

    Attributes:
        product: The group and its weight as rows.
        scale: Scale of the accumulator, float64 ``(channels,)``, or ``()`` with one weight scale.
        share: Contribution of the activation's zero point per channel, int64: ``-z_x * sum(w)``.
        bound: Greatest magnitude of the accumulator.
    """

    product: Product
    scale: NDArray[np.float64]
    share: NDArray[np.int64]
    bound: int

    @property
    def wide(self) -> bool:
        """Whether activations have 16 bits."""
        return self.product.data.dtype is ir.DataType.INT16

    def bias(self, real: NDArray[np.float64], shape: Sequence[int]) -> NDArray[Any]:
        """The real bias rounded ``half_even`` to the accumulator's scale, and the share of the zero point.

        Args:
            real: Real bias that broadcasts against ``shape``.
            shape: Shape of one number per channel, as the accumulator has it.
        """
        scale = self.scale.reshape(shape) if self.scale.ndim else self.scale
        rounded = np.rint(real / scale).astype(np.int64)
        return (rounded + self.share.reshape(shape)).astype(np.int64 if self.wide else np.int32)

    def factor(self, shape: Sequence[int]) -> float | NDArray[np.float64]:
        """The real rescale from accumulator to result, one number per channel or one for all."""
        factor = self.scale / self.product.site.output.scale
        return factor.reshape(shape) if factor.ndim else float(factor)


def layer(site: Site) -> Layer:
    """The integers of a layer with a constant weight.

    Raises:
        NoIntegerForm: It has none, or its accumulator could overflow.
    """
    product = _product(site)
    if product.data.dtype is ir.DataType.INT16 and not product.width:
        raise NoIntegerForm("the target multiplies no 16-bit codes")
    if product.data.dtype is ir.DataType.INT16 and product.rows.shape[1] > WIDE_DEPTH:
        raise NoIntegerForm(f"it adds {product.rows.shape[1]} products of 16-bit codes; {WIDE_DEPTH} is the most")
    if product.rows.size and (product.rows.min() < -128 or product.rows.max() > 127):
        raise NoIntegerForm("its weights less their zero point do not fit 8 bits")
    per_scale = product.data.scale * product.weight.scale.reshape(-1)
    scale = np.asarray(per_scale[0]) if per_scale.size == 1 else per_scale[product.scale_of]
    share = -product.data.zero_point * product.rows.sum(axis=1, dtype=np.int64)
    return Layer(product, scale, share, _bound(product))


def _product(site: Site) -> Product:
    site.codes(0)
    weight = site.weight(WEIGHT_INPUT)
    if weight is None:
        raise NoIntegerForm("its weight is no constant in codes")
    if not weight.codes.size:
        raise NoIntegerForm("its weight is empty")
    if weight.block:
        raise NoIntegerForm("its weights have a scale per block")
    if weight_codes(site).dtype not in STORED:
        raise NoIntegerForm("its weight has no codes of 8 bits or fewer")
    product = product_of(site, CodeRanges())
    if product is None:
        raise NoIntegerForm("the scales of its weight do not belong to output channels")
    return product


def _bound(product: Product) -> int:
    try:
        low, high = product.bounds()
    except Overflow as error:
        raise NoIntegerForm(str(error)) from error
    bound = max(-int(low.min(initial=0)), int(high.max(initial=0)))
    if bound >= 1 << (product.width - 1):
        raise NoIntegerForm(f"its accumulator can reach {bound}, and the target's has {product.width} bits")
    return bound


def check_order(site: Site) -> None:
    """Whatever is added comes before what is clamped.

    Raises:
        NoIntegerForm: It does not.
    """
    kinds = [node.op_type == "Add" for node in site.absorbed]
    if kinds != sorted(kinds, reverse=True):
        raise NoIntegerForm("a constant is added behind its activation")


def added_constants(site: Site) -> list[NDArray[np.float64]]:
    """Real biases of a layer: its own, where it has one, and those of absorbed Add nodes.

    Raises:
        NoIntegerForm: The bias is no constant.
    """
    own = site.node.inputs[BIAS_INPUT] if len(site.node.inputs) > BIAS_INPUT else None
    found = [] if own is None else [exact_real(own)]
    adds = [node for node in site.absorbed if node.op_type == "Add"]
    found += [next((real for item in add.inputs if (real := exact_real(item)) is not None), None) for add in adds]
    known = [item for item in found if item is not None]
    if len(known) < len(found):
        raise NoIntegerForm("its bias is no constant")
    return known


def weight_codes(site: Site) -> ir.Value:
    """The stored codes of the weight.

    Raises:
        NoIntegerForm: There are none.
    """
    source = dequantizer(site.node.inputs[WEIGHT_INPUT])
    stored = source.inputs[0] if source is not None else None
    if stored is None:
        raise NoIntegerForm("its weight is no constant in codes")
    return stored
