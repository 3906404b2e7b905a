"""Whether the constants of integer operators are what a target computes with: multipliers, shifts, tables, weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.constants import array
from qcompiler.target.schema import OperatorRule, Target

__all__ = ["accumulator_reasons", "multiplier_reasons", "shift_reasons", "table_reasons", "weight_reasons"]


def multiplier_reasons(name: str, value: ir.Value | None, target: Target) -> Iterator[str]:
    """A multiplier must be constant, not negative, and no wider than the target's."""
    factors = array(value)
    bits = target.integer.multiplier_bits
    if factors is None:
        yield f"its {name} is not a constant"
    elif factors.size and factors.min() < 0:
        yield f"its {name} is negative ({factors.min()})"
    elif factors.size and bits and int(factors.max()) >> bits:
        yield f"its {name} {factors.max()} takes {int(factors.max()).bit_length()} bits, the target has {bits}"


def shift_reasons(name: str, value: ir.Value | None, target: Target) -> Iterator[str]:
    """A shift must be constant and one that the target does."""
    amounts = array(value)
    least, most = target.integer.shift
    if amounts is None:
        yield f"its {name} is not a constant"
    elif amounts.size and not (least <= int(amounts.min()) and int(amounts.max()) <= most):
        yield f"its {name} is {_span(amounts)}, the target shifts by {least} to {most}"


def table_reasons(name: str, value: ir.Value | None, target: Target) -> Iterator[str]:
    """A table must be constant and of a size that the target has."""
    entries = array(value)
    sizes = [size for size in (target.integer.table_entries, target.integer.interpolated_table_entries) if size]
    if entries is None:
        yield f"its {name} is not a constant"
    elif entries.shape[-1:] not in {(size,) for size in sizes}:
        accepted = " or ".join(map(str, sizes)) or "no"
        yield f"its {name} has {entries.shape[-1] if entries.ndim else 1} entries, the target's tables have {accepted}"


def weight_reasons(node: ir.Node, value: ir.Value | None, rules: Sequence[OperatorRule]) -> Iterator[str]:
    """Weights must be constant codes of a format that the profile lists."""
    forms = [form for rule in rules for form in rule.weights]
    stored = array(value)
    if stored is None:
        yield "its weight is not a constant"
        return
    bits = node.attributes.get_int("bits", 0)
    if bits:  # codes may need fewer bits than their format has
        if not any(bits <= form.bits < 8 for form in forms):
            accepted = "/".join(map(str, sorted({form.bits for form in forms}, reverse=True)))
            yield f"its weight is packed in {bits} bits, the target takes {accepted}"
        return
    if not stored.size or not forms:
        return
    least, most = int(stored.min()), int(stored.max())
    if not any(form.minimum <= least and most <= form.maximum for form in forms):
        widest = max(forms, key=lambda form: form.bits)
        yield f"its weight has codes {least} to {most}, {widest} holds {widest.minimum} to {widest.maximum}"


def accumulator_reasons(
    node: ir.Node, base: str, inputs: Mapping[str, ir.Value | None], target: Target
) -> Iterator[str]:
    """No input may make an accumulator overflow; proven from the stored weights, in any order of adding."""
    from qcompiler.analysis.code_ranges import CodeRanges
    from qcompiler.analysis.ranges import order_free_bounds, width

    data = inputs.get("x")
    bounds, rows, bias = CodeRanges().of(data), _rows(node, base, inputs), array(inputs.get("bias"))
    if data is None or bounds is None or rows is None or bias is None or not rows.size:
        return
    wide = data.dtype == ir.DataType.INT16
    bits = target.integer.wide_accumulator_bits if wide else target.integer.accumulator_bits
    if not bits:
        return
    low, high = bounds
    pads = node.attributes.get("pads")
    if pads is not None and any(pads.as_ints()):
        zero = int(node.attributes.get_int("x_zero_point", 0) or 0)
        low, high = min(low, zero), max(high, zero)
    start = np.broadcast_to(bias.astype(np.int64).reshape(-1), (rows.shape[0],))
    least, most = order_free_bounds(rows, start, low, high)
    needed = width(int(least.min()), int(most.max()))
    if needed > bits:
        yield f"its accumulator can reach {needed} bits, the target's has {bits}"


def _rows(node: ir.Node, base: str, inputs: Mapping[str, ir.Value | None]) -> NDArray[Any] | None:
    """The weight as one row per output channel; ``None`` where the family keeps it otherwise."""
    stored = array(inputs.get("w"))
    if stored is None:
        return None
    bits = node.attributes.get_int("bits", 0)
    if bits:
        from qcompiler.quant.packing import unpack

        shape = node.attributes["weight_shape"].as_ints()
        return np.asarray(unpack(stored, bits, tuple(shape))).reshape(shape[0], -1)
    if base == "QConv":
        return stored.reshape(stored.shape[0], -1)
    if base == "QConvTranspose":
        group = node.attributes.get_int("group", 1)
        split = stored.reshape(group, stored.shape[0] // group, stored.shape[1], -1)
        return split.transpose(0, 2, 1, 3).reshape(group * stored.shape[1], -1)
    return stored.T if base == "QGemm" and stored.ndim == 2 else None


def _span(values: NDArray[Any]) -> str:
    least, most = int(values.min()), int(values.max())
    return str(least) if least == most else f"{least} to {most}"
