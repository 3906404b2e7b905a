"""Ranges of codes: clamps are found behind movers, and nothing is claimed that does not hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from qcompiler.analysis.code_ranges import CodeRanges, limits
from qcompiler.quant.integer import dyadic
from qcompiler.quant.integer.gather import gather
from qcompiler.quant.packing import pack

_TEXT = """
<ir_version: 10, opset_import: ["" : 21, "ai.qcompiler" : 1]>
agraph (int8[2, 3, 4, 4] x) => (int8[2, 3, 4, 4] y) <{constants}> {{
{body}
}}
"""

_CLAMPED = """
m = Constant <value_ints = [1]> ()
s = Constant <value = uint8 {3}> ()
c = ai.qcompiler.RequantizeShift <x_zero_point = 0, y_zero_point = 0, to = 3, low = -5, high = 77> (x, s)
"""


def _model(parse: Callable[[str], ir.Model], body: str, constants: str = "int8[1] unused = {0}") -> ir.Model:
    model = parse(_TEXT.format(body=body, constants=constants))
    for node in model.graph:  # types that shape inference would give
        for value in node.outputs:
            if value.type is None:
                value.type = ir.TensorType(ir.DataType.INT64 if node.op_type == "Constant" else ir.DataType.INT8)
    return model


def _range(model: ir.Model) -> tuple[int, int] | None:
    return CodeRanges().of(model.graph.outputs[0])


def test_a_clamp_is_found_behind_movers(parse: Callable[[str], ir.Model]) -> None:
    body = _CLAMPED + "t = Transpose <perm = [0, 1, 3, 2]> (c)\nr = Relu (t)\ny = MaxPool <kernel_shape = [1, 1]> (r)"
    assert _range(_model(parse, body)) == (0, 77)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = Concat <axis = 0> (c, x)", (-128, 127)),
        ("y = Concat <axis = 0> (c, k)", (-20, 90)),
        ("y = Max (c, k)", (-5, 90)),
        ("y = Min (c, k)", (-20, 77)),
        ("y = Clip (c, lo)", (-3, 77)),
        ("y = Pad (c, p)", (-5, 77)),
        ("y = Pad (c, p, fill)", (-5, 100)),
        ("y = Neg (c)", (-128, 127)),
        ('y = Resize <mode = "cubic"> (c, , , p)', (-128, 127)),
        ('y = Resize <mode = "nearest"> (c, , , p)', (-5, 77)),
        ("y = Cast <to = 3> (c)", (-5, 77)),
    ],
)
def test_rules(parse: Callable[[str], ir.Model], body: str, expected: tuple[int, int]) -> None:
    constants = "int8[2] k = {-20, 90}, int8 lo = {-3}, int64[8] p = {0,0,0,0,0,0,0,1}, int8 fill = {100}"
    assert _range(_model(parse, _CLAMPED + body, constants)) == expected


def test_both_parts_of_a_split_and_only_the_values_of_a_topk(parse: Callable[[str], ir.Model]) -> None:
    body = _CLAMPED + "a, y = Split <num_outputs = 2> (c)\nk = Constant <value_ints = [1]> ()\nv, i = TopK (c, k)"
    model = _model(parse, body)
    assert _range(model) == (-5, 77)
    values, indices = next(node for node in model.graph if node.op_type == "TopK").outputs
    indices.type = ir.TensorType(ir.DataType.INT64)
    known = CodeRanges()
    assert known.of(values) == (-5, 77)
    assert known.of(indices) == limits(ir.DataType.INT64)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_rows_of_a_table_are_rescaled_ends_of_its_codes(bits: int) -> None:
    random, half = np.random.default_rng(bits), 1 << (bits - 1)
    chosen = dyadic.choose(random.uniform(0.01, 9, 5), 31, 128)
    ends = np.array([[-half, half - 1, 0]] * 5, np.int8)
    inputs = [np.arange(5), pack(ends, bits), chosen.multiplier, chosen.shift]
    attributes = {"bits": bits, "weight_shape": [5, 3], "y_zero_point": 4, "to": 5, "low": -700, "high": 32767}
    values = [ir.Value(name=f"v{index}", const_value=ir.Tensor(np.asarray(item))) for index, item in enumerate(inputs)]
    for value in values:
        value.type = ir.TensorType(value.const_value.dtype)
    graph = ir.Graph([], [], nodes=[], initializers=values)
    node = ir.node("QGather", values, attributes, domain="ai.qcompiler")
    graph.append(node)
    node.outputs[0].type = ir.TensorType(ir.DataType.INT16)
    codes = gather(*inputs, **attributes)
    assert CodeRanges().of(node.outputs[0]) == (codes.min(), codes.max())
    values[2].const_value = ir.Tensor(-np.asarray(chosen.multiplier))  # no operator then, and no claim
    assert CodeRanges().of(node.outputs[0]) == (-700, 32767)


def test_floats_have_no_range() -> None:
    assert CodeRanges().of(ir.Value(name="f", type=ir.TensorType(ir.DataType.FLOAT))) is None
    assert CodeRanges().of(None) is None
    assert limits(ir.DataType.UINT4) == (0, 15)


_STEPS = st.lists(
    st.sampled_from(
        [
            "Relu ({0})",
            "Max ({0}, k)",
            "Min ({0}, k)",
            "Clip ({0}, lo, hi)",
            "Transpose <perm = [1, 0]> ({0})",
            "Concat <axis = 1> ({0}, {0})",
            "Where (cond, {0}, k)",
            "Gather <axis = 0> ({0}, index)",
        ]
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40, deadline=None)
@given(_STEPS, st.integers(0, 2**32 - 1))
def test_no_run_leaves_the_range(steps: list[str], seed: int) -> None:
    random = np.random.default_rng(seed)
    low, high = sorted(int(item) for item in random.integers(-128, 128, 2))
    constants = (
        f"int8 k = {{{random.integers(-128, 128)}}}, int8 lo = {{{low}}}, int8 hi = {{{high}}}, "
        "bool[1] cond = {0}, int64[2] index = {0, 1}"
    )
    lines = [f"v{index + 1} = {step.format(f'v{index}')}" for index, step in enumerate(steps)]
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]>\n'
        f"g (int8[2, 2] v0) => (int8[a, b] v{len(steps)}) <{constants}> {{\n" + "\n".join(lines) + "\n}"
    )
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    found = CodeRanges().of(model.graph.outputs[0])
    assert found is not None
    result = ReferenceEvaluator(proto).run(None, {"v0": random.integers(-128, 128, (2, 2)).astype(np.int8)})[0]
    assert found[0] <= result.min()
    assert result.max() <= found[1]
