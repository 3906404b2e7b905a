"""choose-log-formats: which results get codes along a grid, which grid, and what becomes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.analysis.integer_only import integer_only
from qcompiler.calibration import data
from qcompiler.driver.options import CompileOptions
from qcompiler.driver.pipeline_choice import choose_pipeline
from qcompiler.errors import DataError, PassError, PipelineError, UsageError
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.calibrate.calibrate import Calibrate
from qcompiler.passes.calibrate.calibrate_weights import CalibrateWeights
from qcompiler.passes.calibrate.choose_log_formats import ChooseLogFormats
from qcompiler.passes.lower.lower_integer import LowerInteger
from qcompiler.passes.place.place_qdq import place
from qcompiler.pipeline.base import Context
from qcompiler.pipeline.spec import parse
from qcompiler.quant import arithmetic, plan, state
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.target.formats import resolve_format
from qcompiler.target.integer import Lowering
from qcompiler.target.legality import check_model
from qcompiler.target.load import load

BODY = """
    q = MatMul (x, wq)  k = MatMul (x, wk)  t = Transpose <perm = [0, 2, 1]> (k)
    s = MatMul (q, t)  p = Softmax (s)  c = MatMul (p, x)
    u = MatMul (c, wu)  g = Gelu (u)  y = MatMul (g, wd)
"""
TARGET = load("edge-npu")


def model(body: str = BODY, outputs: str = "float[N,6,8] y") -> ir.Model:
    header = '<ir_version: 10, opset_import: ["" : 21]>'
    proto = onnx.parser.parse_model(f"{header} g (float[N,6,8] x) => ({outputs}) {{ {body} }}")
    random = np.random.default_rng(0)
    for name, shape in {"wq": (8, 8), "wk": (8, 8), "wu": (8, 16), "wd": (16, 8)}.items():
        array = (0.3 * random.normal(size=shape)).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for node in proto.graph.node:
        node.name = f"{node.op_type}_{node.output[0]}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def decided(
    made: ir.Model, form: str = "w8a8/log4", target: str = "edge-npu", scale: float = 1, **options: object
) -> Context:
    samples = scale * np.random.default_rng(1).normal(size=(16, 6, 8)).astype(np.float32)
    dataset = data.load({"x": samples}, data.inputs_of(made))
    ctx = Context(Edit(made), target=load(target), format=form, calibration=dataset)
    AssignFormats().run(made, ctx)
    ChooseLogFormats(**options).run(made, ctx)  # type: ignore[arg-type]
    return ctx


def formats(made: ir.Model) -> dict[str, str]:
    found = {str(value.name): str(quant.format) for value, quant in state.quantized_values(made.graph)}
    return {name: form for name, form in found.items() if form.startswith("log")}


def notes(ctx: Context) -> str:
    return " ".join(note.text for record in ctx.records for note in record.notes)


def skips(ctx: Context) -> dict[str, str]:
    return {skip.node: skip.reason for record in ctx.records for skip in record.skips}


def test_results_that_the_profile_lists_get_the_grid_that_measures_best() -> None:
    made = model()
    ctx = decided(made)
    assert formats(made) == {"p": "log4", "g": "log4"}
    quant = state.value_quant(made.graph.node("Softmax_p").outputs[0])
    assert quant is not None
    assert quant.params is not None
    assert quant.params.grid is not None
    assert quant.params.grid.kind == "shift-uniform-log2"
    assert "'p' in log4, shift-uniform-log2 (span" in notes(ctx)
    assert all(f"{kind} 0." in notes(ctx) for kind in ("searched-base", "log2", "uniform"))
    gelu = state.value_quant(made.graph.node("Gelu_g").outputs[0])
    assert gelu is not None
    assert gelu.params is not None
    assert gelu.params.grid is not None
    assert gelu.params.grid.floor == pytest.approx(-0.17, abs=0.005)


@pytest.mark.parametrize(
    ("form", "options", "expected"),
    [
        ("w8a8", {}, {}),
        ("w8a8/log3=Softmax", {}, {"p": "log3"}),
        ("w8a8", {"bits": 5, "operators": ("Gelu",)}, {"g": "log5"}),
        ("w8a8/log3", {"bits": 7}, {"p": "log7", "g": "log7"}),
    ],
)
def test_who_is_meant(form: str, options: dict[str, object], expected: dict[str, str]) -> None:
    made = model()
    decided(made, form, **options)
    assert formats(made) == expected


def test_families_can_be_named() -> None:
    made = model()
    ctx = decided(made, kinds=("uniform",))
    assert "'p' in log4, uniform (span" in notes(ctx)
    assert "searched-base" not in notes(ctx)


@pytest.mark.parametrize(
    ("body", "outputs", "reason"),
    [
        ("p = Softmax (x)  z = Add (p, x)  y = MatMul (z, wq)", "float[N,6,8] y", "Add reads no log4 there"),
        ("p = Softmax (x)  y = MatMul (p, wq)", "float[N,6,8] y, float[N,6,8] p", "it stays in real numbers"),
        (
            "p = Softmax (x)  t = Transpose <perm = [0, 2, 1]> (p)  y = MatMul (t, x)",
            "float[N,8,8] y",
            "it shares the scale of",
        ),
    ],
)
def test_what_cannot_have_one_is_named(body: str, outputs: str, reason: str) -> None:
    made = model(body, outputs)
    ctx = decided(made)
    assert formats(made) == {}
    assert reason in skips(ctx)["Softmax_p (Softmax)"]


def test_targets_refuse_what_they_do_not_offer() -> None:
    with pytest.raises(UsageError, match="cpu-x86 keeps no tensor in codes along a grid"):
        decided(model(), "w8a8", "cpu-x86", bits=4)
    with pytest.raises(UsageError, match="keeps no log4 result of Add"):
        decided(model(), "w8a8", bits=4, operators=("Add",))


@pytest.mark.parametrize("text", ["bits=8", "kinds=unifrom", "kinds=()", "operators=Softmax"])
def test_wrong_options_are_refused(text: str) -> None:
    with pytest.raises(PipelineError, match="choose-log-formats"):
        parse(f"choose-log-formats{{{text}}}")


def test_without_samples_there_is_no_grid() -> None:
    made = model()
    ctx = Context(Edit(made), target=TARGET, format="w8a8/log4")
    AssignFormats().run(made, ctx)
    with pytest.raises(DataError, match="grids are fitted to calibration samples"):
        ChooseLogFormats().run(made, ctx)


def test_a_plan_may_ask_for_one_tensor() -> None:
    made = model()
    ctx = decided(made, "w8a8")
    content = plan.dump(made)
    content["values"]["p"] = {"format": "log3"}
    plan.apply(made, content, ctx)
    with pytest.raises(PassError, match="'p' has the format log3 and no grid") as caught:
        Calibrate().run(made, ctx)
    assert "choose-log-formats finds one" in str(caught.value.hint)
    ChooseLogFormats().run(made, ctx)
    assert formats(made) == {"p": "log3"}
    assert plan.dump(made)["values"]["p"]["grid"]["kind"] == "shift-uniform-log2"


def test_placed_nodes_compute_what_the_arithmetic_says() -> None:
    made = model()
    ctx = decided(made)
    Calibrate().run(made, ctx)
    CalibrateWeights().run(made, ctx)
    quant = state.value_quant(made.graph.node("Softmax_p").outputs[0])
    assert quant is not None
    assert quant.params is not None
    place(made, ctx.edit)
    chain = [made.graph.node("Softmax_p")]
    for _ in range(5):
        chain.append(next(iter(chain[-1].outputs[0].uses())).node)
    names = ["Softmax", "QuantizeLinear", "QLogQuantize", "QLogDequantize", "DequantizeLinear", "MatMul"]
    assert [node.op_type for node in chain] == names
    assert {key[1] for key in made.functions if key[0] == DOMAIN} == {"QLogQuantize", "QLogDequantize"}
    assert check_model(made, TARGET) == []
    sample = {"x": np.random.default_rng(7).normal(size=(2, 6, 8)).astype(np.float32)}
    wanted = [str(chain[0].outputs[0].name), str(chain[2].outputs[0].name), str(chain[4].outputs[0].name)]
    real, codes, decoded = (dict(Runner(made, wanted).run(sample))[name] for name in wanted)
    expected = arithmetic.quantize(real, quant.params, quant.format)
    np.testing.assert_array_equal(codes, expected, strict=True)
    np.testing.assert_array_equal(decoded, arithmetic.dequantize(expected, quant.params, quant.format), strict=True)


def test_integers_throughout_and_held_to_the_profile() -> None:
    made = model()
    ctx = decided(made)
    for item in (Calibrate(), CalibrateWeights()):
        item.run(made, ctx)
    place(made, ctx.edit)
    LowerInteger().run(made, ctx)
    assert integer_only(made).tensors == ()
    assert check_model(made, TARGET) == []
    for operator, key, found in (
        ("Softmax", "log_outputs", "keeps no log4 result of QSoftmax"),
        ("MatMul", "log_inputs", "reads no log4 in QMatMulWide"),
    ):
        rule = replace(TARGET.operators[operator], **{key: ()})
        target = replace(TARGET, operators={**TARGET.operators, operator: rule})
        broken = [violation.reason for violation in check_model(made, target)]
        assert any(found in reason for reason in broken), broken
        assert all("another format is needed there" in reason for reason in broken)


def test_a_plan_is_not_overruled(tmp_path: Path) -> None:
    """With --plan only grids that it leaves open are found, and what it says of readers stays."""
    made = model()
    ctx = decided(made)
    content = plan.dump(made)
    content["values"]["p"] = {"format": "i16", "scale": 2.0**-15, "zero_point": 0}
    content["values"]["g"] = {"format": "log3"}
    content["nodes"]["MatMul_y"]["edges"] = {"0": "float"}
    plan.apply(made, content, ctx)
    (tmp_path / "plan.json").write_text(json.dumps(content))
    request = CompileOptions("m.onnx", "edge-npu", plan=tmp_path / "plan.json")
    passes = choose_pipeline(request, Lowering("qdq"), resolve_format(TARGET, "w8a8/log4")).passes
    chosen = next(item for item in passes if item.name == "choose-log-formats")
    chosen.run(made, ctx)
    assert formats(made) == {"g": "log3"}
    assert plan.dump(made)["values"]["g"]["grid"]["span"] > 0
    assert state.own_edge_quant(made.graph.node("MatMul_y"), 0) is state.FLOAT


@pytest.mark.parametrize("factor", [1e-30, 1e33])
def test_what_no_grid_can_span_is_skipped_with_the_reason(factor: float) -> None:
    made = model("g = Gelu (x)  y = MatMul (g, wq)")
    ctx = decided(made, scale=factor)
    assert formats(made) == {}
    assert "no log4: a grid spans 2^-80 to 2^100" in skips(ctx)["g"]
