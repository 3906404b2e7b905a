"""What each option of each tie group comes to: rounded weights, and the graph where activations are rounded too.

One copy of the model per candidate, on which every node follows it, is calibrated as the pipeline would. From these
copies the weights of one group under one option are read off when they are asked for, so memory holds one at a time.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis.sensitivity.study import Alternative, Choice, Edge, Study
from qcompiler.errors import DataError
from qcompiler.ir import constants
from qcompiler.ir.copies import shared_copy
from qcompiler.ir.edit import Edit
from qcompiler.passes.allocate.groups import TieGroup, assigned, weight_inputs
from qcompiler.passes.calibrate.calibrate import Calibrate
from qcompiler.passes.calibrate.calibrate_weights import CalibrateWeights
from qcompiler.passes.place.simulate import materialized
from qcompiler.pipeline.base import Context, Pass
from qcompiler.quant import state
from qcompiler.quant.arithmetic import dequantize, quantize
from qcompiler.quant.state import TensorQuant
from qcompiler.target.schema import Target

__all__ = ["Alternatives", "prepare", "study_of"]


@dataclass(frozen=True)
class Alternatives:
    """Calibrated copies of a model, one per option.

    Attributes:
        target: The profile.
        copies: Option text to the copy on which every node follows it.
        groups: Group by name.
    """

    target: Target
    copies: Mapping[str, ir.Model]
    groups: Mapping[str, TieGroup]

    def __call__(self, choice: Choice) -> Alternative:
        """What groups that follow options make of the model while everything else is float.

        Raises:
            KeyError: There is no such group or option.
        """
        weights: dict[Edge, NDArray[np.float32]] = {}
        activations: dict[Edge, TensorQuant] = {}
        for group, option in choice:
            names = set(self.groups[group].nodes)
            for node in self.copies[option].graph:
                if node.name in names:
                    own = set(weight_inputs(node, self.target))
                    weights |= {(str(node.name), index): _rounded(node, index) for index in sorted(own)}
                    activations |= _activations(node, own) if self.groups[group].activations else {}
        return Alternative(weights, _simulated(self.copies[choice[0][1]], activations) if activations else None)


def prepare(model: ir.Model, ctx: Context, groups: Sequence[TieGroup], rounding: Sequence[Pass] = ()) -> Alternatives:
    """Calibrate one copy per option.

    Args:
        model: The normalized float model; it is not changed.
        ctx: Target, samples and excluded nodes; activations are calibrated only where groups differ in them.
        groups: The groups (``tie_groups``).
        rounding: Passes that choose codes behind ``calibrate-weights``.

    Raises:
        DataError: Activations differ and there are no samples.
    """
    if ctx.target is None:
        raise ValueError("prepare needs a target")
    copies: dict[str, ir.Model] = {}
    for text in dict.fromkeys(option for group in groups for option in group.options):
        copy = copies[text] = assigned(model, ctx.target, text, ctx.exclude)
        inner = Context(
            edit=Edit(copy), target=ctx.target, format=text, calibration=ctx.calibration, exclude=ctx.exclude,
            cache_dir=ctx.cache_dir, jobs=ctx.jobs, progress=ctx.progress,
        )  # fmt: skip
        if any(group.activations for group in groups) or rounding:
            Calibrate().run(copy, inner)
        for item in (CalibrateWeights(), *rounding):
            item.run(copy, inner)
    return Alternatives(ctx.target, copies, {group.name: group for group in groups})


def study_of(model: ir.Model, ctx: Context, groups: Sequence[TieGroup], rounding: Sequence[Pass] = ()) -> Study:
    """What sensitivity metrics are asked about these groups; arguments as of ``prepare``.

    Raises:
        DataError: There are no samples.
    """
    if ctx.calibration is None or ctx.target is None:
        raise DataError("sensitivity needs a target and calibration samples", hint="give --calibration DATA")
    return Study(
        model,
        ctx.calibration,
        {group.name: group.options for group in groups},
        {group.name: group.nodes for group in groups},
        {group.name: group.weights for group in groups},
        prepare(model, ctx, groups, rounding),
        ctx.jobs,
    )


def _rounded(node: ir.Node, index: int) -> NDArray[np.float32]:
    """The real numbers that the codes of a weight stand for."""
    quant, array = state.edge_quant(node, index), constants.array(node.inputs[index])
    if quant is None or quant.params is None or array is None:
        raise ValueError(f"input {index} of {node.name} has no calibrated weight")
    return dequantize(quantize(array, quant.params, quant.format), quant.params, quant.format)


def _activations(node: ir.Node, weights: Container[int]) -> dict[Edge, TensorQuant]:
    """How a node rounds the activations that it reads."""
    found = {}
    for index, value in enumerate(node.inputs):
        quant = state.edge_quant(node, index)
        if quant is not None and index not in weights and not constants.is_constant(value):
            found[str(node.name), index] = TensorQuant(quant.format, quant.params)
    return found


def _simulated(copy: ir.Model, activations: Mapping[Edge, TensorQuant]) -> ir.Model:
    """The float model in which these edges alone round what they read."""
    alone = shared_copy(copy)
    state.clear(alone.graph)
    by_name = {node.name: node for node in alone.graph}
    for (name, index), quant in activations.items():
        state.set_edge_quant(by_name[name], index, quant)
    return materialized(alone)
