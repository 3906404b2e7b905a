"""Whether a weight beside real activations (QMatMulWeightOnly) is in a format that the target takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from qcompiler.ir.constants import array
from qcompiler.quant.format import QFormat
from qcompiler.quant.integer.weight_only import check_parameters
from qcompiler.quant.packing import packed_width
from qcompiler.target.schema import OperatorRule, Target

__all__ = ["weight_only_reasons"]


def weight_only_reasons(
    node: ir.Node, inputs: Mapping[str, ir.Value | None], rules: Sequence[OperatorRule], target: Target
) -> Iterator[str]:
    """What the node breaks: bits, blocks and zero points of the profile, ranges of the operator."""
    able = [rule for rule in rules if rule.weight_only]
    if not able:
        yield f"{target.name} has no kernel for real activations and weights of few bits"
        return
    bits, block = node.attributes.get_int("bits", 0), node.attributes.get_int("block", 0)
    shape = list(node.attributes.get_ints("weight_shape", ()) or ())
    packed = inputs.get("w")
    constants = [array(inputs.get(name)) for name in ("block_multiplier", "scale", "zero_point")]
    multiplier, scale, zero = constants
    if packed is None or array(packed) is None or multiplier is None or scale is None or zero is None:
        yield "its weight is not a constant"
        return
    try:
        check_parameters(multiplier, scale, zero, bits=bits, block=block, weight_shape=shape)
    except ValueError as error:
        yield f"its {error}"
        return
    if packed.shape is None or tuple(packed.shape) != (shape[0], packed_width(shape[1], bits)):
        yield f"its w is {packed.shape}, not a weight {shape} packed in {bits} bits"
    yield from _format_reasons([form for rule in able for form in rule.weight_only], bits, symmetric=not zero.any())
    sizes = sorted({size for rule in able for size in rule.weight_only_blocks})
    if block < shape[1] and block not in sizes:
        yield f"its weight has blocks of {block}, the target takes {', '.join(map(str, sizes)) or 'whole rows'}"


def _format_reasons(forms: Sequence[QFormat], bits: int, *, symmetric: bool) -> Iterator[str]:
    wide_enough = [form for form in forms if form.bits >= bits]  # codes may need fewer bits than their format has
    if not wide_enough:
        accepted = "/".join(map(str, sorted({form.bits for form in forms}, reverse=True)))
        yield f"its weight is packed in {bits} bits, the target takes {accepted}"
    elif not symmetric and all(form.symmetric for form in wide_enough):
        yield "its weight has zero points, the target takes none"
