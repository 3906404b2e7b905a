"""check-accumulators: no layer may be able to overflow the target's accumulator; narrow it, or refuse it by name.

The proof is about the worst input there can be, not about calibration data (``analysis/ranges.py``). A channel whose
partial sums could leave the accumulator gets coarser weights: their scale is doubled until every sum fits, at most
until four significant bits are left, and the bias follows. Doubling moves codes by half a code at most and keeps
scales that are powers of two. What still does not fit cannot run on the target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis.code_ranges import CodeRanges
from qcompiler.analysis.ranges import product_bounds, width
from qcompiler.errors import PassError
from qcompiler.passes.lower.groups import computes_floats, site_of
from qcompiler.passes.lower.narrowing import narrow
from qcompiler.passes.lower.products import Product, product_of
from qcompiler.passes.lower.site import NoIntegerForm, Site
from qcompiler.pipeline.base import Context, Fact, Pass
from qcompiler.quant.operators import LINEAR
from qcompiler.target.integer import IntegerArithmetic

__all__ = ["CheckAccumulators"]

_SIGNIFICANT: Final = 4
"""Bits that narrowed weights keep, sign included."""


@dataclass(frozen=True)
class CheckAccumulators(Pass):
    """Prove that no accumulator overflows; where one could, narrow the weights of its channels, or refuse.

    Attributes:
        strategy: ``narrow``: coarser weights first; ``refuse``: no layer is changed.
    """

    name: ClassVar[str] = "check-accumulators"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})

    strategy: Literal["narrow", "refuse"] = "narrow"

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Check every linear operator between codes."""
        arithmetic = ctx.target.integer if ctx.target is not None else IntegerArithmetic()
        ranges = CodeRanges()
        for node in list(model.graph):
            if node.domain or node.op_type not in LINEAR or not computes_floats(node):
                continue
            try:
                site = site_of(node, arithmetic)
            except NoIntegerForm:
                continue  # it stays float, and has no accumulator of ours
            product = product_of(site, ranges)
            if product is not None:
                self._check(product, ctx)
            elif site.inputs[1] is not None:
                _check_activations(site, ranges, ctx)

    def _check(self, product: Product, ctx: Context) -> None:
        low, high = product.bounds()
        if not _outside(low, high, product.width).any():
            return
        node = product.site.node
        lost = _bits_to_lose(product) if self.strategy == "narrow" else None
        if lost is None:
            raise _refusal(node, int(low.min()), int(high.max()), product.width, ctx)
        narrow(product, lost, ctx.edit)
        channels = int((lost[product.scale_of] > 0).sum())
        ctx.note(
            f"{node.name} ({node.op_type}): weights of {channels} of {lost[product.scale_of].size} channels have up to "
            f"{int(lost.max())} bits less, because its sums could leave {product.width} bits"
        )


def _bits_to_lose(product: Product) -> NDArray[np.int64] | None:
    """Per weight scale the fewest bits to take from its weights so that all sums fit; ``None`` where none suffice."""
    lost = np.zeros(product.weight.scale.size, np.int64)
    for _ in range(max(product.weight.bits - _SIGNIFICANT, 0)):
        outside = _outside(*product.bounds(lost), product.width)
        if not outside.any():
            return lost
        lost[np.unique(product.scale_of[outside])] += 1
    return None if _outside(*product.bounds(lost), product.width).any() else lost


def _outside(low: NDArray[np.int64], high: NDArray[np.int64], bits: int) -> NDArray[np.bool_]:
    if bits >= 64:  # order_free_bounds refuses what 64 bits do not hold
        return np.zeros(low.shape, np.bool_)
    outside: NDArray[np.bool_] = (low < -(1 << (bits - 1))) | (high >= 1 << (bits - 1))
    return outside


def _check_activations(site: Site, ranges: CodeRanges, ctx: Context) -> None:
    """The product of two activations: nothing can be narrowed, its depth decides."""
    first, second = site.codes(0), site.codes(1)
    wide = ir.DataType.INT16 in (first.dtype, second.dtype)
    bits = site.arithmetic.wide_accumulator_bits if wide else site.arithmetic.accumulator_bits
    limits = [
        bound - codes.zero_point
        for codes in (first, second)
        for bound in ranges.of(codes.value) or (codes.low, codes.high)
    ]
    depth = _depth(site.node)
    low, high = product_bounds(1 if depth is None else depth, *limits)
    if width(low, high) > bits:
        raise _refusal(site.node, low, high, bits, ctx)
    if depth is None:
        most = ((1 << (bits - 1)) - 1) // max(-low, high, 1)
        ctx.note(f"{site.node.name} ({site.node.op_type}): its accumulator holds sums of up to {most} products")


def _depth(node: ir.Node) -> int | None:
    """How many products a MatMul of two activations adds; ``None`` where only a run can tell."""
    for value, axis in zip(node.inputs[:2], (-1, -2), strict=True):
        shape = value.shape if value is not None else None
        if shape is None or not len(shape):
            continue
        size = shape[axis if len(shape) > 1 else -1]
        if isinstance(size, int):
            return size
    return None


def _refusal(node: ir.Node, low: int, high: int, bits: int, ctx: Context) -> PassError:
    name = ctx.target.name if ctx.target is not None else "the target"
    return PassError(
        f"the sums of {node.name} ({node.op_type}) can reach {low} to {high}, which takes {width(low, high)} bits; "
        f"accumulators of {name} have {bits}",
        where=node.name,
        hint=f"--exclude '{node.name}' leaves it in float, narrower weights or activations (--format w4a8) make its "
        "sums smaller, or choose a target with wider accumulators",
    )
