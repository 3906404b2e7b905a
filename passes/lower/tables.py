"""Functions of one number become tables.

With 8-bit codes a table holds every result and is exact. With 16-bit codes it is interpolated, and measured at every
code; what it cannot follow stays float with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import onnx_ir as ir

from qcompiler.passes.lower._unary import FUNCTIONS, power, quotient
from qcompiler.passes.lower.elementwise import lower_div, scaled
from qcompiler.passes.lower.emitter import Emitter
from qcompiler.passes.lower.site import Codes, Lowering, NoIntegerForm, Site
from qcompiler.quant.annotations import Annotation, annotate
from qcompiler.quant.integer.table_design import Affine, Function, design_interpolated, design_table

__all__ = ["LOWERINGS", "lower_function"]

_ELSEWHERE: Final = ("HardSigmoid", "HardSwish")
"""Functions whose 16-bit form is no table."""

_PATIENCE: Final = 1 / 128
"""An interpolated table that errs by more than this part of the result's codes is no form of its function."""


def lower_function(site: Site, emitter: Emitter, function: Function, index: int = 0) -> ir.Value:
    """Any function of input ``index``.

    Raises:
        NoIntegerForm: The input has no codes, the target no such tables, or the table errs too much.
    """
    source, out = site.codes(index), site.output
    low, high = site.clamp()
    given = Affine(source.scale, source.zero_point, source.low, source.high)
    wanted = Affine(out.scale, out.zero_point, low, high)
    if source.dtype is ir.DataType.INT8:
        if not site.arithmetic.table_entries:
            raise NoIntegerForm("the target has no tables over 8-bit codes")
        table = emitter.constant(f"{out.of}_table", design_table(function, given, wanted, out.dtype.value))
        return _emitted("QLookup", [source.value, table], {}, emitter, out)
    return _interpolated(site, emitter, function, source, given, wanted)


def _interpolated(
    site: Site, emitter: Emitter, function: Function, source: Codes, given: Affine, wanted: Affine
) -> ir.Value:
    if not site.arithmetic.interpolated_table_entries:
        raise NoIntegerForm("the target has no interpolated tables over 16-bit codes")
    out = site.output
    design = design_interpolated(function, given, wanted, out.dtype.value)
    if design.distance > max(_PATIENCE * (wanted.high - wanted.low), 1):
        raise NoIntegerForm(
            f"a table with {design.entries.size} entries over its 16-bit codes errs by up to {design.distance} codes "
            f"of {wanted.high - wanted.low}"
        )
    if design.distance > 1:
        emitter.note(
            f"{site.node.name} ({site.node.op_type}): its interpolated table is off by at most {design.distance} "
            f"{out.dtype.name.lower()} codes"
        )
    table = emitter.constant(f"{out.of}_table", design.entries)
    attributes = {"curved": int(design.curved), "to": out.dtype.value, "low": wanted.low, "high": wanted.high}
    return _emitted("QLookupInterpolated", [source.value, table], attributes, emitter, out)


def _emitted(
    op_type: str, inputs: list[ir.Value], attributes: dict[str, int], emitter: Emitter, out: Codes
) -> ir.Value:
    result = emitter.emit(op_type, inputs, attributes, name=out.of, dtype=out.dtype, shape=out.value.shape)
    annotate(result, Annotation(out.of, out.scale, out.zero_point))
    return result


def _unary(make: Callable[[ir.Node], Function]) -> Lowering:
    return lambda site, emitter: lower_function(site, emitter, make(site.node))


def _lower_neg(site: Site, emitter: Emitter) -> ir.Value:
    if site.codes(0).dtype is ir.DataType.INT16 and (result := scaled(site, emitter, 0, -1.0)) is not None:
        return result
    return lower_function(site, emitter, np.negative)


def _lower_pow(site: Site, emitter: Emitter) -> ir.Value:
    if site.inputs[0] is None or site.constant(0) is not None:
        base = _number(site, 0, "its base")
        return lower_function(site, emitter, lambda x: np.power(base, x), 1)
    return lower_function(site, emitter, power(_number(site, 1, "its exponent")))


def _lower_div(site: Site, emitter: Emitter) -> ir.Value:
    if site.constant(1) is None and site.constant(0) is not None:
        return lower_function(site, emitter, quotient(_number(site, 0, "its numerator")), 1)
    return lower_div(site, emitter)


def _number(site: Site, index: int, what: str) -> float:
    content = site.constant(index)
    other = site.node.inputs[1 - index]
    rank = len(other.shape) if other is not None and other.shape is not None else 0
    if content is None or content.size != 1 or content.ndim > rank:
        raise NoIntegerForm(f"{what} is not one constant number")
    return float(content.reshape(()))


LOWERINGS: Final[Mapping[str, Lowering]] = MappingProxyType(
    {
        **{op_type: _unary(make) for op_type, make in FUNCTIONS.items() if op_type not in _ELSEWHERE},
        "Div": _lower_div,
        "Neg": _lower_neg,
        "Pow": _lower_pow,
    }
)
