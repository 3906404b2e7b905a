"""What a model is, at a glance: interface, operators, size, and what is quantized in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from qcompiler.analysis.integer_only import IntegerOnly, integer_only
from qcompiler.ir import io
from qcompiler.ir.constants import is_constant
from qcompiler.ir.operators import operator_name
from qcompiler.quant.annotations import annotation
from qcompiler.quant.functions.catalogue import on_codes
from qcompiler.quant.functions.definition import DOMAIN

__all__ = ["ModelSummary", "Port", "QuantizedPart", "summarize"]

_QDQ = ("QuantizeLinear", "DequantizeLinear")
_INTEGER_OPERATORS = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")


@dataclass(frozen=True, slots=True)
class Port:
    """A graph input or output; unknown dimensions are ``?``."""

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None


@dataclass(frozen=True, slots=True)
class QuantizedPart:
    """What is quantized.

    Attributes:
        quantize: QuantizeLinear nodes.
        dequantize: DequantizeLinear nodes.
        weights: Dequantized constants by element type.
        activations: Dequantized activations by element type; of an integer graph all tensors of codes.
        integer_operators: Operators that compute on integers by themselves (QLinearConv, ai.qcompiler …).
    """

    quantize: int
    dequantize: int
    weights: dict[str, int]
    activations: dict[str, int]
    integer_operators: dict[str, int]


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """A model at a glance.

    Attributes:
        path: Its file.
        producer: Who wrote it.
        ir_version: IR version.
        opsets: Operator set versions by domain; the standard domain is ``ai.onnx``.
        inputs: Graph inputs that must be fed.
        outputs: Graph outputs.
        nodes: Nodes, those inside If, Loop and Scan included.
        operators: Nodes by operator, most frequent first.
        parameters: Elements of all weights.
        weight_bytes: Bytes of all weights.
        weight_types: Bytes by element type, most first.
        file_bytes: Bytes of the file and its external data.
        batch_norms: BatchNormalization nodes that folding can remove.
        functions: Model-local functions.
        quantized: What is quantized; ``None`` in a float model.
        integer_only: What is float in an integer graph; ``None`` where no operator computes on codes.
    """

    path: str
    producer: str
    ir_version: int
    opsets: dict[str, int]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    nodes: int
    operators: dict[str, int]
    parameters: int
    weight_bytes: int
    weight_types: dict[str, int]
    file_bytes: int
    batch_norms: int
    functions: int
    quantized: QuantizedPart | None
    integer_only: IntegerOnly | None = None


def _on_codes(model: ir.Model) -> bool:
    return any(on_codes(node.domain, node.op_type) for node in model.graph)


def summarize(path: str | Path) -> ModelSummary:
    """Look at a model; its weights are not read.

    Raises:
        ModelError: It cannot be read.
    """
    model = io.load(path)
    graph = model.graph
    nodes = [node for inner in model.graphs() for node in inner]
    operators = Counter(operator_name(node) for node in nodes)
    weights = list(_weights(model))
    types: Counter[str] = Counter()
    for tensor in weights:
        types[tensor.dtype.name.lower()] += tensor.nbytes
    return ModelSummary(
        path=str(path),
        producer=" ".join(filter(None, (model.producer_name, model.producer_version))),
        ir_version=model.ir_version,
        opsets={domain or "ai.onnx": version for domain, version in sorted(graph.opset_imports.items())},
        inputs=tuple(_port(value) for value in graph.inputs if not value.is_initializer()),
        outputs=tuple(_port(value) for value in graph.outputs),
        nodes=len(nodes),
        operators=dict(operators.most_common()),
        parameters=sum(tensor.size for tensor in weights),
        weight_bytes=sum(types.values()),
        weight_types=dict(types.most_common()),
        file_bytes=sum(file.stat().st_size for file in io.files(model)),
        batch_norms=operators["BatchNormalization"],
        functions=len(model.functions),
        quantized=_quantized(nodes, operators),
        integer_only=integer_only(model) if _on_codes(model) else None,
    )


def _weights(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value
        for node in graph:
            if node.op_type == "Constant" and (attribute := node.attributes.get("value")) is not None:
                yield attribute.as_tensor()


def _port(value: ir.Value) -> Port:
    shape = None if value.shape is None else tuple(_dimension(item) for item in value.shape)
    return Port(str(value.name), value.dtype.name.lower() if value.dtype is not None else "?", shape)


def _dimension(item: int | ir.SymbolicDim) -> int | str:
    return item if isinstance(item, int) else str(item.value or "?")


def _quantized(nodes: list[ir.Node], operators: Counter[str]) -> QuantizedPart | None:
    integer = {name: count for name, count in operators.items() if _computes_integers(name)}
    if not integer and not any(operators[name] for name in _QDQ):
        return None
    weights: Counter[str] = Counter()
    activations: Counter[str] = Counter()
    for node in nodes:
        if node.op_type == "DequantizeLinear" and node.inputs and node.inputs[0] is not None:
            kind = weights if is_constant(node.inputs[0]) else activations
            kind[_codes(node.inputs[0])] += 1
        coded = [value for value in node.outputs if node.op_type not in _QDQ and annotation(value) is not None]
        activations.update(_codes(value) for value in coded if not _is_dequantized(value))
    return QuantizedPart(
        operators["QuantizeLinear"], operators["DequantizeLinear"], dict(weights), dict(activations), integer
    )


def _computes_integers(operator: str) -> bool:
    domain, _, op_type = operator.rpartition(":")
    return domain == DOMAIN or op_type in _INTEGER_OPERATORS


def _is_dequantized(value: ir.Value) -> bool:
    """Whether a DequantizeLinear reads the value: then it is counted there."""
    return any(reader.op_type == "DequantizeLinear" for reader in value.consumers())


def _codes(value: ir.Value) -> str:
    """Element type of codes; a QuantizeLinear's result has that of its zero point where none is written down."""
    producer = value.producer()
    zero = producer.inputs[2] if producer is not None and len(producer.inputs) > 2 else None
    known = value.dtype or (zero.dtype if zero is not None else None)
    return known.name.lower() if known is not None else "?"
