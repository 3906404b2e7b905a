"""From float products to QMatMulWeightOnly: what the file holds is what was calibrated, and computes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from qcompiler.ir import interop
from qcompiler.ir.constants import array
from qcompiler.ir.edit import Edit
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.calibrate.calibrate_weights import CalibrateWeights
from qcompiler.passes.finalize.finalize import Finalize
from qcompiler.passes.lower.lower_weight_only import LowerWeightOnly
from qcompiler.passes.place.place_qdq import PlaceQdq
from qcompiler.pipeline.base import Context
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.quant.integer.weight_only import whole_weight
from qcompiler.quant.packing import unpack
from qcompiler.runtime import interpret
from qcompiler.target.legality import check_model
from qcompiler.target.load import load

TARGET = load("lowbit-cpu")


@dataclass
class Lowered:
    """A model as Q/DQ pairs and as integer operators."""

    pairs: onnx.ModelProto
    model: ir.Model
    ctx: Context

    @property
    def proto(self) -> onnx.ModelProto:
        return interop.to_proto(self.model)

    @property
    def nodes(self) -> list[ir.Node]:
        return [node for node in self.model.graph if node.domain == DOMAIN]


def lowered(body: str, inputs: str, weights: Mapping[str, NDArray[Any]], text: str) -> Lowered:
    header = '<ir_version: 10, opset_import: ["" : 21]>'
    proto = onnx.parser.parse_model(f"{header} g ({inputs}) => (float[M, N] y) {{ {body} }}")
    for name, content in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(content, name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"n{index}"
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    ctx = Context(Edit(model), target=TARGET, format=text)
    for item in (AssignFormats(), CalibrateWeights(), PlaceQdq()):
        item.run(model, ctx)
    pairs = interop.to_proto(model)
    for item in (LowerWeightOnly(), Finalize()):
        item.run(model, ctx)
    return Lowered(pairs, model, ctx)


def run(proto: onnx.ModelProto, x: NDArray[np.float32], *, plain: bool = False) -> NDArray[np.float32]:
    """What ONNX Runtime computes; ``plain``: as written, where it would fuse pairs into kernels that approximate."""
    options = ort.SessionOptions()
    if plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(None, {"x": x})[0]
    return result


def stored_weight(node: ir.Node) -> NDArray[np.float64]:
    """The real weight ``[N, K]`` that a node holds."""
    _, w, multiplier, scale, zero = (array(value) for value in node.inputs)
    assert w is not None
    assert multiplier is not None
    assert scale is not None
    assert zero is not None
    bits, block = node.attributes.get_int("bits", 0), node.attributes.get_int("block", 0)
    shape = tuple(node.attributes["weight_shape"].as_ints())
    codes = unpack(np.asarray(w), bits, shape)
    whole = whole_weight(codes, np.asarray(multiplier), np.asarray(zero), block)
    return whole * scale.astype(np.float64)[:, None]


FORMATS = ["w8", "w4", "w3", "w2", "w4/sym", "w2/sym", "w8/sym", "w4/channel", "w3/block=16", "w4/block=64"]
BODIES = {
    "MatMul": ("y = MatMul (x, w)", False, False),
    "Gemm": ("y = Gemm (x, w, b)", False, True),
    "Gemm turned": ("y = Gemm <transB = 1> (x, w, b)", True, True),
    "MatMul, Add": ("p = MatMul (x, w) y = Add (p, b)", False, True),
}


@pytest.mark.parametrize("text", FORMATS)
@pytest.mark.parametrize("kind", BODIES)
def test_the_operator_holds_the_weight_of_the_pairs_and_computes_with_it(kind: str, text: str) -> None:
    body, turned, biased = BODIES[kind]
    random = np.random.default_rng(len(kind) + len(text))
    depth, rows = int(random.choice([20, 100, 150])), 9
    matrix = random.normal(0, 1, (rows, depth)).astype(np.float32) * np.exp(random.normal(0, 1, (rows, 1)))
    weights = {"w": np.ascontiguousarray(matrix if turned else matrix.T, np.float32)}
    if biased:
        weights["b"] = random.normal(0, 1, rows).astype(np.float32)
    found = lowered(body, f"float[M, {depth}] x", weights, text)
    assert [node.op_type for node in found.nodes] == ["QMatMulWeightOnly"]
    assert not any(node.op_type in ("DequantizeLinear", "MatMul", "Gemm") for node in found.model.graph)
    node, bits = found.nodes[0], int(text[1])
    assert node.attributes.get_int("bits", 0) <= bits
    assert found.model.graph.outputs[0].name == "y"
    if "sym" in text:
        assert node.inputs[4] is not None
        assert tuple(node.inputs[4].shape or ()) == (1, 1)
    # What the Q/DQ form dequantizes is bit for bit what the operator multiplies.
    unit = np.eye(depth, dtype=np.float32)
    bias = weights.get("b", np.zeros(rows, np.float32))
    np.testing.assert_allclose(run(found.pairs, unit, plain=True) - bias, stored_weight(node).T, rtol=1e-6, atol=1e-6)
    x = random.normal(0, 1, (7, depth)).astype(np.float32)
    result = run(found.proto, x)
    np.testing.assert_array_equal(result, interpret(found.proto, {"x": x})[0])
    error = np.abs(result - run(found.pairs, x, plain=True))
    step = np.abs(x).max(axis=1, keepdims=True) / 127
    assert (error <= step / 2 * np.abs(stored_weight(node)).sum(axis=1) + 1e-3).all()
    assert check_model(found.model, TARGET) == []


def test_codes_are_exact_products_of_a_row_scale_and_an_integer() -> None:
    """The pairs' float scales are those of the operator without rounding."""
    weights = {"w": np.random.default_rng(0).normal(0, 1, (96, 5)).astype(np.float32)}
    found = lowered("y = MatMul (x, w)", "float[M, 96] x", weights, "w4")
    multiplier, scale = array(found.nodes[0].inputs[2]), array(found.nodes[0].inputs[3])
    assert multiplier is not None
    assert scale is not None
    pairs = ir.from_proto(found.pairs)
    dequantizer = next(node for node in pairs.graph if node.op_type == "DequantizeLinear")
    stored = array(dequantizer.inputs[1])
    assert stored is not None
    np.testing.assert_array_equal(stored.T, scale.astype(np.float64)[:, None] * multiplier)
    assert (multiplier.max(axis=1) == 2047).all()


def test_ternary_weights_hold_three_codes() -> None:
    weights = {"w": np.random.default_rng(0).normal(0, 1, (64, 5)).astype(np.float32)}
    node = lowered("y = MatMul (x, w)", "float[M, 64] x", weights, "w2/sym").nodes[0]
    codes = unpack(np.asarray(array(node.inputs[1])), 2, (5, 64))
    assert set(np.unique(codes)) == {-1, 0, 1}


def test_a_weight_of_zeros_gives_zeros() -> None:
    found = lowered("y = MatMul (x, w)", "float[M, 64] x", {"w": np.zeros((64, 3), np.float32)}, "w4")
    x = np.random.default_rng(1).normal(0, 1, (2, 64)).astype(np.float32)
    np.testing.assert_array_equal(run(found.proto, x), np.zeros((2, 3)))


TIED = "e = Gather (w, i) s = Add (x, e) y = Gemm <transB = 1> (s, w)"


def test_a_small_table_stays_float_for_who_looks_it_up() -> None:
    table = np.random.default_rng(2).normal(0, 1, (30, 64)).astype(np.float32)
    found = lowered(TIED, "float[M, 64] x, int64[M] i", {"w": table}, "w4")
    assert [node.op_type for node in found.model.graph] == ["Gather", "Add", "QMatMulWeightOnly"]
    np.testing.assert_array_equal(array(next(iter(found.model.graph)).inputs[0]), table)
    assert any("'w' is kept in float as well: n0 (Gather)" in note.text for note in found.ctx.records[0].notes)


def test_rows_of_a_table_are_looked_up_as_codes_with_the_same_bits() -> None:
    table = np.random.default_rng(2).normal(0, 1, (100, 64)).astype(np.float32)
    table[7] = 0  # the row of a padding token
    found = lowered(TIED, "float[M, 64] x, int64[M] i", {"w": table}, "w4")
    operators = ["Gather", "Cast", "Gather", "Mul", "Add", "QMatMulWeightOnly"]
    assert [node.op_type for node in found.model.graph] == operators
    names = found.model.graph.initializers
    assert "w" not in names
    assert [tuple(value.shape or ()) for value in names.values()].count((100, 64)) == 1
    feed = {"x": np.zeros((100, 64), np.float32), "i": np.arange(100)}
    rows = [looked_up(proto, feed) for proto in (found.pairs, found.proto)]
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_allclose(rows[0], table, atol=np.abs(table).max() / 254 * 1.01)
    np.testing.assert_array_equal(rows[0][7], 0)
    assert check_model(found.model, TARGET) == []


def looked_up(proto: onnx.ModelProto, feed: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """What Add gives, the looked up rows where x is 0."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    copy.graph.output.append(onnx.helper.make_tensor_value_info("s", onnx.TensorProto.FLOAT, None))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(["s"], feed)[0]
    return result


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bits": 9}, "its weights have one of"),
        ({"block": 24}, "blocks of 24, the target takes"),
        ({"block": 20}, "multiple of 8"),
        ({"weight_shape": [5, 100]}, "its block_multiplier is uint16 [5, 4]"),
    ],
)
def test_files_that_break_the_rules_are_not_legal(change: dict[str, Any], words: str) -> None:
    weights = {"w": np.random.default_rng(0).normal(0, 1, (96, 5)).astype(np.float32)}
    found = lowered("y = MatMul (x, w)", "float[M, 96] x", weights, "w4")
    node = found.nodes[0]
    if change == {"block": 24}:  # as many multipliers as such blocks need
        for index in (2, 4):
            constant = array(node.inputs[index])
            assert constant is not None
            found.ctx.edit.set_constant(node.inputs[index], np.repeat(constant[:, :2], 2, axis=1))
    for name, value in change.items():
        found.ctx.edit.set_attribute(node, name, value)
    assert words in " ".join(str(item) for item in check_model(found.model, TARGET))


def test_targets_without_such_kernels_refuse_the_operator() -> None:
    weights = {"w": np.random.default_rng(0).normal(0, 1, (96, 5)).astype(np.float32)}
    model = lowered("y = MatMul (x, w)", "float[M, 96] x", weights, "w4").model
    found = check_model(model, load("edge-npu"))
    assert any("edge-npu has no kernel for real activations" in str(item) for item in found)
