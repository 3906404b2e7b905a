"""Which part of a model file belongs to which layer, to the byte.

A file is a protobuf: nodes, types of values and initializers are records of their own, each with its tag and length.
A node's record, the types of what it writes and the constants that it alone reads belong to the node
that it was made for (``ir/origins.py``). Bodies of functions belong to whoever calls them, and are told apart. What
is left (names, graph inputs and outputs, operator sets, lengths) belongs to nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from qcompiler.ir import origins
from qcompiler.ir.slim import without_initializers
from qcompiler.ir.store import initializer_bytes
from qcompiler.ir.wire import delimited

__all__ = ["FileParts", "file_parts"]

_NODE, _VALUE_INFO, _FUNCTION, _GRAPH = 1, 13, 25, 7
_LARGEST_INLINE = 1 << 30


@dataclass(frozen=True, slots=True)
class FileParts:
    """Bytes of a file by whom they belong to; they add up to its size.

    Attributes:
        nodes: By origin; constants that several read, by all of them; the empty set holds what none owns.
        functions: By name of the operator.
        rest: Everything else.
    """

    nodes: Mapping[frozenset[str], int]
    functions: Mapping[str, int]
    rest: int

    @property
    def total(self) -> int:
        """Bytes of the file, external data included."""
        return sum(self.nodes.values()) + sum(self.functions.values()) + self.rest

    def of(self, names: Iterable[str]) -> int:
        """Bytes that belong to these nodes and to no other."""
        group = frozenset(names)
        return sum(size for owners, size in self.nodes.items() if owners and owners <= group)


def file_parts(model: ir.Model, *, external_threshold: int = _LARGEST_INLINE) -> FileParts:
    """What ``ir.io.save`` would write for a model, by origin; nothing is written and no weight is read.

    Args:
        model: A model whose nodes have origins.
        external_threshold: As for ``save``; beyond it the sum is an upper bound within a page per weight.

    Raises:
        ModelError: The model cannot be serialised.
    """
    proto = without_initializers(model)
    found: Counter[frozenset[str]] = Counter()
    for node, record in zip(model.graph, proto.graph.node, strict=True):
        own = origins.origin(node)
        found[frozenset() if own is None else frozenset({own})] += _record(_NODE, record.ByteSize())
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    constants = {str(value.name): value for value in model.graph.initializers.values()}
    for info in proto.graph.value_info:
        value = values.get(info.name) or constants.get(info.name)
        found[frozenset() if value is None else origins.owners(value)] += _record(_VALUE_INFO, info.ByteSize())
    external = sum(_data_bytes(value) for value in constants.values()) > external_threshold
    inside = proto.graph.ByteSize() - sum(found.values())
    for value in constants.values():
        found[origins.owners(value)] += initializer_bytes(value, external=external)
    functions = {item.name: _record(_FUNCTION, item.ByteSize()) for item in proto.functions}
    graph = inside + sum(found.values())
    proto.ClearField("graph")
    frame = proto.ByteSize() - sum(functions.values())
    return FileParts(dict(found), functions, frame + len(delimited(_GRAPH, graph)) + inside)


def _record(number: int, size: int) -> int:
    return len(delimited(number, size)) + size


def _data_bytes(value: ir.Value) -> int:
    tensor = value.const_value
    return 0 if tensor is None or tensor.dtype == ir.DataType.STRING else tensor.nbytes
