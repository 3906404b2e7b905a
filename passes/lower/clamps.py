"""Relu, Clip, Min and Max that stand alone: comparisons of codes, because quantization is monotone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

import onnx_ir as ir

from qcompiler.passes.lower.emitter import Emitter
from qcompiler.passes.lower.operands import at_output, finish, standard
from qcompiler.passes.lower.site import Lowering, Site, bounds

__all__ = ["LOWERINGS"]


def lower_clamp(site: Site, emitter: Emitter) -> ir.Value:
    """Relu and Clip; the clamp of a Requantize where scales differ or runtimes clip no 16 bits.

    Raises:
        NoIntegerForm: A bound is not one constant number.
    """
    out, (low, high) = site.output, site.clamp()
    least, greatest = bounds(site.node)
    # As ONNX defines Clip: the greater bound wins, and so do absorbed activations over both.
    codes = [low if least is None else out.code_of(least), high if greatest is None else out.code_of(greatest)]
    bottom, top = (min(max(code, low), high) for code in (min(codes), codes[1]))
    return finish(site, emitter, site.codes(0), clamp=(bottom, top))


def lower_extreme(site: Site, emitter: Emitter) -> ir.Value:
    """Min and Max: of one tensor and a number a clamp, else a comparison of codes at the output's scale."""
    values = site.node.inputs
    numbers = [index for index in range(len(values)) if (item := site.constant(index)) is not None and item.ndim == 0]
    if len(values) == 2 and len(numbers) == 1 and site.inputs[1 - numbers[0]] is not None:
        low, high = site.clamp()
        bound = min(max(site.output.code_of(float(site.constant(numbers[0]) or 0.0)), low), high)
        clamp = (bound, high) if site.node.op_type == "Max" else (low, bound)
        return finish(site, emitter, site.codes(1 - numbers[0]), clamp=clamp)
    operands = [at_output(site, emitter, index) for index in range(len(values))]
    through = None if site.output.dtype is ir.DataType.INT8 else ir.DataType.INT32
    moved = replace(site.output, value=operands[0])
    compared = standard(site, emitter, operands, moved, through=through, moving=range(len(operands)))
    return finish(site, emitter, compared)


LOWERINGS: Final[Mapping[str, Lowering]] = MappingProxyType(
    {"Relu": lower_clamp, "Clip": lower_clamp, "Min": lower_extreme, "Max": lower_extreme}
)
