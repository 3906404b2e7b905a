"""One unit, computed for many samples with some of its constants supplied, and its distance from the float model.

Samples of one shape run together where the unit treats them as a batch, each alone elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis.backward.program import Program
from qcompiler.errors import ModelError
from qcompiler.ir import constants
from qcompiler.passes.round._stages import Stage

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset
    from qcompiler.calibration.row_weights import FeedWeights
    from qcompiler.pipeline.base import Context

__all__ = ["UnitRun", "padding_of"]


class UnitRun:
    """A unit as a program in which chosen constants are variables.

    Args:
        stage: The unit.
        variables: Constants of the simulation that are supplied on every run.
        padding: Per sample a weight per element of the target, broadcastable; ``None`` where all weigh 1.

    Raises:
        ModelError: An operator inside has no gradient; names the node.
    """

    def __init__(self, stage: Stage, variables: Sequence[ir.Value], padding: Sequence[NDArray[Any] | None]) -> None:
        self._targets, self._padding = stage.targets, padding
        self._program = Program([stage.output], stage.free, variables)
        self._output = str(stage.output.name)
        self._activation = _alone(stage.activation)
        self._fixed = [self._program.prepared(sample) for sample in stage.samples]
        self._stacks = self._may_stack({str(value.name): _content(value) for value in variables})

    def error(self, samples: Sequence[int], values: Mapping[str, NDArray[Any]], batch: int) -> float:
        """Mean squared error of the output with such constants."""
        total = weight = 0.0
        for start in range(0, len(samples), batch):
            for part in self._parts(samples[start : start + batch]):
                difference, counted, _ = self._forward(part, values)
                total += float(np.square(difference, dtype=np.float64).sum())
                weight += counted
        return total / max(weight, 1e-12)

    def gradients(self, samples: Sequence[int], values: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The gradient of ``error`` over these samples by every variable; those without influence get none."""
        total: dict[str, NDArray[Any]] = {}
        weight = 0.0
        for part in self._parts(samples):
            difference, counted, back = self._forward(part, values)
            weight += counted
            for name, gradient in back(difference).items():
                total[name] = total[name] + gradient if name in total else gradient
        return {name: gradient * np.float32(2 / weight) for name, gradient in total.items()}

    def _forward(self, samples: Sequence[int], values: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], float, Any]:
        """Differences to the target, weighted by the roots of row weights; how much they count; their way back."""
        names = self._program.fixed
        fixed = {name: _stack([self._fixed[sample][name] for sample in samples]) for name in names}
        tape = self._program.run({**fixed, **values})
        result = tape.outputs[self._output]
        behind = None
        if self._activation is not None:
            behind = self._activation.run({self._activation.wanted[0]: result})
            result = behind.outputs[self._activation.outputs[0]]
        difference = result - _stack([self._targets[sample] for sample in samples])
        counted = float(difference.size)
        rows = self._rows(samples)
        if rows is not None:
            spread = np.broadcast_to(rows, difference.shape)
            counted, difference = float(spread.sum()), difference * np.sqrt(spread)

        def back(gradient: NDArray[Any]) -> dict[str, NDArray[Any]]:
            if rows is not None:
                gradient = gradient * np.sqrt(rows)
            if behind is not None and self._activation is not None:
                gradient = behind.gradients({self._activation.outputs[0]: gradient})[self._activation.wanted[0]]
            return tape.gradients({self._output: gradient})

        return difference, counted, back

    def _rows(self, samples: Sequence[int]) -> NDArray[Any] | None:
        found = [self._padding[sample] for sample in samples]
        if all(item is None for item in found):
            return None
        shapes = [self._targets[sample].shape for sample in samples]
        ones = [np.ones((shape[0], *(1 for _ in shape[1:])), np.float32) for shape in shapes]
        parts = [one if item is None else item for item, one in zip(found, ones, strict=True)]
        longest = [max(part.shape[axis] for part in parts) for axis in range(parts[0].ndim)]
        return _stack([np.broadcast_to(part, (part.shape[0], *longest[1:])) for part in parts])

    def _parts(self, samples: Sequence[int]) -> list[Sequence[int]]:
        """Samples that run together: all, or each alone."""
        return [samples] if self._stacks else [[sample] for sample in samples]

    def _may_stack(self, values: Mapping[str, NDArray[Any]]) -> bool:
        """Whether samples behind each other along the first axis give their results behind each other."""
        first = self._fixed[0]
        alike = all(
            sample[name].shape == first[name].shape and sample[name].ndim for sample in self._fixed for name in first
        )
        if not alike or len({target.shape for target in self._targets}) > 1 or len(self._fixed) < 2:
            return False
        try:
            together, _, _ = self._forward([0, 1], values)
        except (ModelError, ValueError):
            return False
        alone = [self._forward([sample], values)[0] for sample in (0, 1)]
        return together.shape[0] == sum(part.shape[0] for part in alone) and np.allclose(
            together, np.concatenate(alone), rtol=1e-3, atol=1e-4 * float(np.abs(self._targets[0]).max())
        )


def _alone(node: ir.Node | None) -> Program | None:
    """One activation as a program of its own."""
    if node is None or node.inputs[0] is None:
        return None
    return Program([node.outputs[0]], [], [node.inputs[0]])


def _stack(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _content(value: ir.Value) -> NDArray[np.float32]:
    return np.asarray(constants.array(value), np.float32)


def padding_of(dataset: Dataset, graph: ir.Graph, stage: Stage, ctx: Context) -> list[NDArray[Any] | None]:
    """Per sample a weight per row of the unit's output; what weights of positions do not reach is told."""
    from qcompiler.calibration import row_weights

    rows = row_weights.of(dataset, graph)
    if rows is None:
        return [None] * len(stage.targets)
    name = str(stage.unit.output.name)
    feeds: list[FeedWeights | None] = [rows.of_feed(feed, number) for number, feed in enumerate(dataset)]
    pairs = zip(feeds, stage.targets, strict=True)
    found = [None if feed is None else feed.of(name, target.shape) for feed, target in pairs]
    text = row_weights.unheard(dataset, f"the output of {stage.unit.name}")
    if text is not None and any(item is None for item in found):
        ctx.note(text)
    return found
