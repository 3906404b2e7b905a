"""What layers really have: the format that they follow, or the bits of their weights."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from qcompiler.ir.edit import Edit
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.allocate.format_marks import mark_format
from qcompiler.passes.allocate.layer_formats import counted, layer_formats
from qcompiler.pipeline.base import Context
from qcompiler.quant import state
from qcompiler.quant.format import QFormat
from qcompiler.quant.state import TensorQuant
from qcompiler.target.formats import resolve_format
from qcompiler.target.load import load

from .test_assign_formats import parse


@pytest.fixture
def model() -> ir.Model:
    body = "a = Gemm (x, w1) b = Relu (a) y = Gemm (b, w2)"
    return parse(body, "float[1,16] x", "float[1,16] y", {"w1": (16, 16), "w2": (16, 16)})


@pytest.mark.parametrize(
    ("target", "form", "own", "wanted"),
    [
        ("edge-npu", "w8a8", "w4a8", {"Gemm_0": "w8a8", "Gemm_2": "w4a8"}),
        ("lowbit-cpu", "w4", "w8", {"Gemm_0": "w4", "Gemm_2": "w8"}),
    ],
)
def test_layers_have_what_they_follow(
    model: ir.Model, target: str, form: str, own: str, wanted: dict[str, str]
) -> None:
    assert assigned(model, target, form, own) == wanted


def test_weights_of_other_bits_are_called_by_those(model: ir.Model) -> None:
    assigned(model, "edge-npu", "w8a8", "w4a8")
    for node, name in ((node, str(node.name)) for node in model.graph):
        if name.startswith("Gemm"):  # as by a plan that was edited by hand
            state.set_edge_quant(node, 1, TensorQuant(QFormat.parse("i2/sym/axis=1")))
    profile = load("edge-npu")
    assert layer_formats(model.graph, profile, resolve_format(profile, "w8a8")) == dict.fromkeys(
        ("Gemm_0", "Gemm_2"), "w2a8"
    )


def assigned(model: ir.Model, target: str, form: str, own: str) -> dict[str, str]:
    """Formats by layer, the second one following ``own``."""
    profile = load(target)
    nodes = {str(node.name): node for node in model.graph}
    for name in ("Relu_1", "Gemm_2"):
        mark_format(nodes[name], resolve_format(profile, own))
    AssignFormats().run(model, Context(Edit(model), target=profile, format=form))
    return layer_formats(model.graph, profile, resolve_format(profile, form))


def test_formats_are_counted_from_the_widest() -> None:
    texts = ["w2a8", "w4", "w8a8", "w4a16", "w8a8", "w10a8"]
    assert list(counted(texts).items()) == [("w4", 1), ("w4a16", 1), ("w10a8", 1), ("w8a8", 2), ("w2a8", 1)]
