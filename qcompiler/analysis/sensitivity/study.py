"""What a sensitivity metric is asked, and what it answers.

A *group* is a set of nodes that share one decision, an *option* one of the formats it may follow. An *alternative* is
what an option makes of a group while everything else stays float. This package knows of nothing else: who makes
groups and alternatives, and how, is not its subject.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset

__all__ = ["Alternative", "Choice", "Cost", "Edge", "Sensitivity", "Study"]

Edge: TypeAlias = tuple[str, int]
"""Name of a node, and which of its inputs."""

Choice: TypeAlias = tuple[tuple[str, str], ...]
"""Groups with their options, in graph order: one pair, or two where their common loss is asked for."""


@dataclass(frozen=True, eq=False)
class Alternative:
    """What one option makes of one group, or two options of two groups.

    Attributes:
        weights: By edge, the real numbers that stand for the weight's codes; shape of the weight.
        model: The float model with the groups' activations rounded, weights still float; ``None`` where all stay real.
    """

    weights: Mapping[Edge, NDArray[np.float32]]
    model: ir.Model | None = None


@dataclass(frozen=True, eq=False)
class Study:
    """A model with what may be decided on.

    Attributes:
        model: The float model, nodes in topological order; it is not changed.
        dataset: Calibration samples.
        options: Options of every group, groups in graph order.
        nodes: Names of every group's nodes in graph order.
        weights: Numbers in the weights of every group.
        alternative: What a choice makes of the model; may take a while.
        threads: Threads of one run; 0 lets the runtime choose.
        reference: The model whose outputs are right; ``None``: ``model`` itself.
    """

    model: ir.Model
    dataset: Dataset
    options: Mapping[str, tuple[str, ...]]
    nodes: Mapping[str, tuple[str, ...]]
    weights: Mapping[str, int]
    alternative: Callable[[Choice], Alternative]
    threads: int = 0
    reference: ir.Model | None = None

    def choices(self) -> list[Choice]:
        """Every group with every option of its."""
        return [((group, option),) for group, options in self.options.items() for option in options]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a metric takes.

    Attributes:
        runs: Forward runs of one sample, of the whole model or the equivalent of it.
        macs: Multiply-accumulates of them.
        seconds: Time at the stated rate.
        rate: Multiply-accumulates per second that were assumed.
    """

    runs: float
    macs: float
    seconds: float
    rate: float


@dataclass(frozen=True)
class Sensitivity:
    """Losses of every group under every option.

    Attributes:
        metric: Name of the metric.
        samples: Samples it was measured on; 0 where it looks at weights alone.
        seconds: Wall time.
        cost: The estimate made before.
        losses: By group and option; finite.
        nodes: Nodes of every group.
        weights: Numbers in the weights of every group.
        dropped: Options without a finite loss, and why.
        pairs: Two groups with their options: their common loss less that of each alone.
        notes: What the reader must know.
    """

    metric: str
    samples: int
    seconds: float
    cost: Cost
    losses: Mapping[str, Mapping[str, float]]
    nodes: Mapping[str, tuple[str, ...]]
    weights: Mapping[str, int]
    dropped: Mapping[tuple[str, str], str] = field(default_factory=dict)
    pairs: Mapping[Choice, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def relative_to(self, plan: Mapping[str, str]) -> Sensitivity:
        """Losses less those of the options in ``plan``: what a change of one decision adds, or takes away."""
        losses = {
            group: {option: loss - own[plan[group]] for option, loss in own.items()}
            for group, own in self.losses.items()
        }
        return replace(self, losses=losses)

    def ranking(self, option: str) -> list[str]:
        """Groups that have this option, from the one that loses most."""
        having = [group for group, own in self.losses.items() if option in own]
        return sorted(having, key=lambda group: -self.losses[group][option])

    def to_json(self) -> dict[str, Any]:
        """The same as plain data: ``metric, samples, seconds, cost, groups``, ``pairs`` and ``dropped`` where any."""
        groups = [
            {"name": name, "nodes": list(self.nodes[name]), "weights": self.weights[name], "options": dict(own)}
            for name, own in self.losses.items()
        ]
        found: dict[str, Any] = {
            "metric": self.metric, "samples": self.samples, "seconds": round(self.seconds, 3),
            "cost": {"runs": self.cost.runs, "macs": self.cost.macs, "seconds": self.cost.seconds},
            "groups": groups, "notes": list(self.notes),
        }  # fmt: skip
        if self.pairs:
            found["pairs"] = [{"groups": _names(choice), "options": _texts(choice), "loss": loss}
                              for choice, loss in self.pairs.items()]  # fmt: skip
        if self.dropped:
            found["dropped"] = [{"group": group, "option": option, "reason": reason}
                                for (group, option), reason in self.dropped.items()]  # fmt: skip
        return found


def _names(choice: Iterable[tuple[str, str]]) -> list[str]:
    return [group for group, _ in choice]


def _texts(choice: Iterable[tuple[str, str]]) -> list[str]:
    return [option for _, option in choice]
