"""Tables with a scale per row: integer and real rows, whatever looks them up, and every Gather that stays one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from qcompiler.ir import facts, interop
from qcompiler.ir.constants import array
from qcompiler.ir.edit import Edit
from qcompiler.passes.lower.fold_requantize import FoldRequantize
from qcompiler.passes.lower.lower_integer import LowerInteger
from qcompiler.passes.lower.lower_weight_only import LowerWeightOnly
from qcompiler.pipeline.base import Context, Fact
from qcompiler.quant.format import QFormat
from qcompiler.quant.packing import unpack
from qcompiler.runtime import interpret
from qcompiler.target.legality import check_model
from qcompiler.target.load import load
from qcompiler.target.schema import Target
from tests.passes.lower.graphs import KINDS, Parameters, operators, reasons, run

BYTE = Parameters(0.05, 3)
WORD = Parameters(0.0004, -300, "i16")


def with_tables(name: str, *forms: str) -> Target:
    """A profile whose Gather lists formats of tables."""
    target = load(name)
    rule = replace(target.operators["Gather"], tables=tuple(map(QFormat.parse, forms)))
    return replace(target, operators={**target.operators, "Gather": rule})


EDGE = with_tables("edge-npu", "i8/sym", "i4/sym", "i3/sym", "i2/sym")


def codes_of(bits: int, rows: int, depth: int, seed: int = 0) -> NDArray[np.int8]:
    half = 1 << (bits - 1)
    codes = np.random.default_rng(seed).integers(-half, half, (rows, depth)).astype(np.int8)
    codes[0, 0] = -half
    return codes


def graph(
    codes: NDArray[np.int8],
    scale: NDArray[np.float32],
    result: Parameters | None = BYTE,
    *,
    indices: str = "int64[N, 3] i",
    gather: str = "y = Gather (r, i)",
    stored: int = 4,
    axis: int = 0,
    zero: bool = True,
) -> ir.Model:
    """``DequantizeLinear -> gather``, then Q/DQ where ``result`` says so."""
    held = [numpy_helper.from_array(np.asarray(scale, np.float32), "s")]
    dtype = onnx.TensorProto.INT4 if stored == 4 else onnx.TensorProto.INT8
    held.append(helper.make_tensor("t_quantized", dtype, codes.shape, codes.ravel().tolist()))
    held.append(helper.make_tensor("z", dtype, scale.shape, [0] * scale.size))
    lines = [f"r = DequantizeLinear <axis = {axis}> (t_quantized, s{', z' if zero else ''})", gather]
    if result is not None:
        held.append(numpy_helper.from_array(np.float32(result.scale), "ys"))
        held.append(numpy_helper.from_array(np.asarray(KINDS[result.kind](result.zero_point)), "yz"))
        lines += ["q = QuantizeLinear (y, ys, yz)", "out = DequantizeLinear (q, ys, yz)"]
    text = f'<ir_version: 10, opset_import: ["" : 21]> g ({indices}) => (float[] {"out" if result else "y"}) '
    proto = onnx.parser.parse_model(text + "{" + "\n".join(lines) + "}")
    proto.graph.initializer.extend(held)
    for node in proto.graph.node:
        node.name = f"{node.op_type}_of_{node.output[0]}"
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def lower(model: ir.Model, target: Target = EDGE) -> Context:
    ctx = Context(edit=Edit(model), target=target)
    LowerInteger().run(model, ctx)
    assert facts.check(Fact.LOWERED, model) == []
    return ctx


def legal(model: ir.Model, target: Target = EDGE) -> list[str]:
    return [violation.reason for violation in check_model(model, target)]


@settings(max_examples=25, deadline=None)
@given(
    bits=st.sampled_from([2, 3, 4, 8]),
    rows=st.integers(1, 12),
    depth=st.integers(1, 20),
    seed=st.integers(0, 1000),
    wide=st.booleans(),
    dtype=st.sampled_from(["int32", "int64"]),
)
def test_rows_of_codes_are_at_most_a_code_from_the_pairs(
    bits: int, rows: int, depth: int, seed: int, wide: bool, dtype: str
) -> None:
    random, result = np.random.default_rng(seed), WORD if wide else BYTE
    codes, scale = codes_of(bits, rows, depth, seed), random.uniform(1e-4, 0.9, rows).astype(np.float32)
    model = graph(codes, scale, result, indices=f"{dtype}[N, 3] i", stored=8 if bits == 8 else 4)
    feed = {"i": random.integers(-rows, rows, (4, 3)).astype(dtype)}
    wanted = run(model, feed, optimize=False)[0]
    ctx = lower(model)
    assert reasons(ctx) == []
    assert operators(model) == ["QGather"]
    found = run(model, feed)[0]
    np.testing.assert_array_equal(found, interpret(interop.to_proto(model), feed)[0])
    assert found.shape == (4, 3, depth)
    assert np.abs(np.rint((found - wanted) / np.float64(result.scale))).max() <= 1
    assert legal(model) == []


@pytest.mark.parametrize(("highest", "bits"), [(1, 2), (2, 3), (3, 3), (7, 4)])
def test_codes_that_are_stored_in_four_bits_are_packed_in_as_few_as_hold_them(highest: int, bits: int) -> None:
    codes = np.array([[highest, -highest, 0], [0, 1, -1]], np.int8)
    model = graph(codes, np.float32([0.5, 0.25]))
    lower(model)
    node = next(node for node in model.graph if node.op_type == "QGather")
    assert node.attributes.get_int("bits", 0) == bits
    assert node.inputs[1] is not None
    assert node.inputs[1].name == "t_packed"
    np.testing.assert_array_equal(unpack(np.asarray(array(node.inputs[1])), bits, (2, 3)), codes)
    assert "t_quantized" not in model.graph.initializers


@pytest.mark.parametrize("axis", ["", "<axis = 0>", "<axis = -2>"])
def test_a_clamp_behind_is_part_of_it(axis: str) -> None:
    model = graph(codes_of(4, 6, 5), np.full(6, 0.3, np.float32), gather=f"u = Gather {axis} (r, i) y = Relu (u)")
    feed = {"i": np.array([[0, -1, 5]])}
    wanted = run(model, feed, optimize=False)[0]
    lower(model)
    assert operators(model) == ["QGather"]
    assert next(iter(model.graph)).attributes.get_int("low", 0) == BYTE.zero_point
    assert np.abs(run(model, feed)[0] - wanted).max() <= BYTE.scale * 1.01


def test_rows_of_zeros_and_scalars_as_indices() -> None:
    codes = codes_of(4, 3, 8)
    codes[1] = 0
    model = graph(codes, np.float32([0.1, 1.0, 0.2]), indices="int64 i")
    lower(model)
    assert operators(model) == ["QGather"]
    np.testing.assert_array_equal(run(model, {"i": np.array(1)})[0], np.zeros(8, np.float32))


@pytest.mark.parametrize("real", [False, True])
def test_a_table_that_two_look_up_is_packed_once(real: bool) -> None:
    gather = "a = Gather (r, i) k = Constant <value_ints = [1]> () b = Gather (r, k) y = Add (a, b)"
    pairs = "".join(f"{name}q = QuantizeLinear ({name}, ys, yz) {name}d = DequantizeLinear ({name}q, ys, yz) "
                    for name in "ab")  # fmt: skip
    body = gather if real else gather.replace("y = Add (a, b)", f"{pairs} y = Add (ad, bd)")
    model = graph(codes_of(4, 5, 8), np.full(5, 0.1, np.float32), None if real else BYTE, gather=body)
    feed = {"i": np.array([[0, -1, 3]])}
    wanted = run(model, feed, optimize=False)[0]
    if real:
        LowerWeightOnly().run(model, Context(edit=Edit(model), target=load("lowbit-cpu")))
    else:
        lower(model)
    assert sum(node.op_type.startswith("QGather") for node in model.graph) == 2
    assert [name for name in model.graph.initializers if "packed" in name] == ["t_packed"]
    assert np.abs(run(model, feed)[0] - wanted).max() <= (0 if real else 2.01 * BYTE.scale)


MOVED: dict[str, dict[str, Any]] = {
    "along the depth": {"gather": "y = Gather <axis = 1> (r, i)"},
    "a scale per column": {"axis": 1, "scale": 6},
    "elements": {"gather": "y = GatherElements (r, i)"},
}


@pytest.mark.parametrize("kind", MOVED)
def test_what_is_no_look_up_of_rows_moves_codes_as_before(kind: str) -> None:
    options = dict(MOVED[kind])
    scale = np.random.default_rng(1).uniform(0.1, 0.3, options.pop("scale", 4)).astype(np.float32)
    model = graph(codes_of(4, 4, 6), scale, **options)
    feed = {"i": np.array([[0, -1, 3]])}
    wanted = run(model, feed, optimize=False)[0]
    assert reasons(lower(model)) == []
    assert "QGather" not in operators(model)
    assert np.abs(run(model, feed)[0] - wanted).max() <= BYTE.scale * 1.01


def test_a_target_that_only_shifts_moves_codes() -> None:
    result = Parameters(0.0625)
    model = graph(codes_of(4, 4, 6), np.float32([0.25, 0.5, 0.03125, 1.0]), result)
    feed = {"i": np.array([[0, -1, 2], [1, 1, 3]])}
    wanted = run(model, feed, optimize=False)[0]
    assert len(np.unique(wanted)) > 10
    assert reasons(lower(model, load("fpga-pot"))) == []
    assert operators(model) == ["Gather", "RequantizeShift"], "of a table of one scale"
    assert np.abs(run(model, feed)[0] - wanted).max() <= result.scale


def test_a_rescale_behind_is_folded_into_the_factors_of_the_rows() -> None:
    pair = "q1 = QuantizeLinear (u, s1, z1) y = DequantizeLinear (q1, s1, z1)"
    model = graph(codes_of(4, 9, 16), np.random.default_rng(2).uniform(0.1, 0.9, 9), WORD,
                  gather=f"s1 = Constant <value = float {{0.0003}}> () z1 = Constant <value = int16 {{0}}> () "
                  f"u = Gather (r, i) {pair}")  # fmt: skip
    feed = {"i": np.arange(9).reshape(3, 3)}
    wanted = run(model, feed, optimize=False)[0]
    ctx = lower(model)
    assert [kind for kind in operators(model) if kind != "Constant"] == ["QGather", "Requantize"]
    FoldRequantize().run(model, ctx)
    assert [kind for kind in operators(model) if kind != "Constant"] == ["QGather"]
    assert np.abs(np.rint((run(model, feed)[0] - wanted) / WORD.scale)).max() <= 1
    assert legal(model) == []


class TestRealRows:
    @pytest.mark.parametrize("bits", [2, 3, 4])
    def test_are_those_of_the_pairs_bit_for_bit(self, bits: int) -> None:
        codes, scale = codes_of(bits, 7, 13), np.random.default_rng(3).uniform(1e-3, 2, 7).astype(np.float32)
        model = graph(codes, scale, None)
        feed = {"i": np.array([[0, -7, 6], [-1, 3, 3]])}
        wanted = run(model, feed, optimize=False)[0]
        target = with_tables("lowbit-cpu", f"i{bits}/sym")
        LowerWeightOnly().run(model, Context(edit=Edit(model), target=target))
        assert [node.op_type for node in model.graph] == ["QGatherWeightOnly"]
        assert next(iter(model.graph)).attributes.get_int("bits", 0) == bits
        assert model.graph.outputs[0].name == "y"
        for found in (run(model, feed)[0], interpret(interop.to_proto(model), feed)[0]):
            np.testing.assert_array_equal(found.view(np.uint32), wanted.view(np.uint32))
        assert legal(model, target) == []

    def test_are_looked_up_only_where_weights_beside_real_activations_may_be(self) -> None:
        model = graph(codes_of(4, 5, 9), np.full(5, 0.1, np.float32), None)
        LowerWeightOnly().run(model, Context(edit=Edit(model), target=load("lowbit-cpu")))
        assert legal(model, load("lowbit-cpu")) == []
        assert legal(model, load("edge-npu")) == ["edge-npu looks up no tables of few bits as real numbers"]

    def test_of_eight_bits_are_looked_up_by_standard_operators(self) -> None:
        model = graph(codes_of(8, 5, 9), np.full(5, 0.1, np.float32), None, stored=8)
        LowerWeightOnly().run(model, Context(edit=Edit(model), target=load("lowbit-cpu")))
        assert [node.op_type for node in model.graph] == ["Gather", "Cast", "Gather", "Mul"]

    def test_of_four_bits_along_columns_stay_as_they_are(self) -> None:
        model = graph(codes_of(4, 5, 9), np.full(9, 0.1, np.float32), None, axis=1)
        LowerWeightOnly().run(model, Context(edit=Edit(model), target=load("lowbit-cpu")))
        assert [node.op_type for node in model.graph] == ["DequantizeLinear", "Gather"]


class TestLegality:
    def lowered(self, **options: Any) -> ir.Model:
        model = graph(codes_of(4, 5, 9), np.full(5, 0.1, np.float32), **options)
        lower(model)
        return model

    @pytest.mark.parametrize(
        ("forms", "reason"),
        [
            (("i3/sym", "i2/sym"), "its table is packed in 4 bits, the target takes 3/2"),
            (("i4/sym/narrow", "i2/sym"), "its table has codes -8 to 7, i4/sym/narrow holds -7 to 7"),
            ((), "edge-npu looks up no tables with a scale per row"),
        ],
    )
    def test_codes_are_those_that_the_profile_lists(self, forms: tuple[str, ...], reason: str) -> None:
        assert legal(self.lowered(), with_tables("edge-npu", *forms)) == [reason]
        assert legal(self.lowered(), with_tables("edge-npu", *forms, "i8/sym/narrow")) == []

    @pytest.mark.parametrize("least", [-128, -127])
    def test_octets_are_codes_of_the_format_as_in_pairs(self, least: int) -> None:
        codes = codes_of(8, 5, 9).clip(least)
        model, target = graph(codes, np.full(5, 0.1, np.float32), stored=8), load("edge-npu")
        reason = f"its {{}} has codes {least} to {codes.max()}, i8/sym/narrow holds -127 to 127"
        assert legal(model, target) == ([reason.format("weight")] if least < -127 else [])
        lower(model)
        assert legal(model, target) == ([reason.format("table")] if least < -127 else [])

    def test_multipliers_and_shifts_are_those_of_the_target(self) -> None:
        arithmetic = replace(EDGE.integer, multiplier_bits=15, shift=(1, 20))
        found = legal(self.lowered(), replace(EDGE, integer=arithmetic))
        assert any("takes 31 bits, the target has 15" in reason for reason in found)
        assert any("the target shifts by 1 to 20" in reason for reason in found)
        found = legal(self.lowered(), load("fpga-pot"))
        assert "the function QGather multiplies to rescale, fpga-pot only shifts" in found

    @pytest.mark.parametrize(
        ("index", "content", "reason"),
        [
            (1, np.zeros((5, 4), np.uint8), "[5, 4] is not a table [5, 9] packed in 4 bits"),
            (2, np.ones(4, np.int32), "its multiplier is [4], a table of 5 rows has [5]"),
            (2, np.full(5, -1, np.int32), "its multiplier is negative (-1)"),
            (3, np.ones((5, 1), np.uint8), "its shift is [5, 1], a table of 5 rows has [5]"),
            (1, None, "its table is not a constant"),
            (0, np.zeros(2, np.int16), "its indices is int16, QGather takes int32 or int64"),
        ],
    )
    def test_constants_are_those_of_the_operator(self, index: int, content: Any, reason: str) -> None:
        model = self.lowered()
        node = next(iter(model.graph))
        value = node.inputs[index]
        assert value is not None
        if content is None:
            node.replace_input_with(index, ir.Value(name="fed", type=ir.TensorType(ir.DataType.UINT8)))
        else:
            made = ir.Value(name="new", const_value=ir.Tensor(content), shape=ir.Shape(content.shape),
                            type=ir.TensorType(ir.DataType.from_numpy(content.dtype)))  # fmt: skip
            model.graph.register_initializer(made)
            node.replace_input_with(index, made)
        assert any(reason in found for found in legal(model)), legal(model)

    @pytest.mark.parametrize(("number", "reason"), [(0.0, "its scale lies in"), (np.inf, "its scale lies in")])
    def test_scales_of_real_rows_are_normal(self, number: float, reason: str) -> None:
        model = graph(codes_of(4, 5, 9), np.full(5, 0.1, np.float32), None)
        target = with_tables("lowbit-cpu", "i4/sym")
        LowerWeightOnly().run(model, Context(edit=Edit(model), target=target))
        assert legal(model, target) == []
        scale = next(iter(model.graph)).inputs[2]
        assert scale is not None
        scale.const_value = ir.Tensor(np.full(5, number, np.float32))
        assert any(reason in found for found in legal(model, target))
