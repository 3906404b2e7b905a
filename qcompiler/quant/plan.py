"""plan.json: every decision of a compile in a file that a human can read, compare, edit and feed back.

::

    {"schema": 1,
     "nodes":  {"conv1": {"operator": "Conv", "integer": true,
                          "edges": {"0": {"format": "i8", "scale": 0.1, "zero_point": 3}}},
                "softmax": {"operator": "Softmax", "integer": false, "reason": "no rule for it"}},
     "values": {"x": {"format": "u8", "scale": 0.05, "zero_point": 128, "tie": "x"},
                "w": {"format": "i8/sym/axis=0", "scale": [0.1, 0.2], "zero_point": [0, 0]}}}

``values`` are tensors as their producer keeps them; an entry of ``edges`` (by input number) is what one reader
takes instead: another format, or ``"float"``. Lists are per channel (or nested, per block). A decision without
``scale`` (or ``grid``) is calibrated. Names are those of the normalized graph. ``factors``
(``{"conv1_fitted": 1.26}``) are what tensors were multiplied by before that, ``transforms`` the float-preserving
passes that the recipe kept. ``formats`` (``{"conv1": "w4a8"}``) are the formats that nodes follow where they differ by
node; a plan with these and without ``nodes`` leaves all other decisions to the compiler.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from qcompiler.errors import QCompilerError, UsageError, nearest
from qcompiler.ir.constants import is_constant
from qcompiler.quant import factors, state
from qcompiler.quant.format import QFormat
from qcompiler.quant.log_grids import Grid
from qcompiler.quant.params import QParams, params_of_grid
from qcompiler.quant.state import FLOAT, NodeDecision, TensorQuant

if TYPE_CHECKING:
    from qcompiler.pipeline.base import Context

__all__ = [
    "SCHEMA",
    "apply",
    "check_top",
    "dump",
    "formats_alone",
    "kept_transforms",
    "node_formats",
    "remember_transforms",
]

SCHEMA = 1
_TOP = ("schema", "target", "format", "formats", "transforms", "factors", "nodes", "values")
_TRANSFORMS = "qcompiler.transforms"
"""Key in the meta of a model."""
_NODE_KEYS = ("operator", "integer", "reason", "edges")
_QUANT_KEYS = ("format", "scale", "zero_point", "grid", "tie")


def dump(model: ir.Model) -> dict[str, Any]:
    """The decisions on the main graph of ``model`` as JSON-ready data, in graph order."""
    values = {str(value.name): _quant_entry(quant) for value, quant in state.quantized_values(model.graph)}
    nodes = {str(node.name): entry for node in model.graph if (entry := _node_entry(node)) is not None}
    multiplied = factors.dump(model.graph)
    before = {"transforms": model.meta.get(_TRANSFORMS), "factors": multiplied}
    return {"schema": SCHEMA, **{key: item for key, item in before.items() if item}, "nodes": nodes, "values": values}


def remember_transforms(model: ir.Model, texts: list[str]) -> None:
    """Note which transforms the model went through; the plan will say it."""
    model.meta[_TRANSFORMS] = list(texts)


def kept_transforms(plan: Mapping[str, Any]) -> list[str]:
    """The transforms, as pipeline texts, behind which the decisions of ``plan`` were made.

    Raises:
        UsageError: They are no list of texts.
    """
    texts = plan.get("transforms", [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UsageError("'transforms' of the plan is not a list of pipeline texts")
    return texts


def node_formats(plan: Mapping[str, Any]) -> dict[str, str]:
    """The formats that nodes follow, by node name.

    Raises:
        UsageError: They are no table of texts.
    """
    found = _table(plan.get("formats", {}), "formats")
    if not all(isinstance(text, str) for text in found.values()):
        raise UsageError("'formats' of the plan is not a table of node names and formats")
    return dict(found)


def formats_alone(plan: Mapping[str, Any]) -> bool:
    """Whether a plan says which formats nodes follow, or the model as a whole, and decides nothing else.

    Raises:
        UsageError: It decides nothing at all.
    """
    if "nodes" in plan or "values" in plan:
        return False
    if not plan.get("formats") and not plan.get("format"):
        raise UsageError(
            "the plan decides nothing: it has neither 'formats' nor 'format', nor 'nodes' and 'values'",
            hint="write it again with --plan-out, or leave --plan out",
        )
    return True


def check_top(plan: Mapping[str, Any]) -> None:
    """Refuse a plan of another schema, or with keys that no plan has.

    Raises:
        UsageError: It is one.
    """
    _check_table(plan, _TOP, "the plan")
    if plan.get("schema") != SCHEMA:
        hint = f"this version reads schema {SCHEMA}"
        raise UsageError(f"plan schema {plan.get('schema')!r} is not supported", hint=hint)


def apply(model: ir.Model, plan: Mapping[str, Any], ctx: Context) -> None:
    """Replace the decisions on ``model`` by those of ``plan``.

    Nodes that the plan does not mention stay float and are recorded as skipped.

    Raises:
        UsageError: The plan names what the model does not have, or says what no plan can say.
    """
    check_top(plan)
    missing = {"nodes", "values"} - plan.keys()
    if len(missing) == 1 and plan.get("formats"):
        hint = "delete both so that its 'formats' decide, or put it back"
        raise UsageError(f"the plan has no '{missing.pop()}': 'nodes' and 'values' belong together", hint=hint)
    graph = model.graph
    state.clear(graph)
    _apply_values(graph, _table(plan.get("values", {}), "values"))
    decisions = _table(plan.get("nodes", {}), "nodes")
    nodes = {str(node.name): node for node in graph}
    for name, entry in decisions.items():
        _apply_node(_find(name, nodes, "node"), _table(entry, f"nodes.{name}"))
    for node in graph:
        if state.node_decision(node) is None:
            state.set_node_decision(node, NodeDecision(False, "the plan does not mention it"))
        decision = state.node_decision(node)
        if decision is not None and not decision.integer:
            ctx.skip(node, decision.reason)


# -- writing ---------------------------------------------------------------------------------------------------


def _node_entry(node: ir.Node) -> dict[str, Any] | None:
    decision = state.node_decision(node)
    own = [(index, state.own_edge_quant(node, index)) for index in range(len(node.inputs))]
    edges = {str(index): _edge_entry(quant) for index, quant in own if quant is not None}
    if decision is None and not edges:
        return None
    entry: dict[str, Any] = {"operator": node.op_type, "integer": decision is not None and decision.integer}
    if decision is not None and decision.reason:
        entry["reason"] = decision.reason
    return entry | ({"edges": edges} if edges else {})


def _edge_entry(quant: TensorQuant | state.Float) -> dict[str, Any] | str:
    return _quant_entry(quant) if isinstance(quant, TensorQuant) else FLOAT.value


def _quant_entry(quant: TensorQuant) -> dict[str, Any]:
    entry: dict[str, Any] = {"format": str(quant.format)}
    if quant.params is not None and quant.params.grid is not None:
        entry["grid"] = quant.params.grid.parameters()
    elif quant.params is not None:
        entry["scale"] = _shortest(quant.params.scale.tolist(), quant.params.scale.dtype.type)
        entry["zero_point"] = quant.params.zero_point.tolist()
    return entry | ({"tie": quant.tie} if quant.tie is not None else {})


def _shortest(value: Any, kind: type[np.generic]) -> Any:
    """Floats with the fewest digits that still give the same float32: ``0.1``, not ``0.10000000149011612``."""
    if isinstance(value, list):
        return [_shortest(item, kind) for item in value]
    return float(str(kind(value)))


# -- reading ---------------------------------------------------------------------------------------------------


def _apply_values(graph: ir.Graph, entries: Mapping[str, Any]) -> None:
    values = {str(value.name): value for value in (*graph.inputs, *graph.initializers.values())}
    values |= {str(value.name): value for node in graph for value in node.outputs}
    for name, entry in entries.items():
        value = _find(name, values, "value")
        state.set_value_quant(value, _quant(entry, f"values.{name}", value))


def _apply_node(node: ir.Node, entry: Mapping[str, Any]) -> None:
    where = f"nodes.{node.name}"
    _check_table(entry, _NODE_KEYS, where)
    integer = entry.get("integer")
    if not isinstance(integer, bool):
        raise UsageError("'integer' is true or false", where=where)
    operator = entry.get("operator", node.op_type)
    if operator != node.op_type:
        raise UsageError(f"the plan calls it {operator}, the model {node.op_type}", where=where)
    reason = str(entry.get("reason", "")) or ("" if integer else "the plan says so")
    state.set_node_decision(node, NodeDecision(integer, reason))
    for key, quant in _table(entry.get("edges", {}), f"{where}.edges").items():
        index = int(key) if key.isdecimal() else -1
        if not 0 <= index < len(node.inputs):
            hint = f"inputs are 0 to {len(node.inputs) - 1}"
            raise UsageError(f"'{key}' is not an input of it", where=where, hint=hint)
        edge = FLOAT if quant == FLOAT.value else _quant(quant, f"{where}.edges.{key}", node.inputs[index])
        if edge is not FLOAT and edge.format.logarithmic and edge.params is None:
            hint = "give it a 'grid'; under 'values' a log format may go without, choose-log-formats finds one there"
            raise UsageError("a log format on an edge needs its grid", where=f"{where}.edges.{key}", hint=hint)
        state.set_edge_quant(node, index, edge)


def _quant(entry: Any, where: str, value: ir.Value | None) -> TensorQuant:
    table = _table(entry, where)
    _check_table(table, _QUANT_KEYS, where)
    if not isinstance(table.get("format"), str):
        raise UsageError("a 'format' is missing", where=where, hint="write e.g. u8, i8/sym/axis=0")
    try:
        form = QFormat.parse(table["format"])
    except QCompilerError as error:
        raise UsageError(error.message, where=where, hint=error.hint) from error
    tie = table.get("tie")
    if tie is not None and not isinstance(tie, str):
        raise UsageError("'tie' is a name", where=where)
    return TensorQuant(form, _params(table, form, where, value), tie)


def _params(table: Mapping[str, Any], form: QFormat, where: str, value: ir.Value | None) -> QParams | None:
    if form.logarithmic or "grid" in table:
        return _grid_params(table, form, where, value)
    if "scale" not in table:
        if "zero_point" in table:
            raise UsageError("'zero_point' without 'scale'", where=where)
        return None
    try:
        scale = np.asarray(table["scale"], np.float32)
        codes = np.asarray(table.get("zero_point", np.zeros(scale.shape, np.int32)))
        if codes.dtype.kind not in "iu":
            raise UsageError("'zero_point' holds integers", where=where)
        params = QParams(scale, codes.astype(np.int32))
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"scale and zero_point do not fit: {error}", where=where) from error
    if codes.size and (codes.min() < form.minimum or codes.max() > form.maximum):
        hint = f"codes are {form.minimum} to {form.maximum}"
        raise UsageError(f"a zero point is no code of {form}", where=where, hint=hint)
    if form.power_of_two and (np.frexp(scale)[0] != 0.5).any():
        raise UsageError(f"a scale is no power of two, as {form} wants", where=where)
    _check_shape(scale, form, where, value)
    return params


def _grid_params(table: Mapping[str, Any], form: QFormat, where: str, value: ir.Value | None) -> QParams | None:
    """The parameters of a ``log`` format; scale and zero point follow from the grid."""
    if not form.logarithmic:
        raise UsageError(f"{form} has no grid", where=where, hint="write a log format, e.g. log4, or leave it out")
    if value is not None and is_constant(value):
        raise UsageError(f"{form} is for tensors that are computed", where=where, hint="store constants as e.g. i8/sym")
    if "scale" in table or "zero_point" in table:
        raise UsageError(f"{form} has a grid, neither scale nor zero point", where=where)
    if "grid" not in table:
        return None
    try:
        return params_of_grid(Grid.of(form.bits, dict(_table(table["grid"], f"{where}.grid"))))
    except UsageError as error:
        raise UsageError(error.message, where=f"{where}.grid", hint=error.hint) from error


def _check_shape(scale: np.ndarray[Any, Any], form: QFormat, where: str, value: ir.Value | None) -> None:
    """Scales must be as many as the format and the tensor say, where both are known."""
    if form.axis is None:
        if scale.ndim:
            raise UsageError(f"{form} has one scale, the plan gives {scale.size}", where=where)
        return
    shape = None if value is None or form.block is not None else value.shape
    if shape is None or not -len(shape) <= form.axis < len(shape):
        return
    channels = shape[form.axis]
    if isinstance(channels, int) and scale.shape != (channels,):
        raise UsageError(f"{form} needs {channels} scales, the plan gives {scale.size}", where=where)


def _table(entry: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(entry, Mapping):
        raise UsageError("a table is expected here", where=where)
    return entry


def _check_table(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            hint = nearest(str(key), known) or f"known: {', '.join(known)}"
            raise UsageError(f"'{key}' is not known", where=where, hint=hint)


def _find(name: str, known: Mapping[str, Any], kind: str) -> Any:
    if name not in known:
        hint = nearest(name, known) or "a plan belongs to one model: write it again with --plan-out"
        raise UsageError(f"the plan names a {kind} '{name}' that the model does not have", hint=hint)
    return known[name]
