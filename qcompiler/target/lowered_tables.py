"""Whether a packed table that is looked up (QGather, QGatherWeightOnly) is in a format that the target takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from qcompiler.ir.constants import array, tensor
from qcompiler.quant.format import QFormat
from qcompiler.quant.integer.gather import check_scales, check_table
from qcompiler.quant.packing import unpack
from qcompiler.target.schema import OperatorRule, Target

__all__ = ["packed_table_reasons"]


def packed_table_reasons(
    node: ir.Node, inputs: Mapping[str, ir.Value | None], rules: Sequence[OperatorRule], target: Target
) -> Iterator[str]:
    """What the node breaks: codes that the profile lists, shapes and scales of the operator.

    Integer rows have formats of tables, real rows those of weights beside real activations.
    """
    real = "scale" in inputs
    forms = [form for rule in rules for form in (rule.weight_only if real else rule.tables)]
    if not forms:
        yield f"{target.name} looks up no tables {'of few bits as real numbers' if real else 'with a scale per row'}"
        return
    stored = tensor(inputs.get("w"))
    if stored is None:
        yield "its table is not a constant"
        return
    bits, shape = node.attributes.get_int("bits", 0) or 0, node.attributes.get_ints("weight_shape", ()) or ()
    try:
        check_table(stored.shape.numpy(), bits=bits, weight_shape=shape)
    except ValueError as error:
        yield f"its table cannot be looked up: {error}"
        return
    yield from _code_reasons(forms, stored, bits, shape)
    yield from _factor_reasons(inputs, shape[0])


def _code_reasons(
    forms: Sequence[QFormat], stored: ir.TensorProtocol, bits: int, shape: Sequence[int]
) -> Iterator[str]:
    """Codes may need fewer bits than their format has; of as many, a narrow format lacks the least code."""
    wide_enough = [form for form in forms if form.bits >= bits]
    if not wide_enough:
        accepted = "/".join(map(str, sorted({form.bits for form in forms}, reverse=True)))
        yield f"its table is packed in {bits} bits, the target takes {accepted}"
    elif all(form.bits == bits and form.narrow for form in wide_enough) and stored.dtype is ir.DataType.UINT8:
        codes, form = unpack(stored.numpy(), bits, tuple(shape)), wide_enough[0]
        least, most = int(codes.min()), int(codes.max())
        if least < form.minimum:
            yield f"its table has codes {least} to {most}, {form} holds {form.minimum} to {form.maximum}"


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
