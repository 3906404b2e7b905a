"""channels-last: images between integer operators have their channels side by side, where the target wants that.

Convolutions become QConvChannelsLast, and all that can follow does: elementwise operators, pools, resizes, joins and
cuts get other axes, and constants that broadcast are reordered. What has no such form keeps its layout behind a
Transpose of codes; which nodes follow is the choice that moves the fewest codes (``_layout_choice.py``). No result
changes by a single bit: every sum has the same terms, and integers do not care in which order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Final

import onnx_ir as ir

from qcompiler.analysis.accumulators import family
from qcompiler.ir.operators import STANDARD_DOMAINS
from qcompiler.passes.lower import _layout_flatten, _layout_movers, _layout_rearranged, _layout_rules
from qcompiler.passes.lower._layout_axes import turned
from qcompiler.passes.lower._layout_borders import Borders
from qcompiler.passes.lower._layout_choice import cheapest
from qcompiler.passes.lower._layout_turns import Rule, StaysFirst, Turn
from qcompiler.pipeline.base import Context, Fact, Pass
from qcompiler.quant.annotations import annotate, annotation
from qcompiler.quant.functions import catalogue
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.target.integer import Layout

__all__ = ["ChannelsLast"]

_CONVOLUTIONS: Final = ("QConv", "QConvTranspose")
_STANDARD: Final = (_layout_rearranged.RULES, _layout_movers.RULES, _layout_flatten.RULES)


@dataclass(frozen=True)
class ChannelsLast(Pass):
    """Give images between integer operators the layout that the profile asks for, bit for bit."""

    name: ClassVar[str] = "channels-last"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.LOWERED})

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Choose, then put Transposes at the borders, then turn the nodes."""
        wanted = ctx.target is not None and ctx.target.integer.layout is Layout.CHANNELS_LAST
        if not wanted or not any(_is_convolution(node) for node in model.graph):
            return
        turns = _turns(model.graph, ctx)
        must = [node for node in turns if node.domain == DOMAIN and family(node.op_type) == "QConv"]
        if not must:
            return
        chosen = cheapest(model.graph, turns, must)
        work = {node: turns[node] for node in model.graph if node in chosen}
        borders = Borders(work, ctx.edit)
        borders.place(model.graph)
        for turn in work.values():
            turn.apply(ctx.edit)
        for value in _written(work):
            _describe(value)
        borders.merge(model.graph)
        catalogue.attach(model)
        ctx.note(f"{len(must)} convolutions and {len(work) - len(must)} other nodes have channels last")


def _is_convolution(node: ir.Node) -> bool:
    return node.domain == DOMAIN and family(node.op_type) in _CONVOLUTIONS


def _turns(graph: ir.Graph, ctx: Context) -> dict[ir.Node, Turn]:
    """How nodes work with channels last; convolutions that cannot are named."""
    found = {}
    for node in graph:
        reason = "there is no such operator with channels last"
        for rule in _rules(node):
            try:
                found[node] = rule(node)
                break
            except StaysFirst as refusal:
                reason = str(refusal)
        if node not in found and _is_convolution(node):
            ctx.skip(node, f"its channels stay first: {reason}")
    return found


def _rules(node: ir.Node) -> list[Rule]:
    """What may tell how a node works with channels last, to be tried in this order."""
    if node.domain == DOMAIN:
        return [rule for rule in [_layout_rules.RULES.get(family(node.op_type))] if rule is not None]
    known = _STANDARD if node.domain in STANDARD_DOMAINS else ()
    return [rules[node.op_type] for rules in known if node.op_type in rules]


def _written(work: Mapping[ir.Node, Turn]) -> Iterator[ir.Value]:
    """Results that have channels last."""
    return (value for node, turn in work.items() if turn.writes and not turn.inside for value in node.outputs)


def _describe(value: ir.Value) -> None:
    """Shape and meaning of codes whose channels are last now."""
    if value.shape is not None:
        value.shape = ir.Shape(turned(list(value.shape)))
    meaning = annotation(value)
    if meaning is not None:
        annotate(value, replace(meaning, channels_last=True))
