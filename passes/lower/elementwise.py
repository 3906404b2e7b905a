"""Add, Sub, Mul and Div become QAdd, QSub, QMul; a factor of one number goes into a Requantize."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.passes.lower.emitter import Emitter
from qcompiler.passes.lower.operands import operand
from qcompiler.passes.lower.site import Codes, Lowering, NoIntegerForm, Site
from qcompiler.quant.integer import dyadic, elementwise

__all__ = ["LOWERINGS", "lower_div", "scaled"]


def lower_add(site: Site, emitter: Emitter) -> ir.Value:
    """Add, or Sum of two."""
    if len(site.node.inputs) != 2:
        raise NoIntegerForm(f"it adds {len(site.node.inputs)} tensors; sum-to-add makes pairs of them")
    return _summed("QAdd", site, emitter, [operand(site, emitter, index) for index in (0, 1)])


def lower_sub(site: Site, emitter: Emitter) -> ir.Value:
    """Sub."""
    return _summed("QSub", site, emitter, [operand(site, emitter, index) for index in (0, 1)])


def lower_mul(site: Site, emitter: Emitter) -> ir.Value:
    """Mul; by a constant of one number it is a rescale."""
    for index in (0, 1):
        factor = _number(site, index)
        if factor is not None and (result := scaled(site, emitter, 1 - index, factor)) is not None:
            return result
    return _multiplied(site, emitter, [operand(site, emitter, index) for index in (0, 1)])


def lower_div(site: Site, emitter: Emitter) -> ir.Value:
    """Div by a constant: multiplication by its reciprocal."""
    divisor = site.constant(1)
    if divisor is None:
        raise NoIntegerForm("it divides by a tensor that is computed; integers here are never divided")
    if (divisor == 0).any():
        raise NoIntegerForm("it divides by zero")
    reciprocal = 1.0 / divisor.astype(np.float64)
    factor = _number(site, 1)
    if factor is not None and (result := scaled(site, emitter, 0, 1.0 / factor)) is not None:
        return result
    return _multiplied(site, emitter, [operand(site, emitter, 0), operand(site, emitter, 1, content=reciprocal)])


LOWERINGS: Final[Mapping[str, Lowering]] = MappingProxyType(
    {"Add": lower_add, "Sum": lower_add, "Sub": lower_sub, "Mul": lower_mul}
)


def scaled(site: Site, emitter: Emitter, index: int, factor: float) -> ir.Value | None:
    """Input ``index`` times a real number: the number goes into the rescale, which costs nothing.

    A negative number subtracts from zero instead, because multipliers are positive.

    Returns:
        The codes; ``None`` where the number cannot go into the rescale (zero, or no power of two where the target
        only shifts).

    Raises:
        NoIntegerForm: The input is no tensor of codes, or the factor cannot be represented.
    """
    source, out = site.codes(index), site.output
    real = abs(factor) * source.scale / out.scale
    if not (np.isfinite(real) and real > 0) or (site.arithmetic.shifts_only and np.frexp(real)[0] != 0.5):
        return None
    if factor > 0:
        return emitter.rescaled(
            "Requantize",
            [source.value],
            real,
            bound=source.magnitude,
            site=site,
            attributes={"x_zero_point": source.zero_point},
        )
    # The zero has the scale of what is subtracted from it, so that one factor serves both.
    content = np.array(0, source.dtype.numpy())
    zero = Codes(emitter.constant(f"{out.of}_zero", content), source.scale, 0, source.dtype, f"{out.of}_zero")
    return _summed("QSub", site, emitter, [zero, source], abs(factor))


def _number(site: Site, index: int) -> float | None:
    """A constant of one number that does not change the shape of what it multiplies."""
    content = site.constant(index)
    if content is None or content.size != 1:
        return None
    other = site.node.inputs[1 - index]
    shape = other.shape if other is not None else None
    if content.ndim and (shape is None or content.ndim > len(shape)):
        return None
    return float(content.reshape(()))


def _summed(base: str, site: Site, emitter: Emitter, operands: Sequence[Codes], times: float = 1.0) -> ir.Value:
    factors = [times * item.scale / site.output.scale for item in operands]
    shifts = site.arithmetic.shifts_only
    try:
        scales, shift = (
            elementwise.choose_left(factors)
            if shifts
            else dyadic.choose_common(
                factors, site.arithmetic.multiplier_bits, sum(item.magnitude for item in operands)
            )
        )
    except ValueError as error:
        raise NoIntegerForm(str(error)) from error
    a, b = operands
    return emitter.codes(
        f"{base}Shift" if shifts else base,
        [a.value, b.value, *_constants(site, emitter, scales, shift)],
        site=site,
        attributes={"a_zero_point": a.zero_point, "b_zero_point": b.zero_point},
    )


def _constants(
    site: Site, emitter: Emitter, scales: NDArray[np.int32] | NDArray[np.uint8], shift: int
) -> list[ir.Value]:
    of, ending = site.output.of, "left" if site.arithmetic.shifts_only else "multiplier"
    named = zip(("a", "b"), scales, strict=True)
    return [
        *(emitter.constant(f"{of}_{side}_{ending}", np.asarray(scale)) for side, scale in named),
        emitter.constant(f"{of}_shift", np.array(shift, np.uint8)),
    ]


def _multiplied(site: Site, emitter: Emitter, operands: Sequence[Codes]) -> ir.Value:
    a, b = operands
    return emitter.rescaled(
        "QMul",
        [a.value, b.value],
        a.scale * b.scale / site.output.scale,
        bound=a.magnitude * b.magnitude,
        site=site,
        attributes={"a_zero_point": a.zero_point, "b_zero_point": b.zero_point},
    )
