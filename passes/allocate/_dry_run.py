"""What a compile would write, without samples: formats are assigned, ranges are made up, everything else is done.

Ranges change numbers, not how many bytes they take, so the file of a dry run has the size of the real one up to a few
digits. Three things decide on nodes: whether a range starts at zero (a Relu that saturation does, ``place/apply.py``),
whether tensors have different scales, and whether a function of a tensor can be done by a table with the one behind it
(``compose-tables``). The first two are true of ranges made up here: each tensor, or tensors that share one scale, gets
its own; below zero it has less than above, which gives signed codes a negative zero point, the longer text. For the
third, networks with Gelu or Erf, ranges must be those of some samples (``observed_ranges``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import onnx_ir as ir

from qcompiler.errors import UsageError
from qcompiler.ir import constants, origins
from qcompiler.ir.constants import is_constant
from qcompiler.ir.copies import shared_copy
from qcompiler.ir.edit import Edit
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.allocate.format_marks import mark_format
from qcompiler.passes.calibrate.calibrate import Calibrate, Wish, wishes
from qcompiler.passes.calibrate.calibrate_weights import CalibrateWeights
from qcompiler.passes.calibrate.linear import correctable, set_bias
from qcompiler.passes.calibrate.scales import scales_for
from qcompiler.pipeline.base import Context, Pass
from qcompiler.quant.operators import WEIGHT_INPUT
from qcompiler.target.axes import channel_axis
from qcompiler.target.formats import resolve_format
from qcompiler.target.schema import Target

__all__ = ["DryRun", "Ranges", "dry_run", "observed_ranges"]

Ranges: TypeAlias = Mapping[str, tuple[float, float]]
"""Least and greatest number by name of a tensor."""

_NOT_NEGATIVE: Final = frozenset({"Relu", "Sigmoid", "Softmax", "HardSigmoid", "Abs", "Exp", "Sqrt", "Softplus"})
_SIGN_KEPT: Final = frozenset(
    {
        "MaxPool", "GlobalMaxPool", "AveragePool", "GlobalAveragePool", "Reshape", "Transpose", "Flatten", "Squeeze",
        "Unsqueeze", "Slice", "Split", "Gather", "Concat", "Resize", "Expand", "Tile", "Add", "Mul", "ReduceMean",
        "Pad", "DepthToSpace", "SpaceToDepth", "MatMul",
    }
)  # fmt: skip
"""Operators whose results are not negative where none of their operands is."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a compile would write, and the decisions behind it.

    Attributes:
        assigned: The float graph with formats.
        written: The model as it would be saved; nodes have origins (``ir/origins.py``). Numbers in it mean nothing.
    """

    assigned: ir.Model
    written: ir.Model


def dry_run(
    model: ir.Model,
    target: Target,
    form: str,
    finish: Sequence[Pass],
    *,
    plan: Mapping[str, str] | None = None,
    exclude: tuple[str, ...] = (),
    corrected: bool = False,
    ranges: Ranges | None = None,
) -> DryRun:
    """Do everything that a compile does between normalization and the file, without samples.

    Args:
        model: The normalized float graph, which is not changed.
        target: The profile.
        form: The format of nodes that the plan does not name.
        finish: The passes behind calibration that change structure: ``place-qdq``, lowering, ``finalize``.
        plan: Format by node name.
        exclude: Selectors of nodes that stay float.
        corrected: Whether ``correct-bias`` follows: layers without a bias may get one then, and are given room for it.
        ranges: Ranges by tensor; others are made up.

    Raises:
        UsageError: The target does not offer a format, or the format has codes along a grid.
    """
    copy = shared_copy(model)
    origins.mark(copy.graph)
    _follow(copy.graph, target, form, plan or {})
    ctx = Context(Edit(copy), target=target, format=form, exclude=exclude)
    AssignFormats(tables=True).run(copy, ctx)
    assigned = shared_copy(copy)
    _give_ranges(copy.graph, target, ranges or {})
    CalibrateWeights(method="minmax").run(copy, ctx)
    if corrected:
        _give_biases(copy.graph, ctx)
    for item in finish:
        item.run(copy, ctx)
    return DryRun(assigned, copy)


def _follow(graph: ir.Graph, target: Target, form: str, plan: Mapping[str, str]) -> None:
    """Mark the nodes of a plan with their formats."""
    requests = {text: resolve_format(target, text) for text in {form, *plan.values()}}
    for text, request in requests.items():
        if request.log is not None:
            raise UsageError(f"what '{text}' costs depends on grids", hint="leave log formats out of --candidates")
    for node in graph:
        own = plan.get(str(node.name))
        if own is not None:
            mark_format(node, requests[own])


def _give_biases(graph: ir.Graph, ctx: Context) -> None:
    """Give every layer the bias that a correction may add."""
    for layer in correctable(graph, ctx):
        if layer.bias is None:
            set_bias(layer, np.ones(_channels(layer.node)), ctx)


def _channels(node: ir.Node) -> int:
    """Output channels of a layer that has an input for its bias."""
    weight, axis = constants.array(node.inputs[WEIGHT_INPUT]), channel_axis(node)
    if weight is None or axis is None:
        raise ValueError(f"{node.name} has no constant weight with channels")
    groups = node.attributes.get_int("group", 1) if node.op_type == "ConvTranspose" else 1
    return int(weight.shape[axis]) * groups


def observed_ranges(model: ir.Model, ctx: Context, samples: int = 8) -> dict[str, tuple[float, float]]:
    """Ranges of activations on the first calibration samples, by tensor; none where there are no samples.

    Args:
        model: The float graph, which is not changed.
        ctx: Target, format and calibration samples.
        samples: How many are run.
    """
    if ctx.calibration is None:
        return {}
    copy = shared_copy(model)
    few = ctx.calibration.subset(range(min(samples, len(ctx.calibration))))
    inner = Context(
        Edit(copy), target=ctx.target, format=ctx.format, calibration=few, exclude=ctx.exclude, jobs=ctx.jobs
    )
    AssignFormats().run(copy, inner)
    Calibrate(method="minmax").run(copy, inner)
    found = {}
    for wish in wishes(copy.graph):
        form, params = wish.quant.format, wish.quant.params
        if not is_constant(wish.value) and params is not None and params.scale.ndim == 0:
            zero, scale = int(params.zero_point), float(params.scale)
            found[str(wish.value.name)] = ((form.minimum - zero) * scale, (form.maximum - zero) * scale)
    return found


def _give_ranges(graph: ir.Graph, target: Target, known: Ranges) -> None:
    """Give every activation its range; tensors that share a scale share one."""
    positive = _not_negative(graph)
    tied: dict[str, list[Wish]] = {}
    for wish in wishes(graph):
        if wish.quant.tie is not None or not is_constant(wish.value):
            tied.setdefault(wish.quant.tie or f"value {wish.value.name}", []).append(wish)
    for index, group in enumerate(tied.values()):
        names = [str(wish.value.name) for wish in group if not is_constant(wish.value)]
        if not names:
            continue  # tied to nothing computed: their own content tells
        made_up = (-2.1 - index * 0.007, 3.0 + index * 0.01)
        found = [known.get(name, made_up) for name in names]
        low, high = min(low for low, _ in found), max(high for _, high in found)
        low = 0.0 if all(wish.value in positive for wish in group) else low
        for wish in group:
            if wish.quant.params is None:
                wish.grant(wish.quant.with_params(scales_for(low, high, wish.quant.format, target)))


def _not_negative(graph: ir.Graph) -> set[ir.Value]:
    """Values that are not negative whatever the input is."""
    found: set[ir.Value] = set()
    for node in graph:
        operands = [value for value in node.inputs if value is not None and not is_constant(value)]
        kept = node.op_type in _SIGN_KEPT and len(operands) > 0 and all(item in found for item in operands)
        if node.op_type in _NOT_NEGATIVE or (kept and not _has_real_constant(node)) or _is_clip_at_zero(node):
            found.update(node.outputs)
    return found


def _has_real_constant(node: ir.Node) -> bool:
    """Whether a constant of unknown sign takes part."""
    constants = (value for value in node.inputs if value is not None and is_constant(value))
    return any(value.dtype is None or value.dtype.is_floating_point() for value in constants)


def _is_clip_at_zero(node: ir.Node) -> bool:
    least = node.inputs[1] if node.op_type == "Clip" and len(node.inputs) > 1 else None
    content = None if least is None else least.const_value
    return content is not None and float(content.numpy()) >= 0
