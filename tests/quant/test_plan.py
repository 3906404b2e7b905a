"""plan.json: what is dumped comes back, and what a user may get wrong is named."""

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.errors import UsageError
from qcompiler.ir.edit import Edit
from qcompiler.pipeline.base import Context
from qcompiler.quant import plan, plan_file, state
from qcompiler.quant.format import QFormat
from qcompiler.quant.log_grids import Grid
from qcompiler.quant.params import QParams
from qcompiler.quant.state import FLOAT, NodeDecision, TensorQuant


def _model() -> ir.Model:
    return ir.from_onnx_text(
        """
        <ir_version: 10, opset_import: ["" : 21]>
        g (float[1, 2] x) => (float[1, 3] y)
        <float[2, 3] w = {1, 2, 3, 4, 5, 6}>
        {
            [product] h = MatMul (x, w)
            [soft] y = Softmax (h)
        }
        """
    )


def _decided() -> ir.Model:
    model = _model()
    product, soft = model.graph
    scale = np.array([0.1, 0.2, 1 / 3], np.float32)
    state.set_value_quant(model.graph.inputs[0], TensorQuant(QFormat.parse("u8"), _params(0.1, 128), tie="x"))
    state.set_value_quant(
        model.graph.initializers["w"],
        TensorQuant(QFormat.parse("i8/sym/axis=1"), QParams(scale, np.zeros(3, np.int32))),
    )
    state.set_value_quant(product.outputs[0], TensorQuant(QFormat.parse("u8")))
    state.set_edge_quant(soft, 0, FLOAT)
    state.set_node_decision(product, NodeDecision(True))
    state.set_node_decision(soft, NodeDecision(False, "no rule"))
    return model


def _params(scale: float, zero: int) -> QParams:
    return QParams(np.array(scale, np.float32), np.array(zero, np.int32))


def _apply(entry: dict[str, object]) -> Context:
    model = _model()
    ctx = Context(Edit(model))
    plan.apply(model, entry, ctx)
    return ctx


def test_scales_that_are_powers_of_two_stay_what_they_are() -> None:
    entry = {"format": "i8/pot", "scale": 2.0**-7, "zero_point": -3}
    model = _model()
    plan.apply(model, {"schema": 1, "nodes": {}, "values": {"x": entry}}, Context(Edit(model)))
    assert plan.dump(model)["values"] == {"x": entry}
    with pytest.raises(UsageError, match="a scale is no power of two, as i8/pot wants"):
        _apply({"schema": 1, "values": {"x": entry | {"scale": 0.01}}})


def test_a_log_format_has_a_grid() -> None:
    entry = {"format": "log4", "grid": {"kind": "shift-uniform-log2", "span": 0.98, "shift": 0.0156}}
    model = _model()
    plan.apply(model, {"schema": 1, "values": {"h": entry, "x": {"format": "log3"}}}, Context(Edit(model)))
    assert plan.dump(model)["values"] == {"x": {"format": "log3"}, "h": entry}
    quant = state.value_quant(model.graph.node("product").outputs[0])
    assert quant is not None
    assert quant.params is not None
    assert quant.params.grid == Grid("shift-uniform-log2", 4, 0.98, shift=0.0156)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"format": "log4", "scale": 0.1}, "log4 has a grid, neither scale nor zero point"),
        ({"format": "i8", "grid": {"kind": "uniform", "span": 1.0}}, "i8 has no grid"),
        ({"format": "log4", "grid": "uniform"}, "a table is expected here"),
        ({"format": "log4", "grid": {"kind": "unifrom", "span": 1.0}}, "is no kind of grid"),
        ({"format": "log4", "grid": {"kind": "uniform", "span": -1.0}}, "a grid spans"),
    ],
)
def test_a_grid_is_checked(entry: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        _apply({"schema": 1, "values": {"x": entry}})
    assert str(raised.value.where).startswith("values.x")
    with pytest.raises(UsageError, match="log4 is for tensors that are computed"):
        _apply({"schema": 1, "values": {"w": {"format": "log4"}}})


def test_a_log_format_on_an_edge_needs_its_grid() -> None:
    def on_edge(edge: dict[str, object]) -> dict[str, object]:
        return {"schema": 1, "nodes": {"soft": {"integer": True, "edges": {"0": edge}}}}

    _apply(on_edge({"format": "log4", "grid": {"kind": "log2", "span": 1.0}}))
    with pytest.raises(UsageError, match="a log format on an edge needs its grid") as raised:
        _apply(on_edge({"format": "log4"}))
    assert raised.value.where == "nodes.soft.edges.0"
    assert "under 'values'" in str(raised.value.hint)


def test_numbers_that_no_float_holds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="scale and zero_point do not fit"):
        _apply({"schema": 1, "values": {"x": {"format": "u8", "scale": 10**400}}})
    (tmp_path / "plan.json").write_text(f'{{"schema": 1{"0" * 5000}}}')
    with pytest.raises(UsageError, match="the plan is not JSON"):
        plan_file.load(str(tmp_path / "plan.json"))


def test_a_plan_survives_the_file() -> None:
    first = plan.dump(_decided())
    model = _model()
    plan.apply(model, json.loads(json.dumps(first)), Context(Edit(model)))
    assert plan.dump(model) == first
    weights = state.value_quant(model.graph.initializers["w"])
    assert weights is not None
    assert weights.params is not None
    assert weights.params.scale[2] == np.float32(1 / 3)
    assert state.own_edge_quant(model.graph.node("soft"), 0) is FLOAT


def test_scales_are_written_short() -> None:
    assert plan.dump(_decided())["values"]["x"] == {"format": "u8", "scale": 0.1, "zero_point": 128, "tie": "x"}


def test_a_node_the_plan_leaves_out_stays_float_and_is_told() -> None:
    ctx = _apply({"schema": 1, "nodes": {"product": {"integer": True}}, "values": {}})
    assert [skip.node for skip in ctx.records[0].skips] == ["soft (Softmax)"]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"schema": 2}, ["schema 2", "reads schema 1"]),
        ({"schema": 1, "vlues": {}}, ["vlues", "did you mean 'values'"]),
        ({"schema": 1, "nodes": {"prodct": {"integer": True}}}, ["prodct", "did you mean 'product'"]),
        ({"schema": 1, "nodes": {"product": {"integer": 1}}}, ["true or false", "nodes.product"]),
        ({"schema": 1, "nodes": {"product": {"integer": True, "operator": "Conv"}}}, ["Conv", "MatMul"]),
        ({"schema": 1, "nodes": {"product": {"integer": True, "edges": {"7": "float"}}}}, ["'7'", "0 to 1"]),
        ({"schema": 1, "values": {"ww": {"format": "u8"}}}, ["ww", "did you mean 'w'"]),
        ({"schema": 1, "values": {"w": {}}}, ["format", "values.w"]),
        ({"schema": 1, "values": {"w": {"format": "x8"}}}, ["x8", "values.w"]),
        ({"schema": 1, "values": {"w": {"format": "u8", "scale": 0}}}, ["positive", "values.w"]),
        ({"schema": 1, "values": {"w": {"format": "u8", "scale": [1, 2]}}}, ["one scale"]),
        ({"schema": 1, "values": {"w": {"format": "i8/sym/axis=1", "scale": [1, 1]}}}, ["3 scales"]),
        ({"schema": 1, "values": {"w": {"format": "u8", "scale": 1, "zero_point": 256}}}, ["zero point", "0 to 255"]),
        ({"schema": 1, "values": {"w": {"format": "u8", "scale": 1, "zero_point": 1.5}}}, ["integers"]),
        ({"schema": 1, "values": {"w": {"format": "u8", "zero_point": 1}}}, ["without 'scale'"]),
        ({"schema": 1, "values": {"w": {"format": "u8", "scale": "a"}}}, ["do not fit"]),
        ({"schema": 1, "values": []}, ["table", "values"]),
    ],
)
def test_a_wrong_plan_is_refused_with_the_place(entry: dict[str, object], words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        _apply(entry)
    for word in words:
        assert word in str(caught.value)
