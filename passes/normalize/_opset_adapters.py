"""How operators are rewritten when the opset is lifted: one small function per incompatible change between 7 and 21.

All other changes between these versions only widened type lists or added optional inputs and attributes whose
defaults mean what the operator did before (``tests/passes/normalize/test_opset.py`` derives that from the schemas).
Source: the operator changelog of ONNX (docs/Changelog.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from qcompiler.errors import ModelError
from qcompiler.ir.constants import array
from qcompiler.ir.edit import Edit
from qcompiler.ir.patterns import rank
from qcompiler.ir.uses import is_used
from qcompiler.passes.normalize._rewrite import hand_over, replace_node

__all__ = ["ADAPTERS", "SHAPED", "Adapter"]

Adapter: TypeAlias = Callable[[ir.Node, Edit], None]


def _refuse(node: ir.Node, reason: str) -> ModelError:
    return ModelError(
        f"{node.op_type} cannot be lifted to opset 21: {reason}",
        where=node.name,
        hint="export the model again with opset 13 or newer",
    )


def _constant(edit: Edit, node: ir.Node, label: str, data: Any, dtype: Any) -> ir.Value:
    """A new initializer beside ``node`` (also inside an If or Loop body)."""
    return edit.constant(f"{node.name}_{label}", np.asarray(data, dtype), _graph(node))


def _graph(node: ir.Node) -> ir.Graph:
    if not isinstance(node.graph, ir.Graph):
        raise _refuse(node, "it stands in a model-local function")
    return node.graph


def _to_input(attribute: str, index: int, *, required: bool = False) -> Adapter:
    """The integer-list attribute became input ``index``."""

    def adapt(node: ir.Node, edit: Edit) -> None:
        found = node.attributes.get(attribute)
        if found is None:
            if required:
                raise _refuse(node, f"attribute '{attribute}' is missing")
            return
        values = found.as_ints() if found.type == ir.AttributeType.INTS else [found.as_int()]
        edit.set_attribute(node, attribute, None)
        edit.set_input(node, index, _constant(edit, node, attribute, list(values), np.int64))

    return adapt


def _split(node: ir.Node, edit: Edit) -> None:
    """18: an even split must say into how many parts."""
    if len(node.inputs) < 2 or node.inputs[1] is None:
        edit.set_attribute(node, "num_outputs", len(node.outputs))


def _slice(node: ir.Node, edit: Edit) -> None:
    """10: starts, ends and axes became inputs."""
    for index, attribute in ((1, "starts"), (2, "ends"), (3, "axes")):
        _to_input(attribute, index, required=attribute != "axes")(node, edit)


def _element_type(node: ir.Node) -> Any:
    source = node.inputs[0]
    return np.float32 if source is None or source.dtype is None else source.dtype.numpy()


def _clip(node: ir.Node, edit: Edit) -> None:
    """11: min and max became inputs; the old defaults were the ends of float32, which bound nothing."""
    for index, attribute in ((1, "min"), (2, "max")):
        value = node.attributes.get_float(attribute, None)
        if value is not None:
            edit.set_attribute(node, attribute, None)
            edit.set_input(node, index, _constant(edit, node, attribute, value, _element_type(node)))


def _pad(node: ir.Node, edit: Edit) -> None:
    """11: pads and value became inputs."""
    _to_input("pads", 1, required=True)(node, edit)
    value = node.attributes.get_float("value", None)
    edit.set_attribute(node, "value", None)
    if value:
        edit.set_input(node, 2, _constant(edit, node, "value", value, _element_type(node)))


def _drop_ratio(node: ir.Node, edit: Edit) -> None:
    """12: ratio became an input; it means nothing in inference."""
    edit.set_attribute(node, "ratio", None)


def _softmax(node: ir.Node, edit: Edit) -> None:
    """13: from "flatten to two dimensions at axis (default 1)" to "along this axis (default -1)"."""
    axis = node.attributes.get_int("axis", 1)
    source = node.inputs[0]
    dimensions = rank(source)
    if source is not None and dimensions is not None and source.shape is not None:
        positive = axis % dimensions if dimensions else 0
        if all(size == 1 for size in list(source.shape)[positive + 1 :]):
            edit.set_attribute(node, "axis", -1 if positive == dimensions - 1 else positive)
            return
    flat = edit.insert("Flatten", [source], before=node, attributes={"axis": axis}, name=f"{node.name}_flatten")
    shape = edit.insert("Shape", [source], before=node, name=f"{node.name}_shape")
    output = node.outputs[0]
    back = edit.insert("Reshape", [None, shape.outputs[0]], after=node, name=f"{node.name}_unflatten")
    back.outputs[0].shape, back.outputs[0].type = output.shape, output.type
    hand_over(edit, output, back.outputs[0])
    output.shape = None
    edit.set_input(back, 0, output)
    edit.set_input(node, 0, flat.outputs[0])
    edit.set_attribute(node, "axis", -1)


def _batch_norm_9(node: ir.Node, edit: Edit) -> None:
    """9: statistics per activation (spatial = 0) were dropped."""
    if node.attributes.get_int("spatial", 1) != 1:
        raise _refuse(node, "it keeps statistics per activation (spatial = 0)")
    edit.set_attribute(node, "spatial", None)


def _batch_norm_14(node: ir.Node, edit: Edit) -> None:
    """14: more than one output meant training mode; now an attribute says so, and there are three outputs."""
    if any(is_used(output) for output in node.outputs[1:]):
        raise _refuse(node, "it is in training mode")
    if len(node.outputs) > 1:
        node.resize_outputs(1)
        edit.touch()


def _scatter(node: ir.Node, edit: Edit) -> None:
    """11: renamed."""
    replace_node(edit, node, "ScatterElements", node.inputs, {"axis": node.attributes.get_int("axis", 0)})


def _resize(node: ir.Node, edit: Edit) -> None:
    """11: coordinates became configurable; before, they were asymmetric and rounded down (up where it shrinks)."""
    source, scales = node.inputs[0], node.inputs[1]
    factors = array(scales)
    shrinks = factors is not None and bool((factors <= 1).all())
    attributes = {
        "mode": node.attributes.get_string("mode", "nearest"),
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "ceil" if shrinks else "floor",
    }
    replace_node(edit, node, "Resize", [source, None, scales], attributes)


def _upsample(node: ir.Node, edit: Edit) -> None:
    """9: scales became an input; 10: renamed to Resize."""
    scales = node.attributes.get_floats("scales", None)
    if scales is not None:
        edit.set_input(node, 1, _constant(edit, node, "scales", list(scales), np.float32))
    if len(node.inputs) < 2:
        raise _refuse(node, "it has no scales")
    _resize(node, edit)


def _roi_align(node: ir.Node, edit: Edit) -> None:
    """16: the default of coordinate_transformation_mode changed."""
    edit.set_attribute(node, "coordinate_transformation_mode", "output_half_pixel")


def _grid_sample(node: ir.Node, edit: Edit) -> None:
    """20: modes renamed."""
    mode = node.attributes.get_string("mode", "bilinear")
    edit.set_attribute(node, "mode", {"bilinear": "linear", "bicubic": "cubic"}.get(str(mode), str(mode)))


def _dft(node: ir.Node, edit: Edit) -> None:
    """20: axis became an input."""
    axis = node.attributes.get_int("axis", 1)
    edit.set_attribute(node, "axis", None)
    edit.set_input(node, 2, _constant(edit, node, "axis", axis, np.int64))


def _group_normalization(node: ir.Node, edit: Edit) -> None:
    """21: scale and bias from one per group to one per channel."""
    source, groups = node.inputs[0], node.attributes.get_int("num_groups", None)
    channels = source.shape[1] if source is not None and source.shape is not None and len(source.shape) > 1 else None
    if not isinstance(channels, int) or not groups:
        raise _refuse(node, "its number of channels is unknown")
    for index, label in ((1, "scale"), (2, "bias")):
        values = array(node.inputs[index])
        if values is None:
            raise _refuse(node, f"its {label} is not constant")
        edit.set_input(node, index, _constant(edit, node, label, np.repeat(values, channels // groups), values.dtype))


def _scan(node: ir.Node, edit: Edit) -> None:  # noqa: ARG001 - the signature of an adapter
    """9: the batch dimension was dropped, with other attributes."""
    raise _refuse(node, "a batched Scan of opset 8 has no counterpart")


_REDUCE = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

ADAPTERS: Mapping[str, tuple[tuple[int, Adapter], ...]] = {
    "BatchNormalization": ((9, _batch_norm_9), (14, _batch_norm_14)),
    "Clip": ((11, _clip),),
    "DFT": ((20, _dft),),
    "Dropout": ((12, _drop_ratio),),
    "GridSample": ((20, _grid_sample),),
    "GroupNormalization": ((21, _group_normalization),),
    "Hardmax": ((13, _softmax),),
    "LogSoftmax": ((13, _softmax),),
    "Pad": ((11, _pad),),
    **{f"Reduce{kind}": ((18, _to_input("axes", 1)),) for kind in _REDUCE},
    "ReduceSum": ((13, _to_input("axes", 1)),),
    "Resize": ((11, _resize),),
    "RoiAlign": ((16, _roi_align),),
    "Scan": ((9, _scan),),
    "Scatter": ((11, _scatter),),
    "Slice": ((10, _slice),),
    "Softmax": ((13, _softmax),),
    "Split": ((13, _to_input("split", 1)), (18, _split)),
    "Squeeze": ((13, _to_input("axes", 1)),),
    "TopK": ((10, _to_input("k", 1, required=True)),),
    "Unsqueeze": ((13, _to_input("axes", 1, required=True)),),
    "Upsample": ((10, _upsample),),
}
"""Operator → (version of the incompatible change, how to follow it), ascending."""

SHAPED = frozenset({"GroupNormalization", "Hardmax", "LogSoftmax", "Softmax"})
"""Operators whose adapters read shapes."""
