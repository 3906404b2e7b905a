"""Exemption rules: groups that keep the widest candidate whatever the solver would do, each with reason and price.

* ``first-last``: the first and the last layer with weights. What enters and what leaves a network passes there.
* ``tiny``: layers with less than a thousandth of all weights: there is nothing to gain.
* ``spikes``: layers whose largest weight lies far beyond the bulk of its channel: a range that holds it leaves few
  codes for all others.

A rule is the user's choice (``--exempt``). None is in force by default: the measured loss of a group already says what
its bits are worth. At the bytes of 4 bits, plans of resnet20 keep the first and the last layer at 8 bits anyway; at
those of 3 bits the rule gave 0.126 instead of 0.128 with codes by GPTQ, 0.664 instead of 0.604 with nearest ones; on
mobilenetv1_025, whose last layer holds half of all weights, no plan keeps the rule. ``tiny`` changed no plan there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from qcompiler.errors import UsageError, nearest
from qcompiler.ir import constants
from qcompiler.passes.allocate.groups import TieGroup
from qcompiler.quant.operators import LINEAR
from qcompiler.target.axes import channel_axis
from qcompiler.target.formats import widest_first
from qcompiler.target.schema import Target

__all__ = ["RULES", "Exemption", "exemptions", "parse_rules"]

_TINY: Final = 0.001
"""Share of all weights below which a group is tiny."""
_SPIKE: Final = 6.0
"""Largest magnitude over the 99th percentile, in the median channel: 1.3 to 2 for normally distributed weights."""
_BULK: Final = 99.0


@dataclass(frozen=True, slots=True)
class Exemption:
    """A group that is not decided on.

    Attributes:
        rule: Name of the rule.
        group: Name of the group.
        option: The candidate that it keeps.
        reason: Why, with the figure.
        bytes: What that costs: the size of the kept option less that of the smallest.
    """

    rule: str
    group: str
    option: str
    reason: str
    bytes: float


def parse_rules(text: str) -> tuple[str, ...]:
    """The rules of ``--exempt``: names joined by commas, or ``none``.

    Raises:
        UsageError: There is no such rule.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if names == ("none",):
        return ()
    for name in names:
        if name not in RULES:
            hint = nearest(name, RULES) or f"rules are {', '.join(RULES)}; none leaves all out"
            raise UsageError(f"--exempt: there is no rule '{name}'", hint=hint)
    return names


def exemptions(
    model: ir.Model,
    target: Target,
    groups: Sequence[TieGroup],
    rules: Sequence[str],
    sizes: Mapping[str, Mapping[str, float]],
) -> tuple[Exemption, ...]:
    """Groups that the rules keep wide, in graph order; one that several rules name belongs to the first of them.

    Args:
        model: The normalized model.
        target: The profile.
        groups: All groups in graph order, those without a choice included: they may be first or last.
        rules: Names of rules (``parse_rules``).
        sizes: Bytes by group and option.
    """
    found: dict[str, Exemption] = {}
    for rule in rules:
        for group, reason in RULES[rule](model, groups):
            if len(group.options) < 2 or group.name in found:
                continue
            kept, own = widest_first(target, group.options)[0], sizes.get(group.name, {})
            price = own.get(kept, 0.0) - min(own.values(), default=0.0)
            found[group.name] = Exemption(rule, group.name, kept, reason, price)
    return tuple(found[group.name] for group in groups if group.name in found)


def _first_last(model: ir.Model, groups: Sequence[TieGroup]) -> Iterator[tuple[TieGroup, str]]:  # noqa: ARG001
    weighted = [group for group in groups if group.weights]
    if weighted:
        yield weighted[0], "it is the first layer with weights"
    if len(weighted) > 1:
        yield weighted[-1], "it is the last layer with weights"


def _tiny(model: ir.Model, groups: Sequence[TieGroup]) -> Iterator[tuple[TieGroup, str]]:  # noqa: ARG001
    total = sum(group.weights for group in groups)
    for group in groups:
        if 0 < group.weights < _TINY * total:
            yield group, f"it holds {group.weights} of {total} weights, less than {_TINY:.1%}"


def _spikes(model: ir.Model, groups: Sequence[TieGroup]) -> Iterator[tuple[TieGroup, str]]:
    by_name = {str(node.name): node for node in model.graph}
    for group in groups:
        ratio = max((_spike(by_name[name]) for name in group.nodes if name in by_name), default=0.0)
        if ratio >= _SPIKE:
            yield group, f"its largest weights are {ratio:.3g} times the {_BULK:.0f}th percentile of their channel"


def _spike(node: ir.Node) -> float:
    """Largest magnitude over that of the bulk, in the median output channel of a node's weight; 0 without one."""
    array = constants.array(node.inputs[1]) if len(node.inputs) > 1 else None
    if node.op_type not in LINEAR or array is None or array.ndim < 2:
        return 0.0
    axis = channel_axis(node)
    rows = np.abs(np.moveaxis(array, axis or 0, 0).reshape(array.shape[axis or 0], -1))
    if rows.shape[1] < 100:  # the percentile would be the largest
        return 0.0
    bulk = np.percentile(rows, _BULK, axis=1)
    alive = bulk > 0
    return float(np.median(rows.max(1)[alive] / bulk[alive])) if alive.any() else 0.0


RULES: Final[Mapping[str, Callable[[ir.Model, Sequence[TieGroup]], Iterator[tuple[TieGroup, str]]]]] = {
    "first-last": _first_last,
    "tiny": _tiny,
    "spikes": _spikes,
}
"""Rules by name."""
