"""lower-integer: from Q/DQ groups to integer operators.

``place-qdq`` wrote down which codes every operator reads and writes; here each group becomes one operator of
``ai.qcompiler`` (or a standard operator that moves codes), and the scales become multipliers and shifts. A node
without an integer form keeps its DequantizeLinear and QuantizeLinear nodes and is named in the report; where the
profile refuses such islands, the compile is refused.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Final

import onnx_ir as ir

from qcompiler.errors import PassError
from qcompiler.ir.constants import is_constant
from qcompiler.passes import lower
from qcompiler.passes.lower.emitter import Emitter
from qcompiler.passes.lower.groups import computes_floats, quantizers, site_of
from qcompiler.passes.lower.signed_codes import make_signed
from qcompiler.passes.lower.site import (
    Lowering,
    NoIntegerForm,
    Site,
    codes_of_quantizer,
    codes_read,
)
from qcompiler.pipeline.base import Context, Fact, Pass
from qcompiler.quant.functions import catalogue
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.target.integer import IntegerArithmetic
from qcompiler.target.schema import Fallback

__all__ = ["LowerInteger", "lowerings"]

_QDQ: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})
_ASK_ABOUT_CODES: Final = frozenset({"Shape", "Size", "ArgMax", "ArgMin"})
"""Operators whose answer is the same for codes as for the numbers they stand for."""


@dataclass(frozen=True)
class LowerInteger(Pass):
    """Turn Q/DQ groups into integer operators with dyadic rescaling."""

    name: ClassVar[str] = "lower-integer"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    provides: ClassVar[frozenset[Fact]] = frozenset({Fact.LOWERED})
    # Decisions are about nodes that are gone.
    invalidates: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS, Fact.CALIBRATED, Fact.QDQ})

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Lower every group of the main graph."""
        arithmetic = ctx.target.integer if ctx.target is not None else IntegerArithmetic()
        if recoded := make_signed(model, ctx.edit):
            ctx.note(f"{recoded} tensors of unsigned codes were recoded as signed")
        floating: list[str] = []
        for node in list(model.graph):
            if node.graph is None or node.domain == DOMAIN:
                continue
            try:
                _lower(node, arithmetic, ctx)
            except NoIntegerForm as reason:
                ctx.skip(node, str(reason))
                floating.append(f"{node.name} ({node.op_type}): {reason}")
        _sweep(model, ctx)
        catalogue.attach(model)
        ctx.edit.touch()
        _refuse(floating, ctx)


@functools.cache
def lowerings() -> Mapping[str, Lowering]:
    """Lowerings by operator type; every module beside this one may bring some in ``LOWERINGS``."""
    found: dict[str, Lowering] = {}
    for module in sorted(pkgutil.iter_modules(lower.__path__), key=lambda item: item.name):
        brought = getattr(importlib.import_module(f"{lower.__name__}.{module.name}"), "LOWERINGS", {})
        for op_type, lowering in brought.items():
            if op_type in found:
                raise ValueError(f"{op_type} is lowered twice")
            found[op_type] = lowering
    return MappingProxyType(found)


def _lower(node: ir.Node, arithmetic: IntegerArithmetic, ctx: Context) -> None:
    if node.op_type == "QuantizeLinear":
        _requantize(node, arithmetic, ctx)
    elif node.op_type in _ASK_ABOUT_CODES and not node.domain:
        _ask_codes(node, ctx)
    elif node.op_type not in _QDQ and computes_floats(node):
        _lower_group(node, arithmetic, ctx)


def _ask_codes(node: ir.Node, ctx: Context) -> None:
    """Let a node whose answer is about positions or sizes read codes; runtimes search no 16-bit ones."""
    codes = codes_read(node.inputs[0])
    if codes is None:
        return
    source = codes.value
    if codes.dtype is ir.DataType.INT16 and node.op_type in ("ArgMax", "ArgMin"):
        wide = {"to": ir.DataType.INT32.value}
        emitter = Emitter(ctx.edit, node, ctx.note)
        source = emitter.emit(
            "Cast", [source], wide, name=codes.of, dtype=ir.DataType.INT32, shape=source.shape, domain=""
        )
    ctx.edit.set_input(node, 0, source)


def _lower_group(node: ir.Node, arithmetic: IntegerArithmetic, ctx: Context) -> None:
    site = site_of(node, arithmetic)
    lowering = lowerings().get(node.op_type) if not node.domain else None
    if lowering is None:
        raise NoIntegerForm(f"{node.op_type} has no integer form")
    emitter = Emitter(ctx.edit, node, ctx.note)
    try:
        results = lowering(site, emitter)
    except NoIntegerForm:
        emitter.discard()
        raise
    _replace(site, [results] if isinstance(results, ir.Value) else results, ctx)


def _replace(site: Site, results: Sequence[ir.Value], ctx: Context) -> None:
    replaced = quantizers(site)
    for nodes, result in zip(replaced, results, strict=True):
        for quantizer in nodes:
            ctx.edit.replace_uses(quantizer.outputs[0], result)
    ctx.edit.remove_unused([quantizer.outputs[0] for nodes in replaced for quantizer in nodes])


def _requantize(node: ir.Node, arithmetic: IntegerArithmetic, ctx: Context) -> None:
    """A QuantizeLinear that reads a DequantizeLinear changes the scale of codes; any other is a border."""
    before, after = codes_read(node.inputs[0]), codes_of_quantizer(node)
    if before is None or after is None or is_constant(before.value):
        return
    if before.same_parameters(after):
        result = before.value
    else:
        site = Site(node, (before,), (after,), (), arithmetic)
        result = Emitter(ctx.edit, node, ctx.note).rescaled(
            "Requantize",
            [before.value],
            before.scale / after.scale,
            bound=before.magnitude,
            site=site,
            attributes={"x_zero_point": before.zero_point},
        )
    ctx.edit.replace_uses(node.outputs[0], result)
    ctx.edit.remove_unused([node.outputs[0]])


def _sweep(model: ir.Model, ctx: Context) -> None:
    """Remove DequantizeLinear nodes that nothing reads any more."""
    for node in reversed(list(model.graph)):
        if node.op_type in _QDQ and not any(output.uses() or output.is_graph_output() for output in node.outputs):
            ctx.edit.remove_unused(list(node.outputs))


def _refuse(floating: Sequence[str], ctx: Context) -> None:
    if not floating or ctx.target is None or ctx.target.fallback is not Fallback.REFUSE:
        return
    more = f" and {len(floating) - 3} more" if len(floating) > 3 else ""
    raise PassError(
        f"{ctx.target.name} runs integers only, and these nodes have no integer form: {'; '.join(floating[:3])}{more}",
        hint="change the model there, choose a target that falls back to float, or --lowering qdq to see the plan",
    )
