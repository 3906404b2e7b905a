"""A part of a graph, ready to be computed forwards and backwards.

The part is what lies between values that the caller supplies and values that it asks for, found by walking back from
the latter. What depends on constants alone is computed once, and what no wanted value influences can be computed once
per sample (``prepared``). Gradients are followed only where a wanted value has influence; everything else (shapes,
masks, dequantized constants) is just computed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from qcompiler.analysis.backward.rule import Array, Node, Pullback, UnknownFormError
from qcompiler.analysis.backward.rules import RULES
from qcompiler.errors import ModelError
from qcompiler.ir import constants
from qcompiler.ir.operators import STANDARD_DOMAINS, operator_name
from qcompiler.ir.structure import captured
from qcompiler.runtime.standard.kernel import ElsewhereError
from qcompiler.runtime.standard.table import KERNELS

__all__ = ["Program", "Tape"]

_NO_GRADIENT = frozenset({"ConstantOfShape", "Shape", "Size"})
"""Operators whose result does not depend on the numbers in their operands."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One node.

    Attributes:
        label: What errors call it.
        operator: Its type.
        node: Its attributes.
        operands: Names of its inputs, ``None`` for a missing one.
        result: Name of its output.
        wanted: Which operands a gradient is followed into.
    """

    label: str
    operator: str
    node: Node
    operands: tuple[str | None, ...]
    result: str
    wanted: tuple[bool, ...]


class Program:
    """What lies between free values and outputs.

    Args:
        outputs: Values to compute.
        free: Values that the caller supplies on every run; graph inputs that are met on the way join them.
        wanted: Those of the free values whose gradients are asked for.
        dtype: Element type of real constants; float64 for tests.

    Attributes:
        free: Names of values that ``forward`` must be given.
        outputs: Names of values that it computes.
        wanted: Names of values whose gradients it gives.
        fixed: Names of values that no wanted value influences and that steps which are influenced read.

    Raises:
        ModelError: An operator on the way of a gradient is not known; names the node.
    """

    def __init__(
        self,
        outputs: Sequence[ir.Value],
        free: Iterable[ir.Value],
        wanted: Collection[ir.Value],
        *,
        opset: int = 21,
        dtype: type[np.floating[Any]] = np.float32,
    ) -> None:
        self.outputs = [_name(value) for value in outputs]
        self.wanted = [_name(value) for value in wanted]
        supplied = {*free, *wanted}
        nodes, ends = _between(outputs, supplied)
        self._constants = {
            _name(value): _as(dtype, array)
            for value in ends
            if value not in supplied and (array := constants.array(value)) is not None
        }
        self.free = [name for value in ends if (name := _name(value)) not in self._constants]
        influenced = set(self.wanted)
        varying = set(self.wanted)
        self._before: list[_Step] = []
        self._steps: list[_Step] = []
        for node in nodes:
            step = _step(node, influenced, opset)
            if any(step.wanted):
                influenced.add(step.result)
            self._add(step, varying)
        read = {*self.outputs, *(name for step in self._steps for name in step.operands if name is not None)}
        fixed = {*self.free, *(step.result for step in self._before)}
        self.fixed = sorted(read & fixed - set(self.wanted))

    def _add(self, step: _Step, varying: set[str]) -> None:
        """Take a step in where it belongs, or compute it now where it depends on constants alone."""
        if any(name in varying for name in step.operands):
            varying.add(step.result)
            self._steps.append(step)
        elif all(name is None or name in self._constants for name in step.operands):
            self._constants[step.result] = _run(step, self._constants)[0]
        else:
            self._before.append(step)

    def prepared(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """The values named by ``fixed``, from the free values that are not wanted: the same however those change.

        Raises:
            ModelError: A node has a form that is not known.
        """
        known: dict[str, Array] = {**self._constants, **values}
        for step in self._before:
            known[step.result] = _run(step, known)[0]
        return {name: known[name] for name in self.fixed}

    def run(self, values: Mapping[str, Array]) -> Tape:
        """Compute the outputs from fixed and wanted values.

        Raises:
            ModelError: A node has a form that is not known.
        """
        known: dict[str, Array] = {**self._constants, **values}
        pullbacks: list[tuple[_Step, Pullback]] = []
        for step in self._steps:
            known[step.result], pullback = _run(step, known)
            if pullback is not None:
                pullbacks.append((step, pullback))
        return Tape({name: known[name] for name in self.outputs}, pullbacks, self.wanted)

    def forward(self, values: Mapping[str, Array]) -> Tape:
        """Compute the outputs from all free values.

        Raises:
            ModelError: A node has a form that is not known.
        """
        return self.run({**{name: values[name] for name in self.free}, **self.prepared(values)})


@dataclass(frozen=True, slots=True)
class Tape:
    """One forward run, remembered.

    Attributes:
        outputs: Computed values by name.
        wanted: Names of values whose gradients can be asked for.
    """

    outputs: dict[str, Array]
    _pullbacks: list[tuple[_Step, Pullback]]
    wanted: list[str]

    def gradients(self, of: Mapping[str, Array]) -> dict[str, Array]:
        """Gradients of the wanted values, from those of outputs; values without influence get none.

        Args:
            of: The loss's gradient with respect to outputs, by name, in their shapes.

        Raises:
            ModelError: A node has a form that is not known.
        """
        found: dict[str, Array] = dict(of)
        for step, pullback in reversed(self._pullbacks):
            gradient = found.pop(step.result, None) if step.result not in self.wanted else found.get(step.result)
            if gradient is None:
                continue
            try:
                parts = pullback(gradient, step.wanted)
            except UnknownFormError as error:
                raise ModelError(f"its gradient is not known: {error}", where=step.label) from None
            for name, part, asked in zip(step.operands, parts, step.wanted, strict=True):
                if asked and part is not None and name is not None:
                    found[name] = found[name] + part if name in found else part
        return {name: found[name] for name in self.wanted if name in found}


def _between(outputs: Sequence[ir.Value], free: Collection[ir.Value]) -> tuple[list[ir.Node], list[ir.Value]]:
    """Nodes that compute the outputs, in order, and what they start from: free values, graph inputs and constants."""
    nodes: dict[ir.Node, bool] = {}  # true once everything it reads is there
    ends: dict[ir.Value, None] = {}
    stack = list(reversed(outputs))
    while stack:
        value = stack[-1]
        node = None if value in free else value.producer()
        if node is None:
            ends[value] = None
            stack.pop()
        elif nodes.get(node):
            stack.pop()
        elif node in nodes:  # met again behind all its operands
            nodes[node] = True
            nodes[node] = nodes.pop(node)
            stack.pop()
        else:
            nodes[node] = False
            stack.extend(item for item in node.inputs if item is not None)
    return list(nodes), list(ends)


def _step(node: ir.Node, influenced: Collection[str], opset: int) -> _Step:
    label = f"{node.name} ({operator_name(node)})"
    operands = tuple(None if value is None else _name(value) for value in node.inputs)
    wanted = tuple(name in influenced and node.op_type not in _NO_GRADIENT for name in operands)
    standard = node.domain in STANDARD_DOMAINS and not captured(node)
    if not standard or node.op_type not in (RULES if any(wanted) else {**RULES, **KERNELS}):
        raise ModelError(f"{operator_name(node)} has no gradient here", where=str(node.name))
    attributes = {
        name: list(item.value) if isinstance(item.value, tuple) else item.value
        for name, item in node.attributes.items()
    }
    used = [output for output in node.outputs if output.name and (output.uses() or output.is_graph_output())]
    if node.outputs[0] not in used and used:
        raise ModelError(f"only the first result of {operator_name(node)} is known", where=str(node.name))
    count = 1 + max((node.outputs.index(output) for output in used), default=0)
    return _Step(label, node.op_type, Node(attributes, count, opset), operands, _name(node.outputs[0]), wanted)


def _run(step: _Step, values: Mapping[str, Array]) -> tuple[Array, Pullback | None]:
    inputs = [None if name is None else values[name] for name in step.operands]
    try:
        if step.operator in RULES and (any(step.wanted) or step.operator not in KERNELS):
            result, pullback = RULES[step.operator](step.node, inputs)
            return result, pullback if any(step.wanted) else None
        return _plain(step, inputs), None
    except UnknownFormError as error:
        raise ModelError(f"its gradient is not known: {error}", where=step.label) from None


def _plain(step: _Step, inputs: Sequence[Array | None]) -> Array:
    """A node that no gradient passes: by the interpreter's kernel, else by its rule."""
    if step.operator not in ("QuantizeLinear", "DequantizeLinear"):
        try:
            found = KERNELS[step.operator](step.node, inputs)
            return np.asarray(found[0] if isinstance(found, list | tuple) else found)
        except ElsewhereError:
            if step.operator not in RULES:
                raise UnknownFormError("a rare form of it") from None
    return RULES[step.operator](step.node, inputs)[0]


def _name(value: ir.Value) -> str:
    return str(value.name)


def _as(dtype: type[np.floating[Any]], array: Array) -> Array:
    return array.astype(dtype) if array.dtype.kind == "f" and array.dtype != dtype else array
