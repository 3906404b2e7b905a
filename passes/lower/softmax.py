"""Softmax becomes QSoftmax: its input scale goes into the exponent, its output scale into the last rescale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import onnx_ir as ir

from qcompiler.passes.lower.emitter import Emitter
from qcompiler.passes.lower.site import Lowering, NoIntegerForm, Site
from qcompiler.quant.integer.softmax import LONGEST_ROW

__all__ = ["LOWERINGS"]

_GREATEST_EXPONENT: Final = 32.0
"""One step of the input that is worth more leaves nothing of a term; so does this."""

_LEAST_SCALE: Final = 2.0**-25
_DISTANCE: Final = {ir.DataType.INT8: 255 << 16, ir.DataType.INT16: 65535 << 16}
"""Greatest distance from a row's maximum, with the 16 bits that it is shifted left."""

_RECIPROCAL: Final = (1 << 30) - 1
"""Greatest reciprocal of a row but one: ``2^30`` itself fits beside any shift below 62, with all multiplier bits."""


def lower_softmax(site: Site, emitter: Emitter) -> ir.Value:
    """Softmax along any axis.

    Raises:
        NoIntegerForm: Its input has no codes, rows are too long, or a scale is too fine.
    """
    source, out = site.codes(0), site.output
    axis = site.node.attributes.get_int("axis", -1)
    shape = source.value.shape
    length = shape[axis] if shape is not None else None
    if isinstance(length, int) and length > LONGEST_ROW:
        raise NoIntegerForm(f"its rows have {length} terms, integer sums are bounded up to {LONGEST_ROW}")
    if out.scale < _LEAST_SCALE:
        raise NoIntegerForm(f"its output's scale {out.scale:g} is finer than {_LEAST_SCALE:g}")
    if site.arithmetic.shifts_only:
        exponent = min(source.scale, _GREATEST_EXPONENT) * 2.0**-12  # the body multiplies by log2(e)
    else:
        exponent = min(source.scale * math.log2(math.e), _GREATEST_EXPONENT)
    return emitter.rescaled(
        "QSoftmax",
        [source.value, *emitter.dyadic(exponent, _DISTANCE[source.dtype], site, f"{out.of}_exponent")],
        2.0**-24 / out.scale,
        bound=_RECIPROCAL,
        site=site,
        attributes={"axis": int(axis)},
    )


LOWERINGS: Final[Mapping[str, Lowering]] = MappingProxyType({"Softmax": lower_softmax})
