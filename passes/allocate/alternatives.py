"""What each option of each tie group comes to: rounded weights, and the graph where activations are rounded too.

One copy of the model per candidate, on which every node follows it, is calibrated as the pipeline would. From these
copies the weights of one group under one option are read off when they are asked for, so memory holds one at a time.

Below 8 bits, codes are chosen by GPTQ for the float model's inputs, where that takes seconds: the pipeline will choose
them well too, and which layer loses most is another question then. Against single layers so rounded, held out, losses
of nearest codes rank resnet20 by 0.57, 0.69 and 0.78 at 4, 3 and 2 bits, losses of GPTQ's by 0.93, 0.97 and 0.89; over
100 random plans of mobilenetv1_025 their sum ranks by 0.93 instead of 0.66, and the plan solved by them at the bytes of
4 bits loses 0.24 instead of 0.56.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis.sensitivity.study import Alternative, Choice, Edge, Study
from qcompiler.calibration import words
from qcompiler.calibration.data import Dataset
from qcompiler.errors import DataError
from qcompiler.ir import constants
from qcompiler.ir.copies import shared_copy
from qcompiler.ir.edit import Edit
from qcompiler.ir.originals import restored
from qcompiler.passes.allocate.groups import TieGroup, assigned, weight_inputs
from qcompiler.passes.allocate.roundings import affordable_rounding, rounding_named
from qcompiler.passes.calibrate.calibrate import Calibrate
from qcompiler.passes.calibrate.calibrate_weights import CalibrateWeights
from qcompiler.passes.place.simulate import materialized
from qcompiler.pipeline.base import Context, Pass
from qcompiler.quant import state
from qcompiler.quant.arithmetic import dequantize, quantize
from qcompiler.quant.format import BYTE
from qcompiler.quant.state import TensorQuant
from qcompiler.target.formats import resolve_format
from qcompiler.target.schema import Target

__all__ = ["Alternatives", "added_notes", "prepare", "study_of", "study_samples"]


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


def prepare(
    model: ir.Model, ctx: Context, groups: Sequence[TieGroup], rounding: Sequence[Pass] | None = None
) -> Alternatives:
    """Calibrate one copy per option.

    Args:
        model: The normalized float model; it is not changed.
        ctx: Target, samples and excluded nodes; activations are calibrated only where groups differ in them.
        groups: The groups (``tie_groups``).
        rounding: Passes that choose codes of less than 8 bits behind ``calibrate-weights``; empty leaves the nearest,
            ``None`` takes GPTQ where there are samples and it is affordable.

    Raises:
        DataError: Activations differ and there are no samples.
    """
    if ctx.target is None:
        raise ValueError("prepare needs a target")
    if rounding is None:
        rounding = rounding_named(affordable_rounding(model, groups) if ctx.calibration is not None else "nearest")
    copies: dict[str, ir.Model] = {}
    for text in dict.fromkeys(option for group in groups for option in group.options):
        copy = copies[text] = assigned(model, ctx.target, text, ctx.exclude)
        inner = Context(
            edit=Edit(copy), target=ctx.target, format=text, calibration=ctx.calibration, exclude=ctx.exclude,
            cache_dir=ctx.cache_dir, jobs=ctx.jobs, progress=ctx.progress,
        )  # fmt: skip
        fitted = rounding if resolve_format(ctx.target, text).weight_bits < BYTE else ()
        if any(group.activations for group in groups) or fitted:
            Calibrate().run(copy, inner)
        for item in (CalibrateWeights(), *fitted):
            item.run(copy, inner)
    return Alternatives(ctx.target, copies, {group.name: group for group in groups})


def study_of(
    model: ir.Model, ctx: Context, groups: Sequence[TieGroup], rounding: Sequence[Pass] | None = None
) -> Study:
    """What sensitivity metrics are asked about these groups; arguments as of ``prepare``.

    Where samples hold few of the words that the model knows, drawn ones join them (``calibration/words.py``).

    Raises:
        DataError: There are no samples.
    """
    if ctx.calibration is None or ctx.target is None:
        raise DataError(
            "what layers lose in few bits is measured on calibration samples, and there are none",
            hint="give --calibration DATA (.npz, folder), or none to have them made from the model",
        )
    data = study_samples(model, ctx.calibration, ctx.target, groups)
    ctx = replace(ctx, calibration=data)
    return Study(
        model,
        data,
        {group.name: group.options for group in groups},
        {group.name: group.nodes for group in groups},
        {group.name: group.weights for group in groups},
        prepare(model, ctx, groups, rounding),
        ctx.jobs,
    )


def study_samples(model: ir.Model, given: Dataset, target: Target, groups: Sequence[TieGroup]) -> Dataset:
    """The samples of a study: those given, and drawn words where they hold few."""
    options = {option for group in groups for option in group.options}
    bits = min((resolve_format(target, option).weight_bits for option in options), default=BYTE)
    return words.enriched(model.graph, given, bits)[0]


def added_notes(data: Dataset | None, given: Dataset | None) -> tuple[str, ...]:
    """What the samples of a study say of themselves that the given ones did not: words that were drawn."""
    if data is None or given is None:
        return ()
    return tuple(note for note in data.notes if note not in given.notes)


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
    """The float model in which these edges alone round what they read; weights that were fitted are float again."""
    alone = shared_copy(restored(copy))
    state.clear(alone.graph)
    by_name = {node.name: node for node in alone.graph}
    for (name, index), quant in activations.items():
        state.set_edge_quant(by_name[name], index, quant)
    return materialized(alone)
