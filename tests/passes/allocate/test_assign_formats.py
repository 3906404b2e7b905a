"""Which nodes become integer, in which format their tensors are kept."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.errors import UsageError
from qcompiler.ir.edit import Edit
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.pipeline.base import Context
from qcompiler.quant import state
from qcompiler.target.load import load

WEIGHT = "float[4,3,3,3] w"


def parse(body: str, inputs: str, output: str, weights: dict[str, tuple[int, ...]]) -> ir.Model:
    """A typed model from ONNX text; weights are normal numbers."""
    text = f'<ir_version: 10, opset_import: ["" : 21]> g ({inputs}) => ({output}) {{ {body} }}'
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, shape in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


RESIDUAL = parse(
    """a = Conv <pads=[1,1,1,1]> (x, w1, b1)
       r = Relu(a)
       c = Conv <pads=[1,1,1,1]> (r, w2)
       s = Add(c, r)
       t = Relu(s)
       y = Conv (t, w3)""",
    "float[1,3,8,8] x",
    "float[1,2,8,8] y",
    {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 4, 3, 3), "w3": (2, 4, 1, 1)},
)
STREAM = parse(
    """m = MatMul(x, w)
       s = Add(m, x)
       n = LayerNormalization(s, g, b)
       y = MatMul(n, w2)""",
    "float[1,5,8] x",
    "float[1,5,8] y",
    {"w": (8, 8), "g": (8,), "b": (8,), "w2": (8, 8)},
)


def assign(
    model: ir.Model, target: str, form: str | None = None, exclude: tuple[str, ...] = ()
) -> tuple[ir.Model, Context]:
    copy = model.clone()
    ctx = Context(Edit(copy), target=load(target), format=form, exclude=exclude)
    AssignFormats().run(copy, ctx)
    return copy, ctx


def integer(model: ir.Model) -> set[str]:
    return {str(n.name) for n in model.graph if (d := state.node_decision(n)) is not None and d.integer}


def quant(model: ir.Model, name: str) -> str | None:
    found = {v.name: str(q.format) for v, q in state.quantized_values(model.graph)}
    return found.get(name)


def test_residual_network_is_integer_throughout_on_cpu():
    model, _ = assign(RESIDUAL, "cpu-x86")
    assert integer(model) == {"Conv_0", "Relu_1", "Conv_2", "Add_3", "Relu_4", "Conv_5"}
    assert quant(model, "a") is None, "no scale between a convolution and the Relu that it absorbs"
    assert quant(model, "s") is None
    assert {name: quant(model, name) for name in "xrct"} == dict.fromkeys("xrct", "u8")
    assert quant(model, "w1") == "i8/sym/axis=0"


def test_residual_stream_of_a_transformer_stays_float_on_cpu():
    model, ctx = assign(STREAM, "cpu-x86")
    assert integer(model) == {"MatMul_0", "MatMul_3"}
    assert quant(model, "m") is None, "the product is wanted in real numbers"
    reasons = {skip.node: skip.reason for skip in ctx.records[-1].skips}
    assert "reader" in reasons["Add_1 (Add)"] or "input" in reasons["Add_1 (Add)"]


def test_residual_stream_is_wide_on_the_npu():
    model, _ = assign(STREAM, "edge-npu")
    assert integer(model) == {"MatMul_0", "Add_1", "LayerNormalization_2", "MatMul_3"}
    assert quant(model, "s") == "i16"
    assert quant(model, "n") == "i8", "the product reads 8 bits"
    assert quant(model, "x") == "i16"
    first = next(iter(model.graph))
    own = state.own_edge_quant(first, 0)
    assert isinstance(own, state.TensorQuant)
    assert str(own.format) == "i8", "the product reads 8 bits of a stream that the Add reads in 16"


def test_convolutions_keep_8_bits_on_the_npu():
    model, _ = assign(RESIDUAL, "edge-npu")
    assert {name: quant(model, name) for name in "xrct"} == dict.fromkeys("xrct", "i8")


@pytest.mark.parametrize("selector", ["Conv_2", "re:_2$"])
def test_excluded_node_is_float(selector):
    model, ctx = assign(RESIDUAL, "cpu-x86", exclude=(selector,))
    assert "Conv_2" not in integer(model)
    assert any(skip.node == "Conv_2 (Conv)" and selector in skip.reason for skip in ctx.records[-1].skips)
    assert "Conv_0" in integer(model)
    assert "Conv_5" in integer(model)


def test_exclude_by_type():
    model, _ = assign(STREAM, "edge-npu", exclude=("MatMul",))
    assert not {"MatMul_0", "MatMul_3"} & integer(model)


def test_exclude_that_names_nothing_is_refused():
    with pytest.raises(UsageError, match="Conv_9"):
        assign(RESIDUAL, "cpu-x86", exclude=("Conv_9",))


def test_low_bit_weights():
    model, _ = assign(RESIDUAL, "edge-npu", "w4a8")
    assert quant(model, "w1") == "i4/sym/axis=0"


def test_same_input_twice_is_idempotent():
    model, ctx = assign(RESIDUAL, "edge-npu")
    before = [(v.name, str(q.format), q.tie) for v, q in state.quantized_values(model.graph)]
    AssignFormats().run(model, ctx)
    assert before == [(v.name, str(q.format), q.tie) for v, q in state.quantized_values(model.graph)]


def test_movement_ties_scales():
    model, _ = assign(
        parse(
            """a = Conv(x, w1)
               m = MaxPool <kernel_shape=[2,2], strides=[2,2]> (a)
               c = Concat <axis=1> (m, m)
               y = Conv(c, w3)""",
            "float[1,3,8,8] x",
            "float[1,2,4,4] y",
            {"w1": (4, 3, 1, 1), "w3": (2, 8, 1, 1)},
        ),
        "edge-npu",
    )
    ties = {v.name: q.tie for v, q in state.quantized_values(model.graph) if v.name in "amc"}
    assert len(set(ties.values())) == 1
    assert None not in ties.values()
