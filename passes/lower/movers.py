"""Operators that move codes stay standard operators; only a change of scale behind them is an operator of ours.

Which of them stock runtimes run on 8- and 16-bit integers was tried; README.md has the table. Where one is missing
for a type the operator runs on int32 between two casts, which is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

import numpy as np
import onnx_ir as ir

from qcompiler.ir.patterns import integer, static_shape
from qcompiler.passes.lower.emitter import Emitter
from qcompiler.passes.lower.gather import look_up
from qcompiler.passes.lower.operands import at_output, finish, operand, standard
from qcompiler.passes.lower.site import Codes, Lowering, NoIntegerForm, Site
from qcompiler.quant.annotations import Annotation, annotate

__all__ = ["LOWERINGS"]

_BOTH_TYPES: Final = (
    "Compress", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Reshape", "ReverseSequence", "Slice",
    "Squeeze", "Tile", "Transpose", "Unsqueeze",
)  # fmt: skip
"""Run on int8 and int16 everywhere."""

_EIGHT_BITS: Final = ("ReduceMax", "ReduceMin")
"""Run on int8, not on int16."""


def lower_mover(site: Site, emitter: Emitter) -> ir.Value:
    """An operator whose result holds nothing but elements of its first input."""
    moved = operand(site, emitter, 0)
    narrow = site.node.op_type in _BOTH_TYPES or moved.dtype is ir.DataType.INT8
    through = None if narrow else ir.DataType.INT32
    result = standard(site, emitter, [moved.value, *site.node.inputs[1:]], moved, through=through)
    return finish(site, emitter, result)


def lower_gather(site: Site, emitter: Emitter) -> ir.Value:
    """Gather: rows of a table that has a scale per row, or codes that are moved."""
    found = look_up(site, emitter)
    return lower_mover(site, emitter) if found is None else found


def lower_identity(site: Site, emitter: Emitter) -> ir.Value:
    """Identity: nothing, or a rescale."""
    return finish(site, emitter, site.codes(0))


def lower_split(site: Site, emitter: Emitter) -> Sequence[ir.Value]:
    """Split: its parts share the input's parameters; a part that is wanted otherwise is rescaled."""
    source, node = site.codes(0), site.node
    split = emitter.edit.insert(
        "Split",
        [source.value, *node.inputs[1:]],
        before=emitter.anchor,
        attributes={name: item.value for name, item in node.attributes.items()},
        outputs=len(node.outputs),
        name=f"{site.output.of}_Split",
        output_name=f"{site.output.of}_codes",
    )
    results = []
    for index, (value, part, out) in enumerate(zip(split.outputs, node.outputs, site.outputs, strict=True)):
        value.type, value.shape = ir.TensorType(source.dtype), part.shape
        annotate(value, Annotation(out.of, source.scale, source.zero_point))
        results.append(finish(site, emitter, replace(source, value=value, of=out.of), index))
    return results


def lower_pad(site: Site, emitter: Emitter) -> ir.Value:
    """Pad: rescaled first, so that the padding is the output's code of the real number.

    Raises:
        NoIntegerForm: The number is computed.
    """
    node, out = site.node, site.output
    moved = replace(out, value=at_output(site, emitter, 0))
    through = None if out.dtype is ir.DataType.INT8 else ir.DataType.INT32
    inputs = [moved.value, *node.inputs[1:]]
    mode = node.attributes.get("mode")
    if mode is None or mode.as_string() == "constant":
        given = len(node.inputs) > 2 and node.inputs[2] is not None
        fill = site.constant(2) if given else np.zeros(())
        if fill is None or fill.size != 1:
            raise NoIntegerForm("the number it pads with is computed")
        code = out.code_of(float(fill.reshape(())))
        inputs += [None] * (3 - len(inputs))
        inputs[2] = emitter.constant(f"{out.of}_fill", np.array(code, (through or out.dtype).numpy()))
    return finish(site, emitter, standard(site, emitter, inputs, moved, through=through))


def lower_where(site: Site, emitter: Emitter) -> ir.Value:
    """Where: both sides at the output's scale; no runtime selects 16 bits, ONNX Runtime 1.24 no signed 8 bits."""
    sides = [at_output(site, emitter, index) for index in (1, 2)]
    moved = replace(site.output, value=sides[0])
    inputs = [site.node.inputs[0], *sides]
    return finish(site, emitter, standard(site, emitter, inputs, moved, through=ir.DataType.INT32, moving=(1, 2)))


def lower_concat(site: Site, emitter: Emitter) -> ir.Value:
    """Concat: standard on inputs at the output's scale; two that are not become one QConcat.

    More than two are rescaled one by one and joined at once: the same codes as a chain of QConcat gives, without
    copying what is already joined.
    """
    count, out = len(site.node.inputs), site.output
    operands = [site.inputs[index] if site.constant(index) is None else None for index in range(count)]
    differing = [item for item in operands if item is not None and not item.same_parameters(out)]
    if count == 2 and differing and None not in operands:
        return _joined(site, emitter, [item for item in operands if item is not None])
    parts = [at_output(site, emitter, index) for index in range(count)]
    return finish(site, emitter, standard(site, emitter, parts, replace(out, value=parts[0])))


def lower_depth_to_space(site: Site, emitter: Emitter) -> ir.Value:
    """DepthToSpace, SpaceToDepth: Reshape, Transpose, Reshape, because ONNX Runtime 1.24 has neither for int8.

    Raises:
        NoIntegerForm: The sizes of the image are not known.
    """
    source, node = site.codes(0), site.node
    sizes = static_shape(node.inputs[0])
    if sizes is None or len(sizes) != 4 or any(size is None for size in sizes[1:]):
        raise NoIntegerForm("the sizes of the image that it rearranges are not known")
    channels, height, width = (int(size) for size in sizes[1:] if size is not None)
    block = integer(node, "blocksize", 1)
    mode = node.attributes.get("mode")
    column_first = mode is not None and mode.as_string() == "CRD"
    if node.op_type == "SpaceToDepth":
        inner = [channels, height // block, block, width // block, block]
        order = [0, 3, 5, 1, 2, 4]
        result = [channels * block * block, height // block, width // block]
    else:
        depth = channels // (block * block)
        inner = [depth, block, block, height, width] if column_first else [block, block, depth, height, width]
        order = [0, 1, 4, 2, 5, 3] if column_first else [0, 3, 4, 1, 5, 2]
        result = [depth, height * block, width * block]
    value = _arranged(site, emitter, source, inner, order, result)
    annotate(value, Annotation(site.output.of, source.scale, source.zero_point))
    return finish(site, emitter, replace(source, value=value))


LOWERINGS: Final[Mapping[str, Lowering]] = MappingProxyType(
    {
        **dict.fromkeys((*_BOTH_TYPES, *_EIGHT_BITS), lower_mover),
        "Concat": lower_concat,
        "DepthToSpace": lower_depth_to_space,
        "Gather": lower_gather,
        "Identity": lower_identity,
        "Pad": lower_pad,
        "SpaceToDepth": lower_depth_to_space,
        "Split": lower_split,
        "Where": lower_where,
    }
)


def _arranged(
    site: Site, emitter: Emitter, source: Codes, inner: list[int], order: list[int], result: list[int]
) -> ir.Value:
    of, batch = site.output.of, source.value.shape[0] if source.value.shape is not None else ir.SymbolicDim(None)

    def reshape(value: ir.Value, sizes: list[int]) -> ir.Value:
        wanted = emitter.constant(f"{of}_sizes", np.array([0, *sizes], np.int64))
        shape = ir.Shape([batch, *sizes])
        return emitter.emit("Reshape", [value, wanted], name=of, dtype=source.dtype, shape=shape, domain="")

    opened = reshape(source.value, inner)
    shape = ir.Shape([batch, *([0, *inner][axis] for axis in order[1:])])
    turned = emitter.emit("Transpose", [opened], {"perm": order}, name=of, dtype=source.dtype, shape=shape, domain="")
    return reshape(turned, result)


def _joined(site: Site, emitter: Emitter, operands: Sequence[Codes]) -> ir.Value:
    scales = [
        constant
        for item in operands
        for constant in emitter.dyadic(item.scale / site.output.scale, item.magnitude, site, item.of)
    ]
    return emitter.codes(
        "QConcatShift" if site.arithmetic.shifts_only else "QConcat",
        [*(item.value for item in operands), *scales],
        site=site,
        attributes={
            "axis": integer(site.node, "axis", 0),
            "a_zero_point": operands[0].zero_point,
            "b_zero_point": operands[1].zero_point,
        },
    )
