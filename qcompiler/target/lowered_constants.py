"""Whether the constants of integer operators are what a target computes with: multipliers, shifts, tables, weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.constants import array
from qcompiler.target.schema import OperatorRule, Target

if TYPE_CHECKING:
    from qcompiler.analysis.code_ranges import CodeRanges

__all__ = [
    "accumulator_reasons",
    "multiplier_bits",
    "multiplier_reasons",
    "shift_reasons",
    "table_reasons",
    "weight_reasons",
]


def multiplier_bits(node: ir.Node, ranges: CodeRanges, target: Target) -> int:
    """Bits that the target's multipliers have behind the node's accumulator; 0 where the target only shifts.

    Only products of 16-bit codes have an accumulator of their own that may be wider.
    """
    if "Wide" not in node.op_type:
        return target.integer.multiplier_bits
    from qcompiler.analysis.accumulators import accumulator_of

    found = accumulator_of(node, ranges, target.integer)
    return target.integer.multiplier_bits_for(1 if found is None else max(found.high, -found.low))


def multiplier_reasons(name: str, value: ir.Value | None, bits: int) -> Iterator[str]:
    """A multiplier must be constant, not negative unless its name says so, and no wider than the target's."""
    factors = array(value)
    if factors is None:
        yield f"its {name} is not a constant"
    elif factors.size and factors.min() < 0 and not name.startswith("signed"):
        yield f"its {name} is negative ({factors.min()})"
    elif factors.size and bits and (most := int(np.abs(factors.astype(np.int64)).max())) >> bits:
        yield f"its {name} {most} takes {most.bit_length()} bits, the target has {bits}"


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


def accumulator_reasons(node: ir.Node, ranges: CodeRanges, target: Target) -> Iterator[str]:
    """No input may make an accumulator or the product behind it overflow; proven from the stored constants."""
    from qcompiler.analysis.accumulators import accumulator_of

    found = accumulator_of(node, ranges, target.integer)
    if found is None or not found.available:
        return
    if found.head_room < 0:
        yield f"its accumulator can reach {found.bits} bits, the target's has {found.available}"
    if found.product_room < 0:
        yield f"its rescale can reach 2^{found.product_bits - 1}, more than 64 bits hold safely"


def _span(values: NDArray[Any]) -> str:
    least, most = int(values.min()), int(values.max())
    return str(least) if least == most else f"{least} to {most}"
