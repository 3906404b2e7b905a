"""The first pass: whatever was accepted becomes one canonical form."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from qcompiler.errors import ModelError
from qcompiler.ir import shapes
from qcompiler.ir.constants import scalar
from qcompiler.ir.edit import Edit
from qcompiler.ir.operators import has_type, operator_name, schema
from qcompiler.ir.uses import is_used
from qcompiler.passes.normalize import _opset, _precision, _unfuse
from qcompiler.passes.normalize._quantized import refuse_quantized
from qcompiler.passes.normalize._weights import inputs_without_initializers, lift_constants
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves

__all__ = ["ImportModel"]


@dataclass(frozen=True)
class ImportModel(Pass):
    """Bring an accepted model (opset 7–26) into canonical form: opset 21, weights as initializers, unique names.

    Opset 22–25 is kept where an operator needs it. Bodies of If, Loop and Scan follow the opset and stay otherwise as
    they are. Models in float16, bfloat16 or float64 compute in float32 afterwards; their inputs and outputs keep their
    types. Models that hold integer arithmetic already are refused.

    Attributes:
        constant_limit: Largest ConstantOfShape result, in bytes, that becomes a weight.
    """

    name: ClassVar[str] = "import-model"
    provides: ClassVar[frozenset[Fact]] = frozenset({Fact.CANONICAL, Fact.SORTED, Fact.TYPED})
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    constant_limit: int = 1 << 30

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class."""
        refuse_quantized(model)
        _inline_functions(model, ctx)
        _sort(model)
        inputs_without_initializers(model, ctx)
        lift_constants(model, ctx, self.constant_limit)
        _drop_no_ops(model, ctx)
        _fill_names(model, ctx.edit)
        before = _opset.source_opset(model)
        if before < _opset.CANONICAL_OPSET and _opset.needs_shapes(model):
            shapes.infer(model)
        before, after = _opset.convert(model, ctx.edit)
        if before != after:
            ctx.note(f"opset {before} → {after}")
        _unfuse.unfuse(model, ctx)
        shapes.infer(model)
        if _precision.to_float32(model, ctx):
            shapes.infer(model)
        _fill_names(model, ctx.edit)
        _record_foreign(model, ctx)


def _inline_functions(model: ir.Model, ctx: Context) -> None:
    """Model-local functions are replaced by their bodies, so that what they compute can be quantized."""
    if not model.functions:
        return
    from onnx_ir.passes.common import InlinePass

    count = len(model.functions)
    try:
        InlinePass()(model)
    except (ir.passes.PassError, ValueError) as error:
        raise ModelError(
            f"model-local functions cannot be inlined: {error}",
            where=model.graph.name,
            hint="export the model without functions, or inline them with onnx.inliner first",
        ) from error
    model.functions.clear()
    ctx.edit.touch()
    ctx.note(f"{count} model-local function(s) inlined")


def _sort(model: ir.Model) -> None:
    """Topological order.

    Raises:
        ModelError: the graph has a cycle.
    """
    try:
        model.graph.sort()
    except ValueError as error:
        raise ModelError("the graph has a cycle", where=model.graph.name, hint="the file is damaged") from error


def _drop_no_ops(model: ir.Model, ctx: Context) -> None:
    """Remove Identity, and Dropout, which does nothing in inference."""
    for node in list(model.graph):
        if has_type(node, "Dropout"):
            if (reason := _dropout_needed(node)) is not None:
                ctx.skip(node, reason)
                continue
        elif not has_type(node, "Identity"):
            continue
        source, result = node.inputs[0], node.outputs[0]
        if source is None or (has_type(node, "Identity") and _must_bridge(source, result)):
            continue
        ctx.edit.replace_uses(result, source)
        ctx.edit.remove(node)


def _dropout_needed(node: ir.Node) -> str | None:
    """Why a Dropout cannot be removed; ``None`` where it can."""
    if len(node.inputs) > 2 and node.inputs[2] is not None and scalar(node.inputs[2]) != 0:
        return "training_mode may be set"
    if any(is_used(mask) for mask in node.outputs[1:]):
        return "its mask is used"
    return None


def _must_bridge(source: ir.Value, result: ir.Value) -> bool:
    """Whether ``result`` is an output that needs its node: it repeats an input, a weight or another output."""
    if not result.is_graph_output():
        return False
    named_elsewhere = source.is_graph_input() or source.is_initializer() or source.is_graph_output()
    return named_elsewhere or source.graph is not result.graph


def _fill_names(model: ir.Model, edit: Edit) -> None:
    """Every node gets a unique name: from its type and its first output, so that it is the same in every run."""
    seen: set[str] = set()
    for node in model.graph.all_nodes():
        if not node.name:
            output = next((value.name for value in node.outputs if value.name), "")
            edit.rename(node, f"{node.op_type}_{output}" if output else node.op_type)
        elif node.name in seen:
            edit.rename(node, node.name)
        seen.add(str(node.name))


def _record_foreign(model: ir.Model, ctx: Context) -> None:
    """Say what will stay as it is: unknown operators and bodies of control flow."""
    opset = model.opset_imports[""]
    unknown = Counter(
        operator_name(node)
        for node in model.graph.all_nodes()
        if node.domain != "" or schema(node.op_type, opset) is None
    )
    if unknown:
        listed = ", ".join(f"{count} × {kind}" for kind, count in sorted(unknown.items()))
        ctx.note(f"operators outside the standard stay in float: {listed}")
    for node in model.graph:
        if any(attribute.type in _GRAPHS for attribute in node.attributes.values()):
            ctx.skip(node, "its body stays in float")


_GRAPHS = frozenset({ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS})
