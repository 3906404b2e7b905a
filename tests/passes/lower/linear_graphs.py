"""Small Q/DQ graphs of one linear layer, and how their integer form compares with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from qcompiler.ir import interop
from qcompiler.ir.edit import Edit
from qcompiler.passes.lower.lower_integer import LowerInteger
from qcompiler.pipeline.base import Context
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.target.integer import IntegerArithmetic
from qcompiler.target.load import load

ALLOWED = ("QuantizeLinear", "DequantizeLinear", "Min", "Cast")
TYPES: Mapping[str, Any] = {"i8": np.int8, "i16": np.int16, "u8": np.uint8, "i4": ml_dtypes.int4}


@dataclass
class Graph:
    """``x → Q → DQ → op (weights: DQ) → … → Q → DQ → y``; names count up, so that parts can be added freely."""

    random: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    held: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, name: str, array: NDArray[Any]) -> str:
        tensor = ir.serde.serialize_tensor(ir.Tensor(np.ascontiguousarray(array), name=name))
        self.held.append(tensor)
        return name

    def node(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
        output = f"{op_type.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=f"n{len(self.nodes)}", **attributes))
        return output

    def quantized(self, value: str, scale: float, zero: int, kind: str = "i8") -> str:
        """A Q/DQ pair."""
        base = f"{value}_q"
        parameters = [
            self.constant(f"{base}_s", np.float32(scale)),
            self.constant(f"{base}_z", np.array(zero, TYPES[kind])),
        ]
        return self.node("DequantizeLinear", [self.node("QuantizeLinear", [value, *parameters]), *parameters])

    def weight(
        self, codes: NDArray[Any], scale: NDArray[Any] | float, *, axis: int = 0, kind: str = "i8", zero: int = 0
    ) -> str:
        """Stored codes behind a DequantizeLinear."""
        base = f"w{len(self.held)}"
        scales = np.asarray(scale, np.float32)
        names = [
            self.constant(base, codes.astype(TYPES[kind])),
            self.constant(f"{base}_s", scales),
            self.constant(f"{base}_z", np.full(scales.shape, zero, TYPES[kind])),
        ]
        return self.node("DequantizeLinear", names, **({"axis": axis} if scales.ndim else {}))

    def bias(self, codes: NDArray[Any], scale: NDArray[Any] | float) -> str:
        base = f"b{len(self.held)}"
        scales = np.asarray(scale, np.float32)
        names = [self.constant(base, codes.astype(np.int32)), self.constant(f"{base}_s", scales)]
        return self.node("DequantizeLinear", names, **({"axis": 0} if scales.ndim else {}))

    def model(self, shapes: Mapping[str, Sequence[int | str]], output: str, rank: int | None = None) -> ir.Model:
        fed = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in shapes.items()]
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, None if rank is None else [None] * rank)
        graph = helper.make_graph(self.nodes, "layer", fed, [result], self.held)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        inferred: ir.Model = ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto, strict_mode=True))
        return inferred


def lowered(model: ir.Model, arithmetic: IntegerArithmetic | None = None) -> tuple[ir.Model, Context]:
    """The integer form; ``model`` is left as it is."""
    copy = model.clone()
    target = load("edge-npu")
    if arithmetic is not None:
        target = dataclasses.replace(target, integer=arithmetic)
    ctx = Context(edit=Edit(copy), target=target)
    LowerInteger().run(copy, ctx)
    return copy, ctx


def reasons(ctx: Context) -> list[str]:
    """Why nodes were left alone, and what else was noted."""
    return [
        text for record in ctx.records for text in (*(s.reason for s in record.skips), *(n.text for n in record.notes))
    ]


def run(model: ir.Model, feed: Mapping[str, NDArray[Any]], *, optimize: bool = True) -> NDArray[Any]:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    proto = interop.to_proto(model).SerializeToString()
    session = ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    result: NDArray[Any] = session.run(None, dict(feed))[0]
    return result


def integer_nodes(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph if node.domain == DOMAIN]


def attributes(model: ir.Model) -> dict[str, Any]:
    node = next(node for node in model.graph if node.domain == DOMAIN)
    return {name: value.value for name, value in node.attributes.items()}


def codes_apart(model: ir.Model, shapes: Mapping[str, Sequence[int]], scale: float, seed: int = 0) -> tuple[int, float]:
    """Greatest distance of the integer form from the Q/DQ graph in float arithmetic, and the share of codes off."""
    random = np.random.default_rng(seed)
    feed = {name: random.normal(0, 1.5, shape).astype(np.float32) for name, shape in shapes.items()}
    form, ctx = lowered(model)
    left = [node.op_type for node in form.graph if node.domain != DOMAIN and node.op_type not in ALLOWED]
    assert not left, (left, reasons(ctx))
    apart = np.rint((run(form, feed) - run(model, feed, optimize=False)) / scale)
    return int(np.abs(apart).max()), float(np.mean(apart != 0))
