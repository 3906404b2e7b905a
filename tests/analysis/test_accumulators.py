"""Bounds of accumulators against the operators themselves: reached by the worst input, in the specification and in
ONNX Runtime, and never exceeded."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qcompiler.analysis.accumulators import Accumulator, accumulators
from qcompiler.ir import interop
from qcompiler.quant import packing
from qcompiler.quant.functions import catalogue
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.quant.integer.dyadic import Overflow
from qcompiler.target.integer import IntegerArithmetic

Array = NDArray[Any]

_AS_IT_IS = {"y_zero_point": 0, "to": 6, "low": -(2**31), "high": 2**31 - 1}
"""With multiplier 2 and shift 1 the result is the accumulator itself."""

_CONV = {"strides": [1, 1], "dilations": [1, 1], "pads": [0, 0, 0, 0], "group": 1}


def one_layer(op_type: str, weight: Array, bias: Array, clamp: tuple[int, int], **attributes: Any) -> ir.Model:
    """``x`` → clamp to ``[low, high]`` → one linear operator that gives its accumulator."""
    wide, packed = "Wide" in op_type, "Packed" in op_type
    codes = ir.DataType.INT16 if wide else ir.DataType.INT8
    rank = weight.ndim if "Conv" in op_type else 2
    x = ir.Value(name="x", type=ir.TensorType(codes), shape=ir.Shape([None] * rank))
    operand = weight
    if packed:
        attributes |= {"bits": 4, "weight_shape": list(weight.shape)}
        operand = packing.pack(weight, 4)
    elif "Gemm" in op_type:
        operand = np.ascontiguousarray(weight.T)
    bias = bias.astype(np.int64 if wide else np.int32)
    arrays = {
        "w": operand,
        "bias": bias.reshape(-1, *[1] * (rank - 2)) if "Conv" in op_type and "Last" not in op_type else bias,
        "b": np.int32(2),
        "c": np.uint8(1),
    }
    held = {name: ir.Value(name=name, const_value=ir.Tensor(np.asarray(array))) for name, array in arrays.items()}
    for value in held.values():
        assert value.const_value is not None
        value.type, value.shape = ir.TensorType(value.const_value.dtype), ir.Shape(value.const_value.shape)
    bounds = {"x_zero_point": 0, "y_zero_point": 0, "to": codes.value, "low": clamp[0], "high": clamp[1]}
    first = ir.node(
        "Requantize", [x, held["b"], held["c"]], bounds, domain=DOMAIN, name="clamp",
        outputs=[ir.Value(name="clamped", type=x.type, shape=x.shape)],
    )  # fmt: skip
    layer = ir.node(
        op_type, [first.outputs[0], held["w"], held["bias"], held["b"], held["c"]], attributes | _AS_IT_IS,
        domain=DOMAIN, name="layer", outputs=[ir.Value(name="y", type=ir.TensorType(ir.DataType.INT32))],
    )  # fmt: skip
    graph = ir.Graph(
        [x], layer.outputs, nodes=[first, layer], initializers=list(held.values()), opset_imports={"": 21}, name="g"
    )
    model = ir.Model(graph, ir_version=10)
    catalogue.attach(model)
    return model


def found(model: ir.Model, **widths: int) -> Accumulator:
    return next(item for item in accumulators(model, IntegerArithmetic(**widths)) if item.node == "layer")


def run(model: ir.Model, x: Array) -> Array:
    proto = interop.to_proto(model)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: Array = session.run(None, {"x": x})[0]
    return result


KINDS = [
    "QConv",
    "QConvPacked",
    "QConvWide",
    "QConvChannelsLast",
    "QConvChannelsLastPacked",
    "QGemm",
    "QGemmPacked",
    "QGemmWide",
    "QGemmWidePacked",
]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_worst_input_reaches_the_bound_in_specification_and_runtime(kind: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    channels, depth = int(random.integers(1, 5)), int(random.integers(1, 40))
    low, high = sorted(random.integers(-128, 128, 2).tolist())
    if "Wide" in kind:
        low, high = 200 * low, 200 * high
    low, high = min(low, 0), max(high, 0)  # zero inside: partial sums then reach no further than whole ones
    limit = 8 if "Packed" in kind else 128
    weight = random.integers(-limit, limit, (channels, depth))
    bias = random.integers(-20000, 20000, channels)
    shaped = weight.astype(np.int8).reshape(*weight.shape, 1, 1) if "Conv" in kind else weight.astype(np.int8)
    attributes = {**_CONV, "x_zero_point": 0} if "Conv" in kind else {}
    model = one_layer(kind, shaped, bias, (low, high), **attributes)
    bound = found(model)
    dtype = np.int16 if "Wide" in kind else np.int8
    worst = np.concatenate([np.where(weight > 0, low, high), np.where(weight > 0, high, low)]).astype(dtype)
    x = worst.reshape(*worst.shape, 1, 1) if "Conv" in kind else worst
    x = np.moveaxis(x, 1, -1) if "Last" in kind else x
    sums = worst.astype(np.int64) @ weight.T + bias
    specified = _specified(model, x)
    assert (specified.reshape(sums.shape) == sums).all()
    assert (run(model, x).reshape(sums.shape) == sums).all()
    reached = min(sums.min(), 0), max(sums.max(), 0)
    assert bound.low <= reached[0]
    assert reached[1] <= bound.high
    if bound.low < 0 < bound.high and (bias == 0).all():
        assert (bound.low, bound.high) == reached


def _specified(model: ir.Model, x: Array) -> Array:
    layer = model.graph.node(1)
    constants = [value.const_value.numpy() for value in layer.inputs[1:]]  # type: ignore[union-attr]
    attributes = {
        name: list(item.value) if isinstance(item.value, list | tuple) else item.value
        for name, item in layer.attributes.items()
    }
    return catalogue.operators()[layer.op_type].specification(x, *constants, **attributes)


@pytest.mark.parametrize("kind", ["QConv", "QGemm"])
@pytest.mark.parametrize("beyond", [0, 1])
def test_the_last_sum_that_fits_is_exact_and_the_next_is_refused(kind: str, beyond: int) -> None:
    """Two channels whose worst cases are the ends of int32, or one beyond."""
    weight = np.array([[127] * 300, [-128] * 300], np.int8)
    top = 300 * 127 * 127
    bias = np.array([2**31 - 1 - top, -(2**31) + 300 * 128 * 127])
    shaped = weight.reshape(2, 300, 1, 1) if kind == "QConv" else weight
    attributes = {**_CONV, "x_zero_point": 0} if kind == "QConv" else {}
    clamp = (0, 127)
    model = one_layer(kind, shaped, bias + np.array([beyond, -beyond]), clamp, **attributes)
    bound = found(model)
    assert (bound.low, bound.high) == (-(2**31) - beyond, 2**31 - 1 + beyond)
    assert bound.safe is (beyond == 0)
    assert bound.head_room == -beyond
    x = np.full((1, 300, 1, 1) if kind == "QConv" else (1, 300), 127, np.int8)
    if beyond:
        with pytest.raises(Overflow):
            _specified(model, x)
    else:
        exact = [2**31 - 1, -(2**31)]
        assert _specified(model, x).reshape(-1).tolist() == exact
        assert run(model, x).reshape(-1).tolist() == exact


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_random_codes_never_leave_the_bound(seed: int) -> None:
    random = np.random.default_rng(seed)
    weight = random.integers(-128, 128, (3, 2, 2, 2)).astype(np.int8)
    bias = random.integers(-5000, 5000, 3)
    low, high = sorted(random.integers(-128, 128, 2).tolist())
    zero = int(random.integers(-128, 128))
    attributes = {**_CONV, "pads": [1, 0, 1, 1], "x_zero_point": zero}
    model = one_layer("QConv", weight, bias, (low, high), **attributes)
    x = random.integers(low, high + 1, (2, 2, 3, 3)).astype(np.int8)
    sums = _specified(model, x)
    bound = found(model)
    assert bound.low <= sums.min()
    assert sums.max() <= bound.high


def test_widths_and_rooms() -> None:
    weight = np.full((1, 9), 100, np.int8)
    model = one_layer("QGemm", weight, np.array([1000]), (-128, 127))
    bound = found(model, accumulator_bits=16)
    assert (bound.low, bound.high) == (-128 * 900, 127 * 900 + 1000)
    assert (bound.bits, bound.available, bound.head_room, bound.safe) == (18, 16, -2, False)
    assert found(model).head_room == 14
    assert bound.product_bits == (2 * (127 * 900 + 1000) + 1).bit_length()
    wide = one_layer("QGemmWide", weight, np.array([1000]), (-32768, 32767))
    assert found(wide).available == 64
    assert found(wide, wide_accumulator_bits=40).head_room == 40 - 26


def _products(a: tuple[int | str, ...], b: tuple[int | str, ...], kind: str = "QMatMul") -> Accumulator:
    shapes = {"a": a, "b": b}
    values = {
        name: ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.INT8))
        for name, shape in shapes.items()
    }
    constants = [
        ir.Value(name=name, const_value=ir.Tensor(array)) for name, array in (("b1", np.int32(3)), ("c", np.uint8(5)))
    ]
    attributes = {"a_zero_point": 5, "b_zero_point": -128, **_AS_IT_IS}
    node = ir.node(kind, [*values.values(), *constants], attributes, domain=DOMAIN, name="product")
    graph = ir.Graph(
        list(values.values()), node.outputs, nodes=[node], initializers=constants, opset_imports={"": 21}, name="g"
    )
    return accumulators(ir.Model(graph, ir_version=10))[0]


def test_two_activations_are_bounded_by_their_depth() -> None:
    bound = _products((2, 7), (7, 3))
    assert (bound.low, bound.high) == (-133 * 255 * 7, 122 * 255 * 7)
    assert bound.terms is None
    assert _products(("N", "K"), ("K", 3)).terms == (2**31 - 1) // (133 * 255)
    assert _products(("N", "K"), (7, 3)).high == bound.high


X8 = ir.Value(name="x", type=ir.TensorType(ir.DataType.INT8), shape=ir.Shape([2, 3, 4, 5]))
A8 = ir.Value(name="a", type=ir.TensorType(ir.DataType.INT8), shape=ir.Shape([2, 3]))
B16 = ir.Value(name="b", type=ir.TensorType(ir.DataType.INT16), shape=ir.Shape([2, 3]))
OPEN = ir.Value(name="x", type=ir.TensorType(ir.DataType.INT16), shape=ir.Shape(["N", "K"]))
FACTORS = {"multiplier": np.int32(5), "shift": np.uint8(4)}
SUM = {"a_multiplier": np.int32(7), "b_multiplier": np.int32(2), "shift": np.uint8(3)}
ZEROS = {"a_zero_point": 10, "b_zero_point": 0}
PRODUCT = (-138 * 32767, 138 * 32768)  # codes of a less 10: -138 to 117
A_RANGE, B_RANGE = (-138 * 7, 117 * 7), (-32768 * 2, 32767 * 2)
POOL = {"kernel_shape": [2, 3], "strides": [1, 1], "dilations": [1, 1], "pads": [0] * 4, "x_zero_point": -128}
DIGITS = {"left": np.uint8([4, 1]), "negative": np.array([False, True]), "shift": np.uint8(20)}  # 14 * 2^16 * 2^-20
TAPS = {"index": np.int64([[0, 1], [1, 2]]), "weight": np.int32([[3, 5], [-2, 4]]), **FACTORS}
MEAN = {"axes": [2, 3], "keepdims": 1, "x_zero_point": 127}
SOFTMAX = {"x_multiplier": np.int32(3), "x_shift": np.uint8(9), "multiplier": np.int32(1), "shift": np.uint8(1)}

OTHERS = {
    "QAdd": ([A8, B16], SUM, ZEROS, (A_RANGE[0] + B_RANGE[0], A_RANGE[1] + B_RANGE[1]), 63, None),
    "QSub": ([A8, B16], SUM, ZEROS, (A_RANGE[0] - B_RANGE[1], A_RANGE[1] - B_RANGE[0]), 63, None),
    "QMul": ([A8, B16], FACTORS, ZEROS, PRODUCT, 64, None),
    "QAveragePool": ([X8], FACTORS, POOL, (0, 6 * 255), 32, None),
    "QGlobalAveragePool": ([X8], FACTORS, {"x_zero_point": 0}, (-20 * 128, 20 * 127), 32, None),
    "QGlobalAveragePoolShift": ([X8], DIGITS, {"x_zero_point": 0}, (-20 * 128, 20 * 127), 32, None),
    "QReduceMean": ([X8], FACTORS, MEAN, (-20 * 255, 0), 32, None),
    "QReduceMeanWide": ([OPEN], FACTORS, {**MEAN, "axes": [1]}, (-32768 - 127, 32767 - 127), 64, (2**63 - 1) // 32895),
    "QResize": ([X8], TAPS, {"axis": 2, "x_zero_point": 0}, (-128 * 8, 127 * 8), 32, None),
    "QSoftmax": ([X8], SOFTMAX, {"axis": 3}, (0, 5 << 30), 64, None),
    "QSoftmax over an open axis": ([OPEN], SOFTMAX, {"axis": 1}, (0, 1 << 30), 64, (2**63 - 1) >> 30),
}


@pytest.mark.parametrize("case", OTHERS)
def test_every_other_family(case: str) -> None:
    operands, constants, attributes, limits, available, terms = OTHERS[case]
    held = [ir.Value(name=name, const_value=ir.Tensor(np.asarray(array))) for name, array in constants.items()]
    fresh = [ir.Value(name=value.name, type=value.type, shape=value.shape) for value in operands]
    node = ir.node(case.split()[0], [*fresh, *held], {**attributes, **_AS_IT_IS}, domain=DOMAIN, name="node")
    graph = ir.Graph(fresh, node.outputs, nodes=[node], initializers=held, opset_imports={"": 21}, name="g")
    (bound,) = accumulators(ir.Model(graph, ir_version=10))
    assert (bound.low, bound.high) == limits
    assert (bound.available, bound.terms) == (available, terms)
    assert bound.safe
    greatest = max(-bound.low, bound.high)
    if case in ("QAveragePool", "QMul", "QResize", "QGlobalAveragePool"):
        assert bound.product_bits == (greatest * 5 + 8).bit_length()
    if case.endswith("Shift"):
        assert bound.product_bits == (greatest * 14 * 2**16 + 2**19).bit_length()


def test_other_graphs_have_no_accumulators() -> None:
    text = '<ir_version: 10, opset_import: ["" : 21]> g (float[2] x) => (float[2] y) { y = Relu (x) }'
    assert accumulators(ir.from_proto(onnx.parser.parse_model(text))) == []
