"""Other ways to hold a model: protobuf, and passes written on GraphSurgeon graphs.

A useful pass in a few lines::

    @graphsurgeon_pass(name="drop-casts", provides={Fact.SORTED})
    def drop_casts(graph: gs.Graph, ctx: Context) -> None:
        '''Remove Cast nodes.'''
        ...
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import onnx
import onnx_ir as ir

from qcompiler.errors import ModelError, PassError
from qcompiler.ir.render import render
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves
from qcompiler.quant import state

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

__all__ = ["from_proto", "graphsurgeon_pass", "to_proto"]

SurgeonFunction: TypeAlias = "Callable[[gs.Graph, Context], None]"


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """The model as a protobuf with its weights inside; a copy. Quantization state is not part of it.

    Raises:
        ModelError: It cannot be serialised, for instance because its weights exceed protobuf's 2 GiB.
    """
    tensors = (value.const_value for value in model.graph.initializers.values())
    total = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    if total >= 1 << 31:
        raise ModelError(f"{total:,} bytes of weights do not fit into one protobuf", hint="save it to a file instead")
    try:
        return ir.to_proto(model)
    except (ir.serde.SerdeError, ValueError, TypeError) as error:
        raise ModelError(f"the model cannot be serialised: {error}") from error


def from_proto(proto: onnx.ModelProto) -> ir.Model:
    """A model from a protobuf; external data in it stays where it is.

    Raises:
        ModelError: The graph is malformed.
    """
    try:
        return ir.serde.deserialize_model(proto)
    except ir.serde.SerdeError as error:
        raise ModelError(f"the graph is malformed: {error.__cause__ or error}") from error


def graphsurgeon_pass(
    function: SurgeonFunction | None = None,
    *,
    name: str | None = None,
    requires: Iterable[Fact] = (),
    provides: Iterable[Fact] = (),
    invalidates: Iterable[Fact] = (),
    preserves: Preserves = Preserves.NOTHING,
) -> Any:
    """Make a pass of a function that edits a ``gs.Graph`` in place.

    The graph goes to GraphSurgeon and back. Shapes, metadata and analyses of values and nodes that keep their names
    survive; quantization state would not, so a pipeline with the pass behind one that assigns formats is refused, and
    so is a run once there is any. A round trip copies the weights: memory for two models is needed while it runs.

    Args:
        function: Called as ``function(graph, ctx)``; its docstring describes the pass.
        name: Name of the pass; by default the function's, with hyphens.
        requires: Facts that must hold before.
        provides: Facts that hold after.
        invalidates: Facts that need not hold after.
        preserves: What is promised about the outputs.

    Returns:
        The pass class; without ``function`` a decorator that gives it.
    """
    if function is None:
        return lambda wrapped: graphsurgeon_pass(
            wrapped, name=name, requires=requires, provides=provides, invalidates=invalidates, preserves=preserves
        )
    surgeon = function

    def run(self: Pass, model: ir.Model, ctx: Context) -> None:
        _round_trip(self, surgeon, model, ctx)

    members = {
        "__doc__": surgeon.__doc__ or f"GraphSurgeon pass {surgeon.__name__}.",
        "__module__": surgeon.__module__,
        "__annotations__": {},
        "name": name or surgeon.__name__.replace("_", "-"),
        "before": frozenset({Fact.FORMATS}),
        "requires": frozenset(requires),
        "provides": frozenset(provides),
        "invalidates": frozenset(invalidates),
        "preserves": preserves,
        "run": run,
    }
    return dataclass(frozen=True)(type(surgeon.__name__, (Pass,), members))


def _round_trip(pass_: Pass, function: SurgeonFunction, model: ir.Model, ctx: Context) -> None:
    import onnx_graphsurgeon as gs

    if state.has_state(model.graph):
        raise PassError(
            "a GraphSurgeon pass cannot run once formats are assigned: its round trip loses them",
            where=pass_.name, hint="put it before assign-formats",
        )
    surgeon = gs.import_onnx(to_proto(model))
    function(surgeon, ctx)
    changed = from_proto(gs.export_onnx(surgeon, do_type_check=False)).graph
    _carry_over(model.graph, changed)
    before = Counter(render(model).splitlines())
    replaced = ir.Model(changed, ir_version=model.ir_version, functions=list(model.functions.values()))
    after = Counter(render(replaced).splitlines())
    ctx.edit.adopt(changed, max((after - before).total(), (before - after).total()))


def _carry_over(old: ir.Graph, new: ir.Graph) -> None:
    """What protobuf and GraphSurgeon do not carry: analyses and metadata of what kept its name, symbolic shapes."""
    known = _named(old)
    for key, item in _named(new).items():
        if (origin := known.get(key)) is None:
            continue
        item.meta.update(origin.meta)
        item.metadata_props.update(origin.metadata_props)
        if isinstance(item, ir.Value) and isinstance(origin, ir.Value):
            item.type = item.type or origin.type
            item.shape = item.shape or origin.shape


def _named(graph: ir.Graph) -> dict[tuple[str, str], ir.Node | ir.Value]:
    """Nodes and values by kind and name."""
    found: dict[tuple[str, str], ir.Node | ir.Value] = {}
    for value in (*graph.inputs, *graph.initializers.values()):
        found["value", str(value.name)] = value
    for node in graph:
        found["node", str(node.name)] = node
        found.update((("value", str(value.name)), value) for value in node.outputs)
    return found
