"""A small network, its context, and passes to try that do one plain thing each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnx_ir as ir

from qcompiler.calibration import data
from qcompiler.errors import PassError
from qcompiler.ir.edit import Edit
from qcompiler.pipeline.base import Context, Pass, PassRecord, Preserves
from qcompiler.pipeline.spec import parse
from qcompiler.target.load import load

REST = "choose-widths,assign-formats,calibrate,calibrate-weights,place-qdq"


def network(*, outlier: float = 1.0) -> ir.Model:
    """Two convolutions; channel 0 of the first has weights ``outlier`` times as large, the second takes it back."""
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,3,8,8] x) => (float[N,5] y) {
       a = Conv <pads=[1,1,1,1]> (x, w1, b1)
       r = Relu(a)
       d = Conv (r, w2, b2)
       p = GlobalAveragePool(d)
       y = Flatten(p) }"""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(3)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    for name in ("w1", "b1"):
        weights[name][0] *= outlier
    weights["w2"][:, 0] /= outlier
    for name, weight in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


SHAPES = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (5, 8, 1, 1), "b2": (5,)}


def context(model: ir.Model, *, target: str = "edge-npu-per-tensor", samples: int = 16) -> Context:
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(samples)]
    ctx = Context(Edit(model), target=load(target), format="w8a8", following=parse(REST))
    ctx.calibration = data.load(feeds, data.inputs_of(model))
    ctx.records.append(PassRecord("test"))
    return ctx


@dataclass(frozen=True)
class Spoil(Pass):
    """Halve the first weight: never a gain."""

    name: ClassVar[str] = "spoil"
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, model: ir.Model, ctx: Context) -> None:
        value = model.graph.initializers["w1"]
        assert value.const_value is not None
        ctx.note("halved")
        ctx.edit.set_constant(value, value.const_value.numpy() / 2)


@dataclass(frozen=True)
class Double(Pass):
    """Put an Identity behind the input, and nothing else."""

    name: ClassVar[str] = "double"
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, model: ir.Model, ctx: Context) -> None:
        first, value = next(iter(model.graph)), model.graph.inputs[0]
        same = ctx.edit.insert("Identity", [value], before=first).outputs[0]
        same.shape, same.type = value.shape, value.type
        ctx.edit.set_input(first, 0, same)


@dataclass(frozen=True)
class Idle(Pass):
    """Find nothing to do."""

    name: ClassVar[str] = "idle"
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, model: ir.Model, ctx: Context) -> None:
        ctx.skip("Conv_0", "its weight is shared")


@dataclass(frozen=True)
class Broken(Pass):
    """Refuse."""

    name: ClassVar[str] = "broken"
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, model: ir.Model, ctx: Context) -> None:
        raise PassError("cannot do that", where="Conv_0")
