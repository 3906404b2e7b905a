"""Metrics that look at weights alone and run nothing: cheap, and poor predictors; for comparison and as a screen."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis.sensitivity.study import Choice, Cost, Edge, Study
from qcompiler.errors import UsageError
from qcompiler.ir import constants

__all__ = ["Spikes", "Sqnr", "float_weights", "spike_ratio", "weights_of"]

Weights: TypeAlias = Mapping[Edge, NDArray[np.float32]]
"""Weights by the edge that reads them."""

_BULK: Final = 99.0
"""Percentile of magnitudes that is the bulk."""


@dataclass(frozen=True)
class _WeightsAlone(abc.ABC):
    """A figure of float and rounded weights.

    Attributes:
        name: What the user calls it.
        forward: Whether it runs samples.
    """

    name: str
    forward: bool = False

    @abc.abstractmethod
    def figure(self, given: Weights, rounded: Weights) -> float:
        """The figure of one choice; 0 where nothing was rounded."""

    def cost(self, study: Study, choices: Sequence[Choice], samples: int) -> Cost:  # noqa: ARG002
        """No run."""
        return Cost(0, 0, 0.0, 1.0)

    def losses(
        self,
        study: Study,
        choices: Sequence[Choice],
        samples: int,  # noqa: ARG002
        executor: Executor | None = None,  # noqa: ARG002
    ) -> Iterator[tuple[Choice, float]]:
        """One figure per choice."""
        for choice in choices:
            weights = weights_of(study, choice, self.name)
            yield choice, self.figure(float_weights(study.model, weights), weights)


@dataclass(frozen=True)
class Sqnr(_WeightsAlone):
    """Noise over signal of the weights: ``||dW||^2 / ||W||^2``."""

    name: str = "sqnr"

    def figure(self, given: Weights, rounded: Weights) -> float:
        """The ratio."""
        return _noise(given, rounded)


@dataclass(frozen=True)
class Spikes(_WeightsAlone):
    """Noise over signal, times how far the largest weight lies beyond the bulk."""

    name: str = "spikes"

    def figure(self, given: Weights, rounded: Weights) -> float:
        """The product."""
        return _noise(given, rounded) * spike_ratio(given.values())


def weights_of(study: Study, choice: Choice, metric: str) -> Weights:
    """Rounded weights of a choice that rounds nothing else.

    Raises:
        UsageError: The choice rounds activations.
    """
    alternative = study.alternative(choice)
    if alternative.model is not None:
        raise UsageError(
            f"the metric {metric} looks at weights alone, but options of '{choice[0][0]}' differ in activations",
            hint="use measured, prediction-difference or block-distance, or candidates with equal activation bits",
        )
    return alternative.weights


def float_weights(model: ir.Model, edges: Iterable[Edge]) -> dict[Edge, NDArray[np.float32]]:
    """The model's own weights on these edges."""
    wanted = set(edges)
    found: dict[Edge, NDArray[np.float32]] = {}
    for node in model.graph:
        for index, value in enumerate(node.inputs):
            if (str(node.name), index) in wanted:
                array = constants.array(value)
                if array is None:
                    raise ValueError(f"input {index} of {node.name} is no constant")
                found[str(node.name), index] = np.asarray(array, np.float32)
    return found


def spike_ratio(arrays: Iterable[NDArray[np.float32]]) -> float:
    """The largest magnitude over the 99th percentile of all magnitudes; 1 where all are zero."""
    sizes = [np.abs(array).reshape(-1) for array in arrays]
    flat = np.concatenate(sizes) if sizes else np.zeros(0, np.float32)
    if not flat.size or float(flat.max()) == 0:
        return 1.0
    bulk = float(np.percentile(flat, _BULK))
    return float(flat.max()) / bulk if bulk > 0 else float(flat.max()) / float(flat[flat > 0].min())


def _noise(given: Weights, rounded: Weights) -> float:
    signal = sum(float(np.square(array, dtype=np.float64).sum()) for array in given.values())
    noise = sum(float(np.square(rounded[edge] - array, dtype=np.float64).sum()) for edge, array in given.items())
    return noise / signal if signal > 0 else 0.0
