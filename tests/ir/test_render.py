"""Canonical text."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir

from qcompiler.ir import io
from qcompiler.ir.render import render
from qcompiler.quant import state
from qcompiler.quant.annotations import Annotation, annotate
from qcompiler.quant.format import QFormat
from qcompiler.quant.functions.catalogue import attach
from qcompiler.quant.params import params_from_range
from qcompiler.quant.state import FLOAT, NodeDecision, TensorQuant

TEXT = """
<ir_version: 10, opset_import: ["" : 21]>
small (float[N,4] x) => (float[N,4] y)
<float[4] bias = {1, 2, 3, 4.5}>
{
    [add] a = Add(x, bias)
    [leaky] y = LeakyRelu<alpha = 0.1>(a)
}
"""


def test_golden(parse: Callable[[str], ir.Model]) -> None:
    model = parse(TEXT)
    add, leaky = model.graph
    quant = TensorQuant(QFormat.parse("u8"), params_from_range(0.0, 25.5, QFormat.parse("u8")), tie="t")
    state.set_value_quant(add.outputs[0], quant)
    state.set_edge_quant(leaky, 0, FLOAT)
    state.set_node_decision(add, NodeDecision(True))
    state.set_node_decision(leaky, NodeDecision(False, "no rule for it"))
    assert render(model) == (
        "model ir=10 opset=21\n"
        "graph small(%x: float[N,4]) -> (%y: float[N,4])\n"
        "  %bias: float[4] = [1, 2, 3, 4.5]\n"
        "  add: %a{u8 s=0.100000001 zp=0 tie=t} = Add(%x, %bias) !integer\n"
        "  leaky: %y: float[N,4] = LeakyRelu(%a{float}) alpha=0.100000001 !float: no rule for it\n"
    )


def test_weights_change_the_digest(small_cnn: ir.Model) -> None:
    before = render(small_cnn)
    shapes = render(small_cnn, weights="shape")
    value = small_cnn.graph.initializers["conv_weight"]
    assert value.const_value is not None
    changed = value.const_value.numpy().copy()
    changed.flat[7] += 1e-3
    value.const_value = ir.Tensor(changed)
    lines = zip(before.splitlines(), render(small_cnn).splitlines(), strict=True)
    differing = [one for one, two in lines if one != two]
    assert len(differing) == 1
    assert "conv_weight" in differing[0]
    assert render(small_cnn, weights="shape") == shapes


def test_a_small_matrix_takes_one_line(parse: Callable[[str], ir.Model]) -> None:
    text = '<ir_version: 10, opset_import: ["" : 21]> g (float[2,2] x) => (float[2,2] y)'
    model = parse(text + "<float[2,2] w = {1, 2, 3, 4.5}> { y = Mul (x, w) }")
    assert "  %w: float[2,2] = [[1, 2], [3, 4.5]]\n" in render(model)


def test_survives_save_and_load(small_cnn: ir.Model, tmp_path: Path) -> None:
    io.save(small_cnn, tmp_path / "m.onnx")
    assert render(io.load(tmp_path / "m.onnx")) == render(small_cnn)


def test_subgraphs_and_tensor_attributes(parse: Callable[[str], ir.Model]) -> None:
    model = parse("""
        <ir_version: 10, opset_import: ["" : 21]>
        main (bool c, float[2] x) => (float[2] y) {
            k = Constant<value = float[2] {1, 2}>()
            y = If(c) <then_branch = yes () => (float[2] t) { t = Add(x, k) },
                       else_branch = no () => (float[2] e) { e = Neg(x) }>
        }
    """)
    text = render(model)
    assert "Constant() value=float[2] = [1, 2]" in text
    assert "    then_branch yes() -> (%t: float[2])\n      %t: float[2] = Add(%x, %k)\n" in text


def test_per_channel_parameters_are_abbreviated_but_distinct(small_cnn: ir.Model) -> None:
    weight = small_cnn.graph.initializers["conv_weight"]
    form = QFormat.parse("i8/sym/axis=0")

    def text(scales: list[float]) -> str:
        bound = np.array(scales)
        state.set_value_quant(weight, TensorQuant(form, params_from_range(-bound, bound, form)))
        return render(small_cnn)

    first, second = text([1, 2, 3, 4]), text([1, 3, 2, 4])
    assert "s=0.00787401572..0.0314960629 zp=0..0 #" in first
    assert first != second


def test_codes_say_what_they_mean_and_our_functions_are_short(parse: Callable[[str], ir.Model]) -> None:
    model = parse("""<ir_version: 10, opset_import: ["" : 21, "ai.qcompiler" : 1]>
m (int8[2] x, int32 b, uint8 c) => (int8[2] y) {
  y = ai.qcompiler.Requantize<x_zero_point=0, y_zero_point=0, to=3, low=-128, high=127>(x, b, c)
}""")
    annotate(model.graph.outputs[0], Annotation("conv1", 0.25, -3))
    attach(model)
    text = render(model)
    assert "%y: int8[2]<conv1 s=0.25 zp=-3> = ai.qcompiler::Requantize(%x, %b, %c)" in text
    (function,) = [line for line in text.splitlines() if line.startswith("function")]
    assert re.fullmatch(r"function ai\.qcompiler::Requantize\(.*\) -> \(%y\) #[0-9a-f]{8}", function)
    assert text.rstrip().endswith(function)
