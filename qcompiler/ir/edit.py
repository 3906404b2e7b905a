"""The only way a pass changes a graph: every edit is counted, names stay unique, quantization state is carried.

Counting edits here, rather than trusting a pass to say whether it changed something, makes the count true by
construction. Values keep their identity wherever possible, so state in ``meta`` survives; where one value takes
another's place, the state moves along.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import origins
from qcompiler.ir.uses import is_used
from qcompiler.quant import state

__all__ = ["AttributeValue", "Edit"]

_LARGE_MODEL = 512 << 20

AttributeValue: TypeAlias = int | float | str | Sequence[int] | Sequence[float] | Sequence[str] | ir.TensorProtocol


class Edit:
    """Mutations of one model during one pipeline run.

    Attributes:
        count: Edits made so far; the pass manager reads differences of it.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.count = 0
        self._names: set[str] | None = None
        self._suffix: dict[str, int] = {}

    @functools.cached_property
    def lazy_above(self) -> int:
        """Size in bytes from which a changed weight is computed only when it is read.

        Small models change their weights at once, which is faster; where the weights are large as a whole, memory
        matters more: they stay on disk, and a change costs a little each time they are read.
        """
        total = sum(
            value.const_value.nbytes
            for value in self.model.graph.initializers.values()
            if value.const_value is not None
        )
        return 1 << 20 if total > _LARGE_MODEL else _LARGE_MODEL

    # -- names ---------------------------------------------------------------------------------------------

    def unique_name(self, base: str) -> str:
        """``base`` itself if free in the whole model, else ``base_1``, ``base_2``, …; the name is then taken."""
        if self._names is None:
            self._names = _all_names(self.model)
        name = base
        while name in self._names:
            self._suffix[base] = self._suffix.get(base, 0) + 1
            name = f"{base}_{self._suffix[base]}"
        self._names.add(name)
        return name

    def rename(self, item: ir.Node | ir.Value, base: str) -> None:
        """Give a node or value the name ``base`` (made unique); its old name stays taken."""
        item.name = self.unique_name(base)
        self.count += 1

    def touch(self) -> None:
        """Count a change made directly on the model (types, opset imports, graph inputs)."""
        self.count += 1

    def adopt(self, graph: ir.Graph, edits: int) -> None:
        """Let ``graph``, made outside from the model's own, take its place; it differs by ``edits`` changes."""
        self.model.graph = graph
        self._names = None
        self.count += edits

    # -- constants -----------------------------------------------------------------------------------------

    def constant(
        self, base: str, array: NDArray[np.generic] | ir.TensorProtocol, graph: ir.Graph | None = None
    ) -> ir.Value:
        """Add an initializer (to ``graph``, by default the main graph) and return its value."""
        name = self.unique_name(base)
        tensor = _as_tensor(array, name)
        value = ir.Value(name=name, shape=_shape_of(tensor), type=ir.TensorType(tensor.dtype), const_value=tensor)
        (self.model.graph if graph is None else graph).register_initializer(value)
        self.count += 1
        return value

    def set_constant(self, value: ir.Value, array: NDArray[np.generic] | ir.TensorProtocol) -> None:
        """Replace the content of an initializer in place; every consumer sees the new content."""
        tensor = _as_tensor(array, value.name)
        value.const_value = tensor
        value.shape = _shape_of(tensor)
        value.type = ir.TensorType(tensor.dtype)
        self.count += 1

    def remove_initializer(self, value: ir.Value) -> None:
        """Drop an initializer without uses."""
        if value.graph is None or value.name is None:
            raise ValueError(f"{value.name} is not an initializer of a graph")
        if is_used(value):
            raise ValueError(f"initializer {value.name} is still used")
        del value.graph.initializers[value.name]
        self.count += 1

    # -- nodes ---------------------------------------------------------------------------------------------

    def insert(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        *,
        before: ir.Node | None = None,
        after: ir.Node | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
        outputs: int = 1,
        domain: str = "",
        name: str | None = None,
        output_name: str | None = None,
        graph: ir.Graph | None = None,
    ) -> ir.Node:
        """Create a node and put it before or after an anchor, or at the end of ``graph``.

        Args:
            op_type: Operator type.
            inputs: Its inputs, ``None`` for an optional one left out.
            before: Anchor: the new node comes right before it.
            after: Anchor: the new node comes right after it.
            attributes: Attribute values by name.
            outputs: Number of outputs.
            domain: Operator domain.
            name: Wished node name (made unique); by default from the operator and its first output.
            output_name: Wished name of the first output (made unique).
            graph: Where to append when no anchor is given; by default the main graph.
        """
        node_name = self.unique_name(name or f"{op_type}_{self.count}")
        first = self.unique_name(output_name or f"{node_name}_out")
        values = [ir.Value(name=first)] + [ir.Value(name=self.unique_name(f"{first}_{i}")) for i in range(1, outputs)]
        node = ir.Node(
            domain,
            op_type,
            inputs,
            ir.convenience.convert_attributes(dict(attributes or {})),
            outputs=values,
            name=node_name,
        )
        anchor = before if before is not None else after
        if anchor is not None:
            origins.inherit(node, anchor)
        if before is not None:
            _graph_of(before).insert_before(before, node)
        elif after is not None:
            _graph_of(after).insert_after(after, node)
        else:
            (self.model.graph if graph is None else graph).append(node)
        self.count += 1
        return node

    def remove(self, node: ir.Node) -> None:
        """Remove a node whose outputs have no uses."""
        _graph_of(node).remove(node, safe=True)
        self.count += 1

    def set_attribute(self, node: ir.Node, name: str, value: AttributeValue | None) -> None:
        """Set an attribute, or with ``None`` remove it."""
        if value is None:
            node.attributes.pop(name, None)
        else:
            node.attributes[name] = ir.convenience.convert_attribute(name, value)
        self.count += 1

    def set_operator(self, node: ir.Node, op_type: str, domain: str) -> None:
        """Make a node another operator; inputs, attributes and results stay what they are."""
        node.op_type, node.domain = op_type, domain
        self.count += 1

    # -- wiring --------------------------------------------------------------------------------------------

    def set_input(self, node: ir.Node, index: int, value: ir.Value | None) -> None:
        """Rewire one input; missing trailing inputs are added as needed."""
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        node.replace_input_with(index, value)
        self.count += 1

    def replace_uses(self, old: ir.Value, new: ir.Value) -> None:
        """Let every consumer of ``old``, graph outputs included, read ``new``.

        A graph output keeps its public name. Quantization state of ``old`` moves to ``new`` unless it has its own.
        """
        if (quant := state.value_quant(old)) is not None and state.value_quant(new) is None:
            state.set_value_quant(new, quant)
        if old.is_graph_output():
            self._replace_output(old, new)
        old.replace_all_uses_with(new)
        if new.shape is None:
            new.shape = old.shape
        if new.type is None:
            new.type = old.type
        self.count += 1

    def _replace_output(self, old: ir.Value, new: ir.Value) -> None:
        """Put ``new`` where ``old`` was a graph output and give it the public name."""
        graph = old.graph
        if graph is None:
            raise ValueError(f"{old.name} belongs to no graph")
        if new.is_graph_input() or new.is_initializer() or new.is_graph_output() or new.graph is not graph:
            # The public name cannot move: bridge with an Identity.
            producer = old.producer()
            after = new.producer() if new.graph is graph else None
            anchor = {"after": after} if after is not None else {"before": producer}
            new = self.insert("Identity", [new], **anchor, graph=graph).outputs[0]
            new.shape, new.type = old.shape, old.type
        public, private = old.name, new.name
        old.name, new.name = self.unique_name(f"{public}_replaced"), public
        if self._names is not None and private is not None:
            self._names.discard(private)
        for index, output in enumerate(graph.outputs):
            if output is old:
                graph.outputs[index] = new

    def remove_unused(self, values: Iterable[ir.Value]) -> None:
        """Remove producers and initializers of ``values`` that nothing uses any more, and what fed only them."""
        stack = list(values)
        while stack:
            value = stack.pop()
            if is_used(value):
                continue
            producer = value.producer()
            if producer is None:
                if value.is_initializer() and not value.is_graph_input():
                    self.remove_initializer(value)
                continue
            if producer.graph is None or any(is_used(output) for output in producer.outputs):
                continue
            feeding = [item for item in producer.inputs if item is not None]
            self.remove(producer)
            stack.extend(feeding)


def _shape_of(tensor: ir.TensorProtocol) -> ir.Shape:
    return ir.Shape([int(size) for size in tensor.shape.numpy()])


def _as_tensor(array: NDArray[np.generic] | ir.TensorProtocol, name: str | None) -> ir.TensorProtocol:
    if isinstance(array, np.ndarray | np.generic):  # asking for the protocol instead costs 20 µs a time
        return ir.Tensor(np.asarray(array), name=name)
    return array


def _graph_of(node: ir.Node) -> ir.Graph:
    graph = node.graph
    if not isinstance(graph, ir.Graph):
        raise ValueError(f"node {node.name} belongs to no graph")
    return graph


def _all_names(model: ir.Model) -> set[str]:
    names: set[str] = set()
    for graph in model.graphs():
        names.update(name for name in graph.initializers if name)
        names.update(value.name for value in graph.inputs if value.name)
        for node in graph:
            if node.name:
                names.add(node.name)
            names.update(value.name for value in node.outputs if value.name)
    return names
