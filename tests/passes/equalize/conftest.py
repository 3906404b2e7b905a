"""Small models for the equalize passes, and what their tests ask of every run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.ir.facts import check
from qcompiler.passes.equalize.equalize_channels import EqualizeChannels
from qcompiler.pipeline.base import Context, Fact, PassRecord
from qcompiler.target.load import load

Array = NDArray[Any]
FULL = EqualizeChannels(when="always", growth=float("inf"), residual=True)
SIX = {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}


def node(op_type: str, inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], f"{op_type}_{output}", **attributes)


def build(nodes: list[onnx.NodeProto], shape: list[Any], outputs: str = "y", **weights: Array) -> ir.Model:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs.split()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model)
    return ir.from_proto(model)


def uneven(*shape: int, axis: int = 0, seed: int = 0) -> Array:
    """Normal numbers whose channels along ``axis`` differ by up to a factor of about 2000."""
    random = np.random.default_rng([seed, *shape])
    sizes = 2.0 ** random.uniform(-6, 5, shape[axis])
    return (random.standard_normal(shape) * sizes.reshape([-1 if i == axis else 1 for i in range(len(shape))])).astype(
        np.float32
    )


def relu_chain(activation: str = "Relu", **attributes: Any) -> ir.Model:
    return build(
        [
            node("Conv", "x w1 b1", "c", pads=[1, 1, 1, 1]),
            node(activation, "c", "r", **attributes),
            node("Conv", "r w2 b2"),
        ],
        ["N", 3, 6, 6],
        w1=uneven(8, 3, 3, 3),
        b1=uneven(8),
        w2=uneven(4, 8, 1, 1, axis=1),
        b2=uneven(4),
    )


def mobile_chain() -> ir.Model:
    """1×1, depthwise with padding, 1×1, each but the last behind Relu6, as in a MobileNet."""
    return build(
        [
            node("Conv", "x w1 b1", "c1"),
            node("Clip", "c1 zero six", "r1"),
            node("Conv", "r1 w2 b2", "c2", group=8, pads=[1, 1, 1, 1]),
            node("Clip", "c2 zero six", "r2"),
            node("Conv", "r2 w3"),
        ],
        ["N", 3, 6, 6],
        w1=uneven(8, 3, 1, 1),
        b1=uneven(8),
        w2=uneven(8, 1, 3, 3),
        b2=uneven(8),
        w3=uneven(4, 8, 1, 1, axis=1),
        **SIX,
    )


def feed(model: ir.Model) -> dict[str, Array]:
    shape = model.graph.inputs[0].shape
    assert shape is not None
    sizes = [size if isinstance(size, int) else 2 for size in shape]
    return {"x": np.random.default_rng(7).standard_normal(sizes).astype(np.float32)}


def run(model: ir.Model, which: EqualizeChannels = FULL, target: str | None = None) -> Context:
    """Run the pass; check that outputs and facts hold and that a second run changes nothing."""
    wanted = Runner(model, optimize=False).run(feed(model))
    context = Context(Edit(model), target=None if target is None else load(target))
    context.records.append(PassRecord(which.name))
    which.run(model, context)
    got = Runner(model, optimize=False).run(feed(model))
    assert list(got) == list(wanted)
    for name, array in wanted.items():
        assert np.abs(got[name] - array).max() <= 1e-5 * np.abs(array).max(), name
    for fact in (Fact.TYPED, Fact.SORTED, Fact.CANONICAL):
        assert not check(fact, model)
    onnx.checker.check_model(ir.to_proto(model))
    before = context.edit.count
    which.run(model, Context(context.edit, target=context.target))
    assert context.edit.count == before, "a second run changes something"
    return context


def skipped(context: Context) -> str:
    return "; ".join(f"{skip.node}: {skip.reason}" for skip in context.records[0].skips)


def content(model: ir.Model, name: str) -> Array:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def rows(weight: Array) -> Array:
    return np.abs(weight).reshape(weight.shape[0], -1).max(1)


def columns(weight: Array) -> Array:
    return np.abs(weight).max(axis=(0, *range(2, weight.ndim)))


def kinds(model: ir.Model) -> list[str]:
    return [item.op_type for item in model.graph]


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The functions above."""
    functions = node, build, uneven, relu_chain, mobile_chain, run, skipped, content, rows, columns, kinds
    return SimpleNamespace(feed=feed, SIX=SIX, **{function.__name__: function for function in functions})
