"""What is float between the quantizers of a graph: the proof that a lowered graph is integer, or what it lacks.

A float tensor lies *inside* when codes come before it and a QuantizeLinear after it: numbers that were codes once and
become codes again. That includes what DequantizeLinear gives to a float node inside. Codes come from QuantizeLinear,
from an operator of ``ai.qcompiler``, or from a table of codes that is looked up (an embedding). What is float before
the first codes (the *head*) and behind the last dequantization (the *tail*) is named, not counted.

An integer graph may still be float in disguise, so functions are looked into: a float constant, a float attribute, a
conversion to float, a division. Divisions of integers between the first QuantizeLinear and the last DequantizeLinear
are listed, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from qcompiler.ir import shapes
from qcompiler.ir.constants import is_constant
from qcompiler.ir.operators import has_type, operator_name
from qcompiler.ir.structure import captured
from qcompiler.quant.functions.catalogue import on_codes

__all__ = ["FloatNode", "IntegerOnly", "Island", "final_codes", "integer_only"]

_FLOATS: Final = frozenset(dtype for dtype in ir.DataType if dtype.is_floating_point())
_FLOAT_ATTRIBUTES: Final = frozenset({ir.AttributeType.FLOAT, ir.AttributeType.FLOATS})
_QDQ: Final = ("QuantizeLinear", "DequantizeLinear")
_DIVISIONS: Final = ("Div", "Mod")
_MAKE_FLOATS: Final = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "RandomNormal", "RandomUniform"})


@dataclass(frozen=True, slots=True)
class FloatNode:
    """A node that computes real numbers."""

    name: str
    op_type: str


@dataclass(frozen=True, slots=True)
class Island:
    """Float nodes inside that are connected with each other.

    Attributes:
        nodes: The nodes, in graph order; of an island that only converts codes, its DequantizeLinear.
        tensors: Its float tensors, those that DequantizeLinear gives included.
        reasons: Why they have no integer form, each once.
    """

    nodes: tuple[FloatNode, ...]
    tensors: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IntegerOnly:
    """What is float, and where.

    Attributes:
        tensors: Names of the float tensors inside, in graph order.
        islands: The nodes that make them or read them.
        head: Float nodes before the first codes.
        tail: Float nodes behind the last DequantizeLinear.
        divisions: Nodes inside that divide integers.
        attributes: Float attributes of integer nodes inside, as ``node.attribute``.
        functions: What is float, or divides, in bodies of functions, as ``function: what``.
    """

    tensors: tuple[str, ...]
    islands: tuple[Island, ...]
    head: tuple[FloatNode, ...]
    tail: tuple[FloatNode, ...]
    divisions: tuple[str, ...]
    attributes: tuple[str, ...]
    functions: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether everything inside is integer arithmetic without division."""
        return not (self.tensors or self.divisions or self.attributes or self.functions)


def integer_only(model: ir.Model, reasons: Mapping[str, str] | None = None) -> IntegerOnly:
    """Find everything that is float inside.

    Args:
        model: The model; types that its values lack are inferred and kept. A type that stays unknown counts as float.
        reasons: Why nodes stayed float, by node name.
    """
    if any(value.dtype is None for node in model.graph for value in node.outputs if value.name):
        shapes.infer(model)
    where = _Places(model.graph)
    nodes = [node for node in model.graph if not has_type(node, *_QDQ)]
    floating = [node for node in nodes if _computes_floats(node)]
    inside = [node for node in nodes if node in where.after_codes and node in where.before_dequantize]
    return IntegerOnly(
        tensors=tuple(str(value.name) for value in where.floats_inside),
        islands=tuple(_islands(where, reasons or {})),
        head=tuple(_named(node) for node in floating if where.is_head(node)),
        tail=tuple(_named(node) for node in floating if not where.is_head(node) and not where.makes_inside(node)),
        divisions=tuple(_name(node) for node in inside if _divides(node) and not _computes_floats(node)),
        attributes=tuple(_float_attributes(node for node in inside if not _computes_floats(node))),
        functions=tuple(_in_functions(model)),
    )


def final_codes(model: ir.Model) -> list[str]:
    """Names of the integer tensors that the last DequantizeLinear nodes read: what an integer graph computes."""
    where = _Places(model.graph)
    found: dict[str, None] = {}
    for node in model.graph:
        codes = node.inputs[0] if has_type(node, "DequantizeLinear") else None
        if codes is not None and node in where.after_codes and node not in where.before_quantize:
            found[str(codes.name)] = None
    return list(found)


class _Places:
    """Where the nodes of a graph lie in relation to its quantizers. Linear in nodes and edges."""

    def __init__(self, graph: ir.Graph) -> None:
        nodes = list(graph)
        operands = {node: [value for value in (*node.inputs, *captured(node)) if value is not None] for node in nodes}
        self.after_codes = _after_codes(nodes, operands)
        self.before_quantize = _reaching(nodes, operands, "QuantizeLinear")
        self.before_dequantize = _reaching(nodes, operands, "DequantizeLinear")
        self.operands = operands
        self.floats_inside = [
            value
            for node in nodes
            if node in self.after_codes and node in self.before_quantize
            for value in node.outputs
            if value.name and _is_float(value) and self._feeds_quantizer(value)
        ]
        self._makers = {value.producer() for value in self.floats_inside}

    def _feeds_quantizer(self, value: ir.Value) -> bool:
        return any(has_type(use.node, "QuantizeLinear") or use.node in self.before_quantize for use in value.uses())

    def is_head(self, node: ir.Node) -> bool:
        """Whether a node comes before a QuantizeLinear and behind no codes."""
        return node in self.before_quantize and node not in self.after_codes

    def makes_inside(self, node: ir.Node) -> bool:
        """Whether a node makes float tensors inside."""
        return node in self._makers


def _after_codes(nodes: list[ir.Node], operands: Mapping[ir.Node, list[ir.Value]]) -> set[ir.Node]:
    """Nodes that read, directly or through others, what was codes."""
    found: set[ir.Node] = set()
    for node in nodes:
        makers = [maker for value in operands[node] if (maker := value.producer()) is not None]
        # What is dequantized and no constant are codes, whoever made them.
        looked_up = has_type(node, "DequantizeLinear") and bool(makers) and not is_constant(node.inputs[0])
        if looked_up or any(_makes_codes(maker) or maker in found for maker in makers):
            found.add(node)
    return found


def _makes_codes(node: ir.Node) -> bool:
    return on_codes(node.domain, node.op_type) or has_type(node, "QuantizeLinear")


def _reaching(nodes: list[ir.Node], operands: Mapping[ir.Node, list[ir.Value]], op_type: str) -> set[ir.Node]:
    """Nodes before a node of this type."""
    found: set[ir.Node] = set()
    for node in reversed(nodes):
        if node in found or has_type(node, op_type):
            found.update(maker for value in operands[node] if (maker := value.producer()) is not None)
    return found


def _islands(where: _Places, reasons: Mapping[str, str]) -> Iterator[Island]:
    """Groups of float nodes inside that share float tensors inside."""
    group: dict[ir.Node, ir.Node] = {}

    def root(node: ir.Node) -> ir.Node:
        while group.setdefault(node, node) is not node:
            group[node] = node = group[group[node]]
        return node

    inside = dict.fromkeys(where.floats_inside)
    for value in inside:
        maker = value.producer()
        if maker is None:
            continue
        for use in value.uses():
            # A DequantizeLinear behind codes gives each of its readers numbers of their own.
            if (
                not has_type(use.node, "QuantizeLinear")
                and _computes_floats(use.node)
                and use.node in where.before_quantize
            ):
                group[root(use.node)] = root(maker)
        root(maker)
    members: dict[ir.Node, list[ir.Node]] = {}
    for node in where.operands:
        if node in group:
            members.setdefault(root(node), []).append(node)
    for nodes in members.values():
        computing = [node for node in nodes if not has_type(node, *_QDQ)]
        texts = (reasons[_name(node)] for node in computing if _name(node) in reasons)
        count = sum(value in inside for node in nodes for value in node.outputs)
        yield Island(tuple(_named(node) for node in computing or nodes), count, tuple(dict.fromkeys(texts)))


def _computes_floats(node: ir.Node) -> bool:
    return not has_type(node, "Constant") and any(_is_float(value) for value in node.outputs if value.name)


def _is_float(value: ir.Value) -> bool:
    return not is_constant(value) and (value.dtype is None or value.dtype in _FLOATS)


def _divides(node: ir.Node) -> bool:
    return has_type(node, *_DIVISIONS)


def _named(node: ir.Node) -> FloatNode:
    return FloatNode(_name(node), operator_name(node))


def _name(node: ir.Node) -> str:
    return str(node.name or (node.outputs[0].name if node.outputs else "?"))


def _float_attributes(nodes: Iterable[ir.Node]) -> Iterator[str]:
    for node in nodes:
        for name, attribute in node.attributes.items():
            if attribute.type in _FLOAT_ATTRIBUTES and not has_type(node, "Constant"):
                yield f"{_name(node)}.{name}"


def _in_functions(model: ir.Model) -> Iterator[str]:
    """What is not integer in the bodies of our own functions."""
    for (domain, name, _), function in model.functions.items():
        if on_codes(domain, name):
            for node in function.all_nodes():
                for text in _wrong_in_body(node):
                    yield f"{name}: {text}"


def _wrong_in_body(node: ir.Node) -> Iterator[str]:
    if _divides(node) or node.op_type in _MAKE_FLOATS:
        yield node.op_type
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            continue
        if attribute.type in _FLOAT_ATTRIBUTES:
            yield f"{node.op_type} has the float attribute '{name}'"
        elif attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in _FLOATS:
            yield f"{node.op_type} holds floats"
        elif node.op_type == "Cast" and name == "to" and ir.DataType(attribute.as_int()) in _FLOATS:
            yield "Cast to float"
