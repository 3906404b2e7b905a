"""Whether stored weights are in a format that an operator takes."""

from __future__ import annotations

import onnx_ir as ir

from qcompiler.ir.constants import array
from qcompiler.quant.format import QFormat
from qcompiler.target.axes import block_axis, channel_axis
from qcompiler.target.parameters import form_reason
from qcompiler.target.qdq import Codes
from qcompiler.target.schema import Granularity, OperatorRule, ZeroPoint

__all__ = ["storage_type", "weight_reason"]


def storage_type(form: QFormat) -> ir.DataType:
    """The ONNX type that holds codes of a format."""
    return ir.DataType[f"{'' if form.signed else 'U'}INT{form.storage_bits}"]


def weight_reason(codes: Codes, rule: OperatorRule, node: ir.Node) -> str | None:
    """Why the weight of ``node`` is in none of the formats its rule accepts; ``None`` when it is in one."""
    forms = [form for form in rule.weights if storage_type(form) == codes.dtype]
    if not forms:
        accepted = " or ".join(dict.fromkeys(storage_type(form).name.lower() for form in rule.weights))
        return f"its weight is {codes.dtype.name.lower()}, the target takes {accepted}"
    if codes.scale is None or codes.zero_point is None:
        return "its weight has a scale or zero point that is not constant"
    reasons = [_codes_reason(codes, form) for form in forms]
    if None not in reasons:
        return f"its weight {reasons[0]}"
    return _granularity_reason(codes, rule, node)


def _codes_reason(codes: Codes, form: QFormat) -> str | None:
    """Scales, zero points, and codes outside a format that uses less than its storage."""
    if (reason := form_reason(codes, form, ZeroPoint.ANY)) is not None:
        return reason
    if form.bits == form.storage_bits and not form.narrow:
        return None
    stored = array(codes.value)
    if stored is None or stored.size == 0:
        return None
    least, greatest = int(stored.min()), int(stored.max())
    if least < form.minimum or greatest > form.maximum:
        return f"has codes {least} to {greatest}, {form} holds {form.minimum} to {form.maximum}"
    return None


def _granularity_reason(codes: Codes, rule: OperatorRule, node: ir.Node) -> str | None:
    accepted = rule.granularity
    rank = len(codes.value.shape) if codes.value.shape is not None else 0
    axis = codes.axis + rank if codes.axis < 0 else codes.axis
    if codes.block:
        if Granularity.BLOCK not in accepted:
            return f"its weight has a scale per block, the target takes {_listed(accepted)}"
        if codes.block not in rule.block_sizes:
            return f"its weight has blocks of {codes.block}, the target takes {list(rule.block_sizes)}"
        expected = block_axis(node)
        return None if expected in (None, axis) else f"its weight has blocks along axis {axis}, not {expected}"
    channel = channel_axis(node)
    if codes.scale is None or codes.scale.size == 1:
        alone = Granularity.TENSOR in accepted or channel is None or (codes.scale is not None and codes.scale.ndim == 1)
        return None if alone else f"its weight has one scale, the target takes {_listed(accepted)}"
    if Granularity.CHANNEL not in accepted:
        return f"its weight has a scale per channel, the target takes {_listed(accepted)}"
    return None if channel in (None, axis) else f"its weight has scales along axis {axis}, not {channel}"


def _listed(accepted: tuple[Granularity, ...]) -> str:
    return "one per " + " or ".join(str(item) for item in accepted)
