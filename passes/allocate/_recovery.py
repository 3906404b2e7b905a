"""What the layers behind a group make up for: losses of groups where the rest of the model is fitted to them.

A loss measured while all else is float takes the layers behind as they are. In the pipeline these are fitted to the
inputs that they will get, errors of earlier layers included, and make up for much of it: of mobilenetv1_025 with
3 bits everywhere, losses of single groups add up to 8.2, and the model loses 1. What is made up for are depthwise
convolutions, of whose losses 2 to 10 % are left, and early layers, not the last ones, behind which there is nothing:
a sum of losses that does not know it keeps early layers wide at the price of the classifier. Over 36 plans at the bytes
of 3 bits, losses ranked by GPTQ and 872 images, such sums rank by 0.73 (Spearman), sums of what is left by 0.87.

So one trial is made for every group: it follows an option of middle width, all others the widest, and the passes that
follow fit them one after the other on two thirds of the samples. What the others lose then, less what they lose with
the widest options everywhere, is what is left of the group's own loss; all of its options keep that share.

Before that, one trial has all groups follow their option of middle width. Where it loses about as much as the single
losses add up to, or more, there is nothing to find: shares would be draws, and cost a trial each. With 3 bits
everywhere mobilenetv1_025 loses 0.12 of the sum, vit_mnist 0.53, resnet20 0.80 (its plan there loses 0.055 by shares,
0.063 without), stories260k 0.94 (0.229 by shares, 0.225 without).

Of small losses ``s`` the samples say little: with other layers fitted to one group, errors of all of them change. With
``l``, what is left of a loss, ``e``, the standard error of ``l``, and ``p``, the sum of all ``l`` over that of all
``s``, the share is ``(s l + v p) / (s^2 + v)``, ``v = (e / d)^2``: its expectation where shares lie around ``p`` with a
standard deviation of ``d``. Where nothing is known, all groups keep the same share, which changes no plan. (Of
vit_mnist's 26 groups, four lose more than samples can tell; held near ``p`` less strongly, with ``d = 1``, its plan at
the bytes of 3 bits lost 0.0011 instead of 0.0006.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.analysis import metrics
from qcompiler.analysis.plan_loss import sample_losses
from qcompiler.analysis.quality import vector_outputs
from qcompiler.analysis.sensitivity.batches import macs_of
from qcompiler.ir.execute import Runner
from qcompiler.passes.allocate._plan_trial import RECIPE, quantized
from qcompiler.passes.round.rounding_work import rounding_work

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcompiler.calibration.data import Dataset
    from qcompiler.passes.allocate.groups import TieGroup
    from qcompiler.pipeline.base import Context

__all__ = ["Recovery", "few", "recoverable", "shares_left"]

_METRIC: Final = "measured"
_FITTED: Final = "round-gptq{samples=128}"
_LEAST: Final = 0.02
"""Least share: a group without any loss would take any option."""
_ADDS: Final = 0.9
"""Share of the sum of single losses from which on the model as a whole loses what they say."""
_SPREAD: Final = 0.3
"""Standard deviation of the shares of a model's groups (mobilenetv1_025: 0.28)."""
_TINY: Final = 1e-30
_SAMPLES: Final = 384
_ROUNDING: Final = 4e10
"""Multiplications of all trials together (``rounding_work``)."""
_RUNNING: Final = 1e12
"""Multiply-accumulates of one run of the samples in every trial; mobilenetv1_025 has 1.3e11 and takes 80 s."""


@dataclass(frozen=True)
class Recovery:
    """Quantizes a model once per group.

    Attributes:
        model: The model, no formats assigned.
        ctx: The context of the running pass; the passes behind it fit.
        groups: All groups, options from the widest on.
        fitted: Samples to fit on.
        judging: Samples to judge by.
    """

    model: ir.Model
    ctx: Context
    groups: Sequence[TieGroup]
    fitted: Dataset
    judging: Dataset

    def shares(self, losses: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """Share of its loss that is left of every group, in (0, 1]; empty where losses add up as they are.

        Args:
            losses: By group and option, measured while all else is float.
        """
        widest = {group.name: group.options[0] for group in self.groups}
        middle = {
            group.name: _middle([option for option in group.options if option in losses[group.name]])
            for group in self.groups if group.name in losses
        }  # fmt: skip
        alone = {name: losses[name][option] for name, option in middle.items()}
        before = self._losses(widest)
        whole = float((self._losses({**widest, **middle}) - before).mean())
        if not whole < _ADDS * sum(alone.values()):  # (outputs that are no numbers tell nothing of shares, either)
            return {}
        left = {}
        for number, (name, option) in enumerate(middle.items()):
            self.ctx.progress("fit behind groups", number, len(middle))
            left[name] = self._losses({**widest, name: option}) - before
        return shares_left(alone, left)

    @cached_property
    def _reference(self) -> Runner:
        return Runner(self.model, threads=self.ctx.jobs)

    def _losses(self, choice: Mapping[str, str]) -> NDArray[np.float64]:
        """Loss of every sample that judges, where groups follow these options."""
        formats = {node: choice[group.name] for group in self.groups for node in group.nodes}
        candidate = Runner(quantized(self.model, self.ctx, formats, self.fitted, _FITTED), threads=self.ctx.jobs)
        return sample_losses(
            self._reference, candidate, self.judging, vector_outputs(self.model), scores=metrics.softened_kl
        )


def few(data: Dataset) -> Dataset:
    """The samples that trials are fitted on and judged by, evenly taken."""
    return data.evenly(min(len(data), _SAMPLES))


def recoverable(model: ir.Model, groups: int, ctx: Context, metric: str) -> bool:
    """Whether losses are those of the outputs, on real samples, and one trial per group is worth its time unasked."""
    data = ctx.calibration
    tried = any(item.name == RECIPE for item in ctx.following)
    if metric != _METRIC or not tried or data is None or data.made is not None:
        return False
    runs = (groups + 1) * min(len(data), _SAMPLES)
    return rounding_work(model.graph) * groups <= _ROUNDING and macs_of(model, data) * runs <= _RUNNING


def shares_left(alone: Mapping[str, float], left: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """The share of every loss that is left where layers behind are fitted; see the module.

    Args:
        alone: Loss by group, while all else is float.
        left: What every sample loses by the same option where the rest is fitted, two samples at least.
    """
    finite = {name: each for name, each in left.items() if np.isfinite(each).all()}
    pooled = sum(float(each.mean()) for each in finite.values()) / max(sum(alone[name] for name in finite), _TINY)
    pooled = min(max(pooled, _LEAST), 1.0)
    found = dict.fromkeys(alone, 1.0)
    for name, each in finite.items():
        loss, variance = alone[name], float(each.var(ddof=1)) / each.size / _SPREAD**2
        share = (loss * float(each.mean()) + variance * pooled) / max(loss**2 + variance, _TINY)
        found[name] = min(max(share, _LEAST), 1.0)
    return found


def _middle(options: Sequence[str]) -> str:
    """Of options from the widest on, the one in the middle of the others."""
    others = options[1:] or options
    return others[(len(others) - 1) // 2]
