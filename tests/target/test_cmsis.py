"""What CMSIS-NN documents about parameters, applied to every node of files compiled for ``mcu``.

Ranges are those of ``arm_nnfunctions.h`` and ``arm_nnsupportfunctions.h`` (CMSIS-NN 7):

* input offset (minus the zero point) -127 to 128, output offset -128 to 127; 16-bit tensors have none
* ``arm_nn_requantize`` with single rounding: a multiplier in [2^30, 2^31), a shift of -31 to 30, the total shift to the
  right is 31 - shift, from 1 to 62
* ``arm_nn_requantize_s64``: a multiplier of 15 bits, a shift of -31 to 7, the total is 15 - shift, sums below 2^47
* one multiplier in fully connected layers; averages and maxima over windows keep the scale
* ``arm_softmax_s8`` writes 1/256 and zero point -128, ``arm_softmax_s16`` 1/32768 and 0
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import qcompiler
from qcompiler.analysis.accumulators import accumulators
from qcompiler.ir import io
from qcompiler.ir.constants import array
from qcompiler.quant.annotations import annotation
from qcompiler.quant.functions.catalogue import operators
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.quant.integer import dyadic
from qcompiler.target.load import load
from qcompiler.target.lowered import family

MCU = load("mcu")
WIDE_SUM = 1 << 47


def network() -> onnx.ModelProto:
    """Every operator of the profile that rescales, and most that move."""
    random = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        size = np.prod(shape[1:], initial=1.0)
        return numpy_helper.from_array((random.standard_normal(shape) / np.sqrt(size)).astype(np.float32), name)

    def node(op_type: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(op_type, inputs.split(), [output], output, **attributes)

    nodes = [
        node("Conv", "x w1 b1", "c1", pads=[1] * 4),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2 b2", "c2", group=8, pads=[1] * 4),
        node("Clip", "c2 zero six", "r2"),
        node("Conv", "r2 w3 b3", "c3"),
        node("Add", "c3 r1", "a"),
        node("Relu", "a", "ra"),
        node("Mul", "ra r1", "m"),
        node("AveragePool", "m", "p", kernel_shape=[3, 3], strides=[2, 2]),
        node("Concat", "p p", "cc", axis=1),
        node("MaxPool", "cc", "mp", kernel_shape=[2, 2]),
        node("ConvTranspose", "mp w6", "t", strides=[2, 2]),
        node("Sigmoid", "t", "s"),
        node("GlobalAveragePool", "s", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f w4 b4", "l", transB=1),
        node("Softmax", "l", "sm"),
        node("Gemm", "sm w5 b5", "y", transB=1),
    ]
    shapes = {
        "w1": (8, 3, 3, 3),
        "w2": (8, 1, 3, 3),
        "w3": (8, 8, 1, 1),
        "w4": (16, 4),
        "w5": (5, 16),
        "w6": (16, 4, 2, 2),
    }
    shapes |= {"b1": (8,), "b2": (8,), "b3": (8,), "b4": (16,), "b5": (5,)}
    bounds = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in (("zero", 0), ("six", 6))]
    graph = helper.make_graph(
        nodes, "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
        [*(weight(name, *shape) for name, shape in shapes.items()), *bounds],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return model


@pytest.fixture(scope="module", params=["w8a8", "w4a8", "w8a16"])
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ir.Model:
    random = np.random.default_rng(1)
    feeds = [{"x": random.standard_normal((1, 3, 12, 12)).astype(np.float32)} for _ in range(10)]
    path = tmp_path_factory.mktemp("mcu") / "network.onnx"
    qcompiler.compile(network(), "mcu", calibration=feeds, format=request.param, output=path, cache=False, keep=True)
    return io.load(Path(path))


def lowered(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph if node.domain == DOMAIN]


def operands(node: ir.Node) -> dict[str, ir.Value]:
    named = zip(operators()[node.op_type].inputs, node.inputs, strict=False)
    return {name: value for name, value in named if value is not None}


def attribute(node: ir.Node, name: str) -> int:
    return node.attributes[name].as_int()


def for_every(check: Callable[[ir.Node], None], model: ir.Model) -> None:
    nodes = lowered(model)
    assert len(nodes) >= 12
    for node in nodes:
        check(node)


def test_everything_is_lowered(compiled: ir.Model) -> None:
    families = {family(node.op_type) for node in lowered(compiled)}
    assert {"QConv", "QConvTranspose", "QAdd", "QMul", "QAveragePool", "QGlobalAveragePool", "QGemm"} <= families
    assert {"QSoftmax", "QLookup"} <= families
    rest = {node.op_type for node in compiled.graph if node.domain != DOMAIN}
    assert rest <= {"QuantizeLinear", "DequantizeLinear", "Concat", "MaxPool", "Flatten", "Reshape"}


def test_offsets(compiled: ir.Model) -> None:
    def check(node: ir.Node) -> None:
        for name in node.attributes:
            if not name.endswith("_zero_point"):
                continue
            side = name.removesuffix("_zero_point")
            dtype = ir.DataType(attribute(node, "to")) if side == "y" else operands(node)[side].dtype
            zero = attribute(node, name)
            if dtype == ir.DataType.INT16:
                assert zero == 0, node.name
            else:
                assert -127 <= -zero <= 128, node.name
                assert -128 <= zero <= 127, node.name

    for_every(check, compiled)


def test_activation_ranges(compiled: ir.Model) -> None:
    def check(node: ir.Node) -> None:
        if "low" in node.attributes:
            limits = np.iinfo(ir.DataType(attribute(node, "to")).numpy())
            assert limits.min <= attribute(node, "low") < attribute(node, "high") <= limits.max, node.name

    for_every(check, compiled)


def normal_form(multiplier: int, shift: int) -> tuple[int, int]:
    """The same factor with a multiplier in [2^30, 2^31)."""
    missing = 31 - multiplier.bit_length()
    return multiplier << missing, shift + missing


def test_multipliers_and_shifts(compiled: ir.Model) -> None:
    sums = {item.node: item for item in accumulators(compiled, MCU.integer)}

    def check(node: ir.Node) -> None:
        given = operands(node)
        scales = [(name, array(value)) for name, value in given.items() if name.endswith("multiplier")]
        shifts = array(given["shift"]) if "shift" in given else None
        known = sums.get(str(node.name))
        for name, factors in scales:
            assert factors is not None
            assert shifts is not None
            pairs = zip(*(item.reshape(-1).tolist() for item in np.broadcast_arrays(factors, shifts)), strict=True)
            for multiplier, total in pairs:
                assert multiplier > 0, (node.name, name)
                if "Wide" in node.op_type and known is not None and known.bits > 32:
                    assert max(known.high, -known.low) < WIDE_SUM, node.name
                    assert multiplier < 1 << 15, (node.name, name)
                    assert -31 <= 15 - total <= 7, (node.name, name)
                else:
                    normal, whole = normal_form(multiplier, total)
                    assert 1 << 30 <= normal < 1 << 31, (node.name, name)
                    assert -31 <= 31 - whole <= 30, (node.name, name)

    for_every(check, compiled)


def test_weights_and_biases(compiled: ir.Model) -> None:
    def check(node: ir.Node) -> None:
        given = operands(node)
        if "w" not in given:
            return
        weight, bias = array(given["w"]), given["bias"]
        assert weight is not None
        if "Packed" in node.op_type:
            assert attribute(node, "bits") <= 4
        else:
            assert (weight >= -127).all(), node.name
        wide = given["x"].dtype == ir.DataType.INT16
        assert bias.dtype == (ir.DataType.INT64 if wide else ir.DataType.INT32), node.name
        if family(node.op_type) == "QGemm":
            factors = array(given["multiplier"])
            assert factors is not None
            assert np.unique(factors).size == 1, f"{node.name}: fully connected layers have one multiplier"

    for_every(check, compiled)


def test_kernels_have_one_type(compiled: ir.Model) -> None:
    def check(node: ir.Node) -> None:
        if family(node.op_type) not in ("Requantize", "QLookup"):
            kinds = {value.dtype for name, value in operands(node).items() if name in ("x", "a", "b")}
            assert kinds == {ir.DataType(attribute(node, "to"))}, node.name

    for_every(check, compiled)


def meaning(value: ir.Value | None) -> tuple[float, int]:
    """Scale and zero point of a tensor of codes; through operators that move codes."""
    while value is not None:
        found = annotation(value)
        producer = value.producer()
        if found is not None:
            return found.scale, found.zero_point
        assert producer is not None
        if producer.op_type == "QuantizeLinear":
            scale, zero = array(producer.inputs[1]), array(producer.inputs[2])
            assert scale is not None
            assert zero is not None
            return float(scale), int(zero)
        value = producer.inputs[0]
    raise AssertionError("nothing is read")


def test_pooling_keeps_its_scale(compiled: ir.Model) -> None:
    pools = [node for node in lowered(compiled) if family(node.op_type) in ("QAveragePool", "QGlobalAveragePool")]
    assert len(pools) == 2
    for node in pools:
        assert meaning(node.inputs[0]) == meaning(node.outputs[0]), node.name


def test_softmax_and_sigmoid_write_their_own_scales(compiled: ir.Model) -> None:
    for node in lowered(compiled):
        if family(node.op_type) == "QSoftmax":
            eight = node.outputs[0].dtype == ir.DataType.INT8
            assert meaning(node.outputs[0]) == ((2.0**-8, -128) if eight else (2.0**-15, 0))
        if family(node.op_type) == "QLookup":
            if node.outputs[0].dtype == ir.DataType.INT8:  # a table may hold a rescale to 16 bits, too
                assert meaning(node.outputs[0]) == (2.0**-8, -128)
            table = array(operands(node)["table"])
            assert table is not None
            assert table.shape == (256,)


@given(
    st.integers(-(2**31), 2**31 - 1),
    st.integers(1 << 14, (1 << 31) - 1),
    st.integers(1, 62),
)
def test_single_rounding_is_ours(accumulator: int, multiplier: int, shift: int) -> None:
    """``arm_nn_requantize`` with CMSIS_NN_USE_SINGLE_ROUNDING shifts all but one bit, adds 1, and shifts once more."""
    normal, total = normal_form(multiplier, shift)
    if total > 62:
        return
    theirs = (((accumulator * normal) >> (total - 1)) + 1) >> 1
    product = accumulator * multiplier
    if abs(product) + (1 << (shift - 1)) < 1 << 62:
        assert int(dyadic.round_shift(np.array(product), shift)) == theirs
