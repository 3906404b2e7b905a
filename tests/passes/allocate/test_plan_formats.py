"""Formats by node in a plan: who follows, what is said of the others, and what contradicts other decisions."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.calibration import data
from qcompiler.calibration.data import inputs_of
from qcompiler.errors import UsageError
from qcompiler.ir.edit import Edit
from qcompiler.passes.allocate.apply_plan import ApplyPlan
from qcompiler.passes.allocate.choose_formats import ChooseFormats
from qcompiler.passes.allocate.format_marks import marked
from qcompiler.pipeline.base import Context
from qcompiler.pipeline.spec import parse
from qcompiler.quant import plan as plans
from qcompiler.target.load import load

from .test_assign_formats import parse as model_of


def network() -> ir.Model:
    """Convolutions with an absorbed Relu and a pooling between them, a Softmax at the end."""
    proto = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 21]> g (float[1,3,8,8] x)
        => (float[1,10,4,4] y) {
       a = Conv <pads=[1,1,1,1]> (x, w1)
       b = Relu(a)
       c = MaxPool <kernel_shape=[2,2], strides=[2,2]> (b)
       d = Conv <pads=[1,1,1,1]> (c, w2)
       e = Conv (d, w3)
       y = Softmax <axis=1> (e) }""")
    rng = np.random.default_rng(0)
    for name, shape in {"w1": (16, 3, 3, 3), "w2": (16, 16, 3, 3), "w3": (10, 16, 1, 1)}.items():
        weight = rng.normal(size=shape).astype(np.float32) / 8
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def context(model: ir.Model, form: str, target: str = "edge-npu", exclude: tuple[str, ...] = ()) -> Context:
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(8)]
    dataset = data.load(feeds, inputs_of(model))
    return Context(Edit(model), target=load(target), format=form, calibration=dataset, exclude=exclude)


def followed(
    tmp_path: Path, formats: dict[str, str], form: str = "w8a8", **given: Any
) -> tuple[dict[str, str], list[str]]:
    """Formats by marked node, and what was said."""
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"schema": 1, "formats": formats}))
    model = network()
    ctx = context(model, form, **given)
    ChooseFormats(plan=str(path)).run(model, ctx)
    notes = [note.text for note in ctx.records[-1].notes]
    return {str(node.name): own.text for node, own in marked(model.graph)}, notes


def test_nodes_follow_and_what_they_absorb_goes_along_silently(tmp_path: Path) -> None:
    formats = {"Conv_0": "w4a8", "Relu_1": "w4a8", "Conv_3": "w2a8"}
    found, notes = followed(tmp_path, formats)
    assert found == formats
    assert notes == ["3 nodes follow the formats of the plan"]


@pytest.mark.parametrize(
    ("formats", "given", "words"),
    [
        ({"MaxPool_2": "w4a8"}, {}, "MaxPool_2: it moves values"),
        ({"Relu_1": "w4a8"}, {}, "Relu_1: it is part of Conv_0, which follows w8a8"),
        ({"Conv_0": "w4a8", "Relu_1": "w2a8"}, {}, "Relu_1: it is part of Conv_0, which follows w4a8"),
        ({"Softmax_5": "w4a8"}, {}, "Softmax_5: it "),
        ({"Conv_3": "w4a8"}, {"exclude": ("Conv_3",)}, "Conv_3: it stays float: excluded"),
    ],
)
def test_nodes_that_cannot_follow_are_named_and_not_counted(
    tmp_path: Path, formats: dict[str, str], given: dict[str, Any], words: str
) -> None:
    found, notes = followed(tmp_path, {**formats, "Conv_4": "w4a8"}, **given)
    able = [name for name in formats if f"{name}: " not in notes[0]]
    assert set(found) == {"Conv_4", *able}
    assert words in notes[0]
    assert notes[1] == f"{1 + len(able)} nodes follow the formats of the plan"


def test_real_activations_and_codes_do_not_mix(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'Conv_3' follows w4, the model w8a8: that mixes real activations"):
        followed(tmp_path, {"Conv_3": "w4"}, target="lowbit-cpu")


def test_keys_that_no_plan_has_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    model = network()
    for content, words in (({"schema": 1, "frmts": {}}, "'frmts' is not known"), ({"schema": 2}, "schema 2")):
        path.write_text(json.dumps({**content, "formats": {"Conv_0": "w4a8"}}))
        with pytest.raises(UsageError, match=words):
            ChooseFormats(plan=str(path)).run(model, context(model, "w8a8"))


def products(tmp_path: Path, target: str, form: str, formats: dict[str, str]) -> tuple[set[str], list[str]]:
    """Names of marked nodes of two layers of a perceptron, and what was said."""
    body = "a = Gemm (x, w1) b = Relu (a) y = Gemm (b, w2)"
    model = model_of(body, "float[1,16] x", "float[1,16] y", {"w1": (16, 16), "w2": (16, 16)})
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"schema": 1, "formats": formats}))
    ctx = Context(Edit(model), target=load(target), format=form)
    ChooseFormats(plan=str(path)).run(model, ctx)
    return {str(node.name) for node, _ in marked(model.graph)}, [note.text for note in ctx.records[-1].notes]


def test_a_rule_that_takes_no_such_weights_is_cited(tmp_path: Path) -> None:
    found, notes = products(tmp_path, "mcu", "w8a8", {"Gemm_0": "w4a8/channel", "Gemm_2": "w4a8"})
    assert found == {"Gemm_2"}
    assert "Gemm_0: Gemm takes weight scales per tensor only" in notes[0]


def test_where_activations_are_real_only_products_follow(tmp_path: Path) -> None:
    found, notes = products(tmp_path, "lowbit-cpu", "w8", {"Gemm_0": "w3", "Relu_1": "w3"})
    assert found == {"Gemm_0"}
    assert "Relu_1: it stays float: it has no weight" in notes[0]


def written(tmp_path: Path, formats: dict[str, str], form: str) -> dict[str, Any]:
    """What ``--plan-out`` writes of a compile that follows these formats."""
    path = tmp_path / "formats.json"
    path.write_text(json.dumps({"schema": 1, "formats": formats}))
    model = network()
    ctx = context(model, form)
    ChooseFormats(plan=str(path)).run(model, ctx)
    for item in parse("assign-formats,calibrate,calibrate-weights,choose-widths"):
        item.run(model, ctx)
    own = {str(node.name): mark.text for node, mark in marked(model.graph)}
    return {"schema": 1, "format": form, "formats": own, **plans.dump(model)}


def taken(tmp_path: Path, plan: dict[str, Any], form: str = "w8a8") -> ir.Model:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan))
    model = network()
    ApplyPlan(path=str(path)).run(model, context(model, form))
    return model


MIXED = {"Conv_0": "w8a16", "Relu_1": "w8a16", "Conv_3": "w4a8"}


@pytest.mark.parametrize(("formats", "form"), [({"Conv_3": "w4a8"}, "w8a8"), (MIXED, "w8a8"), (MIXED, "w8a16")])
def test_a_written_plan_agrees_with_itself(tmp_path: Path, formats: dict[str, str], form: str) -> None:
    plan = written(tmp_path, formats, form)
    assert plan["formats"] == formats
    assert plans.dump(taken(tmp_path, plan, form)) == {key: plan[key] for key in ("schema", "nodes", "values")}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("Conv_3", "w2a8", "'formats' says w2a8 for 'Conv_3', 'nodes' and 'values' have 4 bits at its input 1"),
        ("Conv_4", "w4a8", "'formats' says w4a8 for 'Conv_4', 'nodes' and 'values' have 8 bits at its input 1"),
        ("Conv_3", "w4a16", "'formats' says w4a16 for 'Conv_3', 'nodes' and 'values' have 8 bits at its input 0"),
        ("Conv_3", "w5a8", "w5a8|5-bit|8/4/2"),
        ("Conv_3", "four", "'four' is not a format"),
        ("Conv_9", "w4a8", "'Conv_9'"),
    ],
)
def test_formats_edited_beside_other_decisions_are_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    plan = copy.deepcopy(written(tmp_path, {"Conv_3": "w4a8"}, "w8a8"))
    plan["formats"][name] = text
    with pytest.raises(UsageError, match=words):
        taken(tmp_path, plan)


def test_without_formats_edited_nodes_decide(tmp_path: Path) -> None:
    plan = written(tmp_path, {"Conv_3": "w4a8"}, "w8a8")
    del plan["formats"]
    plan["values"]["w2"] = {"format": "i2/sym/axis=0"}
    assert plans.dump(taken(tmp_path, plan))["values"]["w2"] == {"format": "i2/sym/axis=0"}


@pytest.mark.parametrize("gone", ["nodes", "values"])
def test_half_of_the_decisions_are_refused(tmp_path: Path, gone: str) -> None:
    plan = written(tmp_path, {"Conv_3": "w4a8"}, "w8a8")
    del plan[gone]
    with pytest.raises(UsageError, match=f"the plan has no '{gone}'.*\n.*delete both"):
        taken(tmp_path, plan)
