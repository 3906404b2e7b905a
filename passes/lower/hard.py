"""HardSigmoid and HardSwish over 16-bit codes: their kinks lie where no table has an entry.

HardSigmoid is a line between two clamps, so it is one Requantize: the line's offset goes into the zero point of the
result and its bounds are the codes of 0 and 1. Rounding the offset adds at most half a code to the half of the rescale.
HardSwish multiplies its input by that, kept at 15 bits between 0 and 1. With 8-bit codes both are tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import onnx_ir as ir

from qcompiler.passes.lower._unary import FUNCTIONS
from qcompiler.passes.lower.emitter import Emitter
from qcompiler.passes.lower.site import Codes, Lowering, Site
from qcompiler.passes.lower.tables import lower_function
from qcompiler.quant.annotations import Annotation, annotate

__all__ = ["LOWERINGS"]

_FULL: Final = 32767
"""Code of 1 between HardSigmoid and the product."""


def _lower_hard_sigmoid(site: Site, emitter: Emitter) -> ir.Value:
    alpha = float(site.node.attributes.get_float("alpha", 0.2))
    beta = float(site.node.attributes.get_float("beta", 0.5))
    if _is_table(site) or alpha <= 0:
        return lower_function(site, emitter, FUNCTIONS["HardSigmoid"](site.node))
    low, high = site.clamp()
    bounds = [min(max(site.output.code_of(real), low), high) for real in (0.0, 1.0)]
    return _line(site, emitter, alpha, beta, site.output, (bounds[0], bounds[1]))


def _lower_hard_swish(site: Site, emitter: Emitter) -> ir.Value:
    if _is_table(site):
        return lower_function(site, emitter, FUNCTIONS["HardSwish"](site.node))
    source, out = site.codes(0), site.output
    gate = Codes(source.value, 1.0 / _FULL, 0, ir.DataType.INT16, f"{out.of}_gate")
    share = _line(site, emitter, 1 / 6, 0.5, gate, (0, _FULL))
    return emitter.rescaled(
        "QMul",
        [source.value, share],
        source.scale * gate.scale / out.scale,
        bound=source.magnitude * _FULL,
        site=site,
        attributes={"a_zero_point": source.zero_point, "b_zero_point": 0},
    )


LOWERINGS: Final[Mapping[str, Lowering]] = MappingProxyType(
    {"HardSigmoid": _lower_hard_sigmoid, "HardSwish": _lower_hard_swish}
)


def _is_table(site: Site) -> bool:
    """Whether a table does better: 8-bit codes, or a target whose rescales are powers of two."""
    return site.codes(0).dtype is ir.DataType.INT8 or site.arithmetic.shifts_only


def _line(site: Site, emitter: Emitter, slope: float, offset: float, result: Codes, clamp: tuple[int, int]) -> ir.Value:
    """``slope * x + offset`` as codes of ``result``, clamped."""
    source = site.codes(0)
    moved = Codes(result.value, result.scale, result.zero_point + round(offset / result.scale), result.dtype, result.of)
    line = emitter.rescaled(
        "Requantize",
        [source.value],
        slope * source.scale / result.scale,
        bound=source.magnitude,
        site=site,
        attributes={"x_zero_point": source.zero_point},
        output=moved,
        clamp=clamp,
    )
    annotate(line, Annotation(result.of, result.scale, result.zero_point))
    return line
