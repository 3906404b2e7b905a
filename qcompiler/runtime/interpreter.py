"""The interpreter: a graph executed node by node with the code that defines its operators.

* ``ai.qcompiler`` nodes run their specification, which checks every intermediate integer.
* Standard operators on integers, operators that move elements, and QuantizeLinear and DequantizeLinear run in NumPy
  (``qcompiler.runtime.standard``), exact or refused.
* Everything else, that is the float nodes before, after and between the integers, runs in ONNX Runtime, one node at
  a time: what is compared with a runtime's result are the integers, and outputs compare bit for bit.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from qcompiler.errors import ModelError, QCompilerError, VerificationError, first_line
from qcompiler.ir import io
from qcompiler.ir.interop import from_proto
from qcompiler.ir.operators import STANDARD_DOMAINS, operator_name
from qcompiler.ir.structure import captured
from qcompiler.quant.functions.catalogue import operators
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.runtime.elsewhere import RuntimeNode
from qcompiler.runtime.feeds import check_feed
from qcompiler.runtime.order import execution_order
from qcompiler.runtime.standard.kernel import ElsewhereError, Node
from qcompiler.runtime.standard.table import KERNELS

if TYPE_CHECKING:
    import onnx

__all__ = ["Interpreter"]


class Interpreter:
    """A model ready to be executed, many feeds if need be.

    Args:
        model: A model file or a model in memory; it is not changed, and must not be while the interpreter is in use.
        outputs: Names of the values to return; by default the graph's outputs. Any value inside will do.

    Attributes:
        inputs: Per graph input ONNX Runtime's word for its type and its shape.
        outputs: Names of the values that ``run`` returns.

    Raises:
        ModelError: The model cannot be read, is cyclic, has no such value, or has an operator that nothing knows.
    """

    def __init__(self, model: str | Path | onnx.ModelProto | ir.Model, outputs: Sequence[str] | None = None) -> None:
        self._model = _loaded(model)
        self._threads = ThreadpoolController()
        graph = self._model.graph
        self._constants = {
            name: value.const_value.numpy()
            for name, value in graph.initializers.items()
            if value.const_value is not None
        }
        self._steps = [_Step(node, self._model) for node in execution_order(graph)]
        self.inputs = {str(value.name): (_type_text(value), _shape(value)) for value in graph.inputs}
        known = {*self.inputs, *self._constants, *(name for step in self._steps for name in step.outputs)}
        self.outputs = [str(value.name) for value in graph.outputs] if outputs is None else list(outputs)
        for name in self.outputs:
            if name not in known:
                raise ModelError(f"no tensor named '{name}'", where=graph.name)

    def run(self, feed: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """Execute the graph.

        Args:
            feed: One array per input, by name.
            outputs: Names of the values to return, inside the graph or not; by default ``self.outputs``.

        Raises:
            DataError: The feed does not fit the inputs.
            ModelError: A node failed, or there is no value of such a name.
            VerificationError: An integer left the range that its operator gives it.
        """
        # The products are small: threads of BLAS cost more than they give, ten times more on a busy machine.
        with self._threads.limit(limits=1, user_api="blas"):
            return self._execute(feed, self.outputs if outputs is None else list(outputs))

    def _execute(self, feed: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
        values: dict[str, Any] = {**self._constants, **check_feed(self._model.graph, feed)}
        # A value is kept until its last reader is done.
        pending = Counter(name for step in self._steps for name in step.reads)
        pending.update(wanted)
        for step in self._steps:
            values.update(step(values))
            for name in step.reads:
                pending[name] -= 1
                if not pending[name]:
                    del values[name]
        try:
            return {name: values[name] for name in wanted}
        except KeyError as error:
            raise ModelError(f"no tensor named {error}", where=self._model.graph.name) from error

    def stream(
        self, feeds: Iterable[dict[str, NDArray[Any]]]
    ) -> Iterator[tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]]:
        """Run many feeds; each comes back with its outputs, in order."""
        return ((feed, self.run(feed)) for feed in feeds)


class _Step:
    """One node with the code that executes it."""

    def __init__(self, node: ir.Node, model: ir.Model) -> None:
        self._node = node
        self._model = model
        self._captured = tuple(str(value.name) for value in captured(node))
        self._operands = [None if value is None else str(value.name) for value in node.inputs]
        self.outputs = [str(value.name) for value in node.outputs if value.name]
        self.reads = list(dict.fromkeys([*(name for name in self._operands if name is not None), *self._captured]))
        self._runtime: RuntimeNode | None = None
        self._run = self._choose()

    def __call__(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Results by name."""
        operands = [None if name is None else values[name] for name in self._operands]
        where = f"{self._node.name} ({operator_name(self._node)})"
        try:
            try:
                found = self._run(operands)
            except ElsewhereError:
                found = self._elsewhere(operands, values)
        except QCompilerError:
            raise
        except ArithmeticError as error:
            raise VerificationError(
                f"an integer leaves its range: {error}",
                where=where,
                hint="no feed may do this to a compiled model: please report it with the feed",
            ) from error
        except Exception as error:  # whatever NumPy says about operands that do not fit each other
            kind = VerificationError if self._node.domain == DOMAIN else ModelError
            raise kind(f"it cannot be computed: {first_line(error)}", where=where) from error
        results = found if isinstance(found, list | tuple) else [found]
        return {
            str(value.name): result for value, result in zip(self._node.outputs, results, strict=False) if value.name
        }

    def _choose(self) -> Any:
        node = self._node
        if node.domain == DOMAIN:
            operator = operators().get(node.op_type)
            if operator is None:
                raise ModelError(f"{DOMAIN} has no operator {node.op_type}", where=str(node.name))
            keywords = {name: _plain(attribute) for name, attribute in node.attributes.items()}
            return lambda operands: operator.specification(*operands, **keywords)
        kernel = KERNELS.get(node.op_type) if node.domain in STANDARD_DOMAINS else None
        if kernel is None:
            self._runtime = RuntimeNode(node, self._captured, self._model)
            return _leave
        attributes = {name: _plain(attribute) for name, attribute in node.attributes.items()}
        described = Node(attributes, len(node.outputs), self._model.opset_imports.get("", 1))
        return functools.partial(kernel, described)

    def _elsewhere(self, operands: Sequence[Any], values: Mapping[str, Any]) -> list[Any]:
        if self._runtime is None:
            self._runtime = RuntimeNode(self._node, self._captured, self._model)
        return self._runtime(operands, values)


def _leave(_operands: Sequence[Any]) -> Any:
    raise ElsewhereError


def _plain(attribute: ir.Attr) -> Any:
    return list(attribute.value) if isinstance(attribute.value, tuple) else attribute.value


def _loaded(model: str | Path | onnx.ModelProto | ir.Model) -> ir.Model:
    if isinstance(model, ir.Model):
        return model
    return io.load(model) if isinstance(model, str | Path) else from_proto(model)


def _type_text(value: ir.Value) -> str:
    return f"tensor({value.dtype.name.lower()})" if value.dtype is not None else "tensor(undefined)"


def _shape(value: ir.Value) -> list[int | str | None]:
    return [] if value.shape is None else [item if isinstance(item, int) else item.value for item in value.shape]
