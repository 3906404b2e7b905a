"""Whether a packed table that is looked up (QGather, QGatherWeightOnly) is in a format that the target takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from qcompiler.ir.constants import array, is_constant
from qcompiler.quant.format import QFormat
from qcompiler.quant.integer.gather import check_scales, check_table
from qcompiler.target.schema import OperatorRule, Target

__all__ = ["packed_table_reasons"]


def packed_table_reasons(
    node: ir.Node, inputs: Mapping[str, ir.Value | None], rules: Sequence[OperatorRule], target: Target
) -> Iterator[str]:
    """What the node breaks: bits that the profile lists for tables, shapes and scales of the operator.

    Real rows may have formats of tables and those of weights beside real activations.
    """
    real = "scale" in inputs
    forms = [form for rule in rules for form in (*rule.tables, *(rule.weight_only if real else ()))]
    if not forms:
        yield f"{target.name} looks up no tables with a scale per row"
        return
    table = inputs.get("w")
    if table is None or not is_constant(table):
        yield "its table is not a constant"
        return
    bits, shape = node.attributes.get_int("bits", 0) or 0, node.attributes.get_ints("weight_shape", ()) or ()
    stored = [size for size in table.shape or () if isinstance(size, int)]
    try:
        check_table(stored, bits=bits, weight_shape=shape)
    except ValueError as error:
        yield f"its table cannot be looked up: {error}"
        return
    yield from _bits_reasons(forms, bits)
    yield from _factor_reasons(inputs, shape[0])


def _bits_reasons(forms: Sequence[QFormat], bits: int) -> Iterator[str]:
    if not any(form.bits >= bits for form in forms):  # codes may need fewer bits than their format has
        accepted = "/".join(map(str, sorted({form.bits for form in forms}, reverse=True)))
        yield f"its table is packed in {bits} bits, the target takes {accepted}"


def _factor_reasons(inputs: Mapping[str, ir.Value | None], rows: int) -> Iterator[str]:
    """One factor per row; that multipliers and shifts are those of the target is said of all operators."""
    for name in ("multiplier", "shift"):
        factor = array(inputs.get(name))
        if factor is not None and factor.shape != (rows,):
            yield f"its {name} is {list(factor.shape)}, a table of {rows} rows has {[rows]}"
    if "scale" not in inputs:
        return
    scale = array(inputs["scale"])
    if scale is None:
        yield "its scale is not a constant"
        return
    try:
        check_scales(scale, rows)
    except ValueError as error:
        yield f"its {error}"
