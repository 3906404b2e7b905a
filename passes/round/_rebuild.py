"""Fit the codes of one unit so that its output stays.

The loss of a batch is the squared error of the unit's output, from quantized inputs, against the float model's, divided
by that error at the start; to it comes the mean of the regulariser over all weights (``_soft``). With both parts of
order 1 no setting depends on the size of activations or of the unit. For the first part of the steps, ``WARM``, the
regulariser is off and the variables follow the error alone; then its exponent falls from 20 to 2 along a cosine.
So does the size of steps, from the first to the last, to a tenth.

Biases are fitted along where asked for: they are real numbers, and without them codes would have to make up for means.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import ModelError
from qcompiler.ir import constants
from qcompiler.passes.round._layers import RoundLayer
from qcompiler.passes.round._soft import Adam, SoftCodes
from qcompiler.passes.round._stages import Bias, Stage, Stages
from qcompiler.passes.round._unit_run import UnitRun

__all__ = ["Fit", "Rebuilt", "Settings"]

WARM: Final = 0.2
"""Share of the steps before variables are drawn to integers."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a unit is fitted.

    Attributes:
        iterations: Steps.
        batch: Samples per step.
        rate: Size of a step of the rounding variables.
        bias_rate: Size of a step of a bias, in parts of its layer's mean bias.
        strength: Weight of the regulariser.
        keep: How far variables start towards the present codes, where those are not the nearest.
        seed: Which batches are drawn.
    """

    iterations: int
    batch: int
    rate: float
    bias_rate: float
    strength: float
    keep: float
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Rebuilt:
    """What a unit was given.

    Attributes:
        codes: Per layer its codes, ``(groups, rows, columns)``.
        biases: The fitted biases.
    """

    codes: list[NDArray[np.int32]]
    biases: list[NDArray[np.float32]]


class Fit:
    """One unit as a program with weights and biases as variables.

    Args:
        stage: The unit.
        stages: Where its values are in the simulation.
        biases: Biases of its layers that may move.
        padding: Per sample a weight per element of the target, broadcastable; ``None`` where all weigh 1.

    Raises:
        ModelError: An operator inside has no gradient; names the node.
    """

    def __init__(
        self, stage: Stage, stages: Stages, biases: Sequence[Bias], padding: Sequence[NDArray[Any] | None]
    ) -> None:
        self.layers: Sequence[RoundLayer] = stage.unit.layers
        self.weights = [stages.weight(layer) for layer in self.layers]
        self.biases = [stages.bias(bias) for bias in biases]
        self._run = UnitRun(stage, [*self.weights, *self.biases], padding)
        self._present = {str(value.name): _content(value) for value in self.biases}

    def error(self, samples: Sequence[int], constants: Mapping[str, NDArray[Any]], batch: int) -> float:
        """Mean squared error of the output with such weights and biases."""
        return self._run.error(samples, constants, batch)

    def named(self, rebuilt: Rebuilt) -> list[tuple[ir.Value, NDArray[Any]]]:
        """Every weight and bias of the simulation with its content."""
        real = [layer.tensor(layer.grid().real(own)) for layer, own in zip(self.layers, rebuilt.codes, strict=True)]
        return list(zip([*self.weights, *self.biases], [*real, *rebuilt.biases], strict=True))

    def constants(self, codes: list[NDArray[np.int32]], biases: list[NDArray[np.float32]]) -> dict[str, NDArray[Any]]:
        """Weights and biases by name."""
        return {str(value.name): array for value, array in self.named(Rebuilt(codes, biases))}

    def start(self) -> Rebuilt:
        """What the layers have now."""
        codes = [layer.codes() for layer in self.layers]
        return Rebuilt(codes, [self._present[str(value.name)] for value in self.biases])

    def fit(self, start: Rebuilt, samples: Sequence[int], settings: Settings) -> Rebuilt:
        """Codes and biases with less error, as far as the samples tell.

        Raises:
            ModelError: An operator inside has a form without gradient, or a layer no influence; names the node.
        """
        base, codes, keep = self._begin(start, samples, settings)
        if base <= 0:
            return start
        soft = [
            SoftCodes.of(layer.grid(), layer.real_weights(), own, keep=keep, rate=settings.rate)
            for layer, own in zip(self.layers, codes, strict=True)
        ]
        count = sum(item.variable.size for item in soft)
        biases = [array.copy() for array in start.biases]
        steppers = [Adam(settings.bias_rate * step) for step in self._bias_steps(start)]
        for number, chosen in enumerate(_batches(samples, settings)):
            strength, exponent, factor = _schedule(number, settings)
            real = [layer.tensor(item.real()) for layer, item in zip(self.layers, soft, strict=True)]
            named = [*self.weights, *self.biases]
            values = {str(value.name): array for value, array in zip(named, [*real, *biases], strict=True)}
            gradients = {name: part / np.float32(base) for name, part in self._run.gradients(chosen, values).items()}
            for layer, item, value in zip(self.layers, soft, self.weights, strict=True):
                if str(value.name) not in gradients:
                    raise ModelError("nothing of it reaches what its unit gives", where=layer.node.name)
                item.step(layer.matrices(gradients[str(value.name)]), strength / count, exponent, factor)
            for bias, stepper, value in zip(biases, steppers, self.biases, strict=True):
                if str(value.name) in gradients:  # the bias of an Add may lie behind the unit
                    bias -= stepper.step(gradients[str(value.name)], factor)
        return Rebuilt([item.codes() for item in soft], biases)

    def _begin(
        self, start: Rebuilt, samples: Sequence[int], settings: Settings
    ) -> tuple[float, list[NDArray[np.int32]], float]:
        """The error at the start, the codes there, and how far to draw towards them: the nearest draw nothing."""
        nearest = [layer.grid().nearest(layer.real_weights()) for layer in self.layers]
        base = self.error(samples, self.constants(start.codes, start.biases), settings.batch)
        if all(np.array_equal(a, b) for a, b in zip(nearest, start.codes, strict=True)):
            return base, nearest, 0.0
        plain = self.error(samples, self.constants(nearest, start.biases), settings.batch)
        return (plain, nearest, 0.0) if plain < base else (base, start.codes, settings.keep)

    def _bias_steps(self, start: Rebuilt) -> list[float]:
        """A scale for the steps of each bias: its mean size."""
        return [float(np.abs(array).mean()) + 1e-12 for array in start.biases]


def _content(value: ir.Value) -> NDArray[np.float32]:
    return np.asarray(constants.array(value), np.float32)


def _batches(samples: Sequence[int], settings: Settings) -> Iterator[list[int]]:
    """Samples of every step: each is drawn once before any is drawn again."""
    random = np.random.default_rng(settings.seed)
    waiting: list[int] = []
    size = min(settings.batch, len(samples))
    for _ in range(settings.iterations):
        if len(waiting) < size:
            waiting = [samples[index] for index in random.permutation(len(samples))]
        yield waiting[:size]
        waiting = waiting[size:]


def _schedule(number: int, settings: Settings) -> tuple[float, float, float]:
    """Strength and exponent of the regulariser, and the factor on the size of steps."""
    done = number / max(settings.iterations - 1, 1)
    factor = 0.5 * (1 + math.cos(math.pi * done)) * 0.9 + 0.1
    if done < WARM:
        return 0.0, 20.0, factor
    late = (done - WARM) / (1 - WARM)
    return settings.strength, 2 + 9 * (1 + math.cos(math.pi * late)), factor
