from __future__ import annotations

import dataclasses
from collections.abc import Callable

import onnx_ir as ir
import pytest

from qcompiler.ir import regions, shapes
from qcompiler.ir.edit import Edit
from qcompiler.ir.facts import check
from qcompiler.passes.finalize.finalize import Finalize
from qcompiler.passes.normalize.fuse_gelu import FuseGelu
from qcompiler.passes.normalize.recognize_regions import RecognizeRegions
from qcompiler.pipeline.base import Context, Fact, PassRecord
from qcompiler.target.load import load
from qcompiler.target.schema import Target
from tests.passes.normalize.test_recognize_regions import GELU, HEAD, NOTHING, SCALARS, SILU, VECTOR

NPU = load("edge-npu")
FUSED = {name: body for name, body in GELU.items() if name.startswith(("erf", "tanh"))}


def fused(body: str, target: Target | None = NPU) -> tuple[ir.Model, Context]:
    model = ir.from_onnx_text(f"{HEAD}{VECTOR}\n{SCALARS}\n{{ {body} }}")
    for index, node in enumerate(model.graph):
        node.name = f"node_{index}"
    shapes.infer(model)
    context = Context(Edit(model), target=target)
    for each in (RecognizeRegions(), FuseGelu()):
        context.records.append(PassRecord(each.name))
        each.run(model, context)
    return model, context


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_the_cases_hold_both_forms() -> None:
    assert len(FUSED) >= 4
    assert any("Tanh" in body for body in FUSED.values())


@pytest.mark.parametrize("name", FUSED)
def test_every_spelling_becomes_one_operator_with_the_same_result(name: str, equal: Callable[..., float]) -> None:
    model, context = fused(FUSED[name])
    assert ops(model) == ["Gelu"]
    form = "tanh" if "Tanh" in FUSED[name] else "none"
    assert model.graph[0].attributes["approximate"].as_string() == form
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert check(Fact.CANONICAL, model) == []
    assert [item.kind for item in regions.regions(model)] == ["gelu"]
    equal(ir.from_onnx_text(f"{HEAD}{VECTOR}\n{SCALARS}\n{{ {FUSED[name]} }}"), model)
    before = context.edit.count
    RecognizeRegions().run(model, context)
    FuseGelu().run(model, context)
    assert context.edit.count == before
    Finalize().run(model, context)
    assert model.opset_imports[""] == 20


@pytest.mark.parametrize("body", [*NOTHING.values(), *SILU.values(), GELU["quick"]])
def test_what_is_no_gelu_stays(body: str) -> None:
    model, context = fused(body)
    assert "Gelu" not in ops(model)
    assert context.edit.count == 0


@pytest.mark.parametrize("target", [None, load("cpu-x86"), load("mcu"), dataclasses.replace(NPU, opset=19)])
def test_a_target_without_gelu_keeps_its_parts(target: Target | None) -> None:
    model, _ = fused(next(iter(FUSED.values())), target)
    assert "Gelu" not in ops(model)


def test_inner_results_that_others_read_are_a_reason() -> None:
    body = "d = Div (x, root) e = Erf (d) a = Add (e, one) m = Mul (x, a) h = Mul (m, half) y = Add (h, a)"
    model, context = fused(body)
    assert "Gelu" not in ops(model)
    assert "used elsewhere" in context.records[-1].skips[0].reason
