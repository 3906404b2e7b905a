"""Costs of models with open dimensions: budgets, plans and the float model are bound to the same sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.analysis.group_costs import BOPS, MEMORY
from qcompiler.calibration import data
from qcompiler.calibration.data import inputs_of
from qcompiler.ir.edit import Edit
from qcompiler.passes.allocate._open_shapes import bound_copy, input_shapes, shapes_text
from qcompiler.passes.allocate.choose_formats import ChooseFormats
from qcompiler.passes.allocate.format_marks import ALLOCATION
from qcompiler.passes.allocate.group_costs import plan_costs
from qcompiler.passes.allocate.groups import TieGroup
from qcompiler.passes.allocate.roundings import affordable_rounding
from qcompiler.pipeline.base import Context
from qcompiler.pipeline.spec import parse
from qcompiler.target.load import load

REST = "assign-formats,calibrate,calibrate-weights,place-qdq"


def network(shape: str = "N,S,32") -> ir.Model:
    """Three products of matrices on a sequence whose length is open."""
    proto = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 21]> g (float[{shape}] x)
        => (float[N,S,32] y) {{
       a = MatMul (x, w1)
       b = Relu (a)
       c = MatMul (b, w2)
       d = Relu (c)
       y = MatMul (d, w3) }}""")
    rng = np.random.default_rng(0)
    for name in ("w1", "w2", "w3"):
        weight = rng.normal(size=(32, 32)).astype(np.float32) / 6
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def samples(model: ir.Model, lengths: list[int]) -> data.Dataset:
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.normal(size=(1, length, 32)).astype(np.float32)} for length in lengths]
    return data.load(feeds, inputs_of(model))


def chosen(budget: str, lengths: list[int]) -> tuple[dict[str, float], dict[str, float], Context]:
    """Budgets and costs of the plan, and what was said."""
    model = network()
    ctx = Context(
        Edit(model), target=load("lowbit-cpu"), format="w8a8", calibration=samples(model, lengths),
        following=parse(REST),
    )  # fmt: skip
    ChooseFormats(candidates=("w8a8", "w4a8", "w2a8"), budget=budget).run(model, ctx)
    record: Any = model.meta[ALLOCATION]
    return dict(record.budgets), dict(record.costs), ctx


@pytest.mark.parametrize("length", [1, 5, 24])
def test_a_share_of_bit_operations_is_of_the_same_samples(length: int) -> None:
    budgets, costs, _ = chosen("bops=0.05x", [3, length] * 6)
    largest = max(3, length)
    assert budgets[BOPS] == pytest.approx(0.05 * 3 * largest * 32 * 32 * 32 * 32)
    assert 0 < costs[BOPS] <= budgets[BOPS]
    assert costs[BOPS] % (largest * 32 * 32 * 8) == 0


def test_a_share_of_memory_is_of_the_same_samples() -> None:
    budgets, costs, _ = chosen("memory=0.5x", [9] * 8)
    assert budgets[MEMORY] == 0.5 * 2 * 9 * 32 * 4  # two real tensors live at once
    assert 0 < costs[MEMORY] <= budgets[MEMORY]


def test_the_lengths_are_said_where_a_dimension_is_open() -> None:
    _, _, ctx = chosen("bops=0.5x", [4, 11] * 4)
    notes = [note.text for note in ctx.records[-1].notes]
    assert any("costs are those of x [1, 11, 32]" in text for text in notes)
    closed = network("1,7,32")
    assert shapes_text(closed, input_shapes(closed, None)) == ""


def test_without_samples_lengths_are_made_up() -> None:
    model = network()
    assert input_shapes(model, None) == {"x": (1, 16, 32)}
    plan = {str(node.name): "w4a8" for node in model.graph}
    made_up, given = (
        plan_costs(model, load("lowbit-cpu"), plan, "w8a8", shapes=shapes) for shapes in (None, {"x": (1, 48, 32)})
    )
    assert given[BOPS] == 3 * made_up[BOPS]


def test_dimensions_without_a_name_are_independent() -> None:
    model = network()
    model.graph.inputs[0].shape = ir.Shape([None, None, 32])
    for node in model.graph:
        node.outputs[0].shape = ir.Shape([None, None, 32])
    bound = bound_copy(model, {"x": (2, 5, 32)})
    assert [list(value.shape or ()) for node in bound.graph for value in node.outputs] == [[2, 5, 32]] * 5
    assert not model.graph.inputs[0].shape.is_static()


def test_products_of_activations_have_no_weight_that_is_rounded() -> None:
    model = network()
    square = ir.node("MatMul", [model.graph.inputs[0], model.graph.inputs[0]], name="square")
    model.graph.append(square)
    groups = [TieGroup(str(node.name), (str(node.name),), 0, ("w8a8", "w4a8")) for node in model.graph]
    assert affordable_rounding(model, groups) == "gptq"
    assert affordable_rounding(model, groups[-1:]) == "nearest"


def test_equal_names_have_the_largest_length_of_all_inputs() -> None:
    inputs = {"a": (np.dtype(np.float32), ("N", "S")), "b": (np.dtype(np.float32), ("N", "S", 2))}
    feeds = [{"a": np.zeros((1, n), np.float32), "b": np.zeros((1, n, 2), np.float32)} for n in (2, 7, 3)]
    assert data.load(feeds, inputs).largest_shapes() == {"a": (1, 7), "b": (1, 7, 2)}
