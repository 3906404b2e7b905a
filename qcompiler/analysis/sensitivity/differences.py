"""Metrics from forward differences: what the loss does near the float weights, without any gradient.

The curvature of the loss along a change ``v`` of the weights is that of the loss along the change of the *outputs*
(the Gauss-Newton part; the rest vanishes where the outputs are the labels), and that is one forward run away:
``(f(W + h v) - f(W)) / h``. With random signs ``v`` its mean is the trace, so HAWQ-V2's metric, the mean eigenvalue
times ``||dW||^2``, takes no training framework. Source: arXiv:1911.03852.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.analysis.sensitivity.losses import curvature, label_loss_change
from qcompiler.analysis.sensitivity.metric import Measured, cost_of_runs
from qcompiler.analysis.sensitivity.study import Alternative, Choice, Cost, Edge, Study
from qcompiler.analysis.sensitivity.weights_alone import float_weights, weights_of

__all__ = ["GaussNewton", "Taylor"]

_STEP: Final = 1e-2
"""Length of a step, as a share of the weights' own: large enough for float32, small enough to be linear."""


@dataclass(frozen=True)
class GaussNewton:
    """Mean curvature of the loss over a group's weights, times the squared rounding error.

    Attributes:
        probes: Random directions per group.
        name: What the user calls it.
        forward: Whether it runs samples.
    """

    probes: int = 8
    name: str = "gauss-newton"
    forward: bool = True

    def cost(self, study: Study, choices: Sequence[Choice], samples: int) -> Cost:
        """One run per probe and group, whatever the number of options."""
        groups = len({choice[0][0] for choice in choices})
        return cost_of_runs(study, (groups * self.probes * 0.55 + 1) * samples)

    def losses(
        self, study: Study, choices: Sequence[Choice], samples: int, executor: Executor | None = None
    ) -> Iterator[tuple[Choice, float]]:
        """Losses to second order, half of ``trace / n * ||dW||^2``."""
        own = {choice: weights_of(study, choice, self.name) for choice in choices}
        first: dict[str, Choice] = {}
        for group, option in itertools.chain.from_iterable(choices):
            first.setdefault(group, ((group, option),))
        edges = {group: weights_of(study, choice, self.name) for group, choice in first.items()}

        def probe(choice: Choice) -> Alternative:
            (group, number), weights = choice[0], float_weights(study.model, edges[choice[0][0]])
            random = np.random.default_rng([zlib.crc32(group.encode()), int(number)])
            step = np.float32(_STEP * _rms(weights))
            signs = {edge: random.choice([-step, step], size=array.shape) for edge, array in weights.items()}
            return Alternative({edge: array + signs[edge] for edge, array in weights.items()})

        probed = replace(study, alternative=probe)
        asked: list[Choice] = [((group, str(number)),) for group in first for number in range(self.probes)]
        traces = dict.fromkeys(first, 0.0)
        for choice, bent in Measured(self.name, curvature).losses(probed, asked, samples, executor):
            group = choice[0][0]
            steps = _STEP * _rms(float_weights(study.model, edges[group]))
            traces[group] += bent / steps**2 / self.probes if steps else 0.0
        for choice, weights in own.items():
            change = _change(study, weights)
            count = sum(array.size for array in change.values())
            square = sum(float(np.square(array, dtype=np.float64).sum()) for array in change.values())
            yield choice, sum(traces[group] for group, _ in choice) / 2 / max(count, 1) * square


@dataclass(frozen=True)
class Taylor:
    """First-order growth of the cross-entropy of the model's own decisions, by a difference along the rounding error.

    Attributes:
        name: What the user calls it.
        forward: Whether it runs samples.
    """

    name: str = "taylor"
    forward: bool = True

    def cost(self, study: Study, choices: Sequence[Choice], samples: int) -> Cost:
        """As many runs as the measured loss."""
        return Measured().cost(study, choices, samples)

    def losses(
        self, study: Study, choices: Sequence[Choice], samples: int, executor: Executor | None = None
    ) -> Iterator[tuple[Choice, float]]:
        """``|g' dW|``, from a step of a hundredth of the weights' length."""
        scales: dict[Choice, float] = {}

        def step(choice: Choice) -> Alternative:
            weights = weights_of(study, choice, self.name)
            given, change = float_weights(study.model, weights), _change(study, weights)
            length = _rms(change)
            scales[choice] = _STEP * _rms(given) / length if length else 1.0
            return Alternative({edge: given[edge] + np.float32(scales[choice]) * change[edge] for edge in given})

        moved = replace(study, alternative=step)
        for choice, growth in Measured(self.name, label_loss_change).losses(moved, choices, samples, executor):
            yield choice, abs(growth) / scales[choice]


def _change(study: Study, weights: Mapping[Edge, NDArray[np.float32]]) -> dict[Edge, NDArray[np.float32]]:
    given = float_weights(study.model, weights)
    return {edge: array - given[edge] for edge, array in weights.items()}


def _rms(weights: Mapping[Edge, NDArray[np.float32]]) -> float:
    count = sum(array.size for array in weights.values())
    square = sum(float(np.square(array, dtype=np.float64).sum()) for array in weights.values())
    return math.sqrt(square / count) if count else 0.0
