from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import ModuleType

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.ir import io, regions, shapes
from qcompiler.ir.edit import Edit
from qcompiler.ir.facts import check
from qcompiler.passes.finalize.finalize import Finalize
from qcompiler.passes.normalize.fuse_norms import FuseNorms
from qcompiler.passes.normalize.recognize_regions import RecognizeRegions
from qcompiler.pipeline.base import Context, Fact, Pass, PassRecord
from qcompiler.target.load import load
from qcompiler.target.schema import Target
from tests.passes.normalize.test_recognize_regions import HEAD, LAYER_NORM, NOTHING, RMS_NORM, SCALARS, VECTOR

NPU = load("edge-npu")
ALL = {f"layer-{name}": body for name, body in LAYER_NORM.items()} | {
    f"rms-{name}": body for name, body in RMS_NORM.items()
}
PARTS = {name: body for name, body in ALL.items() if not name.endswith("fused")}


def fused(text: str, target: Target | None = NPU) -> tuple[ir.Model, Context]:
    model = ir.from_onnx_text(text)
    for index, node in enumerate(model.graph):
        node.name = f"node_{index}"
    shapes.infer(model)
    context = Context(Edit(model), target=target)
    for each in (RecognizeRegions(), FuseNorms()):
        context.records.append(PassRecord(each.name))
        each.run(model, context)
    return model, context


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def text_of(body: str, head: str = VECTOR) -> str:
    return f"{HEAD}{head}\n{SCALARS}\n{{ {body} }}"


@pytest.mark.parametrize("name", PARTS)
def test_every_spelling_becomes_one_operator_with_the_same_result(name: str, equal: Callable[..., float]) -> None:
    model, context = fused(text_of(PARTS[name]))
    layer = name.startswith("layer")
    assert ops(model) == ["LayerNormalization" if layer else "RMSNormalization"]
    assert model.opset_imports[""] == (21 if layer else 23)
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert check(Fact.CANONICAL, model) == []
    assert [item.kind for item in regions.regions(model)] == ["layer-norm" if layer else "rms-norm"]
    equal(ir.from_onnx_text(text_of(PARTS[name])), model)
    before = context.edit.count
    RecognizeRegions().run(model, context)
    FuseNorms().run(model, context)
    assert context.edit.count == before


@pytest.mark.parametrize("name", [*NOTHING, *(name for name in ALL if name.endswith("fused"))])
def test_what_is_none_or_is_fused_stays(name: str) -> None:
    body = {**NOTHING, **ALL}[name]
    before = ops(ir.from_onnx_text(text_of(body)))
    assert ops(fused(text_of(body))[0]) == before


def test_a_shift_behind_an_rms_norm_stays_an_addition(equal: Callable[..., float]) -> None:
    text = text_of(RMS_NORM["square"].replace("y = Mul (n, g)", "w = Mul (n, g) y = Add (w, b)"))
    model, _ = fused(text)
    assert ops(model) == ["RMSNormalization", "Add"]
    equal(ir.from_onnx_text(text), model)


@pytest.mark.parametrize("factor", ["half", "g"])
def test_rows_of_several_axes(factor: str, equal: Callable[..., float]) -> None:
    axes = "v = ReduceMean (p, pixels)"
    body = RMS_NORM["square"].replace("v = ReduceMean (p, last)", axes).replace("(n, g)", f"(n, {factor})")
    model, _ = fused(text_of(body))
    assert ops(model) == ["RMSNormalization"]
    assert model.graph[0].attributes.get_int("axis", 0) == -2
    equal(ir.from_onnx_text(text_of(body)), model)


def test_the_length_of_a_row_may_be_told_by_the_factor_alone() -> None:
    unknown = "agraph (float[2, N] x) => (float[2, N] y)"
    assert ops(fused(text_of(RMS_NORM["square"], unknown))[0]) == ["RMSNormalization"]
    model, context = fused(text_of(LAYER_NORM["plain"], unknown))
    assert "Sqrt" in ops(model)
    assert "not known" in context.records[-1].skips[0].reason


@pytest.mark.parametrize("inner", ["p", "v", "e"])
def test_an_inner_result_that_is_used_elsewhere_keeps_the_parts(inner: str) -> None:
    body = RMS_NORM["square"].replace("y = Mul (n, g)", f"f = Mul (n, g) y = Add (f, {inner})")
    model, context = fused(text_of(body))
    assert "Sqrt" in ops(model)
    assert "used elsewhere" in context.records[-1].skips[0].reason


def test_the_input_may_be_used_elsewhere(equal: Callable[..., float]) -> None:
    text = text_of(RMS_NORM["square"].replace("y = Mul (n, g)", "w = Mul (n, g) y = Add (w, x)"))
    model, _ = fused(text)
    assert ops(model) == ["RMSNormalization", "Add"]
    equal(ir.from_onnx_text(text), model)


@pytest.mark.parametrize(
    "target",
    [
        None,
        dataclasses.replace(NPU, opset=22),
        dataclasses.replace(
            NPU, operators={name: rule for name, rule in NPU.operators.items() if name != "RMSNormalization"}
        ),
    ],
    ids=["no target", "older operator set", "no rule"],
)
def test_a_target_without_the_operator_keeps_the_parts(target: Target | None) -> None:
    assert "Sqrt" in ops(fused(text_of(RMS_NORM["square"]), target)[0])


def test_the_file_says_opset_23_only_where_an_rms_norm_needs_it(equal: Callable[..., float]) -> None:
    for body, opset in ((RMS_NORM["llama"], 23), (LAYER_NORM["keras"], 20)):
        model, context = fused(text_of(body))
        model.opset_imports.pop("com.microsoft", None)
        Finalize().run(model, context)
        assert model.opset_imports[""] == opset
        equal(ir.from_onnx_text(text_of(body)), model)


def test_stories(zoo: ModuleType, family: tuple[Pass, ...], equal: Callable[..., float]) -> None:
    case = zoo.load("stories260k_lm")
    model = io.load(case.model)
    context = Context(Edit(model), target=NPU)
    for each in (*family, RecognizeRegions(), FuseNorms()):
        context.records.append(PassRecord(each.name))
        each.run(model, context)
    assert ops(model).count("RMSNormalization") == 11
    assert not {"Sqrt", "ReduceMean"} & set(ops(model))
    feeds = case.calibration(2)
    equal(case.model, model, {key: np.concatenate([each[key] for each in feeds]) for key in feeds[0]})
